"""Whether an image is what the operator says it is, and signed where that is demanded."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.formats.facts import ImageFacts, SignatureState
from lwm2m_server.firmware.formats.refused import ImageCode, refused
from lwm2m_server.firmware.images import (
    CONTAINERS,
    CONVERT_HINT,
    SIGNABLE,
    ImageFormat,
    ImageInfo,
    mismatch,
    uuid_text,
)
from lwm2m_server.firmware.suit import class_id, vendor_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the operator says of an image; None where nothing is said.

    `vendor` is a domain or a UUID, `device_class` a name (with `vendor`) or a UUID.
    """

    version: str | None = None
    format: ImageFormat | None = None
    project: str | None = None
    chip: str | None = None
    security_counter: int | None = None
    vendor: str | None = None
    device_class: str | None = None

    def check(self) -> None:
        """Raise `InvalidInput` for what can't be right for any image."""
        if self.version is not None:
            versions.parse(self.version)
        if self.device_class is not None and self.vendor is None and _uuid(self.device_class) is None:
            raise InvalidInput(
                "a class is known by its name only together with its vendor",
                field="class",
                hint="give the vendor's domain too, or the class as a UUID",
            )


def check_expected(info: ImageInfo, expected: Expected) -> None:
    """Compare an image with what the operator says; raises `ImageRefused` with the first disagreement.

    A container is refused unless exactly this format is expected: then it goes to devices as it is.
    """
    if expected.format is not None and info.format is not expected.format:
        raise refused(
            ImageCode.FORMAT_MISMATCH,
            f"the file is {info.format.value}, not {expected.format.value}",
            field="format",
            hint=CONVERT_HINT if info.format in CONTAINERS else "name the right file, or the right format",
        )
    if info.format in CONTAINERS and expected.format is None:
        raise refused(
            ImageCode.CONTAINER,
            f"the file is {info.facts.notes[0]}; boot loaders take the image inside",
            field="image",
            hint=f"{CONVERT_HINT}; if your devices do take this file: --expect-format {info.format.value}",
        )
    facts = info.facts
    own = versions.try_parse(info.version)
    if expected.version is not None and own is not None and not versions.same(own.text, expected.version):
        raise mismatch(ImageCode.VERSION_MISMATCH, "version", "version", info.version, expected.version)
    if expected.project is not None and expected.project != facts.project:
        raise mismatch(ImageCode.PROJECT_MISMATCH, "project", "project", facts.project, expected.project)
    if expected.chip is not None and _chip(expected.chip) != _chip(facts.chip or ""):
        raise mismatch(ImageCode.CHIP_MISMATCH, "chip", "chip", facts.chip, expected.chip)
    if expected.security_counter is not None and expected.security_counter != facts.security_counter:
        raise mismatch(
            ImageCode.COUNTER_MISMATCH,
            "security_counter",
            "security counter",
            facts.security_counter,
            expected.security_counter,
        )
    _check_identifiers(facts, expected)


def _check_identifiers(facts: ImageFacts, expected: Expected) -> None:
    vendor = None
    if expected.vendor is not None:
        vendor = _uuid(expected.vendor) or vendor_id(expected.vendor)
        if vendor != facts.vendor_id:
            raise mismatch(
                ImageCode.VENDOR_MISMATCH, "vendor", "vendor", uuid_text(facts.vendor_id), uuid_text(vendor)
            )
    if expected.device_class is not None:
        wanted = _uuid(expected.device_class) or class_id(vendor or b"", expected.device_class)
        if wanted != facts.class_id:
            raise mismatch(
                ImageCode.CLASS_MISMATCH, "class", "class", uuid_text(facts.class_id), uuid_text(wanted)
            )


def check_signed(info: ImageInfo) -> None:
    """Raise `ImageRefused` unless a trusted key signed the image and its content could be checked."""
    states = {signature.state for signature in info.facts.signatures}
    if not states:
        raise refused(
            ImageCode.UNSIGNED,
            "this server takes signed images only, and this one has no signature",
            field="image",
            hint="sign it (imgtool sign --key, espsecure sign-data)"
            if info.format in SIGNABLE
            else "only MCUboot and ESP-IDF images carry signatures; images.require_signed demands them",
        )
    if SignatureState.VERIFIED not in states:
        sample = SignatureState.SAMPLE_KEY in states
        raise refused(
            ImageCode.SAMPLE_KEY if sample else ImageCode.UNKNOWN_KEY,
            "the image is signed with MCUboot's published sample key, with which anyone can sign"
            if sample
            else f"no trusted key signed the image; it names {info.facts.signatures[0].key or 'none'}",
            field="signature",
            hint="sign it with a key of your own"
            if sample
            else "trust the signer's public key (lwm2m firmware keys add FILE), or sign with a trusted one",
        )
    if not info.facts.content_checked:
        raise refused(
            ImageCode.UNVERIFIABLE,
            "the image is encrypted, so the server can't check that it is what was signed",
            field="image",
            hint="images.require_signed demands images that can be checked; encrypt on delivery instead",
        )


def _chip(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _uuid(text: str) -> bytes | None:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        return None
