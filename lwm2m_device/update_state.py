"""What the device knows of the update under way, as one record in flash.

The record is CBOR with integer keys; a damaged one counts as lost, and the device says so.
"""

from dataclasses import dataclass, fields
from io import BytesIO
from typing import Any

import cbor2

from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_device.machine import Result, State
from lwm2m_device.records import TwinRecord

_FORM = 1


@dataclass(frozen=True)
class UpdateState:
    """State and Update Result of object 5 with all that a restart needs to go on.

    `uri` is what the server wrote to /5/0/1; `source` the URI that the image comes from, empty for a
    push; `etag` that of the bytes stored so far. `digest` (32 bytes, or empty while unknown), `size` (0
    while unknown), `version` and `sequence` describe the image. `code` and `text` are the last refusal.
    `changed` is the time of the last change of State in seconds since the epoch. `deferred_since` and
    `deferred_until` are such times too (0: never): the application has put the update off since, and is asked
    again then. `agreed`: it has accepted the download.
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

    def encode(self) -> bytes:
        """Return the record's bytes."""
        values = [getattr(self, field.name) for field in fields(self)]
        plain = [int(value) if isinstance(value, State | Result) else value for value in values]
        return cbor2.dumps(dict(enumerate(plain)))


_TYPES: tuple[type, ...] = (
    int, int, str, str, bytes, bytes, int, str, int, str, str, float, int, int, float, float,
    bool,
)  # fmt: skip
_FIRST = 14  # fields of a record of earlier builds; the others have their defaults then


def decode(payload: bytes) -> UpdateState | None:
    """Return the state, or None when the bytes are not a record of this form."""
    stream = BytesIO(payload)
    try:
        values: Any = cbor2.load(stream)
    except (cbor2.CBORDecodeError, ValueError):
        return None
    if not isinstance(values, dict) or len(values) not in (_FIRST, len(_TYPES)) or stream.read(1):
        return None
    if list(values) != list(range(len(values))):
        return None
    if any(type(value) is not kind for value, kind in zip(values.values(), _TYPES, strict=False)):
        return None
    state, result, *rest = values.values()
    if state not in set(State) or result not in set(Result):
        return None
    return UpdateState(State(state), Result(result), *rest)


class StateStore:
    """The record in flash."""

    def __init__(self, flash: Flash, layout: Layout) -> None:
        self._record = TwinRecord(flash, layout.update, version=_FORM)
        payload = self._record.load()
        found = None if payload is None else decode(payload)
        self.damaged = self._record.damaged or (payload is not None and found is None)
        self.state = found or UpdateState()

    def store(self, state: UpdateState) -> None:
        """Make this the present state, durably; nothing is written when it is the same."""
        if state != self.state or self.damaged:
            self._record.store(state.encode())
            self.state = state
            self.damaged = False
