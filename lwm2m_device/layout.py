"""Where things lie in the flash: geometry, boot and update state, progress marks, manifest, slots.

The geometry page holds the page and slot size that the file was made with, so that a later start needs
no flags.
"""

import struct
import zlib
from dataclasses import dataclass

PAGE_SIZE = 4096
SLOT_SIZE = 1 << 20
MANIFEST_LIMIT = 8192  # bytes of an envelope

_MAGIC = b"LWM2MDEV"
_LAYOUT_VERSION = 1
_GEOMETRY = struct.Struct("<8sHxxII")
_TWIN_COPY = 1024  # bytes of one copy of a state record
_MARK = 8  # bytes of one progress mark
_MANIFEST_HEADER = 64


@dataclass(frozen=True)
class Region:
    """A range of whole pages: bytes `start` to `start + length`."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.length


@dataclass(frozen=True)
class Layout:
    """Geometry of one device. `slot_size` is the largest image in bytes, without the header page."""

    page_size: int = PAGE_SIZE
    slot_size: int = SLOT_SIZE

    def __post_init__(self) -> None:
        if self.page_size < 64 or self.slot_size <= 0:
            raise ValueError("pages have at least 64 bytes, slots at least one")

    def _pages(self, length: int) -> int:
        return -(-length // self.page_size) * self.page_size

    def _after(self, region: Region, length: int) -> Region:
        return Region(region.end, self._pages(length))

    @property
    def geometry(self) -> Region:
        """One page: what `encode_geometry` gives."""
        return Region(0, self._pages(_GEOMETRY.size + 4))

    @property
    def boot(self) -> Region:
        """Two copies of the boot state."""
        return self._after(self.geometry, 2 * self._pages(_TWIN_COPY))

    @property
    def update(self) -> Region:
        """Two copies of the update state."""
        return self._after(self.boot, 2 * self._pages(_TWIN_COPY))

    @property
    def progress(self) -> Region:
        """Marks of stored stretches in the order of their storing, with room for some stored again."""
        stretches = self.slot_size // 256 + self.slot_pages
        return self._after(self.update, _MARK * (stretches + 64))

    @property
    def manifest(self) -> Region:
        """The envelope under way with its header."""
        return self._after(self.progress, MANIFEST_LIMIT + _MANIFEST_HEADER)

    def slot(self, index: int) -> Region:
        """Slot 0 (A) or 1 (B): header page, then the image."""
        length = self.page_size + self._pages(self.slot_size)
        return Region(self.manifest.end + index * length, length)

    @property
    def slot_pages(self) -> int:
        """Pages of the largest image."""
        return self._pages(self.slot_size) // self.page_size

    @property
    def size(self) -> int:
        """Bytes of the whole flash."""
        return self.slot(1).end

    def encode_geometry(self) -> bytes:
        """Return the contents of the geometry page."""
        body = _GEOMETRY.pack(_MAGIC, _LAYOUT_VERSION, self.page_size, self.slot_size)
        return body + struct.pack("<I", zlib.crc32(body))


def decode_geometry(data: bytes) -> Layout | None:
    """Return the layout that the geometry page tells of; None when it is damaged or not ours."""
    body = data[: _GEOMETRY.size]
    checksum = data[_GEOMETRY.size : _GEOMETRY.size + 4]
    if len(checksum) < 4 or struct.unpack("<I", checksum)[0] != zlib.crc32(body):
        return None
    magic, version, page_size, slot_size = _GEOMETRY.unpack(body)
    if magic != _MAGIC or version != _LAYOUT_VERSION:
        return None
    try:
        return Layout(page_size, slot_size)
    except ValueError:
        return None
