"""Installs several components by a plan in flash: in order, and all or nothing but for what may fail.

Sans-I/O: `next` says what to do, whoever drives it does it and reports. Each step commits to flash before and after,
so a power cut anywhere leads to the same end: the plan is gone on with at the next boot, a hook is called again, and
an update that failed is taken back from the last component to the first. The main component runs on trial while
those after it are installed; its confirmation is the point of no return, so that it comes last.
"""

from dataclasses import dataclass, replace
from enum import Enum

from lwm2m_device.banks import Banks
from lwm2m_device.boot_state import Outcome
from lwm2m_device.boot_state import Phase as BootPhase
from lwm2m_device.bootloader import Boot, BootLoader
from lwm2m_device.component_state import Bank, Entry, Phase, Plan, short
from lwm2m_device.hooks import Action, HookOrder
from lwm2m_device.machine import Result, State
from lwm2m_device.slots import ImageHeader
from lwm2m_device.update_machine import UpdateMachine, fresh
from lwm2m_device.update_state import UpdateState
from lwm2m_server.firmware.refusals import RefusalCode

HOOK_STARTS = 8
"""How often one hook is begun for the same image: a device that dies of it each time comes to an end."""
_RESTORES = 3
"""How often a hook is asked for the image before when it says that it failed."""


class Wait(Enum):
    """What comes before the next step."""

    REBOOT = "a reboot"
    SERVER = "the server, which the new main image has to reach"
    NOTHING = "nothing: the plan has ended"


@dataclass(frozen=True)
class HookCall:
    """Call this component's hook, and `report` how it went."""

    instance: int
    order: HookOrder


