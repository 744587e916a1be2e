"""Build a SUIT envelope (draft-ietf-suit-manifest-37, section 7) from what an operator says about an update.

The manifest checks vendor and class before everything else, then what is asked of time, battery, present
versions and the application. It fetches each image into its component, in the order of the components, and
matches its digest after the download and again before it is started. A component that fails ends the update:
all or nothing. With best effort that holds for the first one alone, which is started; each other one is installed
and matched in a run-sequence of its own, whose failed conditions are soft.

An encrypted payload is a component of its own (`payload_component`): it is fetched and matched there, and copied,
which decrypts it, into the component that it is for; that one is matched with the plain image. Deltas in place are
branches (`inplace`). The version is in the signed part twice: machine-readable (update-management, where its form
can hold it) and as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lwm2m_server import versions
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    Directive,
    OverrideParameters,
    Parameters,
    RunSequence,
    Sequence,
    SetComponentIndex,
    encode_sequence,
)
from lwm2m_server.firmware.description import (
    ComponentDescription,
    ManifestDescription,
    TextDescription,
    check_description,
)
from lwm2m_server.firmware.encryption import payload_component
from lwm2m_server.firmware.envelope import wrap
from lwm2m_server.firmware.inplace import NamedDelta, branches, delta_component
from lwm2m_server.firmware.manifest import Common, ComponentText, LanguageText, Manifest, encode_text
from lwm2m_server.firmware.suit import (
    DIGEST_SHA256,
    ComponentId,
    ComponentTextKey,
    ConditionCode,
    Digest,
    DirectiveCode,
    ManifestKey,
    TextKey,
    class_id,
    vendor_id,
)
from lwm2m_server.firmware.suit_versions import version_to_integers

__all__ = ["ComponentDescription", "ManifestDescription", "TextDescription", "build_manifest"]

_IMAGE_MATCH = Condition(ConditionCode.IMAGE_MATCH)
_FETCH = Directive(DirectiveCode.FETCH)
_COPY = Directive(DirectiveCode.COPY)


@dataclass(frozen=True, slots=True)
class _Place:
    """A component of the manifest.

    `source` is the index of the payload that it is decrypted from, by `info`, or of the component that takes its
    `deltas`. `payload`: it is such a one, and has no digest of its own where it takes deltas.
    """

    component: ComponentId
    digest: bytes
    size: int
    uri: str
    source: int | None = None
    info: bytes | None = None
    payload: bool = False
    deltas: tuple[NamedDelta, ...] = ()


def _places(components: tuple[ComponentDescription, ...]) -> tuple[_Place, ...]:
    """The components that are installed come first, in their order; then the payloads of the encrypted ones."""
    places: list[_Place] = []
    payloads: list[_Place] = []
    for item in components:
        hidden = item.encrypted
        if item.deltas:
            source = len(components) + len(payloads)
            payloads.append(_Place(delta_component(item.component), b"", 0, "", payload=True))
            places.append(
                _Place(item.component, item.digest, item.size, item.uri, source, deltas=item.deltas)
            )
            continue
        if hidden is None:
            places.append(_Place(item.component, item.digest, item.size, item.uri))
            continue
        source, own = len(components) + len(payloads), payload_component(item.component)
        payloads.append(_Place(own, hidden.digest, hidden.size, item.uri, payload=True))
        places.append(_Place(item.component, item.digest, item.size, item.uri, source, hidden.info))
    return (*places, *payloads)


def build_manifest(description: ManifestDescription) -> bytes:
    """Make the unsigned envelope (tag 107); `InvalidInput` names the field that does not fit."""
    check_description(description)
    components = description.components
    places = _places(components)
    several = len(places) > 1
    manifest = Manifest(
        sequence_number=description.sequence_number,
        common=Common(tuple(place.component for place in places), _shared(description, places)),
        reference_uri=description.reference_uri or None,
        set_version=version_to_integers(versions.parse(description.version)),
        install=_install(description, places),
        validate=_each(places, lambda place: _softly(description, place, places, _validation(place))),
        invoke=(*((SetComponentIndex(0),) if several else ()), Directive(DirectiveCode.INVOKE)),
        text=_texts(description),
    )
    payloads = [(item.uri, item.payload) for item in components if item.payload is not None]
    manifest, severed = _sever(manifest, description.sever)
    return wrap(manifest, severed, payloads).encode()


def _shared(description: ManifestDescription, places: tuple[_Place, ...]) -> Sequence:
    """Identifiers, what is asked of the device, then digest and size of each component."""
    vendor = vendor_id(description.vendor_domain.lower())
    several = len(places) > 1
    identity = Parameters(
        vendor_id=vendor,
        class_id=class_id(vendor, description.class_name),
        use_before=description.use_before,
        minimum_battery=description.minimum_battery,
        update_priority=description.authorize,
    )
    main = places[0]
    if not several:
        identity = replace(identity, image_digest=_digest(main), image_size=main.size)
    commands: list[Command] = [
        *((SetComponentIndex(True),) if several else ()),
        OverrideParameters(identity),
        *_own_classes(description, vendor, several=several),
        Condition(ConditionCode.VENDOR_IDENTIFIER),
        Condition(ConditionCode.CLASS_IDENTIFIER),
    ]
    if several:
        commands.append(SetComponentIndex(0))
    if description.use_before is not None:
        commands.append(Condition(ConditionCode.USE_BEFORE))
    if several:
        for index, item in enumerate(places):
            if not item.digest:
                continue  # each branch says which delta it takes
            commands.append(SetComponentIndex(index))
            commands.append(OverrideParameters(Parameters(image_digest=_digest(item), image_size=item.size)))
    return tuple(commands)


def _own_classes(description: ManifestDescription, vendor: bytes, *, several: bool) -> Iterator[Command]:
    """Set the classes of components that have another one than the device, and select all components again."""
    own = [(index, item.class_name) for index, item in enumerate(description.components) if item.class_name]
    for index, name in own:
        if several:
            yield SetComponentIndex(index)
        yield OverrideParameters(Parameters(class_id=class_id(vendor, name)))
    if own and several:
        yield SetComponentIndex(True)


def _install(description: ManifestDescription, places: tuple[_Place, ...]) -> Sequence:
    """Conditions that are asked once, before the first byte, then each component's image."""
    several = len(places) > 1
    asked: list[Command] = []
    if description.downgrade:
        asked.append(Condition(ConditionCode.OPERATOR_APPROVAL))
    if description.minimum_battery is not None:
        asked.append(Condition(ConditionCode.MINIMUM_BATTERY))
    if description.authorize is not None:
        asked.append(Condition(ConditionCode.UPDATE_AUTHORIZED))
    for index, item in enumerate(description.components):
        if item.requires and several:
            asked.append(SetComponentIndex(index))
        for match in item.requires:
            asked.append(OverrideParameters(Parameters(version=match)))
            asked.append(Condition(ConditionCode.VERSION))
    if asked and several and not isinstance(asked[0], SetComponentIndex):
        asked.insert(0, SetComponentIndex(0))
    return (
        *asked,
        *_each(places, lambda place: _softly(description, place, places, _installation(place, places))),
    )


