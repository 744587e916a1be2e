"""Why an image is refused: stable codes, one sentence each for the documentation."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from lwm2m_server.errors import InvalidInput, Lwm2mError, Untrusted


class ImageCode(StrEnum):
    """The stable codes; their texts never change."""

    EMPTY = "empty"
    MALFORMED = "image-malformed"
    DIGEST = "image-digest"
    SIGNATURE = "image-signature"
    UNSUPPORTED = "image-unsupported"
    CONTAINER = "image-container"
    AMBIGUOUS = "image-ambiguous"
    UNSIGNED = "image-unsigned"
    UNKNOWN_KEY = "image-unknown-key"
    SAMPLE_KEY = "image-sample-key"
    UNVERIFIABLE = "image-unverifiable"
    FORMAT_MISMATCH = "format-mismatch"
    VERSION_MISMATCH = "version-mismatch"
    PROJECT_MISMATCH = "project-mismatch"
    CHIP_MISMATCH = "chip-mismatch"
    COUNTER_MISMATCH = "security-counter-mismatch"
    VENDOR_MISMATCH = "vendor-mismatch"
    CLASS_MISMATCH = "class-mismatch"


MEANING: Final = {
    ImageCode.EMPTY: "the file has no bytes",
    ImageCode.MALFORMED: "the file begins like an image of a known format but breaks its rules; the field says where",
    ImageCode.DIGEST: "a hash or checksum in the image does not fit its bytes: damaged, or changed after the build",
    ImageCode.SIGNATURE: "the image is signed by a known key, or carries its key, and the signature does not hold",
    ImageCode.UNSUPPORTED: "a variant of the format that no boot loader of today takes",
    ImageCode.CONTAINER: "UF2, Intel HEX or ELF: a file that holds an image, not the image itself",
    ImageCode.AMBIGUOUS: "a container that can be turned into an image in more than one way",
    ImageCode.UNSIGNED: "`images.require_signed` is set and the image has no signature",
    ImageCode.UNKNOWN_KEY: "`images.require_signed` is set and no trusted image key signed the image",
    ImageCode.SAMPLE_KEY: "`images.require_signed` is set and the image is signed by MCUboot's published sample key",
    ImageCode.UNVERIFIABLE: "`images.require_signed` is set and the image is encrypted: its hash can't be checked",
    ImageCode.FORMAT_MISMATCH: "the file is of another format than was said",
    ImageCode.VERSION_MISMATCH: "the image names another version than was said",
    ImageCode.PROJECT_MISMATCH: "the image names another project than was said, or none",
    ImageCode.CHIP_MISMATCH: "the image is for another chip than was said, or names none",
    ImageCode.COUNTER_MISMATCH: "the image has another security counter (secure version) than was said, or none",
    ImageCode.VENDOR_MISMATCH: "the image is for another vendor than was said",
    ImageCode.CLASS_MISMATCH: "the image is for another class of devices than was said",
}
"""For the table in docs/firmware.md."""


class ImageRefused(Lwm2mError):
    """An image is refused; `code` is the text of an `ImageCode`, `field` says where."""

    code = ImageCode.MALFORMED.value


class BadImage(ImageRefused, InvalidInput):
    """The bytes are not an image that can be used, or not the one that was announced."""

    code = ImageCode.MALFORMED.value


class UntrustedImage(ImageRefused, Untrusted):
    """A hash or signature does not hold, or is missing where one is required."""

    code = ImageCode.SIGNATURE.value


_UNTRUSTED: Final = frozenset(
    {
        ImageCode.DIGEST,
        ImageCode.SIGNATURE,
        ImageCode.UNSIGNED,
        ImageCode.UNKNOWN_KEY,
        ImageCode.SAMPLE_KEY,
        ImageCode.UNVERIFIABLE,
    }
)
UNTRUSTED_CODES: Final = frozenset(code.value for code in _UNTRUSTED)
"""Codes of `UntrustedImage`; the rest is `BadImage`."""


def refused(code: ImageCode, message: str, *, field: str, hint: str | None = None) -> ImageRefused:
    """Make the error of the right class for `code`."""
    kind = UntrustedImage if code in _UNTRUSTED else BadImage
    return kind(message, code=code.value, field=field, hint=hint)


def malformed(message: str, field: str) -> ImageRefused:
    """Make the error for bytes that break the format's rules at `field`."""
    return refused(
        ImageCode.MALFORMED,
        message,
        field=field,
        hint="build or sign the image again; the file is cut off or damaged",
    )
