"""An image slot: header page (what the image is, mark of its confirmation), then the image's bytes.

The header is written last, after the whole image was verified, and erased first: a slot without a valid
header holds nothing that the boot loader would start.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass

from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout

VERSION_LIMIT = 64  # bytes of a version's text

_MAGIC = b"SLOT"
_HEADER = struct.Struct(
    f"<4sHHIQ32s{VERSION_LIMIT}s"
)  # magic, form, length of version, size, sequence, digest, version
_FORM = 1
_CRC = struct.Struct("<I")
_CONFIRMED_AT = _HEADER.size + _CRC.size + 8
_CONFIRMED = bytes(8)


@dataclass(frozen=True)
class ImageHeader:
    """What the boot loader must know of an image: SHA-256, bytes, sequence number of its manifest."""

    version: str
    digest: bytes
    size: int
    sequence: int


class Slot:
    """Slot A (index 0) or B (index 1)."""

    def __init__(self, flash: Flash, layout: Layout, index: int) -> None:
        self.index = index
        self._flash = flash
        self.page_size = layout.page_size
        self._region = layout.slot(index)
        self._image = self._region.start + self.page_size
        self.capacity = layout.slot_size

    @property
    def name(self) -> str:
        """The letter that users see."""
        return "AB"[self.index]

    def header(self) -> ImageHeader | None:
        """Return the header, or None when there is no valid one."""
        raw = self._flash.read(self._region.start, _HEADER.size + _CRC.size)
        body = raw[: _HEADER.size]
        magic, form, length, size, sequence, digest, version = _HEADER.unpack(body)
        if magic != _MAGIC or form != _FORM or _CRC.unpack(raw[_HEADER.size :])[0] != zlib.crc32(body):
            return None
        if length > VERSION_LIMIT or size > self.capacity:
            return None
        return ImageHeader(version[:length].decode("utf-8", "replace"), digest, size, sequence)

    def is_confirmed(self) -> bool:
        """Say whether this image once reached the server."""
        return self._flash.read(self._region.start + _CONFIRMED_AT, len(_CONFIRMED)) == _CONFIRMED

    def mark_confirmed(self) -> None:
        """Set the mark; repeating it is fine, since bits are only cleared."""
        self._flash.write(self._region.start + _CONFIRMED_AT, _CONFIRMED)
        self._flash.sync()

    def digest_of(self, size: int) -> bytes:
        """Return the SHA-256 of the first `size` bytes of the image."""
        digest = hashlib.sha256()
        for offset in range(0, size, 65536):
            digest.update(self.read(offset, min(65536, size - offset)))
        return digest.digest()

    def is_intact(self) -> bool:
        """Say whether there is a header and the image has the digest that it names."""
        header = self.header()
        return header is not None and self.digest_of(header.size) == header.digest

    def drop(self) -> None:
        """Make the slot unbootable before anything else in it changes."""
        if not self._flash.is_erased(self._region.start, self.page_size):
            self._flash.erase(self._region.start, self.page_size)
            self._flash.sync()

    def seal(self, header: ImageHeader) -> None:
        """Write the header over an image that was verified: from now on the slot is bootable."""
        version = header.version.encode()
        body = _HEADER.pack(_MAGIC, _FORM, len(version), header.size, header.sequence, header.digest, version)
        self.drop()
        self._flash.sync()
        self._flash.write(self._region.start, body + _CRC.pack(zlib.crc32(body)))
        self._flash.sync()

    def erase_page(self, page: int) -> None:
        """Erase page `page` of the image."""
        self._flash.erase(self._image + page * self.page_size, self.page_size)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes of the image into erased cells."""
        self._flash.write(self._image + offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the image."""
        return self._flash.read(self._image + offset, length)
