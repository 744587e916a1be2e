"""An image, or other bytes, on their way into the slot for downloads, such that a restart goes on.

After each stretch of stored bytes a mark (end offset, CRC of the stretch) is appended. After a restart
the marks are checked against the slot: what they cover is kept, and at most the page under way is
fetched again.
"""

import struct
import zlib
from typing import Protocol

from lwm2m_device.flash import Flash
from lwm2m_device.judges import Payload
from lwm2m_device.layout import Layout
from lwm2m_server.firmware.refusals import RefusalCode, refusal

_MARK = struct.Struct("<II")
_STRETCH = 256  # bytes that are worth a mark of their own


class Place(Protocol):
    """Whole pages of flash that a download fills: a slot, or a part of one."""

    @property
    def capacity(self) -> int:
        """Bytes that fit."""
        ...

    def drop(self) -> None:
        """Make the slot unbootable before anything in it changes."""
        ...

    def erase_page(self, page: int) -> None:
        """Erase one page, counted from the start of the place."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write into erased cells."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return what is stored."""
        ...

    def digest_of(self, size: int) -> bytes:
        """Return the SHA-256 of the first `size` bytes."""
        ...


class Download:
    """Writer of one slot. `offset` is the next byte that it wants.

    Bytes that don't fill a unit of the flash wait in memory until more come, or `flush`.
    """

    def __init__(self, flash: Flash, layout: Layout, slot: Place) -> None:
        self.slot = slot
        self._flash = flash
        self._marks = layout.progress
        self._stride = layout.mark_size
        self._page_size = layout.page_size
        self._written = 0  # bytes of whole units on flash
        self._tail = b""
        self._marked = 0
        self._next_mark = layout.progress.start

    @property
    def offset(self) -> int:
        """The next byte that is wanted."""
        return self._written + len(self._tail)

    def begin(self) -> None:
        """Start from byte 0: the slot becomes unbootable, the marks are erased."""
        self.slot.drop()
        used = self._page_align(self._used_marks())
        if used:
            self._flash.erase(self._marks.start, used)
        self._flash.sync()
        self._restart()

    def resume(self) -> int:
        """Check the marks against the slot, go on behind the last that holds, and return that offset."""
        self._restart()
        for place in range(self._marks.start, self._marks.end - self._stride + 1, self._stride):
            raw = self._flash.read(place, self._stride)
            if raw == b"\xff" * self._stride:
                break
            self._next_mark = place + self._stride
            end, checksum = _MARK.unpack_from(raw)
            # A mark ends its own page, or repeats one that was fetched again; torn ones are passed over.
            start = self._stretch_before(end)
            if start is not None and zlib.crc32(self.slot.read(start, end - start)) == checksum:
                self._marked = self._written = end
        self._clean_rest_of_page()
        return self.offset

    def store(self, data: bytes) -> None:
        """Store the bytes that follow; raises FlashFault when they don't fit, so check the size before."""
        data = self._tail + data
        whole = len(data) - len(data) % self._flash.write_size
        self._tail = b""
        self._write(data[:whole])
        self._tail = data[whole:]

    def flush(self) -> None:
        """Write the bytes that fill no unit: the last of the image, nothing may follow them."""
        tail, self._tail = self._tail, b""
        self._write(tail)

    def holds(self, offset: int, data: bytes) -> bool:
        """Say whether these bytes are already stored at this offset."""
        if offset + len(data) > self.offset:
            return False
        present = self.slot.read(offset, max(0, min(len(data), self._written - offset)))
        return present + self._tail[max(0, offset - self._written) :][: len(data) - len(present)] == data

    def digest(self) -> bytes:
        """Return the SHA-256 of what was stored, read back from the slot."""
        return self.slot.digest_of(self.offset)

    def _restart(self) -> None:
        self._written = self._marked = 0
        self._tail = b""
        self._next_mark = self._marks.start

    def _write(self, data: bytes) -> None:
        while data:
            if self._written % self._page_size == 0:
                self.slot.erase_page(self._written // self._page_size)
            room = self._page_size - self._written % self._page_size
            self.slot.write(self._written, data[:room])
            self._written += len(data[:room])
            data = data[room:]
            if self._written % self._page_size == 0 or self._written - self._marked >= _STRETCH:
                self._mark()

    def _mark(self) -> None:
        data = self.slot.read(self._marked, self._written - self._marked)
        if self._next_mark + self._stride <= self._marks.end:
            self._flash.write(self._next_mark, _MARK.pack(self._written, zlib.crc32(data)))
            self._next_mark += self._stride
            self._marked = self._written
        if self._written % self._page_size == 0:
            self._flash.sync()

    def _stretch_before(self, end: int) -> int | None:
        """Return where the stretch up to `end` begins: at the mark before, or the page if rewritten."""
        if end > self.slot.capacity or end == 0:
            return None
        page_start = (end - 1) // self._page_size * self._page_size
        if self._marked < end:
            return max(self._marked, page_start) if self._marked >= page_start else None
        return page_start

    def _clean_rest_of_page(self) -> None:
        """Go back to the start of the page when bytes behind the last mark were written already."""
        rest = -self._written % self._page_size
        if rest and any(byte != 0xFF for byte in self.slot.read(self._written, rest)):
            self._written -= self._written % self._page_size
        self._marked = self._written

    def _used_marks(self) -> int:
        data = self._flash.read(self._marks.start, self._marks.length)
        return len(data.rstrip(b"\xff"))

    def _page_align(self, length: int) -> int:
        return -(-length // self._page_size) * self._page_size


class ImageDownload(Download):
    """A download with a size to hold to, of bytes that may be encrypted: what is stored is decrypted.

    `payload` is there while the bytes that come are encrypted. Refusals call them `what`, and the room for them
    `where`. A size of 0 is one that is not known.
    """

    def __init__(
        self, flash: Flash, layout: Layout, slot: Place, *, what: str = "image", where: str = "the slot"
    ) -> None:
        super().__init__(flash, layout, slot)
        self.payload: Payload | None = None
        self._what = what
        self._where = where

    def check_room(self, size: int) -> None:
        """Refuse what does not fit; raises Refusal."""
        if size > self.slot.capacity:
            raise refusal(
                RefusalCode.STORAGE_FULL,
                f"The {self._what} has {size} bytes, {self._where} {self.slot.capacity}.",
                field="image-size",
            )

    def start_over(self, size: int) -> None:
        """Want other bytes than before, `size` of them, from byte 0; raises Refusal when they don't fit."""
        if self.offset:
            self.begin()
        self.check_room(size)

    def take(self, data: bytes, size: int) -> None:
        """Store the bytes that follow as they are fetched; raises Refusal beyond `size`, or the end of the slot."""
        end = self.offset + len(data)
        if size and end > size:
            raise refusal(
                RefusalCode.SIZE_MISMATCH,
                f"The {self._what} is longer than the {size} bytes of its manifest.",
            )
        self.check_room(end)
        self.store(data if self.payload is None else self.payload.cipher.apply(self.offset, data))

    def check_whole(self, size: int) -> None:
        """Refuse what has not as many bytes as it should; raises Refusal."""
        if size and self.offset != size:
            raise refusal(
                RefusalCode.SIZE_MISMATCH,
                f"The {self._what} has {self.offset} bytes, its manifest says {size}.",
            )

    def fetched_digest(self, digest: bytes, size: int) -> bytes:
        """Return the SHA-256 of what was fetched; `digest` is that of the `size` bytes that were stored."""
        return digest if self.payload is None else self.payload.digest_of(self.slot.read, size)
