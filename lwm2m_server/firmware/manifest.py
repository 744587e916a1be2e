"""The SUIT manifest: model, strict reading, writing byte for byte (draft-ietf-suit-manifest-37, section 8.4).

A manifest is only read after its digest and a signature have been checked (`envelope.verify`). What is read
must encode to the same bytes again; anything else is refused as malformed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.commands import Sequence, encode_sequence, parse_sequence
from lwm2m_server.firmware.refusals import Malformed, NotTrusted, RefusalCode, refusal
from lwm2m_server.firmware.suit import (
    MANIFEST_VERSION,
    SEVERABLE,
    CommonKey,
    ComponentId,
    ComponentTextKey,
    Digest,
    ManifestKey,
    TextKey,
)
from lwm2m_server.firmware.suit_versions import parse_integers

MAX_COMPONENTS: Final = 32
_DEPENDENCY_PREFIX: Final = 1

SEQUENCES: Final = {
    ManifestKey.DEPENDENCY_RESOLUTION: "dependency_resolution",
    ManifestKey.PAYLOAD_FETCH: "payload_fetch",
    ManifestKey.CANDIDATE_VERIFICATION: "candidate_verification",
    ManifestKey.INSTALL: "install",
    ManifestKey.VALIDATE: "validate",
    ManifestKey.LOAD: "load",
    ManifestKey.INVOKE: "invoke",
    ManifestKey.UNINSTALL: "uninstall",
}
"""The command sequences in the order in which they run; 15, 18 and 24 are of trust-domains."""

_OPAQUE: Final = frozenset({ManifestKey.COMPONENT_ID, ManifestKey.COSWID})
"""Members of extensions that change nothing in how an update is processed: kept as they are."""


@dataclass(frozen=True, slots=True)
class ComponentText:
    """What the text says of one component; `other` holds further keys."""

    component: ComponentId
    entries: tuple[tuple[int, str], ...]

    def get(self, key: ComponentTextKey) -> str:
        """Return the entry, or nothing."""
        return dict(self.entries).get(int(key), "")


@dataclass(frozen=True, slots=True)
class LanguageText:
    """Text in one language (BCP 47 tag)."""

    language: str
    entries: tuple[tuple[int, str], ...] = ()
    components: tuple[ComponentText, ...] = ()

    def get(self, key: TextKey) -> str:
        """Return the entry, or nothing."""
        return dict(self.entries).get(int(key), "")


Text = tuple[LanguageText, ...]


@dataclass(frozen=True, slots=True)
class Dependency:
    """A component that is another manifest's envelope (trust-domains): its index, and a prefix for its own."""

    index: int
    prefix: ComponentId | None = None