def _softly(
    description: ManifestDescription, place: _Place, places: tuple[_Place, ...], commands: tuple[Command, ...]
) -> tuple[Command, ...]:
    """With best effort: the commands for one component as a sequence whose failed conditions end it alone."""
    if not commands or not description.best_effort or place is places[0]:
        return commands
    return (RunSequence((OverrideParameters(Parameters(soft_failure=True)), *commands)),)


def _installation(place: _Place, places: tuple[_Place, ...]) -> tuple[Command, ...]:
    """Fetch the image; or make it of a delta; or fetch its encrypted payload, and decrypt that into the component."""
    if place.deltas and place.source is not None:
        return (
            branches(
                places.index(place),
                place.source,
                digest=place.digest,
                size=place.size,
                uri=place.uri,
                deltas=place.deltas,
            ),
        )
    if place.source is None:
        # a payload is fetched where it is decrypted
        return () if place.payload else _fetched(place.uri)
    return (
        SetComponentIndex(place.source),
        *_fetched(place.uri),
        SetComponentIndex(places.index(place)),
        OverrideParameters(Parameters(encryption_info=place.info, source_component=place.source)),
        _COPY,
        _IMAGE_MATCH,
    )


def _fetched(uri: str) -> tuple[Command, ...]:
    return OverrideParameters(Parameters(uri=uri)), _FETCH, _IMAGE_MATCH


def _validation(place: _Place) -> tuple[Command, ...]:
    """Nothing is left of an encrypted payload once it was decrypted."""
    return () if place.payload else (_IMAGE_MATCH,)


def _each(places: tuple[_Place, ...], commands: Callable[[_Place], tuple[Command, ...]]) -> Sequence:
    """The commands for each component, which is selected first where there are several."""

    def all_of() -> Iterator[Command]:
        for index, place in enumerate(places):
            wanted = commands(place)
            if wanted and len(places) > 1 and not isinstance(wanted[0], SetComponentIndex):
                yield SetComponentIndex(index)
            yield from wanted

    return tuple(all_of())


def _digest(place: _Place) -> Digest:
    return Digest(DIGEST_SHA256, place.digest)


def _texts(description: ManifestDescription) -> tuple[LanguageText, ...]:
    first = TextDescription(description.language, description.description)
    return tuple(_text(description, text) for text in (first, *description.texts))


def _text(description: ManifestDescription, text: TextDescription) -> LanguageText:
    entries = {
        TextKey.MANIFEST_DESCRIPTION: text.manifest,
        TextKey.UPDATE_DESCRIPTION: text.update,
    }
    return LanguageText(
        text.language,
        tuple((int(key), said) for key, said in entries.items() if said),
        tuple(_component_text(description, item) for item in description.components),
    )


def _component_text(description: ManifestDescription, component: ComponentDescription) -> ComponentText:
    said = {
        ComponentTextKey.VENDOR_NAME: component.manufacturer,
        ComponentTextKey.MODEL_NAME: component.model,
        ComponentTextKey.VENDOR_DOMAIN: description.vendor_domain.lower(),
        ComponentTextKey.MODEL_INFO: component.class_name or description.class_name,
        ComponentTextKey.DESCRIPTION: component.description,
        ComponentTextKey.VERSION: versions.parse(component.version).text,
        ComponentTextKey.VERSION_REQUIRED: ", ".join(match.text for match in component.requires),
    }
    return ComponentText(component.component, tuple((int(key), text) for key, text in said.items() if text))


def _sever(manifest: Manifest, names: tuple[str, ...]) -> tuple[Manifest, list[tuple[int, bytes]]]:
    """Put members into the envelope, and their digests into the manifest."""
    severed: list[tuple[int, bytes]] = []
    for name in names:
        member = getattr(manifest, name)
        content = encode_text(member) if name == "text" else encode_sequence(member)
        change: dict[str, Any] = {name: Digest.of(cbor.bstr(content))}
        manifest = replace(manifest, **change)
        severed.append((int(ManifestKey[name.upper()]), content))
    return manifest, severed
