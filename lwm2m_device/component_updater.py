"""The update of a device with several components: object 33629's machines over flash, hooks and boot loader.

What is Downloaded waits until Execute installs it, alone or with the packages of other instances
(`component_install`).
"""

from dataclasses import replace

from lwm2m_device.component_install import wanted
from lwm2m_device.component_judge import Entangled, Installed
from lwm2m_device.component_state import Bank, Entry, Phase, Plan
from lwm2m_device.component_transfer import ComponentTransfer
from lwm2m_device.layout import LayoutKind
from lwm2m_device.machine import CHANGED, METHOD_NOT_ALLOWED, Result, State, Trigger, refusal, step
from lwm2m_device.update_machine import fresh
from lwm2m_device.update_state import UpdateRecord, UpdateState
from lwm2m_device.updater import STATE_LOST
from lwm2m_server.firmware.refusals import Refusal, RefusalCode


class ComponentUpdater(ComponentTransfer):
    """State and Update Result of all instances with the means to change them."""

    def linked(self, instance: int) -> tuple[int, ...]:
        """Return the instances that an Execute on this one installs too."""
        if self.states[instance].state is not State.DOWNLOADED:
            return ()
        return tuple(sorted(self._together(instance) - {instance}))

    # requests

    def request(self, trigger: Trigger, *, uri: str = "", source: str = "", instance: int = 0) -> int:
        """Apply a request of the server to an instance and return the CoAP code of its answer."""
        if trigger is Trigger.UPDATE:
            return self.order(instance, None)
        before = self.states[instance]
        found = step(before.state, trigger)
        if found is None:
            return refusal(before.state, trigger)
        if trigger is Trigger.PACKAGE or trigger is Trigger.URI:
            others = self._busy(instance) | self._in_the_way({instance})
            if others:
                self._entangle(instance, Result.CONFLICTING, others)
                return METHOD_NOT_ALLOWED
            self.focus, self._items = instance, ()
            self._enter(found.state, Result.INITIAL, fresh(before, uri=uri, source=source))
        else:
            self._take_back(instance, found.state, found.result or Result.INITIAL)
        return found.code

    def select(self, instance: int) -> bool:
        """Make this the instance that the application is asked about; False when another one is under way."""
        if self._busy(instance):
            return False
        self.focus = instance
        return True

    def order(self, instance: int, chosen: tuple[int, ...] | None) -> int:
        """Order the installation of an instance and return the CoAP code of the answer.

        What can't be done shows in Update Result and Conflicting Instances. `chosen` None: this one and those
        linked to it; else this one and exactly those.
        """
        state = self.states[instance]
        if step(state.state, Trigger.UPDATE) is None:
            return refusal(state.state, Trigger.UPDATE)
        together = self._together(instance) if chosen is None else {instance, *chosen}
        clashes = self._busy(instance) | self._clashes(together)
        lacking = {each for each in together if self.states[each].state is not State.DOWNLOADED}
        lacking |= {mate for each in together - lacking for mate in self._mates(each) if mate not in together}
        if clashes or lacking:
            result = Result.CONFLICTING if clashes else Result.DEPENDENCY
            self._entangle(instance, result, clashes or lacking)
            return CHANGED
        try:
            entries = self._arrange(together)
        except Entangled as error:
            self._entangle(instance, Result(error.update_result), set(error.instances))
        except Refusal as error:
            self.focus = instance
            self.refused(error)
        else:
            self._begin(together, entries)
        return CHANGED

    # restart

    def confirm(self) -> None:
        """Keep the image that runs on trial: the server was reached. With a plan it has to be completed first."""
        plan = self.record.plan
        if plan is not None and plan.entry(0) is not None:
            self.installation.server_reached()
        else:
            self.focus = 0
            super().confirm()

    def reconcile(self) -> tuple[list[str], bool]:
        """Bring State in line with flash and boot loader; return notes, and whether to reboot at once."""
        notes: list[str] = []
        if self.damaged:
            notes.append(STATE_LOST)
            self._recover()
        self.banks.confirm_installed()
        if self.boot.trial:
            self.focus = 0
        if self.record.plan is not None:
            notes.append("An installation of several components is under way.")
            return notes, False
        for instance, state in enumerate(self.states):
            if state.state is State.DOWNLOADED and state.digest and not self.boot.trial:
                self._check_stored(instance, notes)
        further, install = super().reconcile()
        return notes + further, install

    # inside: installation

    def _arrange(self, together: set[int]) -> tuple[Entry, ...]:
        """Judge the packages once more, and bring them into an order in which each finds what it needs.

        Raises Entangled when there is no such order, and other Refusals.
        """
        installed = list(self.banks.all_installed())
        left = sorted({self.states[each].package for each in together})
        found: list[Entry] = []
        while left:
            lacking: Refusal | None = None
            for package in left:
                members = self._members(together, package)
                try:
                    envelope = self.banks.download(members[0]).envelope.require()
                    self._judge.package(envelope, tuple(installed))
                except Refusal as error:
                    if error.code != RefusalCode.DEPENDENCY_MISSING:
                        raise
                    lacking = lacking or error
                    continue
                left.remove(package)
                for each in members:
                    installed[each] = Installed(wanted(self.states[each]))
                    found.append(Entry(each, self.states[each].soft))
                break
            else:
                assert lacking is not None  # noqa: S101  there was at least one package
                raise lacking
        self._check_way_back([(entry.instance, entry.soft) for entry in found])
        return tuple(found)

    def _members(self, together: set[int], package: int) -> list[int]:
        """Return the instances for which a package has an image, in its order."""
        members = [i for i in together if self.states[i].package == package and self.states[i].digest]
        return sorted(members, key=lambda i: self.states[i].order)

    def _begin(self, together: set[int], entries: tuple[Entry, ...]) -> None:
        states = {
            each: replace(self.states[each], state=State.UPDATING, result=Result.INITIAL, conflicting=())
            for each in together
        }
        self.focus = min(together)
        self._aim(self.banks.download(0))
        # The main image alone is the boot loader's business, as on a device with one component.
        plan = None if together == {0} else Plan(entries, tuple(sorted(together)))
        self.commit(replace(self.with_states(states), plan=plan))

    # inside: restart

    def _check_stored(self, instance: int, notes: list[str]) -> None:
        state, slot = self.states[instance], self.banks.download(instance)
        if state.state is State.DOWNLOADED and not (slot.header() == wanted(state) and slot.is_intact()):
            text = f"The image stored for {self.relations.names[instance]} is no longer intact."
            notes.append(text)
            self._take_back(instance, State.IDLE, Result.INTEGRITY, RefusalCode.DIGEST_MISMATCH, text)

    def _check_downloaded(self, notes: list[str]) -> None:
        """Nothing: it was done for all instances."""

    def _resume_received(self) -> None:
        """Go on behind an image that is stored whole: with the next one, or to the end of the transfer."""
        try:
            if self._manifest_holds():
                self._go_on()
            else:
                self.fail(Result.INTEGRITY, RefusalCode.MALFORMED, "The stored manifest is no longer intact.")
        except Refusal as error:
            self.refused(error)

    def _manifest_holds(self) -> bool:
        envelope = self._envelopes.load()
        if envelope is None:
            return False
        package = self._judge.package(envelope, self._expected())
        self._items = package.items
        for item in package.items:
            if item.instance == self.state.target:
                self._download.payload = item.offer.payload
                return (item.offer.digest, item.offer.size) == (self.state.digest, self.state.size)
        return False

    def _recover(self) -> None:
        """Make a record after it was lost. What may have been under way is taken back, with the hooks.

        A bank that holds an image which was never confirmed may be one that a hook was at.
        """
        lost = UpdateState(
            result=Result.UPDATE_FAILED,
            code=RefusalCode.STATE_DAMAGED,
            text=STATE_LOST,
            changed=self._clock.now(),
        )
        states = [lost] + [UpdateState()] * (len(self.states) - 1)
        banks: list[Bank] = []
        entries: list[Entry] = []
        for instance in range(1, len(self.states)):
            best, unconfirmed = self.banks.survey(instance)
            banks.append(Bank(best))
            if unconfirmed:
                entries.append(Entry(instance, phase=Phase.STARTED))
                states[instance] = replace(lost, state=State.UPDATING)
        image = self.boot.image
        if entries and self.boot.trial and image is not None and self.layout.kind is not LayoutKind.SINGLE:
            entries.insert(0, Entry(0, phase=Phase.STARTED))
            states[0] = replace(
                lost,
                state=State.UPDATING,
                version=image.version,
                digest=image.digest,
                size=image.size,
                sequence=image.sequence,
            )
        plan = None
        if entries:
            concerned = tuple(entry.instance for entry in entries)
            plan = Plan(tuple(entries), concerned, True, RefusalCode.STATE_DAMAGED.value, STATE_LOST)
        self._store.store(UpdateRecord(tuple(states), tuple(banks), plan))
        self.focus = 0
