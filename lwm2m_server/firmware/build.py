"""Build a SUIT envelope (draft-ietf-suit-manifest-37, section 7): one component, fetched from a URI.

The manifest checks vendor and class before everything else, fetches the image into the component and matches
its digest after the download and again before it is started. The version is in the signed part twice:
machine-readable (update-management, where its form can hold it) and as text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.commands import (
    Condition,
    Directive,
    OverrideParameters,
    Parameters,
    Sequence,
)
from lwm2m_server.firmware.envelope import wrap
from lwm2m_server.firmware.manifest import Common, ComponentText, LanguageText, Manifest
from lwm2m_server.firmware.suit import (
    DIGEST_SHA256,
    ComponentTextKey,
    ConditionCode,
    Digest,
    DirectiveCode,
    TextKey,
    class_id,
    vendor_id,
    version_to_integers,
)

MAX_SEQUENCE_NUMBER: Final = 2**63 - 1
MAX_URI: Final = 255
"""Bytes, as for Package URI."""
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestDescription:
    """What an operator says about an update.

    `vendor_domain` and `class_name` give the identifiers (UUID5(DNS, domain), UUID5(vendor id, class name)).
    `component` is the component identifier, a path of byte strings. `image_uri` may be relative to the server
    that the manifest comes from (`/fw/<digest>`). `manufacturer` and `model` are what a plain device reports
    in `/3/0/0` and `/3/0/1`; the server checks them on its behalf.
    """

    vendor_domain: str
    class_name: str
    version: str
    sequence_number: int
    image_digest: bytes
    image_size: int
    image_uri: str
    component: tuple[bytes, ...] = (b"\x00",)
    manufacturer: str = ""
    model: str = ""
    description: str = ""
    language: str = "en"
    reference_uri: str = ""


def build_manifest(description: ManifestDescription) -> bytes:
    """Make the unsigned envelope (tag 107); `InvalidInput` names the field that does not fit."""
    _check(description)
    vendor = vendor_id(description.vendor_domain.lower())
    shared: Sequence = (
        OverrideParameters(
            Parameters(
                vendor_id=vendor,
                class_id=class_id(vendor, description.class_name),
                image_digest=Digest(DIGEST_SHA256, description.image_digest),
                image_size=description.image_size,
            )
        ),
        Condition(ConditionCode.VENDOR_IDENTIFIER),
        Condition(ConditionCode.CLASS_IDENTIFIER),
    )
    image_match = Condition(ConditionCode.IMAGE_MATCH)
    manifest = Manifest(
        sequence_number=description.sequence_number,
        common=Common((description.component,), shared),
        reference_uri=description.reference_uri or None,
        set_version=version_to_integers(versions.parse(description.version)),
        validate=(image_match,),
        invoke=(Directive(DirectiveCode.INVOKE),),
        install=(
            OverrideParameters(Parameters(uri=description.image_uri)),
            Directive(DirectiveCode.FETCH),
            image_match,
        ),
        text=(_text(description),),
    )
    return wrap(manifest).encode()


def _text(description: ManifestDescription) -> LanguageText:
    component = {
        ComponentTextKey.VENDOR_NAME: description.manufacturer,
        ComponentTextKey.MODEL_NAME: description.model,
        ComponentTextKey.VENDOR_DOMAIN: description.vendor_domain.lower(),
        ComponentTextKey.MODEL_INFO: description.class_name,
        ComponentTextKey.VERSION: versions.parse(description.version).text,
    }
    entries = ((int(TextKey.UPDATE_DESCRIPTION), description.description),) if description.description else ()
    return LanguageText(
        description.language,
        entries,
        (
            ComponentText(
                description.component, tuple((int(key), said) for key, said in component.items() if said)
            ),
        ),
    )


def _check(description: ManifestDescription) -> None:
    if not _DOMAIN.fullmatch(description.vendor_domain.lower()):
        raise InvalidInput(
            f"{description.vendor_domain!r} is not a domain name",
            field="vendor_domain",
            hint="give the vendor's own domain, such as acme.example",
        )
    if not description.class_name.strip():
        raise InvalidInput(
            "the class name is empty", field="class_name", hint="name the device class, such as meter-v2"
        )
    if not 0 <= description.sequence_number <= MAX_SEQUENCE_NUMBER:
        raise InvalidInput("the sequence number must be 0 or more", field="sequence_number")
    if len(description.image_digest) != 32:
        raise InvalidInput("the image digest must be a SHA-256 (32 bytes)", field="image_digest")
    if description.image_size <= 0:
        raise InvalidInput("the image is empty", field="image_size")
    if not description.image_uri or len(description.image_uri.encode()) > MAX_URI:
        raise InvalidInput(f"the image URI must have 1 to {MAX_URI} bytes", field="image_uri")
    if not description.component or any(not part for part in description.component):
        raise InvalidInput("the component identifier is empty", field="component")
    if not description.language:
        raise InvalidInput("the language is empty", field="language", hint="give a tag such as en")
