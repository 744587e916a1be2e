"""What an operator says about an update: the values that a manifest is built from (`build`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.encryption import parse_encryption_info
from lwm2m_server.firmware.inplace import NamedDelta
from lwm2m_server.firmware.suit_versions import VersionMatch

MAX_SEQUENCE_NUMBER: Final = 2**63 - 1
MAX_URI: Final = 255
"""Bytes, as for Package URI."""
SEVERABLE_MEMBERS: Final = ("install", "text")
"""What `sever` may name: the members that a built manifest has and that can be severed."""
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+"
)
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedPayload:
    """What is fetched in place of an image: SHA-256 and bytes of it, and the encoded SUIT_Encryption_Info."""

    digest: bytes
    size: int
    info: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentDescription:
    """One component: its identifier (a path of byte strings) and the image for it.

    `digest` is SHA-256 (32 bytes). `uri` may be relative to the server that the manifest comes from
    (`/fw/<digest>`). `payload` is the image itself where the envelope is to carry it. `requires` is what the
    version that is running must fulfil. `class_name` is a class of its own, where it is another one than the
    device's. With `encrypted`, `uri` and `payload` are those of the encrypted bytes.
    `deltas` rewrite the image of devices with one slot that run their base.
    """

    component: tuple[bytes, ...]
    digest: bytes
    size: int
    uri: str
    version: str
    manufacturer: str = ""
    model: str = ""
    description: str = ""
    payload: bytes | None = None
    requires: tuple[VersionMatch, ...] = ()
    class_name: str = ""
    encrypted: EncryptedPayload | None = None
    deltas: tuple[NamedDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDescription:
    """Text in one language (BCP 47 tag): about the update, and about the manifest."""

    language: str
    update: str = ""
    manifest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestDescription:
    """An update as a whole, and its first component.

    `vendor_domain` and `class_name` give the identifiers (UUID5(DNS, domain), UUID5(vendor id, class name)).
    `manufacturer` and `model` are what a plain device reports in `/3/0/0` and `/3/0/1`; the server checks them
    on its behalf. The members from `component` to `encrypted` are those of the first component
    (`ComponentDescription`), `further` are the others, in the order of installation.

    `use_before` is seconds since 1970, `minimum_battery` mWh; `authorize` is the priority with which the
    device's application is asked (less is more urgent). `downgrade` marks a manifest that may go back to an
    older version. `best_effort`: what can't be installed into another component than the first one is no failure of
    the rest. `sever` names members that go into the envelope, their digests into the manifest.
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
    component_description: str = ""
    component_class: str = ""
    requires: tuple[VersionMatch, ...] = ()
    payload: bytes | None = None
    encrypted: EncryptedPayload | None = None
    deltas: tuple[NamedDelta, ...] = ()
    further: tuple[ComponentDescription, ...] = ()
    use_before: int | None = None
    minimum_battery: int | None = None
    authorize: int | None = None
    downgrade: bool = False
    best_effort: bool = False
    sever: tuple[str, ...] = ()
    description: str = ""
    language: str = "en"
    texts: tuple[TextDescription, ...] = ()
    reference_uri: str = ""

    @property
    def components(self) -> tuple[ComponentDescription, ...]:
        """All components, the first one among them."""
        first = ComponentDescription(
            component=self.component,
            digest=self.image_digest,
            size=self.image_size,
            uri=self.image_uri,
            version=self.version,
            manufacturer=self.manufacturer,
            model=self.model,
            description=self.component_description,
            payload=self.payload,
            requires=self.requires,
            class_name=self.component_class,
            encrypted=self.encrypted,
            deltas=self.deltas,
        )
        return (first, *self.further)


def check_description(description: ManifestDescription) -> None:
    """Refuse what no manifest can say; `InvalidInput` with the field."""
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
    for index, component in enumerate(description.components):
        _check_component(component, "" if index == 0 else f"components/{index}/")
    _check_unique([item.component for item in description.components], "component")
    _check_unique([item.uri for item in description.components if item.payload is not None], "image_uri")
    _check_unique([text.language for text in (*description.texts,)] + [description.language], "language")
    for language in [description.language, *(text.language for text in description.texts)]:
        if not _LANGUAGE.fullmatch(language):
            raise InvalidInput(
                f"{language!r} is not a language tag", field="language", hint="give a tag such as en"
            )
    if description.best_effort and not description.further:
        raise InvalidInput(
            "an update of one component is installed or not",
            field="install",
            hint="leave it out, or add components",
        )
    for name in ("use_before", "minimum_battery"):
        value = getattr(description, name)
        if value is not None and not 0 <= value < 2**64:
            raise InvalidInput(f"{name} is out of range", field=name)
    if description.authorize is not None and not -(2**63) <= description.authorize < 2**63:
        raise InvalidInput("the priority is out of range", field="authorize")
    _check_unique(list(description.sever), "sever")
    for name in description.sever:
        if name not in SEVERABLE_MEMBERS:
            raise InvalidInput(
                f"{name!r} can't be severed",
                field="sever",
                hint=f"choose from {', '.join(SEVERABLE_MEMBERS)}",
            )


def _check_component(component: ComponentDescription, at: str) -> None:
    versions.parse(component.version)
    if len(component.digest) != 32:
        raise InvalidInput("the image digest must be a SHA-256 (32 bytes)", field=f"{at}image_digest")
    if component.size <= 0:
        raise InvalidInput("the image is empty", field=f"{at}image_size")
    if not component.uri or len(component.uri.encode()) > MAX_URI:
        raise InvalidInput(f"the image URI must have 1 to {MAX_URI} bytes", field=f"{at}image_uri")
    _check_encrypted(component, at)
    _check_deltas(component, at)
    if not component.component or any(not part for part in component.component):
        raise InvalidInput("the component identifier is empty", field=f"{at}component")


def _check_encrypted(component: ComponentDescription, at: str) -> None:
    encrypted = component.encrypted
    if encrypted is None:
        return
    parse_encryption_info(encrypted.info, f"{at}encrypted")
    if encrypted.size != component.size or len(encrypted.digest) != 32:
        raise InvalidInput(
            f"the encrypted payload has {encrypted.size} bytes, the image {component.size}",
            field=f"{at}encrypted",
            hint="encrypt this very image: lwm2m firmware encrypt IMAGE --key FILE",
        )


def _check_deltas(component: ComponentDescription, at: str) -> None:
    if component.deltas and component.encrypted is not None:
        raise InvalidInput("deltas do not apply to an encrypted image", field=f"{at}in_place")
    _check_unique([delta.base.hex() for delta in component.deltas], f"{at}in_place")
    if any(delta.base == component.digest for delta in component.deltas):
        raise InvalidInput("a delta starts from the very image that it makes", field=f"{at}in_place")


def _check_unique(values: list[object] | list[str] | list[tuple[bytes, ...]], field: str) -> None:
    if len(set(values)) != len(values):
        raise InvalidInput(f"the same {field} is given twice", field=field)
