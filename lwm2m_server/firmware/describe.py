"""A SUIT envelope in plain values, for `manifest show` and for the API; nothing in it is trusted."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    CopyParameters,
    Directive,
    OverrideMultiple,
    OverrideParameters,
    RunSequence,
    Sequence,
    SetComponentIndex,
    SetParameters,
    TryEach,
    Unknown,
)
from lwm2m_server.firmware.cose import Algorithm, parse_sign1
from lwm2m_server.firmware.encryption import describe_encryption
from lwm2m_server.firmware.envelope import parse_envelope, read_unverified
from lwm2m_server.firmware.facts import ComponentFacts, facts_of
from lwm2m_server.firmware.inplace import NamedDelta
from lwm2m_server.firmware.manifest import SEQUENCES, Dependency, LanguageText, Manifest
from lwm2m_server.firmware.parameters import Parameters
from lwm2m_server.firmware.refusals import Refusal
from lwm2m_server.firmware.suit import (
    ComponentTextKey,
    Digest,
    ManifestKey,
    ParameterKey,
    TextKey,
    WaitEvent,
    component_text,
)
from lwm2m_server.firmware.suit_versions import VersionMatch

_MAX_DEPTH: Final = 4
"""Manifests inside of manifests that are looked at."""


def describe(envelope: bytes, depth: int = 0) -> dict[str, Any]:
    """Everything in the envelope as JSON types; bytes as lower hex. `Refusal` when it can't be read."""
    parsed = parse_envelope(envelope)
    manifest = read_unverified(envelope)
    facts = facts_of(manifest)
    return {
        "sequence_number": facts.sequence_number,
        "version": facts.version,
        "description": facts.description,
        "reference_uri": facts.reference_uri,
        "use_before": facts.use_before,
        "downgrade": facts.downgrade,
        "components": [_component(component) for component in facts.components],
        "dependencies": [_dependency(entry) for entry in manifest.common.dependencies],
        "text": _texts(manifest),
        "digest": parsed.digest.value.hex(),
        "signatures": [_signature(block, index) for index, block in enumerate(parsed.blocks)],
        "severed": [ManifestKey(key).name.lower() for key, _ in sorted(parsed.severed)],
        "payloads": {uri: _payload(content, depth) for uri, content in parsed.payloads},
        "shared_sequence": _sequence(manifest.common.shared_sequence),
        "sequences": {
            name: "severed" if isinstance(member, Digest) else _sequence(member)
            for name in SEQUENCES.values()
            if (member := getattr(manifest, name)) is not None
        },
        "size": len(envelope),
    }


def describe_command(command: Command) -> str:
    """One command in a line, such as `condition vendor-identifier`."""
    shown = _command(command)
    ((kind, name), *_) = shown.items()
    return f"{kind} {name}"


def _payload(content: bytes, depth: int) -> dict[str, Any]:
    """An integrated payload, or an integrated dependency with what is in it."""
    shown: dict[str, Any] = {"size": len(content), "digest": Digest.of(content).value.hex()}
    if depth < _MAX_DEPTH:
        try:
            shown["manifest"] = describe(content, depth + 1)
        except Refusal:
            return shown
    return shown


def _dependency(entry: Dependency) -> dict[str, Any]:
    return {"index": entry.index, "prefix": None if entry.prefix is None else component_text(entry.prefix)}


def _texts(manifest: Manifest) -> dict[str, Any] | str | None:
    if isinstance(manifest.text, Digest):
        return "severed"
    return None if manifest.text is None else {text.language: _text(text) for text in manifest.text}


def _text(text: LanguageText) -> dict[str, Any]:
    shown: dict[str, Any] = {_key_name(TextKey, key): said for key, said in text.entries}
    shown["components"] = {
        component_text(entry.component): {
            _key_name(ComponentTextKey, key): said for key, said in entry.entries
        }
        for entry in text.components
    }
    return shown


