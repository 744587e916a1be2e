"""The boot loader: verify before boot, trial boot, confirm, revert after failed boots, no way back.

Pure logic over the flash. The boot state is one record; an order, a confirmation and each change of phase
commit with a single write of it, so a power cut leaves the state before or the state after. An image is
started only if its digest holds, its envelope is signed by a trusted key and names that very image, and
its sequence number is not below that of the highest confirmed image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lwm2m_device.boot_state import BootState, Outcome, Phase, decode
from lwm2m_device.flash import Flash
from lwm2m_device.installer import Installer, PlanKind
from lwm2m_device.layout import Layout
from lwm2m_device.records import TwinRecord
from lwm2m_device.slots import ImageHeader, Slot
from lwm2m_server.firmware.deltas import PatchError

_FORM = 2
_FACTORY_FORM = 1

Authorise = Callable[[bytes | None, ImageHeader], bool]
"""Says whether an envelope (None: none or damaged) is signed by a trusted key and describes this image."""


@dataclass(frozen=True)
class Boot:
    """What was started: the slot and its image; None when there is none to start (recovery)."""

    slot: int | None
    image: ImageHeader | None
    trial: bool
    notes: tuple[str, ...]


class BootLoader:
    """Decides at each boot which image runs, and finishes installations before that."""

    def __init__(self, flash: Flash, layout: Layout, *, authorise: Authorise, max_attempts: int = 3) -> None:
        self.slots = (Slot(flash, layout, 0), Slot(flash, layout, 1))
        self.max_attempts = max_attempts
        self._authorise = authorise
        self._layout = layout
        self._installer = Installer(flash, layout, self.slots)
        self._factory = TwinRecord(flash, layout.factory, version=_FACTORY_FORM)
        self._factory_digest = self._factory.load()
        self._record = TwinRecord(flash, layout.boot, version=_FORM)
        payload = self._record.load()
        state = None if payload is None else decode(payload)
        self._state = None if state is None or self._is_stale(state) else state
        self.damaged = (
            self._record.damaged or self._factory.damaged or (payload is not None and self._state is None)
        )

    @property
    def state(self) -> BootState:
        """The present boot state; rebuilt from the slots when the record was lost."""
        if self._state is None:
            self._state = self._rebuild()
        return self._state

    @property
    def floor(self) -> int:
        """The lowest sequence number that may run: the highest that any trace of a confirmation shows."""
        return max(self.state.floor, self._floor_elsewhere())

    @property
    def installing(self) -> bool:
        """Say whether an installation is half done; the next `boot` finishes it."""
        return self._installer.is_open()

    @property
    def is_fresh(self) -> bool:
        """Say whether there is no trace of an image: the factory has to program the first one."""
        started = self.floor > 0 or self.state.serial > 0
        return not started and not any(slot.header() for slot in self.slots)

    def boot(self) -> Boot:
        """Finish what is half done, choose the image, count the attempt of a trial, say what runs."""
        notes: list[str] = []
        if self._installer.is_open():
            notes.append("A half-done installation is finished.")
            self._finish_installation(notes)
        if self._state is None and self.damaged:
            notes.append("The boot state was damaged and has been rebuilt from the slots.")
        if self.state.phase is Phase.ORDERED:
            self._install(notes)
        if self.state.phase is Phase.TRIAL:
            boot = self._boot_trial(notes)
            if boot is not None:
                return boot
        if self.state.phase is Phase.REVERTING:
            self._installer.perform(PlanKind.REVERT, self.state.serial, self.floor)
            self._store(replace(self.state, phase=Phase.NONE))
        return self._boot_active(notes)

    def download_slot(self, boot: Boot) -> Slot:
        """Return the slot that takes downloads while `boot` runs.

        A staging area for deltas is no place for an image; in the recovery there is none that it would go beside.
        """
        if self._layout.takes_deltas_in_place and boot.slot is None:
            return self.slots[0]
        if self._layout.runs_in_place:
            return self.slots[1]
        return self.slots[1 - (self.state.active if boot.slot is None else boot.slot)]

    def request(self, slot: int) -> None:
        """Have a sealed image of the slot for downloads tried at the next boot."""
        ordered = replace(self.state, slot=slot, attempts=0, outcome=Outcome.NONE)
        if self._layout.runs_in_place and slot != 0:
            self._store(replace(ordered, phase=Phase.ORDERED, serial=self.state.serial + 1))
        else:
            self._store(replace(ordered, phase=Phase.TRIAL))

    @property
    def on_trial(self) -> bool:
        """Say whether the image that runs has still to be confirmed."""
        return self.state.phase is Phase.TRIAL

    def confirm(self) -> None:
        """Make the image on trial the active one for good; its sequence number is the new floor."""
        if self.on_trial:
            self._finish_confirm(self.slots[self.state.slot])

    def give_up(self) -> None:
        """Take the image on trial back at the next boot, though it did nothing wrong itself."""
        if self.on_trial:
            self._give_up(Outcome.BOOT_FAILED)

    def clear_outcome(self) -> None:
        """Forget the outcome after it was reported."""
        if self.state.outcome is not Outcome.NONE:
            self._store(replace(self.state, outcome=Outcome.NONE))

    def install_factory(self, image: bytes, header: ImageHeader) -> None:
        """Program the first slot with the first image, as the factory does, and start over with it.

        The digest goes to the factory record, which real parts keep where nobody can write: it is what
        the first image, which no envelope describes, is checked against.
        """
        slot = self.slots[0]
        slot.drop()
        page_size = slot.page_size
        for _ in range(2):  # into both copies: it never changes again, so one must not be missed
            self._factory.store(header.digest)
        self._factory_digest = header.digest
        for page in range(-(-len(image) // page_size)):
            slot.erase_page(page)
            slot.write(page * page_size, image[page * page_size : (page + 1) * page_size])
        slot.seal(header)
        slot.mark_confirmed()
        self._store(BootState(serial=self.state.serial, floor=max(self.floor, header.sequence)))

    def is_authorised(self, slot: Slot) -> bool:
        """Say whether the image in the slot is the factory's, or one that a trusted key has signed."""
        header = slot.header()
        if header is None:
            return False
        return header.digest == self._factory_digest or self._authorise(slot.envelope.load(), header)

    # inside

    def _install(self, notes: list[str]) -> None:
        """Bring an ordered image to where it runs. Once begun the slots are mixed: only go on then."""
        state, plan = self.state, self._installer.plan
        if plan is None or plan.serial != state.serial:
            outcome = self._judge_download()
            if outcome is not Outcome.NONE:
                notes.append(f"The downloaded image is not installed: {_reason(outcome, state)}.")
                self._store(replace(state, phase=Phase.NONE, outcome=outcome))
                return
        try:
            self._installer.perform(PlanKind.INSTALL, state.serial, self.floor)
        except PatchError as error:
            self._abandon(error, notes)
            return
        notes.append("The downloaded image was brought to where it runs.")
        self._store(replace(state, phase=Phase.TRIAL, slot=0, attempts=0))

    def _finish_installation(self, notes: list[str]) -> None:
        try:
            self._installer.finish()
        except PatchError as error:
            self._abandon(error, notes)

    def _abandon(self, error: PatchError, notes: list[str]) -> None:
        """The staged delta rotted while the slot was being rewritten: what is left is the recovery."""
        notes.append(f"The installation can't be finished: {error.message}")
        self.slots[0].drop()
        state, floor = self.state, self.floor
        self._store(replace(state, phase=Phase.NONE, attempts=0, outcome=Outcome.IMAGE_DAMAGED, floor=floor))
        self._installer.abandon()

    def _boot_trial(self, notes: list[str]) -> Boot | None:
        state, slot = self.state, self.slots[self.state.slot]
        judged = self._judge(slot)
        if judged is Outcome.NONE and slot.is_confirmed():
            self._finish_confirm(slot)
            notes.append(f"Slot {slot.name} was confirmed before; the boot state now says so too.")
            return None
        outcome = Outcome.BOOT_FAILED if state.attempts >= self.max_attempts else judged
        if outcome is Outcome.NONE:
            self._store(replace(state, attempts=state.attempts + 1))
            return Boot(slot.index, slot.header(), trial=True, notes=tuple(notes))
        notes.append(f"Slot {slot.name} is given up ({_reason(outcome, state)}); going back.")
        self._give_up(outcome)
        return None

    def _give_up(self, outcome: Outcome) -> None:
        given_up = replace(self.state, phase=Phase.NONE, attempts=0, outcome=outcome)
        if self._layout.runs_in_place and self._installer.swaps:
            given_up = replace(given_up, phase=Phase.REVERTING, serial=given_up.serial + 1)
        elif self._layout.runs_in_place:
            # There is no image before: what is left without this one is the recovery.
            self.slots[0].drop()
        self._store(given_up)

    def _boot_active(self, notes: list[str]) -> Boot:
        state = self.state
        for index in (state.active, 1 - state.active):
            slot = self.slots[index]
            judged = self._judge(slot)
            if judged is not Outcome.NONE:
                if index == state.active:
                    notes.append(f"The image in slot {slot.name} can't be started: {_reason(judged, state)}.")
                continue
            if index == state.active:
                if self._is_unproven(slot):
                    self._store(replace(state, phase=Phase.TRIAL, slot=index, attempts=1))
                    return Boot(index, slot.header(), trial=True, notes=tuple(notes))
                return Boot(index, slot.header(), trial=False, notes=tuple(notes))
            if slot.is_confirmed():
                return self._boot_other(slot, notes)
        notes.append("No slot holds an image that may be started: the device is in recovery.")
        return Boot(None, None, trial=False, notes=tuple(notes))

    def _boot_other(self, slot: Slot, notes: list[str]) -> Boot:
        """Start the confirmed image of the slot that is not active, where it lies or after installing it."""
        notes.append(f"Slot {slot.name} holds another confirmed image and is started instead.")
        state = self.state
        if self._layout.runs_in_place:
            serial = self.state.serial + 1
            self._store(replace(state, phase=Phase.ORDERED, slot=slot.index, attempts=0, serial=serial))
            self._install(notes)
            self._finish_confirm(self.slots[0])
            return Boot(0, self.slots[0].header(), trial=False, notes=tuple(notes))
        self._store(replace(state, active=slot.index))
        return Boot(slot.index, slot.header(), trial=False, notes=tuple(notes))

    def _is_unproven(self, slot: Slot) -> bool:
        """Say whether an image came into the one slot by the recovery, or by a plan whose order was lost."""
        header = slot.header()
        if not self._layout.takes_deltas_in_place or header is None:
            return False
        return not slot.is_confirmed() and header.sequence > self.floor

    def _judge_download(self) -> Outcome:
        """Verify what is staged: an image as before a boot, a delta by the image that it makes."""
        staging = self.slots[1]
        header = staging.header()
        if header is None or staging.delta() is None:
            return self._judge(staging)
        try:
            proven = staging.is_intact() and self._installer.result() == header.digest
        except PatchError:
            proven = False
        return self._judge_header(staging, header) if proven else Outcome.IMAGE_DAMAGED

    def _judge(self, slot: Slot) -> Outcome:
        """Verify before boot: digest, signature, sequence number."""
        header = slot.header()
        if header is None or slot.delta() is not None or not slot.is_intact():
            return Outcome.IMAGE_DAMAGED
        return self._judge_header(slot, header)

    def _judge_header(self, slot: Slot, header: ImageHeader) -> Outcome:
        if not self.is_authorised(slot):
            return Outcome.UNAUTHORISED
        return Outcome.BELOW_FLOOR if header.sequence < self.floor else Outcome.NONE

    def _finish_confirm(self, slot: Slot) -> None:
        header = slot.header()
        for each in self.slots:
            # A staged copy of the confirmed image is as good as it, and mends it when it rots.
            if each.header() == header and each.delta() is None:
                each.mark_confirmed()
        sequence = 0 if header is None else header.sequence
        state = self.state
        self._store(BootState(active=slot.index, serial=state.serial, floor=max(self.floor, sequence)))

    def _floor_elsewhere(self) -> int:
        """Return the highest sequence number that other places than the boot state know to be confirmed."""
        headers = [slot.header() for slot in self.slots if slot.is_confirmed()]
        plan = self._installer.plan
        confirmed = [header.sequence for header in headers if header is not None]
        return max([0 if plan is None else plan.floor, *confirmed])

    def _rebuild(self) -> BootState:
        """Work out the state from what lies in the slots, after its record was lost."""
        floor = self._floor_elsewhere()
        if self._layout.runs_in_place:
            return replace(self._rebuild_in_place(), floor=floor)

        # Prefer a confirmed image, then the higher sequence number: whatever is sealed was verified.
        def rank(slot: Slot) -> tuple[bool, bool, int, bool]:
            header = slot.header()
            sequence = -1 if header is None else header.sequence
            return self._is_whole(slot), slot.is_confirmed(), sequence, slot.index == 0

        return BootState(active=max(self.slots, key=rank).index, floor=floor)

    def _rebuild_in_place(self) -> BootState:
        plan = self._installer.plan
        serial = 0 if plan is None else plan.serial
        running, download = self.slots
        if self._is_whole(running):
            if running.is_confirmed():
                return BootState(serial=serial)
            if self._installer.swaps and download.is_confirmed() and self._is_whole(download):
                return BootState(phase=Phase.REVERTING, serial=serial + 1)
            return BootState(phase=Phase.TRIAL, serial=serial)
        if self._is_whole(download):
            return BootState(phase=Phase.ORDERED, slot=1, serial=serial + 1)
        return BootState(serial=serial)

    def _is_whole(self, slot: Slot) -> bool:
        return slot.delta() is None and slot.is_intact() and self.is_authorised(slot)

    def _is_stale(self, state: BootState) -> bool:
        """Say whether the record is older than the journal: its newest copy was lost."""
        plan = self._installer.plan
        return plan is not None and plan.serial > state.serial

    def _store(self, state: BootState) -> None:
        self._record.store(state.encode())
        self._state = state


_REASONS = {
    Outcome.IMAGE_DAMAGED: "there is none, or its digest does not hold",
    Outcome.BELOW_FLOOR: "its sequence number is too low",
    Outcome.UNAUTHORISED: "no trusted key has signed it",
}


def _reason(outcome: Outcome, state: BootState) -> str:
    if outcome is Outcome.BOOT_FAILED:
        return f"{state.attempts} boots without being confirmed"
    return _REASONS[outcome]
