"""A delta in the staging area that rewrites the one slot (`firmware.deltas.in_place`), as steps of the journal.

The old image is moved up page by page, the last page first; then each page of the new one is computed from the
delta and from what lies behind the segment under way. No step reads what it writes, or what was written after the
step before, so each can be repeated after a power cut. Before the first of them the whole image was computed once
and has had the signed digest (`result`): what is begun comes to its end without anything but this flash.
"""

import hashlib
from collections.abc import Iterator

from lwm2m_device.journal import Step
from lwm2m_device.layout import Layout
from lwm2m_device.slots import Slot
from lwm2m_server.firmware.deltas import PatchError, Source
from lwm2m_server.firmware.deltas.in_place import apply, pieces, read_header
from lwm2m_server.firmware.deltas.streams import Output


class InPlaceDelta:
    """The delta of `size` bytes that lies in `staging`; raises PatchError when it is none for this flash."""

    def __init__(self, layout: Layout, running: Slot, staging: Slot, size: int) -> None:
        self._running = running
        self._source = Source(staging.read, size)
        self._page = layout.page_size
        self.header = read_header(self._source)
        if self.header.memory_size > layout.memory_size or self.header.segment_size % layout.page_size:
            raise PatchError(
                f"The delta is for a slot of {self.header.memory_size} bytes in segments of "
                f"{self.header.segment_size}, this one has {layout.memory_size} in pages of {layout.page_size}."
            )

    def result(self) -> tuple[bytes, int]:
        """Return SHA-256 and bytes of what it makes of the image that runs, without writing; raises PatchError."""
        base = self._running.header()
        if base is None:
            raise PatchError("There is no image that the delta could be applied to.")
        digest, size = hashlib.sha256(), self.header.to_size
        output = Output(digest.update, size)
        apply(Source(self._running.read, base.size), self._source, output)
        output.finish()
        return digest.digest(), size

    @property
    def image_pages(self) -> int:
        """Pages of the new image."""
        return -(-self.header.to_size // self._page)

    def steps(self, start: int) -> list[Step]:
        """Return what is to be done to the slot, whose image begins at address `start`."""
        header, page = self.header, self._page
        first = header.shift_size // page
        end = -(-(header.shift_size + header.kept) // page) if header.kept else first
        pages = _Pages(pieces(self._source, self._running.read), page)
        return [
            *(self._moved(start, number) for number in range(end - 1, first - 1, -1)),
            *(_written(start + number * page, pages, number) for number in range(self.image_pages)),
        ]

    def _moved(self, start: int, number: int) -> Step:
        place = number * self._page
        return Step(start + place, lambda: self._running.read(place - self.header.shift_size, self._page))


def _written(target: int, pages: "_Pages", number: int) -> Step:
    return Step(target, lambda: pages.page(number))


class _Pages:
    """Pages of the new image in rising order; those of steps that are done already are passed over."""

    def __init__(self, source: Iterator[bytes], size: int) -> None:
        self._source = source
        self._size = size
        self._ready = b""
        self._next = 0

    def page(self, number: int) -> bytes:
        """Return page `number`; the last one is filled up. Raises PatchError."""
        while self._next < number:
            self._take()
        return self._take()

    def _take(self) -> bytes:
        while len(self._ready) < self._size:
            piece = next(self._source, b"")
            if not piece:
                break
            self._ready += piece
        page, self._ready = self._ready[: self._size], self._ready[self._size :]
        self._next += 1
        return page.ljust(self._size, b"\xff")