@dataclass(frozen=True, slots=True)
class Common:
    """Components and the sequence that runs before every other one."""

    components: tuple[ComponentId, ...]
    shared_sequence: Sequence = ()
    dependencies: tuple[Dependency, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest. A severable member is the member itself, its `Digest` when severed, or `None`.

    `set_version` is the machine-readable version of update-management (`suit_versions.version_from_integers`).
    """

    sequence_number: int
    common: Common
    reference_uri: str | None = None
    set_version: tuple[int, ...] | None = None
    dependency_resolution: Sequence | Digest | None = None
    payload_fetch: Sequence | Digest | None = None
    candidate_verification: Sequence | Digest | None = None
    install: Sequence | Digest | None = None
    validate: Sequence | None = None
    load: Sequence | None = None
    invoke: Sequence | None = None
    uninstall: Sequence | None = None
    text: Text | Digest | None = None
    opaque: tuple[tuple[int, Any], ...] = ()

    def encode(self) -> bytes:
        """Return the encoded map: the content of the envelope's byte string under key 3."""
        members: dict[int, Any] = {
            ManifestKey.VERSION: MANIFEST_VERSION,
            ManifestKey.SEQUENCE_NUMBER: self.sequence_number,
            ManifestKey.COMMON: _encode_common(self.common),
        }
        if self.reference_uri is not None:
            members[ManifestKey.REFERENCE_URI] = self.reference_uri
        if self.set_version is not None:
            members[ManifestKey.SET_VERSION] = cbor.encode(self.set_version)
        for key, name in SEQUENCES.items():
            member: Sequence | Digest | None = getattr(self, name)
            if member is not None:
                members[key] = member.to_cbor() if isinstance(member, Digest) else encode_sequence(member)
        if self.text is not None:
            members[ManifestKey.TEXT] = (
                self.text.to_cbor() if isinstance(self.text, Digest) else encode_text(self.text)
            )
        return cbor.encode({int(key): value for key, value in members.items()} | dict(self.opaque))


def parse_manifest(data: bytes) -> Manifest:
    """From the content of the envelope's byte string; `Refusal` (`malformed`, `unsupported`)."""
    members = cbor.as_map(cbor.decode(data, field="manifest"), "manifest")
    version = cbor.as_int(members.pop(1, None), "manifest/1")
    if version != MANIFEST_VERSION:
        raise refusal(
            RefusalCode.UNSUPPORTED, f"the manifest has version {version}, not 1", field="manifest/1"
        )
    manifest = Manifest(
        sequence_number=cbor.as_int(members.pop(2, None), "manifest/2"),
        common=_parse_common(cbor.as_bytes(members.pop(3, None), "manifest/3")),
    )
    for key, value in members.items():
        manifest = _with_member(manifest, key, value)
    if manifest.encode() != data:
        raise Malformed("the manifest is not in deterministic form", field="manifest")
    return manifest


def resolve(manifest: Manifest, severed: Mapping[int, bytes]) -> Manifest:
    """Put severed members in their places; `severed` maps key to content of its byte string.

    `NotTrusted` with `digest-mismatch` when a member is not the one that was signed. Members that did not
    come along stay digests.
    """
    changes: dict[str, Any] = {}
    for key, content in severed.items():
        field = f"envelope/{key}"
        if key == ManifestKey.COSWID:
            digest = dict(manifest.opaque).get(key)
            digest = Digest.parse(digest, field) if isinstance(digest, list) else None
        else:
            name = "text" if key == ManifestKey.TEXT else SEQUENCES[ManifestKey(key)]
            digest = getattr(manifest, name)
        if not isinstance(digest, Digest):
            raise Malformed("a severed member is not announced in the manifest", field=field)
        # as for the manifest, the digest covers the byte string with its head
        if not digest.matches(cbor.bstr(content)):
            raise NotTrusted("a severed member is not the one that was signed", field=field)
        if key != ManifestKey.COSWID:
            changes[name] = parse_text(content) if name == "text" else parse_sequence(content, field)
    return replace(manifest, **changes)


def encode_text(text: Text) -> bytes:
    """Return the encoded text map: the content of the byte string under key 23."""
    return cbor.encode(
        {
            entry.language: dict(entry.entries)
            | {component.component: dict(component.entries) for component in entry.components}
            for entry in text
        }
    )


def parse_text(data: bytes, field: str = "text") -> Text:
    """Inverse of `encode_text`."""
    languages = cbor.as_map(cbor.decode(data, field=field), field)
    if not languages:
        raise Malformed("the text has no language", field=field)
    return tuple(_parse_language(tag, value, field) for tag, value in languages.items())


def _parse_language(tag: object, value: object, field: str) -> LanguageText:
    language = cbor.as_text(tag, field)
    field = f"{field}/{language}"
    entries: list[tuple[int, str]] = []
    components: list[ComponentText] = []
    for key, item in cbor.as_map(value, field).items():
        if isinstance(key, tuple):
            component = _parse_component(list(key), field)
            pairs = cbor.as_map(item, field).items()
            components.append(ComponentText(component, tuple(_parse_entry(k, v, field) for k, v in pairs)))
        else:
            entries.append(_parse_entry(key, item, field))
    return LanguageText(language, tuple(entries), tuple(components))


def _parse_entry(key: object, value: object, field: str) -> tuple[int, str]:
    return cbor.as_int(key, field, low=-(2**63)), cbor.as_text(value, field)


def _with_member(manifest: Manifest, key: object, value: Any) -> Manifest:
    number = cbor.as_int(key, "manifest", low=-(2**63))
    field = f"manifest/{number}"
    if number in _OPAQUE:
        return replace(manifest, opaque=(*manifest.opaque, (number, value)))
    if number == ManifestKey.REFERENCE_URI:
        return replace(manifest, reference_uri=cbor.as_text(value, field))
    if number == ManifestKey.SET_VERSION:
        return replace(manifest, set_version=_parse_set_version(cbor.as_bytes(value, field), field))
    if number == ManifestKey.TEXT or number in SEQUENCES:
        name = "text" if number == ManifestKey.TEXT else SEQUENCES[ManifestKey(number)]
        change: dict[str, Any] = {name: _parse_severable(number, value, field)}
        return replace(manifest, **change)
    raise refusal(
        RefusalCode.UNSUPPORTED, f"the manifest has member {number}, which is not supported", field=field
    )


def _parse_severable(number: int, value: Any, field: str) -> Sequence | Text | Digest:
    # a digest is an array, the member itself a byte string
    if isinstance(value, list) and number in SEVERABLE:
        return Digest.parse(value, field)
    content = cbor.as_bytes(value, field)
    return parse_text(content, field) if number == ManifestKey.TEXT else parse_sequence(content, field)


def _parse_set_version(data: bytes, field: str) -> tuple[int, ...]:
    return parse_integers(cbor.decode(data, field=field), field)


def _parse_common(data: bytes) -> Common:
    field = "common"
    members = cbor.as_map(cbor.decode(data, field=field), field)
    components = cbor.as_list(members.pop(int(CommonKey.COMPONENTS), None), f"{field}/2")
    shared = members.pop(int(CommonKey.SHARED_SEQUENCE), None)
    dependencies = members.pop(int(CommonKey.DEPENDENCIES), None)
    if members:
        raise refusal(
            RefusalCode.UNSUPPORTED,
            f"the common block has member {next(iter(members))}, not supported",
            field=field,
        )
    dependencies = _parse_dependencies(dependencies, len(components)) if dependencies is not None else ()
    if not 1 <= len(components) <= MAX_COMPONENTS:
        raise Malformed(
            f"a manifest names 1 to {MAX_COMPONENTS} components, not {len(components)}", field=f"{field}/2"
        )
    parsed = tuple(_parse_component(item, f"{field}/2") for item in components)
    if len(set(parsed)) != len(parsed):
        raise Malformed("a component is named twice", field=f"{field}/2")
    sequence = () if shared is None else parse_sequence(cbor.as_bytes(shared, f"{field}/4"), f"{field}/4")
    return Common(parsed, sequence, dependencies)


def _parse_dependencies(value: object, components: int) -> tuple[Dependency, ...]:
    field = f"common/{int(CommonKey.DEPENDENCIES)}"
    found: list[Dependency] = []
    for key, metadata in cbor.as_map(value, field).items():
        index = cbor.as_int(key, field)
        if index >= components:
            raise Malformed("a dependency is a component that the manifest does not have", field=field)
        members = cbor.as_map(metadata, field)
        prefix = members.pop(_DEPENDENCY_PREFIX, None)
        if members:
            raise refusal(
                RefusalCode.UNSUPPORTED,
                f"a dependency has member {next(iter(members))}, which is not supported",
                field=field,
            )
        found.append(Dependency(index, None if prefix is None else _parse_component(prefix, field)))
    if not found:
        raise Malformed("the list of dependencies is empty", field=field)
    return tuple(found)


def _parse_component(value: object, field: str) -> ComponentId:
    return tuple(cbor.as_bytes(part, field) for part in cbor.as_list(value, field))


def _encode_common(common: Common) -> bytes:
    members: dict[int, Any] = {
        int(CommonKey.COMPONENTS): [list(component) for component in common.components]
    }
    if common.dependencies:
        members[int(CommonKey.DEPENDENCIES)] = {
            entry.index: {} if entry.prefix is None else {_DEPENDENCY_PREFIX: list(entry.prefix)}
            for entry in common.dependencies
        }
    if common.shared_sequence:
        members[int(CommonKey.SHARED_SEQUENCE)] = encode_sequence(common.shared_sequence)
    return cbor.encode(members)