def _key_name(keys: type[IntEnum], number: int) -> str:
    return keys(number).name.lower() if number in set(keys) else str(number)


def _component(component: ComponentFacts) -> dict[str, Any]:
    return {
        "component": component_text(component.component),
        "vendor_ids": [value.hex() for value in component.vendor_ids],
        "class_ids": [value.hex() for value in component.class_ids],
        "digests": [value.hex() for value in component.digests],
        "sizes": list(component.sizes),
        "uris": list(component.uris),
        "version": component.version,
        "manufacturer": component.manufacturer,
        "model": component.model,
        "vendor_domain": component.vendor_domain,
        "encryption": _encryption(component),
        "deltas": [_delta(delta) for delta in component.deltas],
    }


def _delta(delta: NamedDelta) -> dict[str, Any]:
    return {
        "base": delta.base.hex(),
        "base_size": delta.base_size,
        "digest": delta.digest.hex(),
        "size": delta.size,
        "uri": delta.uri,
        "memory": delta.memory,
        "segment": delta.segment,
    }


def _encryption(component: ComponentFacts) -> dict[str, Any] | None:
    """How the component is decrypted and, by index, from which other one."""
    if component.encryption is None:
        return None
    try:
        return {"source": component.source, **describe_encryption(component.encryption)}
    except Refusal as refused:
        return {"source": component.source, "unusable": refused.message}


def _signature(block: bytes, index: int) -> dict[str, Any]:
    parsed = parse_sign1(block, f"envelope/2/{index}")
    if parsed is None:
        return {"algorithm": "not supported", "key_id": None}
    known = parsed.algorithm in set(Algorithm)
    return {
        "algorithm": Algorithm(parsed.algorithm).name if known else str(parsed.algorithm),
        "key_id": parsed.key_id.hex() if parsed.key_id is not None else None,
    }


def _sequence(sequence: Sequence) -> list[dict[str, Any]]:
    return [_command(command) for command in sequence]


def _command(command: Command) -> dict[str, Any]:
    match command:
        case Condition():
            return {"condition": _name(command.code.name)}
        case Directive():
            return {"directive": _name(command.code.name)}
        case SetComponentIndex():
            index = command.index
            return {
                "directive": "set-component-index",
                "index": list(index) if isinstance(index, tuple) else index,
            }
        case OverrideParameters():
            return {"directive": "override-parameters", "parameters": _parameters(command.parameters)}
        case SetParameters():
            return {"directive": "set-parameters", "parameters": _parameters(command.parameters)}
        case OverrideMultiple():
            entries = {str(index): _parameters(given) for index, given in command.entries}
            return {"directive": "override-multiple", "components": entries}
        case CopyParameters():
            names = {
                str(index): [_name(_key_name(ParameterKey, n)) for n in numbers]
                for index, numbers in command.entries
            }
            return {"directive": "copy-params", "from": names}
        case TryEach():
            branches = [_sequence(branch) for branch in command.branches]
            return {"directive": "try-each", "branches": branches, "optional": command.optional}
        case RunSequence():
            return {"directive": "run-sequence", "sequence": _sequence(command.sequence)}
        case Unknown():
            return {"unknown": command.code}


def _parameters(parameters: Parameters) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, value in parameters.known():
        shown[_name(key.name)] = _plain(value) if key is ParameterKey.IN_PLACE else _value(value)
    for number, _ in parameters.other:
        shown[str(number)] = "not supported"
    return shown


def _value(value: Any) -> Any:
    if isinstance(value, Digest):
        return value.value.hex()
    if isinstance(value, VersionMatch):
        return value.text
    if isinstance(value, tuple):
        return {_name(_key_name(WaitEvent, event)): _plain(argument) for event, argument in value}
    return _plain(value)


def _plain(value: Any) -> Any:
    """JSON types of a decoded value that has no form of its own here."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _name(name: str) -> str:
    return name.lower().replace("_", "-")
