"""The transfer of a package to a device with several components: its images on their way into the banks.

One package is on its way at a time. It goes to one instance and may be for several; all of them are Downloaded
together once every image is stored and proven.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from lwm2m_device.banks import Banks
from lwm2m_device.bootloader import Authorise, Boot, BootLoader
from lwm2m_device.component_install import Installation, wanted
from lwm2m_device.component_judge import Entangled, Installed, Item, Package, Stored
from lwm2m_device.component_state import Phase
from lwm2m_device.components import Relations
from lwm2m_device.flash import Flash
from lwm2m_device.judges import Judges
from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.machine import Result, State, Trigger, step
from lwm2m_device.slots import ImageHeader, Slot, check_version_text
from lwm2m_device.update_machine import fresh
from lwm2m_device.update_state import UpdateState
from lwm2m_device.updater import Updater
from lwm2m_server.clock import Clock
from lwm2m_server.firmware.refusals import Refusal, RefusalCode
from lwm2m_server.firmware.refusals import refusal as refuse


class PackageJudge(Protocol):
    """The decisions on packages; both raise `Refusal`. `ComponentJudge` is the device's."""

    def package(self, envelope: bytes, installed: tuple[Installed, ...]) -> Package:
        """Verify an envelope and return what it wants fetched."""
        ...

    def complete_package(
        self, envelope: bytes, installed: tuple[Installed, ...], stored: dict[int, Stored]
    ) -> None:
        """Run it again with what was stored, by instance."""
        ...


