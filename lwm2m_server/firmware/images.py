"""Image files: format by content, never by name; what an image says of itself, verified; and whether a manifest agrees.

The formats themselves are in `formats`; `image_checks` compares with what the operator says.
"""

from __future__ import annotations

import hashlib
import mmap
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.facts import ManifestFacts
from lwm2m_server.firmware.formats import containers, esp_idf, mcuboot
from lwm2m_server.firmware.formats.facts import ImageFacts, Plain, SignatureState
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.formats.refused import ImageCode, ImageRefused, refused
from lwm2m_server.firmware.refusals import RefusalCode, refusal

HEAD_SIZE: Final = 512
"""Bytes at the start that tell format and version."""
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


SIGNABLE: Final = frozenset({ImageFormat.MCUBOOT, ImageFormat.ESP_IDF})
_EXAMINE: Final = {ImageFormat.MCUBOOT: mcuboot.examine, ImageFormat.ESP_IDF: esp_idf.examine}
CONTAINERS: Final = {
    ImageFormat.UF2: containers.describe_uf2,
    ImageFormat.ELF: containers.describe_elf,
    ImageFormat.INTEL_HEX: containers.describe_hex,
}
_SEGMENTS: Final = {
    ImageFormat.UF2: containers.uf2_segments,
    ImageFormat.ELF: containers.elf_segments,
    ImageFormat.INTEL_HEX: containers.hex_segments,
}
CONVERT_HINT: Final = "make the image of it: lwm2m firmware convert FILE --output IMAGE.bin"


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image file is. `digest` is the SHA-256 of all its bytes (32 bytes)."""

    digest: bytes
    size: int
    format: ImageFormat
    version: str | None = None
    facts: ImageFacts = field(default_factory=ImageFacts)

    @property
    def hint(self) -> str | None:
        """Why this file may not be what a device wants."""
        if self.format not in CONTAINERS:
            return None
        return f"it is {self.facts.notes[0]}; {CONVERT_HINT}"


def examine(view: memoryview, keys: Sequence[ImageKey] = ()) -> tuple[ImageFormat, ImageFacts]:
    """Tell the format and verify what it allows to; `keys` are those that images may be signed with.

    Raises `ImageRefused` for a file that begins like a known format and breaks its rules.
    """
    if not len(view):
        raise refused(ImageCode.EMPTY, "the image is empty", field="image", hint="name the image itself")
    kind = image_format(view[:HEAD_SIZE])
    if kind in _EXAMINE:
        return kind, _EXAMINE[kind](view, keys)
    if kind in CONTAINERS:
        return kind, ImageFacts(notes=(CONTAINERS[kind](view),))
    return kind, ImageFacts(version=image_version(bytes(view[:HEAD_SIZE]), kind))


def inspect_image(data: bytes, keys: Sequence[ImageKey] = ()) -> ImageInfo:
    """Digest and `examine` for bytes in memory."""
    return _info(memoryview(data), keys)


def inspect(path: Path, keys: Sequence[ImageKey] = (), *, digest: bytes | None = None) -> ImageInfo:
    """Digest (unless it is known) and `examine` for a file, which is mapped and never loaded as a whole."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return _info(memoryview(b""), keys)
        return _info(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), keys, digest)


def _info(view: memoryview, keys: Sequence[ImageKey], digest: bytes | None = None) -> ImageInfo:
    kind, facts = examine(view, keys)
    return ImageInfo(digest or hashlib.sha256(view).digest(), len(view), kind, facts.version, facts)


def convert(data: bytes, *, within: tuple[int, int] | None = None) -> tuple[int, bytes]:
    """Make the image out of a UF2, Intel HEX or ELF file; return the address where it begins, and it.

    `within` chooses a range of addresses (first, behind the last). Raises `ImageRefused`.
    """
    view = memoryview(data)
    kind = image_format(view[:HEAD_SIZE])
    if kind not in _SEGMENTS:
        raise refused(
            ImageCode.FORMAT_MISMATCH,
            f"the file is {kind.value}, which needs no conversion",
            field="FILE",
            hint="upload it as it is",
        )
    segments = _SEGMENTS[kind](view)
    return containers.flatten(containers.within(segments, *within) if within else segments)


