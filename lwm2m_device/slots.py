"""An image slot: header page (what the image is, mark of its confirmation), signed envelope, image.

The header is written last, after the whole image was verified, and erased first: a slot without a valid
header holds nothing that the boot loader would start. The envelope lies beside the image, so that the
boot loader can prove at every start who has signed it.

A staging area may hold a delta instead: the header is that of the image that it makes, and a record behind the
marks says what lies there.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from lwm2m_device.flash import Flash
from lwm2m_device.layout import MANIFEST_LIMIT, Layout, Region
from lwm2m_server.firmware.refusals import RefusalCode, refusal

VERSION_LIMIT = 64  # bytes of a version's text

_MAGIC = b"SLOT"
_HEADER = struct.Struct(
    f"<4sHHIQ32s{VERSION_LIMIT}s"
)  # magic, form, length of version, size, sequence, digest, version
_FORM = 1
_CRC = struct.Struct("<I")
_MARKS_AT = 128
_MARKS = 4  # places: a mark that a power cut tore is left, and the next place is taken

_DELTA = struct.Struct("<4sI32s")  # magic, size, digest
_DELTA_MAGIC = b"DLTA"
_DELTA_AT = 192

_ENVELOPE = struct.Struct("<4sI32s")  # magic, length, SHA-256
_ENVELOPE_MAGIC = b"SUIT"


@dataclass(frozen=True)
class ImageHeader:
    """What the boot loader must know of an image: SHA-256, bytes, sequence number of its manifest."""

    version: str
    digest: bytes
    size: int
    sequence: int


def check_version_text(version: str) -> None:
    """Refuse a version whose text has no room in a header; raises Refusal."""
    if len(version.encode()) > VERSION_LIMIT:
        raise refusal(
            RefusalCode.UNSUPPORTED,
            f"The version's text is longer than {VERSION_LIMIT} bytes.",
            field="version",
        )


@dataclass(frozen=True)
class StagedDelta:
    """A delta in the place of an image: its SHA-256 and bytes."""

    digest: bytes
    size: int


class Slot:
    """Slot 0 or 1 of a layout, or a bank of a component."""

    def __init__(self, flash: Flash, layout: Layout, index: int) -> None:
        self.index = index
        self.name = layout.slot_name(index)
        self.page_size = layout.page_size
        self.capacity = layout.capacity(index)
        self.envelope = EnvelopeStore(flash, layout.slot(index).manifest)
        self._flash = flash
        self._header = layout.slot(index).header
        self._manifest = layout.slot(index).manifest
        self._image = layout.slot(index).image
        self._largest = layout.slot_size if index < 2 else self.capacity

    def header(self) -> ImageHeader | None:
        """Return the header, or None when there is no valid one."""
        raw = self._flash.read(self._header.start, _HEADER.size + _CRC.size)
        body = raw[: _HEADER.size]
        magic, form, length, size, sequence, digest, version = _HEADER.unpack(body)
        if magic != _MAGIC or form != _FORM or _CRC.unpack(raw[_HEADER.size :])[0] != zlib.crc32(body):
            return None
        if length > VERSION_LIMIT or size > self._largest:
            return None
        return ImageHeader(version[:length].decode("utf-8", "replace"), digest, size, sequence)

    def delta(self) -> StagedDelta | None:
        """Return what is said of the delta that lies here, or None when it is an image or nothing."""
        raw = self._flash.read(self._header.start + _DELTA_AT, _DELTA.size + _CRC.size)
        body = raw[: _DELTA.size]
        magic, size, digest = _DELTA.unpack(body)
        if magic != _DELTA_MAGIC or _CRC.unpack(raw[_DELTA.size :])[0] != zlib.crc32(body):
            return None
        return StagedDelta(digest, size) if size <= self.capacity else None

    def is_confirmed(self) -> bool:
        """Say whether this image once reached the server."""
        unit = self._flash.write_size
        return any(self._flash.read(place, unit) == bytes(unit) for place in self._mark_places())

    def mark_confirmed(self) -> None:
        """Set the mark. The boot state says the same, so a page without a place left is no loss."""
        if self.is_confirmed():
            return
        unit = self._flash.write_size
        for place in self._mark_places():
            if self._flash.is_erased(place, unit):
                self._flash.write(place, bytes(unit))
                self._flash.sync()
                return

    def digest_of(self, size: int) -> bytes:
        """Return the SHA-256 of the first `size` bytes of the image."""
        digest = hashlib.sha256()
        for offset in range(0, size, 65536):
            digest.update(self.read(offset, min(65536, size - offset)))
        return digest.digest()

    def is_intact(self) -> bool:
        """Say whether there is a header and the image, or the delta, has the digest that is named."""
        header, delta = self.header(), self.delta()
        if header is None:
            return False
        if delta is not None:
            return self.digest_of(delta.size) == delta.digest
        return header.size <= self.capacity and self.digest_of(header.size) == header.digest

    def drop(self) -> None:
        """Make the slot unbootable before anything else in it changes."""
        if not self._flash.is_erased(self._header.start, self.page_size):
            self._flash.erase(self._header.start, self.page_size)
            self._flash.sync()

    def seal(self, header: ImageHeader, delta: StagedDelta | None = None) -> None:
        """Write the header over an image that was verified: from now on the slot is bootable.

        `delta` is there when not the image was verified but what the delta makes of the one that runs.
        """
        version = header.version.encode()
        body = _HEADER.pack(_MAGIC, _FORM, len(version), header.size, header.sequence, header.digest, version)
        self.drop()
        self._flash.sync()
        if delta is not None:
            said = _DELTA.pack(_DELTA_MAGIC, delta.size, delta.digest)
            self._flash.write(self._header.start + _DELTA_AT, said + _CRC.pack(zlib.crc32(said)))
        self._flash.write(self._header.start, body + _CRC.pack(zlib.crc32(body)))
        self._flash.sync()

    def header_page(self) -> bytes:
        """Return the header page as it is when the image lies in another slot: without marks, without a delta."""
        return self._flash.read(self._header.start, _MARKS_AT).ljust(self.page_size, b"\xff")

    def used_pages(self) -> tuple[int, int]:
        """Return how many pages of the envelope and of the image are in use."""
        header = self.header()
        image = 0 if header is None else -(-header.size // self.page_size)
        return -(-self.envelope.stored_length // self.page_size), image

    def pages(self, envelope: int, image: int) -> list[int]:
        """Return the addresses of the header page and of so many pages of envelope and image."""
        starts = (self._header.start, self._manifest.start, self._image.start)
        counts = (1, envelope, image)
        return [
            start + number * self.page_size
            for start, count in zip(starts, counts, strict=True)
            for number in range(count)
        ]

    def erase_page(self, page: int) -> None:
        """Erase page `page` of the image."""
        self._flash.erase(self._image.start + page * self.page_size, self.page_size)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes of the image into erased cells; `offset` is that of a unit."""
        self._flash.write(self._image.start + offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the image."""
        return self._flash.read(self._image.start + offset, length)

    def _mark_places(self) -> Iterator[int]:
        # A stride of the largest unit keeps the places where they are whatever the unit is.
        return (self._header.start + _MARKS_AT + 16 * number for number in range(_MARKS))


class EnvelopeStore:
    """The envelope in a slot.

    The digest beside it finds damage; whether it is genuine is checked on every use.
    """

    limit = MANIFEST_LIMIT

    def __init__(self, flash: Flash, region: Region) -> None:
        self._flash = flash
        self._region = region

    @property
    def stored_length(self) -> int:
        """Bytes that the envelope takes with its header; 0 when there is none."""
        magic, length, _ = self._read_header()
        return _ENVELOPE.size + length if magic == _ENVELOPE_MAGIC and length <= self.limit else 0

    def store(self, envelope: bytes) -> None:
        """Keep an envelope of at most `limit` bytes, durably."""
        header = _ENVELOPE.pack(_ENVELOPE_MAGIC, len(envelope), hashlib.sha256(envelope).digest())
        data = header + envelope
        page = self._flash.page_size
        self._flash.erase(self._region.start, -(-len(data) // page) * page)
        self._flash.write(self._region.start, data)
        self._flash.sync()

    def load(self) -> bytes | None:
        """Return the envelope, or None when there is none or it is damaged."""
        magic, length, digest = self._read_header()
        if magic != _ENVELOPE_MAGIC or length > self.limit:
            return None
        envelope = self._flash.read(self._region.start + _ENVELOPE.size, length)
        return envelope if hashlib.sha256(envelope).digest() == digest else None

    def require(self) -> bytes:
        """Return the envelope; raises Refusal when there is none or it is damaged."""
        envelope = self.load()
        if envelope is None:
            raise refusal(RefusalCode.MALFORMED, "The stored manifest is no longer intact.")
        return envelope

    def _read_header(self) -> tuple[bytes, int, bytes]:
        magic, length, digest = _ENVELOPE.unpack(self._flash.read(self._region.start, _ENVELOPE.size))
        return magic, length, digest
