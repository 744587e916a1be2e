"""A SUIT envelope in plain values, for `manifest show` and for the API; nothing in it is trusted."""

from __future__ import annotations

from typing import Any, Final

from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    Directive,
    OverrideParameters,
    Parameters,
    RunSequence,
    Sequence,
    SetComponentIndex,
    TryEach,
    Unknown,
)
from lwm2m_server.firmware.cose import Algorithm, parse_sign1
from lwm2m_server.firmware.envelope import parse_envelope, read_unverified
from lwm2m_server.firmware.facts import ComponentFacts, facts_of
from lwm2m_server.firmware.suit import Digest, component_text

_SEQUENCES: Final = ("payload_fetch", "install", "validate", "load", "invoke")


def describe(envelope: bytes) -> dict[str, Any]:
    """Everything in the envelope as JSON types; bytes as lower hex. `Refusal` when it can't be read."""
    parsed = parse_envelope(envelope)
    manifest = read_unverified(envelope)
    facts = facts_of(manifest)
    return {
        "sequence_number": facts.sequence_number,
        "version": facts.version,
        "description": facts.description,
        "reference_uri": facts.reference_uri,
        "components": [_component(component) for component in facts.components],
        "digest": parsed.digest.value.hex(),
        "signatures": [_signature(block, index) for index, block in enumerate(parsed.blocks)],
        "severed": sorted(key for key, _ in parsed.severed),
        "payloads": {name: len(content) for name, content in parsed.payloads},
        "shared_sequence": _sequence(manifest.common.shared_sequence),
        "sequences": {
            name: "severed" if isinstance(member, Digest) else _sequence(member)
            for name in _SEQUENCES
            if (member := getattr(manifest, name)) is not None
        },
        "size": len(envelope),
    }


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
    }


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
        plain = value.value if isinstance(value, Digest) else value
        shown[_name(key.name)] = plain.hex() if isinstance(plain, bytes) else plain
    for number, _ in parameters.other:
        shown[str(number)] = "not supported"
    return shown


def _name(name: str) -> str:
    return name.lower().replace("_", "-")
