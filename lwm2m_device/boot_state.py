"""The boot loader's record: which slot is active, what was ordered, how far it has come, how it ended."""

import struct
from dataclasses import dataclass
from enum import IntEnum

_STATE = struct.Struct("<BBBBBxxxQQ")  # active, slot, phase, attempts, outcome, serial, floor


class Phase(IntEnum):
    """How far an order has come."""

    NONE = 0
    ORDERED = 1  # to be brought to where it runs at the next boot
    TRIAL = 2  # in place, to be confirmed
    REVERTING = 3  # given up; the image before is on its way back


class Outcome(IntEnum):
    """How the last installation ended; the update agent turns it into Update Result and clears it."""

    NONE = 0
    BOOT_FAILED = 1  # started `max_attempts` times and never confirmed
    IMAGE_DAMAGED = 2  # its digest did not hold before a start
    BELOW_FLOOR = 3  # its sequence number is lower than that of a confirmed image
    UNAUTHORISED = 4  # no trusted key has signed an envelope that names it


@dataclass(frozen=True)
class BootState:
    """The record.

    `slot` is where the image of the present order lies, `attempts` how often it was started on trial,
    `serial` the number of the last order to the installer, `floor` the lowest sequence number.
    """

    active: int = 0
    slot: int = 0
    phase: Phase = Phase.NONE
    attempts: int = 0
    outcome: Outcome = Outcome.NONE
    serial: int = 0
    floor: int = 0

    def encode(self) -> bytes:
        """Return the record's bytes."""
        return _STATE.pack(
            self.active, self.slot, self.phase, self.attempts, self.outcome, self.serial, self.floor
        )


def decode(payload: bytes) -> BootState | None:
    """Return the state, or None when the bytes are not a record of this form."""
    if len(payload) != _STATE.size:
        return None
    active, slot, phase, attempts, outcome, serial, floor = _STATE.unpack(payload)
    if active > 1 or slot > 1 or phase > max(Phase) or outcome > max(Outcome):
        return None
    return BootState(active, slot, Phase(phase), attempts, Outcome(outcome), serial, floor)