class ComponentTransfer(Updater):
    """State and Update Result of all instances with the bytes that they speak of."""

    def __init__(
        self,
        flash: Flash,
        layout: Layout,
        loader: BootLoader,
        boot: Boot,
        *,
        judges: Judges,
        clock: Clock,
        judge: PackageJudge,
        authorise: tuple[Authorise, ...],
        relations: Relations,
    ) -> None:
        """`authorise` has a judge for each component beside the main one."""
        super().__init__(flash, layout, loader, boot, judges=judges, clock=clock)
        self.relations = relations
        self._judge = judge
        self.banks = Banks(flash, layout, loader, boot, authorise=authorise, banks=lambda: self.record.banks)
        self.installation = Installation(self, self.banks, loader, boot, relations.names)
        self._items: tuple[Item, ...] = ()
        if self.state.state is State.DOWNLOADING:
            self._aim(self.banks.download(self.state.target))

    @property
    def floor(self) -> int:
        """The lowest sequence number of a manifest that is taken."""
        return max(self.loader.floor, self.banks.floor)

    @property
    def awaits_server(self) -> bool:
        """Say whether an image runs that has to reach the server before its time is over."""
        plan = self.record.plan
        entry = None if plan is None else plan.entry(0)
        return super().awaits_server and (entry is None or entry.phase is not Phase.DONE)

    def version(self, instance: int) -> str:
        """Return the version that is installed in an instance; empty when none is known to be."""
        found = self.banks.installed(instance)
        return "" if found.image is None or found.lost else found.image.version

    def digests(self) -> dict[int, bytes]:
        """Return the SHA-256 of the installed images by instance."""
        found = enumerate(self.banks.all_installed())
        return {i: each.image.digest for i, each in found if each.image is not None and not each.lost}

    def capacities(self) -> tuple[int, ...]:
        """Return how many bytes an image may have, by instance."""
        return tuple(self.banks.download(instance).capacity for instance in range(len(self.states)))

    def base(self) -> tuple[Slot, ImageHeader] | None:
        """Return the image that a delta to the wanted one may start from."""
        slot, found = self.banks.source(self.state.target), self.banks.installed(self.state.target)
        return None if slot is None or found.image is None or found.lost else (slot, found.image)

    def accept_envelope(self, envelope: bytes) -> None:
        """Verify an envelope and get ready for its first image; raises Refusal, see `refused`."""
        package = self._judge.package(envelope, self._expected())
        self._check(package)
        for item in package.items:
            self.banks.download(item.instance).drop()
        for item in package.items:
            self.banks.download(item.instance).envelope.store(envelope)
        self._items = package.items
        self._load(package.items[0])

    def finish(self) -> None:
        """Check the image that was stored; then get ready for the next one, or end the transfer. Raises Refusal."""
        digest = self._whole()
        if digest != self.state.digest:
            raise refuse(RefusalCode.DIGEST_MISMATCH, self._why_another(), field="image-digest")
        if self.slot.header() != self._wanted():
            self.slot.seal(self._wanted())
        self._go_on()

    def fail(self, result: Result, code: str, text: str, others: Iterable[int] = ()) -> None:
        """End the download with a result, and keep the reason for object 42800."""
        found = step(self.state.state, Trigger.DOWNLOAD_FAILED)
        if found is not None:
            self._take_back(self.focus, found.state, result, code, text, tuple(others))

    def refused(self, error: Refusal) -> None:
        """End the download for a refusal."""
        others = error.instances if isinstance(error, Entangled) else ()
        self.fail(Result(error.update_result), str(error.code), error.message, others)

    # inside: transfer

    def _load(self, item: Item) -> None:
        """Get ready for an image. What was loaded before it is sealed."""
        offer = item.offer
        self._aim(self.banks.download(item.instance))
        self._download.payload = offer.payload
        self._download.begin()
        self._keep(
            replace(
                self.state,
                source=offer.source,
                etag=b"",
                digest=offer.digest,
                size=offer.size,
                version=offer.version,
                sequence=offer.sequence,
                target=item.instance,
            )
        )

    def _go_on(self) -> None:
        place = next(n for n, item in enumerate(self._items) if item.instance == self.state.target)
        if place + 1 < len(self._items):
            self._load(self._items[place + 1])
        else:
            self._complete()

    def _complete(self) -> None:
        """Prove the whole package once more as it is stored; then all its instances are Downloaded."""
        envelope = self._envelopes.require()
        stored = {item.instance: self._stored(item) for item in self._items}
        self._judge.complete_package(envelope, self._expected(), stored)
        # Its instance waits with the others though its own image is installed already.
        without = replace(self.state, digest=b"", size=0, version=self.version(self.focus))
        states = {self.focus: self._downloaded(without)}
        for order, item in enumerate(self._items):
            offer = item.offer
            own = self.states[item.instance]
            states[item.instance] = self._downloaded(
                replace(
                    own if item.instance == self.focus else fresh(own),
                    digest=offer.digest,
                    size=offer.size,
                    version=offer.version,
                    sequence=offer.sequence,
                    order=order,
                    soft=item.soft,
                )
            )
        self.commit(self.with_states(states))

    def _downloaded(self, state: UpdateState) -> UpdateState:
        return replace(
            state, state=State.DOWNLOADED, result=Result.INITIAL, source="", etag=b"", package=self.focus
        )

    def _stored(self, item: Item) -> Stored:
        slot, offer = self.banks.download(item.instance), item.offer
        header = ImageHeader(offer.version, offer.digest, offer.size, offer.sequence)
        if slot.header() != header or not slot.is_intact():
            name = self.relations.names[item.instance]
            raise refuse(RefusalCode.DIGEST_MISMATCH, f"The image stored for {name} is no longer intact.")
        payload = offer.payload
        fetched = offer.digest if payload is None else payload.digest_of(slot.read, offer.size)
        return Stored(offer.digest, offer.size, fetched)

    def _check(self, package: Package) -> None:
        """Refuse a package that is not for the instance that it came to, or for which others are in the way."""
        names = self.relations.names
        if self.focus not in package.instances:
            raise refuse(
                RefusalCode.COMPONENT_MISMATCH,
                f"The package is not for {names[self.focus]} but for "
                f"{', '.join(names[each] for each in sorted(package.instances))}.",
                field="components",
            )
        others = {i for i in package.instances - {self.focus} if self.states[i].state is not State.IDLE}
        concerned = {item.instance for item in package.items}
        others |= self._in_the_way(concerned) | self._clashes(concerned)
        if others:
            listed = ", ".join(names[each] for each in sorted(others))
            raise Entangled(RefusalCode.CONFLICTING_STATE, f"The package conflicts with {listed}.", others)
        for item in package.items:
            check_version_text(item.offer.version)
        self._check_way_back([(item.instance, item.soft) for item in package.items])

    def _check_way_back(self, order: list[tuple[int, bool]]) -> None:
        """With one slot the main image can't be taken back: nothing may come after it that would have to."""
        if self.layout.kind is not LayoutKind.SINGLE or 0 not in dict(order):
            return
        place = [instance for instance, _ in order].index(0)
        if any(not soft for _, soft in order[place + 1 :]):
            raise refuse(
                RefusalCode.UNSUPPORTED,
                "This device can't take its main image back, so it has to be the last one of the manifest.",
                field="install",
            )

    def _expected(self) -> tuple[Installed, ...]:
        """Return what each instance has, or will have once what waits in Downloaded is installed."""
        return tuple(
            Installed(wanted(state))
            if state.state is State.DOWNLOADED and state.digest and instance != self.focus
            else self.banks.installed(instance)
            for instance, state in enumerate(self.states)
        )

    # inside: which instances belong together

    def _mates(self, instance: int) -> set[int]:
        """Return the instances of the package that waits in this one."""
        state = self.states[instance]
        if state.state is not State.DOWNLOADED:
            return {instance}
        return {
            i
            for i, each in enumerate(self.states)
            if each.state is State.DOWNLOADED and each.package == state.package
        }

    def _together(self, instance: int) -> set[int]:
        """Return the instances that are installed with this one: of its package, and linked ones that wait too."""
        found: set[int] = set()
        further = {instance}
        while further:
            found |= further
            reached = {mate for each in further for mate in self._mates(each)}
            reached |= {
                other
                for each in further
                for other in self.relations.linked[each]
                if self.states[other].state is State.DOWNLOADED
            }
            further = reached - found
        return found

    def _busy(self, instance: int) -> set[int]:
        """Return the other instances with a transfer, a question to the application, or an installation."""
        mates = self._mates(instance)
        return {
            i
            for i, state in enumerate(self.states)
            if i not in mates
            and (
                state.state in (State.DOWNLOADING, State.UPDATING)
                or (state.state is State.DOWNLOADED and state.result is Result.DEFERRED)
            )
        }

    def _in_the_way(self, concerned: set[int]) -> set[int]:
        """Return the instances that hold a package and may not at the same time as one of these."""
        rivals = {rival for each in concerned for rival in self.relations.conflicting[each]}
        return {each for each in rivals - concerned if self.states[each].state is not State.IDLE}

    def _clashes(self, concerned: set[int]) -> set[int]:
        """Return those of these instances that may not be updated together."""
        return {each for each in concerned if self.relations.conflicting[each] & concerned}

    def _entangle(self, instance: int, result: Result, others: set[int]) -> None:
        """Have the Result say that other instances are in the way, or lacking; State stays."""
        state = replace(self.states[instance], result=result, conflicting=tuple(sorted(others)))
        self.commit(self.with_states({instance: state}))

    def _take_back(
        self,
        instance: int,
        state: State,
        result: Result,
        code: str = "",
        text: str = "",
        others: tuple[int, ...] = (),
    ) -> None:
        """Drop the package of an instance, with all instances that it was for."""
        group = self._mates(instance)
        held = [i for i in group if self.states[i].state is State.DOWNLOADED and self.states[i].digest]
        if self.states[instance].state is State.DOWNLOADING:
            held += [item.instance for item in self._items]
        states = {
            i: replace(
                fresh(self.states[i]), state=state, result=result, code=code, text=text, conflicting=others
            )
            for i in group
        }
        self.commit(self.with_states(states))
        for each in held:
            self.banks.download(each).drop()
