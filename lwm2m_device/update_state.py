"""What the device knows of the update under way, as one record in flash.

The record is CBOR; a damaged one counts as lost, and the device says so. A device with one component keeps a map
with integer keys, one with several the states of all instances, the banks and the plan (`component_state`).
"""

from dataclasses import dataclass, fields
from io import BytesIO
from typing import Any

import cbor2

from lwm2m_device.component_state import Bank, Plan, decode_bank, decode_plan
from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_device.machine import Result, State
from lwm2m_device.records import TwinRecord

_FORM = 1
_FORM_SEVERAL = 2


@dataclass(frozen=True)
class UpdateState:
    """State and Update Result of one instance with all that a restart needs to go on.

    `uri` is what the server wrote to resource 1; `source` the URI that the image comes from, empty for a
    push; `etag` that of the bytes stored so far. `digest` (32 bytes, or empty while unknown), `size` (0
    while unknown), `version` and `sequence` describe the image. `code` and `text` are the last refusal.
    `changed` is the time of the last change of State in seconds since the epoch. `deferred_since` and
    `deferred_until` are such times too (0: never): the application has put the update off since, and is asked
    again then. `agreed`: it has accepted the download.

    With several components: `package` is the instance that its package came to (-1: none), `target` the one
    whose image is being loaded, `order` its place in the package and `soft` that its failure is none of the
    package's; `conflicting` are the instances that Result 12 or 13 is about.
    """

    state: State = State.IDLE
    result: Result = Result.INITIAL
    uri: str = ""
    source: str = ""
    etag: bytes = b""
    digest: bytes = b""
    size: int = 0
    version: str = ""
    sequence: int = 0
    code: str = ""
    text: str = ""
    changed: float = 0.0
    severity: int = 1
    defer: int = 0
    deferred_since: float = 0.0
    deferred_until: float = 0.0
    agreed: bool = False
    package: int = -1
    target: int = 0
    order: int = 0
    soft: bool = False
    conflicting: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """Return the record's bytes for a device with one component."""
        return cbor2.dumps(dict(enumerate(self.plain()[: len(_TYPES)])))

    def plain(self) -> list[Any]:
        """Return the values of all fields, as CBOR has them."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [
            int(value)
            if isinstance(value, State | Result)
            else list(value)
            if isinstance(value, tuple)
            else value
            for value in values
        ]


@dataclass(frozen=True)
class UpdateRecord:
    """The states of all instances, the banks of the components beside the main one, the plan under way."""

    states: tuple[UpdateState, ...] = (UpdateState(),)
    banks: tuple[Bank, ...] = ()
    plan: Plan | None = None

    def encode(self) -> bytes:
        """Return the record's bytes."""
        if not self.banks:
            return self.states[0].encode()
        banks = [[bank.installed, bank.lost] for bank in self.banks]
        plan = None if self.plan is None else self.plan.encode()
        return cbor2.dumps([[state.plain() for state in self.states], banks, plan])


_TYPES: tuple[type, ...] = (
    int, int, str, str, bytes, bytes, int, str, int, str, str, float, int, int, float, float,
    bool,
)  # fmt: skip
_TYPES_SEVERAL: tuple[type, ...] = (*_TYPES, int, int, int, bool, list)
_FIRST = 14  # fields of a record of earlier builds; the others have their defaults then


def decode(payload: bytes) -> UpdateState | None:
    """Return the state, or None when the bytes are not a record of this form."""
    values = _load(payload)
    if not isinstance(values, dict) or len(values) not in (_FIRST, len(_TYPES)):
        return None
    if list(values) != list(range(len(values))):
        return None
    return _state(list(values.values()), _TYPES)


def decode_several(payload: bytes, components: int) -> UpdateRecord | None:
    """Return the record of a device with so many components beside the main one, None when it is none."""
    found = _load(payload)
    try:
        states, banks, plan = found
        if (len(states), len(banks)) != (components + 1, components):
            return None
        decoded = tuple(_state(each, _TYPES_SEVERAL) for each in states)
        known = tuple(state for state in decoded if state is not None)
        if len(known) != len(decoded) or not all(
            type(other) is int for state in known for other in state.conflicting
        ):
            return None
        return UpdateRecord(known, tuple(map(decode_bank, banks)), decode_plan(plan, components + 1))
    except (TypeError, ValueError):
        return None


def _load(payload: bytes) -> Any:
    stream = BytesIO(payload)
    try:
        values = cbor2.load(stream)
    except (cbor2.CBORDecodeError, ValueError):
        return None
    return None if stream.read(1) else values


def _state(values: list[Any], types: tuple[type, ...]) -> UpdateState | None:
    if len(values) > len(types) or any(
        type(value) is not kind for value, kind in zip(values, types, strict=False)
    ):
        return None
    state, result, *rest = values
    if state not in set(State) or result not in set(Result):
        return None
    further: list[Any] = [tuple(each) if isinstance(each, list) else each for each in rest]
    return UpdateState(State(state), Result(result), *further)


class StateStore:
    """The record in flash."""

    def __init__(self, flash: Flash, layout: Layout) -> None:
        components = len(layout.components)
        self._record = TwinRecord(flash, layout.update, version=_FORM_SEVERAL if components else _FORM)
        payload = self._record.load()
        found = None if payload is None else _decode(payload, components)
        self.damaged = self._record.damaged or (payload is not None and found is None)
        self.record = found or UpdateRecord((UpdateState(),) * (components + 1), (Bank(),) * components)

    @property
    def state(self) -> UpdateState:
        """The state of the main component's instance."""
        return self.record.states[0]

    def store(self, record: UpdateRecord) -> None:
        """Make this the present record, durably; nothing is written when it is the same."""
        if record != self.record or self.damaged:
            self._record.store(record.encode())
            self.record = record
            self.damaged = False


def _decode(payload: bytes, components: int) -> UpdateRecord | None:
    if components:
        return decode_several(payload, components)
    state = decode(payload)
    return None if state is None else UpdateRecord((state,))
