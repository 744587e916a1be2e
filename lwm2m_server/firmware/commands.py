"""Command sequences of a SUIT manifest as typed values (draft-ietf-suit-manifest-37, section 8.4.6 on).

On the wire a sequence is a flat array `command, argument, command, argument …`. What is not known here is
kept as it is (`Unknown`), so that manifests of others can be read and shown; the processor refuses to run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.parameters import PEN_TAG, Parameters, parameters_to_cbor, parse_parameters
from lwm2m_server.firmware.refusals import Malformed
from lwm2m_server.firmware.suit import ConditionCode, DirectiveCode

__all__ = [
    "REPORT_ALL",
    "REPORT_FAILURE",
    "Command",
    "Condition",
    "CopyParameters",
    "Directive",
    "Index",
    "OverrideMultiple",
    "OverrideParameters",
    "Parameters",
    "RunSequence",
    "Sequence",
    "SetComponentIndex",
    "SetParameters",
    "TryEach",
    "Unknown",
    "encode_sequence",
    "parse_sequence",
    "walk",
]

MAX_NESTING: Final = 8
REPORT_ALL: Final = 15
"""Reporting policy: record success and failure, with system information."""
REPORT_FAILURE: Final = 2

Index = int | bool | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds or not. `policy` is the reporting policy, bits 0..3."""

    code: ConditionCode
    policy: int = REPORT_ALL


@dataclass(frozen=True, slots=True)
class Directive:
    """Fetch, copy, write, swap, apply a delta, invoke, wait and the like on the current components."""

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
class SetParameters:
    """Sets those parameters of the current components that are not set yet (trust-domains)."""

    parameters: Parameters


@dataclass(frozen=True, slots=True)
class OverrideMultiple:
    """Sets parameters of several components, by index; the last one is the current one then."""

    entries: tuple[tuple[int, Parameters], ...]


@dataclass(frozen=True, slots=True)
class CopyParameters:
    """Copies parameters (by number) of other components, by index, to the current ones."""

    entries: tuple[tuple[int, tuple[int, ...]], ...]


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


Command = (
    Condition
    | Directive
    | SetComponentIndex
    | OverrideParameters
    | SetParameters
    | OverrideMultiple
    | CopyParameters
    | TryEach
    | RunSequence
    | Unknown
)
Sequence = tuple[Command, ...]

_PLAIN_DIRECTIVES: Final = frozenset(
    {
        DirectiveCode.PROCESS_DEPENDENCY,
        DirectiveCode.WRITE,
        DirectiveCode.FETCH,
        DirectiveCode.COPY,
        DirectiveCode.INVOKE,
        DirectiveCode.WAIT,
        DirectiveCode.SWAP,
        DirectiveCode.UNLINK,
        DirectiveCode.APPLY_DELTA,
    }
)


def parse_sequence(data: bytes, field: str, depth: int = 0) -> Sequence:
    """From the content of a byte string; `Malformed` when it is no command sequence."""
    if depth > MAX_NESTING:
        raise Malformed(f"{field} nests sequences deeper than {MAX_NESTING}", field=field)
    items = cbor.as_list(cbor.decode(data, field=field, tags={PEN_TAG}), field)
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
        return OverrideParameters(parse_parameters(argument, field))
    if directive is DirectiveCode.SET_PARAMETERS:
        return SetParameters(parse_parameters(argument, field))
    if directive is DirectiveCode.OVERRIDE_MULTIPLE:
        return OverrideMultiple(
            tuple((index, parse_parameters(value, field)) for index, value in _by_index(argument, field))
        )
    if directive is DirectiveCode.COPY_PARAMS:
        return CopyParameters(
            tuple((index, _parse_numbers(value, field)) for index, value in _by_index(argument, field))
        )
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


def _by_index(argument: Any, field: str) -> list[tuple[int, Any]]:
    entries = cbor.as_map(argument, field)
    if not entries:
        raise Malformed(f"{field} names no component", field=field)
    return [(cbor.as_int(index, field), value) for index, value in entries.items()]


def _parse_numbers(value: Any, field: str) -> tuple[int, ...]:
    numbers = cbor.as_list(value, field)
    if not numbers:
        raise Malformed(f"{field} copies no parameter", field=field)
    return tuple(cbor.as_int(number, field, low=-(2**63), high=2**63) for number in numbers)


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
            return [int(DirectiveCode.OVERRIDE_PARAMETERS), parameters_to_cbor(command.parameters)]
        case SetParameters():
            return [int(DirectiveCode.SET_PARAMETERS), parameters_to_cbor(command.parameters)]
        case OverrideMultiple():
            entries = {index: parameters_to_cbor(given) for index, given in command.entries}
            return [int(DirectiveCode.OVERRIDE_MULTIPLE), entries]
        case CopyParameters():
            return [int(DirectiveCode.COPY_PARAMS), {i: list(numbers) for i, numbers in command.entries}]
        case TryEach():
            branches: list[bytes | None] = [encode_sequence(branch) for branch in command.branches]
            return [int(DirectiveCode.TRY_EACH), [*branches, None] if command.optional else branches]
        case RunSequence():
            return [int(DirectiveCode.RUN_SEQUENCE), encode_sequence(command.sequence)]
        case Unknown():
            return [command.code, command.argument]
