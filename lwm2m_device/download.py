"""An image on its way into the inactive slot, and the manifest's envelope, such that a restart goes on.

After each stretch of stored bytes a mark (end offset, CRC of the stretch) is appended. After a restart
the marks are checked against the slot: what they cover is kept, and at most the page under way is
fetched again.
"""

import hashlib
import struct
import zlib

from lwm2m_device.flash import Flash
from lwm2m_device.layout import MANIFEST_LIMIT, Layout
from lwm2m_device.slots import Slot

_MARK = struct.Struct("<II")
_STRETCH = 256  # bytes that are worth a mark of their own

_ENVELOPE = struct.Struct("<4sI32s")  # magic, length, SHA-256
_ENVELOPE_MAGIC = b"SUIT"


class ImageDownload:
    """Writer of one slot. `offset` is the next byte that it wants."""

    def __init__(self, flash: Flash, layout: Layout, slot: Slot) -> None:
        self.slot = slot
        self.offset = 0
        self._flash = flash
        self._marks = layout.progress
        self._page_size = layout.page_size
        self._marked = 0
        self._next_mark = layout.progress.start

    def begin(self) -> None:
        """Start from byte 0: the slot becomes unbootable, the marks are erased."""
        self.slot.drop()
        used = self._page_align(self._used_marks())
        if used:
            self._flash.erase(self._marks.start, used)
        self._flash.sync()
        self.offset = self._marked = 0
        self._next_mark = self._marks.start

    def resume(self) -> int:
        """Check the marks against the slot, go on behind the last that holds, and return that offset."""
        self.offset = self._marked = 0
        self._next_mark = self._marks.start
        for place in range(self._marks.start, self._marks.end - _MARK.size + 1, _MARK.size):
            raw = self._flash.read(place, _MARK.size)
            if raw == b"\xff" * _MARK.size:
                break
            self._next_mark = place + _MARK.size
            end, checksum = _MARK.unpack(raw)
            # A mark ends its own page, or repeats one that was fetched again; torn ones are passed over.
            start = self._stretch_before(end)
            if start is not None and zlib.crc32(self.slot.read(start, end - start)) == checksum:
                self._marked = self.offset = end
        self._clean_rest_of_page()
        return self.offset

    def store(self, data: bytes) -> None:
        """Store the bytes that follow; raises FlashFault when they don't fit, so check the size before."""
        while data:
            if self.offset % self._page_size == 0:
                self.slot.erase_page(self.offset // self._page_size)
            room = self._page_size - self.offset % self._page_size
            self.slot.write(self.offset, data[:room])
            self.offset += len(data[:room])
            data = data[room:]
            if self.offset % self._page_size == 0 or self.offset - self._marked >= _STRETCH:
                self._mark()

    def digest(self) -> bytes:
        """Return the SHA-256 of what was stored, read back from the slot."""
        return self.slot.digest_of(self.offset)

    def _mark(self) -> None:
        data = self.slot.read(self._marked, self.offset - self._marked)
        if self._next_mark + _MARK.size <= self._marks.end:
            self._flash.write(self._next_mark, _MARK.pack(self.offset, zlib.crc32(data)))
            self._next_mark += _MARK.size
            self._marked = self.offset
        if self.offset % self._page_size == 0:
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
        rest = -self.offset % self._page_size
        if rest and any(byte != 0xFF for byte in self.slot.read(self.offset, rest)):
            self.offset -= self.offset % self._page_size
        self._marked = self.offset

    def _used_marks(self) -> int:
        data = self._flash.read(self._marks.start, self._marks.length)
        return len(data.rstrip(b"\xff"))

    def _page_align(self, length: int) -> int:
        return -(-length // self._page_size) * self._page_size


class EnvelopeStore:
    """The envelope of the update under way.

    The digest beside it finds damage; whether it is genuine is checked on every use.
    """

    limit = MANIFEST_LIMIT

    def __init__(self, flash: Flash, layout: Layout) -> None:
        self._flash = flash
        self._region = layout.manifest
        self._page_size = layout.page_size

    def store(self, envelope: bytes) -> None:
        """Keep an envelope of at most `limit` bytes, durably."""
        header = _ENVELOPE.pack(_ENVELOPE_MAGIC, len(envelope), hashlib.sha256(envelope).digest())
        length = len(header) + len(envelope)
        self._flash.erase(self._region.start, -(-length // self._page_size) * self._page_size)
        self._flash.write(self._region.start, header + envelope)
        self._flash.sync()

    def load(self) -> bytes | None:
        """Return the envelope, or None when there is none or it is damaged."""
        magic, length, digest = _ENVELOPE.unpack(self._flash.read(self._region.start, _ENVELOPE.size))
        if magic != _ENVELOPE_MAGIC or length > self.limit:
            return None
        envelope = self._flash.read(self._region.start + _ENVELOPE.size, length)
        return envelope if hashlib.sha256(envelope).digest() == digest else None