class Installation:
    """Goes on with the plan in the update record, as long as there is one."""

    def __init__(
        self,
        machine: UpdateMachine,
        banks: Banks,
        loader: BootLoader,
        boot: Boot,
        names: tuple[str, ...],
    ) -> None:
        self._machine = machine
        self._banks = banks
        self._loader = loader
        self._boot = boot
        self._names = names

    @property
    def plan(self) -> Plan | None:
        """The plan under way."""
        return self._machine.record.plan

    def next(self) -> HookCall | Wait:
        """Say what to do now; what needs nobody is done on the way."""
        while (plan := self.plan) is not None:
            wanted = self._restoring(plan)
            if wanted is not None:
                step = self._restore(plan, wanted)
            elif plan.undoing:
                step = self._finish(plan)
            else:
                waiting = next((each for each in plan.entries if not self._is_settled(each)), None)
                step = self._commit(plan) if waiting is None else self._install(plan, waiting)
            if step is not None:
                return step
        return Wait.NOTHING

    def report(self, call: HookCall, failure: str | None) -> None:
        """Take note of how a call went; `failure` None: the image is in place."""
        plan = self.plan
        entry = None if plan is None else plan.entry(call.instance)
        if plan is None or entry is None:
            return
        if call.order.action is Action.INSTALL:
            if failure is None:
                self._keep(plan.with_entry(replace(entry, phase=Phase.DONE, attempts=0)))
            else:
                self._fail(plan, entry, failure)
        elif failure is None:
            self._keep(plan.with_entry(replace(entry, phase=Phase.RESTORED)))
        elif entry.attempts >= _RESTORES:
            self._lose(plan, entry, failure)

    def server_reached(self) -> None:
        """Note that the main image on trial has reached the server."""
        plan = self.plan
        entry = None if plan is None else plan.entry(0)
        if plan is not None and entry is not None and entry.phase is Phase.STARTED and self._runs_wanted():
            self._keep(plan.with_entry(replace(entry, phase=Phase.DONE)))

    # forwards

    def _is_settled(self, entry: Entry) -> bool:
        if entry.phase is Phase.DONE and entry.instance == 0:
            # The boot loader may have given it up since.
            return self._runs_wanted()
        return entry.phase in (Phase.DONE, Phase.RESTORED, Phase.LOST)

    def _install(self, plan: Plan, entry: Entry) -> HookCall | Wait | None:
        if entry.instance == 0:
            return self._install_main(plan, entry)
        slot = self._banks.download(entry.instance)
        if slot.header() != self._wanted(entry.instance) or not self._banks.is_proven(entry.instance, slot):
            self._fail(plan, entry, "the stored image is no longer intact, or no trusted key has signed it")
            return None
        if entry.attempts >= HOOK_STARTS:
            self._fail(plan, entry, f"its hook was begun {entry.attempts} times and never ended")
            return None
        started = replace(entry, phase=Phase.STARTED, attempts=entry.attempts + 1)
        self._keep(plan.with_entry(started))
        return self._call(entry.instance, Action.INSTALL)

    def _install_main(self, plan: Plan, entry: Entry) -> Wait | None:
        if self._runs_wanted():
            return Wait.SERVER
        state, outcome = self._loader.state, self._loader.state.outcome
        if state.phase is not BootPhase.NONE:
            return Wait.REBOOT
        slot = self._banks.download(0)
        sealed = slot.header() == self._wanted(0) and slot.is_intact()
        if entry.phase is Phase.PENDING or (
            entry.phase is Phase.STARTED and outcome is Outcome.NONE and sealed
        ):
            if entry.phase is Phase.PENDING:
                self._keep(plan.with_entry(replace(entry, phase=Phase.STARTED)))
            self._loader.request(slot.index)
            return Wait.REBOOT
        self._fail(plan, entry, MAIN_FAILURES.get(outcome, "the image was no longer intact"))
        return None

    def _fail(self, plan: Plan, entry: Entry, why: str) -> None:
        """Give a component up: it gets its image before again, and the others too unless it may fail."""
        text = short(f"Component {self._names[entry.instance]}: {why}.")
        # The boot loader has brought the image before back itself.
        phase = Phase.RESTORED if entry.instance == 0 or entry.phase is Phase.PENDING else Phase.RESTORING
        failed = plan.with_entry(replace(entry, phase=phase, attempts=0, text=text))
        if not entry.soft:
            failed = replace(failed, undoing=True, code=RefusalCode.COMPONENT_FAILED.value, text=text)
        self._keep(failed)

    # backwards

    def _restoring(self, plan: Plan) -> Entry | None:
        """Return the component that has to get its image before now: the last one of those."""
        phases = {Phase.STARTED, Phase.DONE, Phase.RESTORING} if plan.undoing else {Phase.RESTORING}
        return next((each for each in reversed(plan.entries) if each.phase in phases), None)

    def _restore(self, plan: Plan, entry: Entry) -> HookCall | Wait | None:
        if entry.instance == 0:
            if self._boot.trial and self._runs_wanted():
                self._loader.give_up()
                return Wait.REBOOT
            self._keep(plan.with_entry(replace(entry, phase=Phase.RESTORED)))
            return None
        began = entry.attempts if entry.phase is Phase.RESTORING else 0
        if not self._banks.is_proven(entry.instance, self._banks.kept(entry.instance)):
            self._lose(plan, entry, "its image before is no longer intact")
            return None
        if began >= HOOK_STARTS:
            self._lose(plan, entry, f"its hook was begun {began} times and never ended")
            return None
        self._keep(plan.with_entry(replace(entry, phase=Phase.RESTORING, attempts=began + 1)))
        return self._call(entry.instance, Action.RESTORE)

    def _lose(self, plan: Plan, entry: Entry, why: str) -> None:
        text = short(f"{entry.text or plan.text} Component {self._names[entry.instance]} is lost: {why}.")
        lost = plan.with_entry(replace(entry, phase=Phase.LOST, text=text))
        self._keep(replace(lost, text=text) if plan.undoing else lost)

    # the end

    def _commit(self, plan: Plan) -> Wait | None:
        """Everything is in place: confirm the main image, then let the record say so."""
        if plan.entry(0) is not None:
            self._loader.confirm()
        return self._finish(plan)

    def _finish(self, plan: Plan) -> Wait | None:
        banks = list(self._machine.record.banks)
        states: dict[int, UpdateState] = {}
        for instance in plan.instances:
            entry = plan.entry(instance)
            states[instance] = self._outcome(plan, entry, self._machine.states[instance])
            if entry is None or instance == 0:
                continue
            if entry.phase is Phase.DONE:
                banks[instance - 1] = Bank(1 - self._banks.installed_bank(instance))
            else:
                untouched = entry.phase in (Phase.PENDING, Phase.RESTORED) and not entry.attempts
                lost = entry.phase is Phase.LOST or (untouched and banks[instance - 1].lost)
                banks[instance - 1] = Bank(self._banks.installed_bank(instance), lost)
        record = replace(self._machine.with_states(states), banks=tuple(banks), plan=None)
        self._machine.commit(record)
        self._banks.confirm_installed()
        self._loader.clear_outcome()
        return None

    def _outcome(self, plan: Plan, entry: Entry | None, state: UpdateState) -> UpdateState:
        failed = plan.undoing or (entry is not None and entry.phase is not Phase.DONE)
        if not failed:
            return replace(fresh(state), state=State.IDLE, result=Result.UPDATED)
        text = plan.text if plan.undoing or entry is None else entry.text
        return replace(
            fresh(state),
            state=State.IDLE,
            result=Result.UPDATE_FAILED,
            code=RefusalCode.COMPONENT_FAILED.value,
            text=text,
        )

    # inside

    def _call(self, instance: int, action: Action) -> HookCall:
        slot = self._banks.download(instance) if action is Action.INSTALL else self._banks.kept(instance)
        header = slot.header()
        assert header is not None  # noqa: S101  it was proven right before
        order = HookOrder(
            self._names[instance], action, header.version, header.digest, header.size, slot.read
        )
        return HookCall(instance, order)

    def _wanted(self, instance: int) -> ImageHeader:
        return wanted(self._machine.states[instance])

    def _runs_wanted(self) -> bool:
        return self._boot.image is not None and self._boot.image == self._wanted(0)

    def _keep(self, plan: Plan) -> None:
        self._machine.commit(replace(self._machine.record, plan=plan))


def wanted(state: UpdateState) -> ImageHeader:
    """Return the header of the image that an instance holds, or loads."""
    return ImageHeader(state.version, state.digest, state.size, state.sequence)


MAIN_FAILURES = {
    Outcome.BOOT_FAILED: "the new image never reached the server and was reverted",
    Outcome.IMAGE_DAMAGED: "the new image was damaged before it could start",
    Outcome.BELOW_FLOOR: "the new image's sequence number is too low to be started",
    Outcome.UNAUTHORISED: "no trusted key has signed the new image",
}
