"""Image files: digest and size in one pass, format by content, the version that an image names itself.

Formats are told by their magic numbers; the checks of their inner structure are not part of this module.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.facts import ManifestFacts
from lwm2m_server.firmware.refusals import RefusalCode, refusal

HEAD_SIZE: Final = 512
"""Bytes at the start that are looked at."""
CHUNK: Final = 1 << 20
VERSION_LINE: Final = b"firmware-version: "
"""A raw image may begin with this line to name its version, as the reference device's images do."""


class ImageFormat(StrEnum):
    """Kind of an image file, by its first bytes."""

    RAW = "raw"
    MCUBOOT = "mcuboot"
    ESP_IDF = "esp-idf"
    UF2 = "uf2"
    ELF = "elf"
    INTEL_HEX = "intel-hex"


TO_CONVERT: Final = {
    ImageFormat.UF2: "UF2 is a container for USB drives; extract the binary first",
    ImageFormat.ELF: "ELF is the linker's output; make a binary of it first (objcopy -O binary)",
    ImageFormat.INTEL_HEX: "Intel HEX is text; convert it to a binary first (objcopy -I ihex -O binary)",
}
"""Formats that devices seldom take as they are, and the way out."""

_MCUBOOT_MAGIC: Final = 0x96F3B83D
_UF2_MAGIC: Final = 0x0A324655
_ESP_MAGIC: Final = 0xE9
_ESP_APP_MAGIC: Final = 0xABCD5432


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image file is.

    `digest` is SHA-256 (32 bytes), `version` what the image itself says, if it says it.
    """

    digest: bytes
    size: int
    format: ImageFormat
    version: str | None = None

    @property
    def hint(self) -> str | None:
        """Why this file may not be what a device wants."""
        return TO_CONVERT.get(self.format)


class ImageReader:
    """Takes an image in pieces of any size; memory does not grow with it."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._head = b""
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(chunk)
        self._size += len(chunk)
        if len(self._head) < HEAD_SIZE:
            self._head += chunk[: HEAD_SIZE - len(self._head)]

    def finish(self) -> ImageInfo:
        """Say what was read; `InvalidInput` when it was nothing."""
        if not self._size:
            raise InvalidInput("the image is empty", code="empty-image", field="image")
        kind = image_format(self._head)
        return ImageInfo(self._hash.digest(), self._size, kind, image_version(self._head, kind))


def inspect_image(data: bytes) -> ImageInfo:
    """`ImageReader` for bytes in memory."""
    reader = ImageReader()
    reader.feed(data)
    return reader.finish()


def inspect(path: Path) -> ImageInfo:
    """`ImageReader` for a file."""
    reader = ImageReader()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            reader.feed(chunk)
    return reader.finish()


def image_format(head: bytes) -> ImageFormat:
    """Guess the format from the first bytes of a file; `RAW` when none is known."""
    first = int.from_bytes(head[:4], "little") if len(head) >= 4 else 0
    if first == _MCUBOOT_MAGIC:
        return ImageFormat.MCUBOOT
    if first == _UF2_MAGIC:
        return ImageFormat.UF2
    if head[:4] == b"\x7fELF":
        return ImageFormat.ELF
    # a hex file starts with a record that is text only: colon, then hex digits
    if len(head) >= 11 and head[:1] == b":" and all(byte in b"0123456789abcdefABCDEF" for byte in head[1:9]):
        return ImageFormat.INTEL_HEX
    if len(head) >= 36 and head[0] == _ESP_MAGIC and struct.unpack_from("<I", head, 32)[0] == _ESP_APP_MAGIC:
        return ImageFormat.ESP_IDF
    return ImageFormat.RAW


def image_version(head: bytes, kind: ImageFormat) -> str | None:
    """Read the version that the head of an image names; `None` where there is none."""
    if kind is ImageFormat.MCUBOOT and len(head) >= 28:
        major, minor, revision, build = struct.unpack_from("<BBHI", head, 20)
        return f"{major}.{minor}.{revision}" + (f"+{build}" if build else "")
    if kind is ImageFormat.ESP_IDF and len(head) >= 80:
        text = head[48:80].split(b"\0", 1)[0]
        return text.decode("ascii") if text.isascii() and text.strip() else None
    line, end, _ = head.partition(b"\n")
    if kind is ImageFormat.RAW and end and line.startswith(VERSION_LINE) and line.isascii():
        return line[len(VERSION_LINE) :].decode("ascii").strip() or None
    return None


def check_image(info: ImageInfo, facts: ManifestFacts) -> None:
    """Compare an image with the manifest that names it; raises with the first thing that does not agree.

    Codes: `size-mismatch`, `digest-mismatch`, `version-mismatch`, `malformed` for a manifest that names no
    digest.
    """
    main = facts.main
    if not main.digests or not main.sizes:
        raise refusal(
            RefusalCode.MALFORMED, "the manifest names no SHA-256 digest or no size", field="image-digest"
        )
    if info.size not in main.sizes:
        raise refusal(
            RefusalCode.SIZE_MISMATCH,
            f"the image has {info.size} bytes, the manifest says {main.sizes[0]}",
            field="image-size",
        )
    if info.digest not in main.digests:
        raise refusal(
            RefusalCode.DIGEST_MISMATCH,
            f"the image has the digest {info.digest.hex()}, the manifest says {main.digests[0].hex()}",
            field="image-digest",
        )
    if versions.try_parse(info.version) and facts.version and not versions.same(info.version, facts.version):
        raise InvalidInput(
            f"the image calls itself {info.version}, the manifest says {facts.version}",
            code="version-mismatch",
            field="version",
            hint="build the image with the version that the manifest names, or the other way round",
        )
