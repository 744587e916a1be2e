"""What the device knows of one application, as one record in flash.

The record is CBOR with integer keys; a damaged one counts as lost, and the device says so.
"""

from dataclasses import dataclass, fields
from io import BytesIO
from typing import Any

import cbor2

from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_device.records import TwinRecord
from lwm2m_device.software_machine import Result, Stage

_FORM = 0x0901  # object 9, form 1: no update state is taken for one of these
NAME_LIMIT = 64
"""Bytes of an application's name."""
TEXT_LIMIT = 255
"""Bytes of Status Reason that are kept."""


@dataclass(frozen=True)
class SoftwareState:
    """Stage and Update Result of one instance of object 9 with all that a restart needs to go on.

    `place` is the slot that holds the software in place, `name` its name; None and empty without one. `floor` is the
    highest sequence number that was ever in place. The others describe the package on its way or delivered: its
    `package` name, the `source` that it is fetched from (empty for a push), the `etag` of the bytes stored so far,
    `digest` (32 bytes, or empty while unknown), `size` (0 while unknown), `version` and `sequence`. `code` and `text`
    are the last refusal. `tells_objects` is Update Supported Objects.
    """

    stage: Stage = Stage.INITIAL
    result: Result = Result.INITIAL
    place: int | None = None
    name: str = ""
    floor: int = 0
    package: str = ""
    source: str = ""
    etag: bytes = b""
    digest: bytes = b""
    size: int = 0
    version: str = ""
    sequence: int = 0
    code: str = ""
    text: str = ""
    tells_objects: bool = False

    def encode(self) -> bytes:
        """Return the record's bytes."""
        values = [getattr(self, field.name) for field in fields(self)]
        plain = [int(value) if isinstance(value, Stage | Result) else value for value in values]
        return cbor2.dumps(dict(enumerate(plain)))


_TYPES: tuple[tuple[type, ...], ...] = (
    (int,), (int,), (int, type(None)), (str,), (int,), (str,), (str,), (bytes,), (bytes,), (int,), (str,), (int,),
    (str,), (str,), (bool,),
)  # fmt: skip


def decode(payload: bytes) -> SoftwareState | None:
    """Return the state, or None when the bytes are not a record of this form."""
    stream = BytesIO(payload)
    try:
        values: Any = cbor2.load(stream)
    except (cbor2.CBORDecodeError, ValueError):
        return None
    if not isinstance(values, dict) or list(values) != list(range(len(_TYPES))) or stream.read(1):
        return None
    if any(type(value) not in kinds for value, kinds in zip(values.values(), _TYPES, strict=True)):
        return None
    stage, result, place, *rest = values.values()
    if stage not in set(Stage) or result not in set(Result) or place not in (None, 0, 1):
        return None
    return SoftwareState(Stage(stage), Result(result), place, *rest)


class SoftwareStore:
    """The record in flash. `is_new`: nothing was ever written there."""

    def __init__(self, flash: Flash, layout: Layout) -> None:
        self._record = TwinRecord(flash, layout.update, version=_FORM)
        payload = self._record.load()
        found = None if payload is None else decode(payload)
        self.damaged = self._record.damaged or (payload is not None and found is None)
        self.is_new = payload is None and not self.damaged
        self.state = found or SoftwareState()

    def store(self, state: SoftwareState) -> None:
        """Make this the present state, durably; nothing is written when it is the same."""
        if state != self.state or self.damaged or self.is_new:
            self._record.store(state.encode())
            self.state = state
            self.damaged = self.is_new = False
