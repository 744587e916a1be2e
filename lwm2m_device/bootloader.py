"""The boot loader: verify before boot, trial boot, confirm, revert after failed boots, no way back.

Pure logic over the flash. The boot state is one record; `request` and `confirm` each commit with a
single write of it, so a power cut leaves the state before or the state after. An image whose sequence
number is below that of the highest confirmed image is never started.
"""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_device.records import TwinRecord
from lwm2m_device.slots import ImageHeader, Slot

_FORM = 1
_STATE = struct.Struct("<BBBBQ")  # active slot, trial slot or 0xFF, attempts, outcome, floor
_NO_SLOT = 0xFF


class Outcome(IntEnum):
    """How the last installation ended; the update agent turns it into Update Result and clears it."""

    NONE = 0
    BOOT_FAILED = 1  # started `max_attempts` times and never confirmed
    IMAGE_DAMAGED = 2  # its digest did not hold before a start
    BELOW_FLOOR = 3  # its sequence number is lower than that of a confirmed image


@dataclass(frozen=True)
class BootState:
    """The record.

    `trial` is the slot to try, `attempts` how often it was started, `floor` the lowest sequence number.
    """

    active: int = 0
    trial: int | None = None
    attempts: int = 0
    outcome: Outcome = Outcome.NONE
    floor: int = 0

    def encode(self) -> bytes:
        """Return the record's bytes."""
        trial = _NO_SLOT if self.trial is None else self.trial
        return _STATE.pack(self.active, trial, self.attempts, self.outcome, self.floor)


@dataclass(frozen=True)
class Boot:
    """What was started: the slot and its image; None when there is none to start (recovery)."""

    slot: int | None
    image: ImageHeader | None
    trial: bool
    notes: tuple[str, ...]


class BootLoader:
    """Decides at each boot which slot runs."""

    def __init__(self, flash: Flash, layout: Layout, *, max_attempts: int = 3) -> None:
        self.slots = (Slot(flash, layout, 0), Slot(flash, layout, 1))
        self.max_attempts = max_attempts
        self._record = TwinRecord(flash, layout.boot, version=_FORM)
        payload = self._record.load()
        self._state = None if payload is None else _decode(payload)
        self.damaged = self._record.damaged or (payload is not None and self._state is None)

    @property
    def state(self) -> BootState:
        """The present boot state; rebuilt from the slots when the record was lost."""
        if self._state is None:
            self._state = self._rebuild()
        return self._state

    @property
    def floor(self) -> int:
        """The lowest sequence number that may run: the highest that any trace of a confirmation shows."""
        return max([self.state.floor, *self._confirmed_sequences()])

    def boot(self) -> Boot:
        """Choose the image, count the attempt of a trial, and return what runs."""
        notes: list[str] = []
        if self._state is None and self.damaged:
            notes.append("The boot state was damaged and has been rebuilt from the slots.")
        state = self.state
        if state.trial is not None:
            slot = self.slots[state.trial]
            if slot.is_confirmed() and slot.is_intact():
                self._finish_confirm(slot)
                notes.append(f"Slot {slot.name} was confirmed before; the boot state now says so too.")
            else:
                outcome = self._judge_trial(slot, state)
                if outcome is Outcome.NONE:
                    self._store(replace(state, attempts=state.attempts + 1))
                    return Boot(slot.index, slot.header(), trial=True, notes=tuple(notes))
                self._store(replace(state, trial=None, attempts=0, outcome=outcome))
                notes.append(f"Slot {slot.name} is given up ({_reason(outcome, state)}); going back.")
        return self._boot_active(notes)

    def request(self, slot: int) -> None:
        """Have a sealed slot tried at the next boot."""
        self._store(replace(self.state, trial=slot, attempts=0, outcome=Outcome.NONE))

    def confirm(self) -> None:
        """Make the slot on trial the active one for good; its sequence number is the new floor."""
        if self.state.trial is None:
            return
        slot = self.slots[self.state.trial]
        slot.mark_confirmed()
        self._finish_confirm(slot)

    def clear_outcome(self) -> None:
        """Forget the outcome after it was reported."""
        if self.state.outcome is not Outcome.NONE:
            self._store(replace(self.state, outcome=Outcome.NONE))

    def install_factory(self, image: bytes, header: ImageHeader) -> None:
        """Program slot A with the first image, as the factory does, and start over with it."""
        slot = self.slots[0]
        slot.drop()
        page_size = slot.page_size
        for page in range(-(-len(image) // page_size)):
            slot.erase_page(page)
            slot.write(page * page_size, image[page * page_size : (page + 1) * page_size])
        slot.seal(header)
        slot.mark_confirmed()
        self._store(BootState(active=0, floor=max(self.floor, header.sequence)))

    def _boot_active(self, notes: list[str]) -> Boot:
        state = self.state
        for index in (state.active, 1 - state.active):
            slot = self.slots[index]
            header = slot.header()
            if header is None or not slot.is_intact():
                if index == state.active:
                    notes.append(f"The image in slot {slot.name} is damaged or missing.")
                continue
            if header.sequence < self.floor or not (index == state.active or slot.is_confirmed()):
                continue
            if index != state.active:
                self._store(replace(state, active=index))
                notes.append(f"Slot {slot.name} holds another confirmed image and is started instead.")
            return Boot(index, header, trial=False, notes=tuple(notes))
        notes.append("No slot holds an image that may be started: the device is in recovery.")
        return Boot(None, None, trial=False, notes=tuple(notes))

    def _judge_trial(self, slot: Slot, state: BootState) -> Outcome:
        header = slot.header()
        if header is None or not slot.is_intact():
            return Outcome.IMAGE_DAMAGED
        if header.sequence < self.floor:
            return Outcome.BELOW_FLOOR
        return Outcome.BOOT_FAILED if state.attempts >= self.max_attempts else Outcome.NONE

    def _finish_confirm(self, slot: Slot) -> None:
        header = slot.header()
        sequence = 0 if header is None else header.sequence
        self._store(BootState(active=slot.index, floor=max(self.floor, sequence)))

    def _confirmed_sequences(self) -> list[int]:
        headers = [slot.header() for slot in self.slots if slot.is_confirmed()]
        return [header.sequence for header in headers if header is not None]

    def _rebuild(self) -> BootState:
        """Prefer a confirmed image, then the higher sequence number: whatever is sealed was verified."""

        def rank(slot: Slot) -> tuple[bool, bool, int, bool]:
            header = slot.header()
            sequence = -1 if header is None else header.sequence
            return slot.is_intact(), slot.is_confirmed(), sequence, slot.index == 0

        best = max(self.slots, key=rank)
        return BootState(active=best.index, floor=max([0, *self._confirmed_sequences()]))

    def _store(self, state: BootState) -> None:
        self._record.store(state.encode())
        self._state = state


def _decode(payload: bytes) -> BootState | None:
    if len(payload) != _STATE.size:
        return None
    active, trial, attempts, outcome, floor = _STATE.unpack(payload)
    if active > 1 or trial not in (0, 1, _NO_SLOT) or outcome > max(Outcome):
        return None
    return BootState(active, None if trial == _NO_SLOT else trial, attempts, Outcome(outcome), floor)


def _reason(outcome: Outcome, state: BootState) -> str:
    if outcome is Outcome.BOOT_FAILED:
        return f"{state.attempts} boots without being confirmed"
    return (
        "its digest does not hold" if outcome is Outcome.IMAGE_DAMAGED else "its sequence number is too low"
    )