def image_format(head: bytes | memoryview) -> ImageFormat:
    """Tell the format from the first bytes of a file; `RAW` when none is known."""
    if mcuboot.is_mcuboot(head):
        return ImageFormat.MCUBOOT
    if esp_idf.is_esp_idf(head):
        return ImageFormat.ESP_IDF
    if containers.is_uf2(head):
        return ImageFormat.UF2
    if containers.is_elf(head):
        return ImageFormat.ELF
    if containers.is_hex(head):
        return ImageFormat.INTEL_HEX
    return ImageFormat.RAW


def image_version(head: bytes, kind: ImageFormat) -> str | None:
    """Read the version that the head of an image names, unverified; `None` where there is none."""
    if kind is ImageFormat.MCUBOOT:
        return mcuboot.version_of(head)
    if kind is ImageFormat.ESP_IDF:
        return esp_idf.version_of(head)
    line, end, _ = head.partition(b"\n")
    if kind is ImageFormat.RAW and end and line.startswith(VERSION_LINE) and line.isascii():
        text = line[len(VERSION_LINE) :].decode("ascii").strip()
        return text if text and text.isprintable() else None
    return None


def check_image(info: ImageInfo, facts: ManifestFacts) -> None:
    """Compare an image with the manifest that names it; raises with the first thing that does not agree.

    Codes: `size-mismatch`, `digest-mismatch`, `version-mismatch`, `vendor-mismatch`, `class-mismatch`,
    `malformed` for a manifest that names no digest.
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
    check_claims(info.version, info.facts.vendor_id, info.facts.class_id, facts)


def check_claims(
    version: str | None, vendor_id: bytes | None, class_id: bytes | None, facts: ManifestFacts
) -> None:
    """Compare what an image says of itself, None where it says nothing, with the manifest that names it first.

    Raises with the first thing that does not agree: `version-mismatch`, `vendor-mismatch`, `class-mismatch`.
    """
    main = facts.main
    if versions.try_parse(version) and facts.version and not versions.same(version, facts.version):
        raise InvalidInput(
            f"the image calls itself {version}, the manifest says {facts.version}",
            code="version-mismatch",
            field="version",
            hint="build the image with the version that the manifest names, or the other way round",
        )
    for code, name, own, named in (
        (ImageCode.VENDOR_MISMATCH, "vendor", vendor_id, main.vendor_ids),
        (ImageCode.CLASS_MISMATCH, "class", class_id, main.class_ids),
    ):
        if own is not None and named and own not in named:
            raise mismatch(code, name, name, uuid_text(own), uuid_text(named[0]))


def details_of(info: ImageInfo) -> dict[str, Plain]:
    """Return what is known of an image as JSON; what the image does not say is left out."""
    facts = info.facts
    found: dict[str, Plain] = {
        "project": facts.project,
        "chip": facts.chip,
        "security_counter": facts.security_counter,
        "vendor_id": uuid_text(facts.vendor_id),
        "class_id": uuid_text(facts.class_id),
        "dependencies": [dict(each.plain()) for each in facts.dependencies],
        "signatures": [dict(each.plain()) for each in facts.signatures],
        "notes": [*facts.notes, *_signature_notes(info)],
        info.format.value.replace("-", "_"): dict(facts.details),
    }
    kept: dict[str, Plain] = {name: value for name, value in found.items() if value not in (None, [], {})}
    if info.format in SIGNABLE:
        kept["content_checked"] = facts.content_checked
    return kept


def _signature_notes(info: ImageInfo) -> list[str]:
    states = [signature.state for signature in info.facts.signatures]
    if info.format not in SIGNABLE or SignatureState.VERIFIED in states:
        return []
    if not states:
        return ["The image has no signature."]
    if SignatureState.SAMPLE_KEY in states:
        return ["The image is signed with MCUboot's published sample key, with which anyone can sign."]
    return ["The image is signed by a key that is not trusted here."]


def mismatch(code: ImageCode, where: str, what: str, found: object, wanted: object) -> ImageRefused:
    """Make the error for an image that says something else than was said of it."""
    says = f"names no {what}" if found is None else f"says that its {what} is {found}"
    return refused(
        code,
        f"the image {says}; {wanted} was said",
        field=where,
        hint="name the right file, or say what it is",
    )


def uuid_text(raw: bytes | None) -> str | None:
    """Write a UUID of 16 bytes as people do."""
    return None if raw is None else str(uuid.UUID(bytes=raw))
