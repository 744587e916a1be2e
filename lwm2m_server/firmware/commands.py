"""Command sequences of a SUIT manifest as typed values (draft-ietf-suit-manifest-37, section 8.4.6 on).

On the wire a sequence is a flat array `command, argument, command, argument …`. What is not known here is
kept as it is (`Unknown`), so that manifests of others can be read and shown; the processor refuses to run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.refusals import Malformed, RefusalCode, refusal
from lwm2m_server.firmware.suit import ConditionCode, Digest, DirectiveCode, ParameterKey

UUID_SIZE: Final = 16
MAX_NESTING: Final = 8
REPORT_ALL: Final = 15
"""Reporting policy: record success and failure, with system information."""
REPORT_FAILURE: Final = 2

Index = int | bool | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Argument of override-parameters; `None` is "not set". `other` holds unknown ones as (number, value)."""

    vendor_id: bytes | None = None
    class_id: bytes | None = None
    image_digest: Digest | None = None
    component_slot: int | None = None
    strict_order: bool | None = None
    soft_failure: bool | None = None
    image_size: int | None = None
    content: bytes | None = None
    uri: str | None = None
    source_component: int | None = None
    invoke_args: bytes | None = None
    device_id: bytes | None = None
    fetch_args: bytes | None = None
    other: tuple[tuple[int, Any], ...] = ()

    def known(self) -> Iterator[tuple[ParameterKey, Any]]:
        """Yield the parameters that are set, by number."""
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "other" and value is not None:
                yield ParameterKey[item.name.upper()], value


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds or not. `policy` is the reporting policy, bits 0..3."""

    code: ConditionCode
    policy: int = REPORT_ALL


@dataclass(frozen=True, slots=True)
class Directive:
    """Fetch, copy, write, swap or invoke on the current components."""

    code: DirectiveCode
    policy: int = REPORT_FAILURE


@dataclass(frozen=True, slots=True)
class SetComponentIndex:
    """Selects components: one, several, or all (`True`)."""

    index: Index


@dataclass(frozen=True, slots=True)
class OverrideParameters:
    """Sets parameters of the current components."""

    parameters: Parameters


@dataclass(frozen=True, slots=True)
class TryEach:
    """Runs the first branch whose conditions hold; `optional`: none of them is fine too (a closing nil)."""

    branches: tuple[Sequence, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class RunSequence:
    """Runs a nested sequence."""

    sequence: Sequence


@dataclass(frozen=True, slots=True)
class Unknown:
    """A command that is not known here, with its argument as decoded."""

    code: int
    argument: Any


Command = Condition | Directive | SetComponentIndex | OverrideParameters | TryEach | RunSequence | Unknown
Sequence = tuple[Command, ...]

_PLAIN_DIRECTIVES: Final = frozenset(
    {DirectiveCode.WRITE, DirectiveCode.FETCH, DirectiveCode.COPY, DirectiveCode.INVOKE, DirectiveCode.SWAP}
)
_KNOWN_PARAMETERS: Final = frozenset(int(key) for key in ParameterKey)


def parse_sequence(data: bytes, field: str, depth: int = 0) -> Sequence:
    """From the content of a byte string; `Malformed` when it is no command sequence."""
    if depth > MAX_NESTING:
        raise Malformed(f"{field} nests sequences deeper than {MAX_NESTING}", field=field)
    items = cbor.as_list(cbor.decode(data, field=field, tags={112}), field)
    if len(items) % 2 or not items:
        raise Malformed(f"{field} must hold pairs of command and argument", field=field)
    return tuple(
        _parse_command(items[at], items[at + 1], f"{field}/{at // 2}", depth)
        for at in range(0, len(items), 2)
    )


def encode_sequence(sequence: Sequence) -> bytes:
    """Return the encoded array: the content of the byte string that holds it."""
    flat: list[Any] = []
    for command in sequence:
        flat += _to_cbor(command)
    return cbor.encode(flat)


def walk(sequence: Sequence) -> Iterator[Command]:
    """All commands in order, those of branches and nested sequences included."""
    for command in sequence:
        yield command
        if isinstance(command, TryEach):
            for branch in command.branches:
                yield from walk(branch)
        elif isinstance(command, RunSequence):
            yield from walk(command.sequence)


def _parse_command(code: object, argument: Any, field: str, depth: int) -> Command:
    number = cbor.as_int(code, field, low=-(2**63), high=2**63)
    if number in set(ConditionCode):
        return Condition(ConditionCode(number), cbor.as_int(argument, field, high=REPORT_ALL))
    if number not in set(DirectiveCode):
        return Unknown(number, argument)
    directive = DirectiveCode(number)
    if directive in _PLAIN_DIRECTIVES:
        return Directive(directive, cbor.as_int(argument, field, high=REPORT_ALL))
    if directive is DirectiveCode.SET_COMPONENT_INDEX:
        return SetComponentIndex(_parse_index(argument, field))
    if directive is DirectiveCode.OVERRIDE_PARAMETERS:
        return OverrideParameters(_parse_parameters(argument, field))
    if directive is DirectiveCode.RUN_SEQUENCE:
        return RunSequence(parse_sequence(cbor.as_bytes(argument, field), field, depth + 1))
    return _parse_try_each(argument, field, depth)


def _parse_index(argument: Any, field: str) -> Index:
    if argument is True:
        return True
    if isinstance(argument, list):
        if not argument:
            raise Malformed(f"{field} selects no component", field=field)
        return tuple(cbor.as_int(item, field) for item in argument)
    return cbor.as_int(argument, field)


def _parse_try_each(argument: Any, field: str, depth: int) -> TryEach:
    items = cbor.as_list(argument, field)
    optional = bool(items) and items[-1] is None
    branches = items[:-1] if optional else items
    # SUIT_Directive_Try_Each_Argument = [2* bstr, ? nil]
    if len(branches) < 2:
        raise Malformed(f"{field} must have at least two branches", field=field)
    return TryEach(
        tuple(
            parse_sequence(cbor.as_bytes(branch, field), f"{field}/{index}", depth + 1)
            for index, branch in enumerate(branches)
        ),
        optional,
    )


def _parse_parameters(argument: Any, field: str) -> Parameters:
    pairs = cbor.as_map(argument, field)
    if not pairs:
        raise Malformed(f"{field} sets no parameter", field=field)
    values: dict[str, Any] = {}
    other: list[tuple[int, Any]] = []
    for key, value in pairs.items():
        number = cbor.as_int(key, field, low=-(2**63), high=2**63)
        if number in _KNOWN_PARAMETERS:
            parameter = ParameterKey(number)
            values[parameter.name.lower()] = _parse_parameter(parameter, value, f"{field}/{number}")
        else:
            other.append((number, value))
    return Parameters(**values, other=tuple(other))


def _parse_parameter(key: ParameterKey, value: Any, field: str) -> Any:
    match key:
        case ParameterKey.VENDOR_ID | ParameterKey.CLASS_ID | ParameterKey.DEVICE_ID:
            if isinstance(value, cbor.Tag):
                raise refusal(RefusalCode.UNSUPPORTED, f"{field}: only UUIDs are supported", field=field)
            return cbor.as_bytes(value, field, size=UUID_SIZE)
        case ParameterKey.IMAGE_DIGEST:
            return Digest.parse(cbor.decode(cbor.as_bytes(value, field), field=field), field)
        case ParameterKey.COMPONENT_SLOT | ParameterKey.IMAGE_SIZE | ParameterKey.SOURCE_COMPONENT:
            return cbor.as_int(value, field)
        case ParameterKey.STRICT_ORDER | ParameterKey.SOFT_FAILURE:
            return cbor.as_bool(value, field)
        case ParameterKey.URI:
            return cbor.as_text(value, field)
        case _:
            return cbor.as_bytes(value, field)


def _to_cbor(command: Command) -> list[Any]:
    match command:
        case Condition() | Directive():
            return [int(command.code), command.policy]
        case SetComponentIndex():
            index = command.index
            return [
                int(DirectiveCode.SET_COMPONENT_INDEX),
                list(index) if isinstance(index, tuple) else index,
            ]
        case OverrideParameters():
            return [int(DirectiveCode.OVERRIDE_PARAMETERS), _parameters_to_cbor(command.parameters)]
        case TryEach():
            branches: list[bytes | None] = [encode_sequence(branch) for branch in command.branches]
            return [int(DirectiveCode.TRY_EACH), [*branches, None] if command.optional else branches]
        case RunSequence():
            return [int(DirectiveCode.RUN_SEQUENCE), encode_sequence(command.sequence)]
        case Unknown():
            return [command.code, command.argument]


def _parameters_to_cbor(parameters: Parameters) -> dict[int, Any]:
    encoded = {
        int(key): value.encode() if isinstance(value, Digest) else value for key, value in parameters.known()
    }
    return encoded | dict(parameters.other)
