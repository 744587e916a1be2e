"""A device with two components beside its main one: its life from any state of its flash to the end of an update.

What runs on the other processors outlives a power cut; a hook that is cut off leaves neither image there.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import cbor2

from lwm2m_device.banks import program_components
from lwm2m_device.bootloader import Authorise, Boot, BootLoader
from lwm2m_device.component_install import HookCall, Wait
from lwm2m_device.component_judge import Installed, Item, Package, Stored
from lwm2m_device.component_updater import ComponentUpdater
from lwm2m_device.components import Relations
from lwm2m_device.flash import PowerCut, PowerSupply
from lwm2m_device.hooks import Action
from lwm2m_device.judges import Judges, Offer, newer_image
from lwm2m_device.layout import ComponentArea, Layout, LayoutKind
from lwm2m_device.machine import Result, State, Trigger
from lwm2m_device.slots import ImageHeader
from lwm2m_server.firmware.refusals import RefusalCode, refusal
from powercuts.bench import Bench
from powercuts.invariants import Rules, Seen, Sight, check_invariants

NAMES = ("main", "modem", "sensors")
TORN = "torn"
_MAX_BOOTS = 40


def image(instance: int, version: str) -> bytes:
    """The image of a component in a version."""
    head = f"firmware-version: {version}\n{NAMES[instance]}".encode()
    return head + hashlib.shake_128(head).digest(300 + 100 * instance)


OLD = tuple(image(instance, "1.0.0") for instance in range(3))
NEW = tuple(image(instance, "2.0.0") for instance in range(3))


def small(kind: LayoutKind) -> Layout:
    """A layout in which a page holds a part of an image."""
    areas = tuple(ComponentArea.of(name, 768) for name in NAMES[1:])
    return Layout(256, 768, kind, components=areas)


def package_for(order: tuple[int, ...], soft: tuple[int, ...] = (), sequence: int = 2) -> bytes:
    """A stand-in for a manifest with images for these instances in this order."""
    items = [[i, hashlib.sha256(NEW[i]).digest(), len(NEW[i]), "2.0.0", i in soft] for i in order]
    return cbor2.dumps([sequence, items])


class StandIn:
    """Judges those stand-ins."""

    def package(self, envelope: bytes, installed: tuple[Installed, ...]) -> Package:
        try:
            sequence, items = cbor2.loads(envelope)
        except (cbor2.CBORDecodeError, ValueError, TypeError):
            raise refusal(RefusalCode.MALFORMED, "no manifest") from None
        found = tuple(
            Item(i, Offer(f"coap://server/{i}", digest, size, version, sequence), soft)
            for i, digest, size, version, soft in items
        )
        return Package(found, frozenset(item.instance for item in found))

    def complete_package(
        self, envelope: bytes, installed: tuple[Installed, ...], stored: dict[int, Stored]
    ) -> None:
        package = self.package(envelope, installed)
        assert {item.instance: item.offer.digest for item in package.items} == {
            instance: each.digest for instance, each in stored.items()
        }


def authorise(instance: int) -> Authorise:
    """What stands for trusted keys: the envelope names this very image for this component."""

    def judge(envelope: bytes | None, header: ImageHeader) -> bool:
        try:
            items = StandIn().package(envelope or b"", ()).items
        except Exception:  # noqa: BLE001  whatever is wrong with it, it is no manifest
            return False
        return any(
            (item.instance, item.offer.digest, item.offer.version, item.offer.sequence)
            == (instance, header.digest, header.version, header.sequence)
            for item in items
        )

    return judge


class PartsBench(Bench):
    """One flash file of such a device."""

    def __init__(self, file: Path, kind: LayoutKind) -> None:
        super().__init__(file, layout=small(kind))

    def program_all(self) -> None:
        """Do what the factory does."""
        flash = self.open()
        flash.erase(0, self.layout.size)
        for start in (0, self.layout.page_size):
            flash.write(start, self.layout.encode_geometry())
        headers = [ImageHeader("1.0.0", hashlib.sha256(old).digest(), len(old), 1) for old in OLD]
        program_components(flash, self.layout, tuple(zip(OLD[1:], headers[1:], strict=True)))
        self.loader().install_factory(OLD[0], headers[0])

    def give_past(self) -> None:
        """Have a package downloaded and taken back, so that records and banks have seen something."""
        loader, boot = self.boot()
        updater = self.parts(loader, boot)
        updater.reconcile()
        for _ in range(2):
            updater.request(Trigger.PACKAGE, instance=1)
            updater.accept_envelope(package_for((1, 2)))
            updater.store(NEW[1])
            updater.finish()
            updater.request(Trigger.PACKAGE_NUL, instance=1)

    def authorise(self, envelope: bytes | None, header: ImageHeader) -> bool:
        return authorise(0)(envelope, header)

    def parts(self, loader: BootLoader, boot: Boot) -> ComponentUpdater:
        assert self.flash is not None
        judges = Judges(self.judge, lambda *_: None, newer_image(None))
        return ComponentUpdater(
            self.flash,
            self.layout,
            loader,
            boot,
            judges=judges,
            clock=self.clock,
            judge=StandIn(),
            authorise=(authorise(1), authorise(2)),
            relations=Relations(NAMES, (frozenset(),) * 3, (frozenset(),) * 3),
        )


@dataclass(frozen=True)
class PartsSeen:
    """What was seen before: of the main component, of the sequence number, and what runs in the others now."""

    main: Seen = field(default_factory=Seen)
    floor: int = 0
    versions: tuple[str, ...] = ("1.0.0", "1.0.0")
    outside: tuple[str, ...] = ("1.0.0", "1.0.0")


@dataclass
class PartsLife:
    """The server wants 2.0.0 everywhere. `failing` are instances whose new image can't be installed."""

    bench: PartsBench
    order: tuple[int, ...]
    failing: tuple[int, ...] = ()
    soft: tuple[int, ...] = ()
    seen: PartsSeen = field(default_factory=PartsSeen)
    hooks: int = 0

    def run(self, supply: PowerSupply) -> str:
        """Live until the update has ended; return `updated`, `reverted`, `partly` or `cut`."""
        try:
            for _ in range(_MAX_BOOTS):
                ended = self._one_boot(supply)
                if ended:
                    return ended
        except PowerCut:
            return "cut"
        raise AssertionError(f"the update does not end: {_MAX_BOOTS} boots")

    def _one_boot(self, supply: PowerSupply) -> str | None:
        loader, boot = self.bench.boot(supply)
        updater = self.bench.parts(loader, boot)
        self._check(loader, boot, updater)
        _, install = updater.reconcile()
        assert not install, "only what is installed alone is ordered by the loader itself"
        if updater.record.plan is None:
            ended = self._ended(updater)
            if ended:
                return ended
            self._serve(updater)
        return self._install(updater, supply)

    def _serve(self, updater: ComponentUpdater) -> None:
        """What server and network do: offer, deliver from where the device is, order the installation."""
        first = self.order[0]
        if updater.states[first].state is State.IDLE:
            assert updater.request(Trigger.PACKAGE, instance=first) == 68
            updater.accept_envelope(package_for(self.order, self.soft))
        while updater.state.state is State.DOWNLOADING:
            updater.expect(b"etag")
            content = NEW[updater.state.target]
            while updater.offset < len(content):
                updater.store(content[updater.offset : updater.offset - updater.offset % 256 + 256])
            updater.finish()
        assert {state.state for state in updater.states} == {State.DOWNLOADED}
        assert updater.order(first, None) == 68
        assert {state.state for state in updater.states} == {State.UPDATING}

    def _install(self, updater: ComponentUpdater, supply: PowerSupply) -> str | None:
        while True:
            step = updater.installation.next()
            if isinstance(step, HookCall):
                updater.installation.report(step, self._hook(step, supply))
            elif step is Wait.SERVER and 0 not in self.failing:
                updater.confirm()
            elif step is Wait.NOTHING:
                break
            else:
                return None
        assert updater.loader.state.phase == 0
        # A main image that was just confirmed runs on; one that was given up is gone after a reboot.
        return self._ended(updater)

    def _hook(self, call: HookCall, supply: PowerSupply) -> str | None:
        """What the other processor goes through; a power cut finds it before, within and after."""
        self.hooks += 1
        number, order = call.instance - 1, call.order
        known = {hashlib.sha256(each[call.instance]).digest(): each[call.instance] for each in (OLD, NEW)}
        assert order.digest in known, "an image that nobody authorised reaches a hook"
        assert order.read(0, order.size) == known[order.digest], "a damaged image reaches a hook"
        assert order.component == NAMES[call.instance]
        self._runs(number, TORN, supply)
        if order.action is Action.INSTALL and call.instance in self.failing:
            return "it does not answer"
        self._runs(number, order.version, supply)
        return None

    def _runs(self, number: int, version: str, supply: PowerSupply) -> None:
        outside = list(self.seen.outside)
        outside[number] = version
        self.seen = replace(self.seen, outside=tuple(outside))
        if supply.spend("write", 0, 0) is not None:
            raise PowerCut("within a hook")

    def _ended(self, updater: ComponentUpdater) -> str | None:
        """Say how the update ended, once it has; then all or nothing holds."""
        states = updater.states
        results = {state.result for state in states}
        assert results <= {Result.INITIAL, Result.UPDATED, Result.UPDATE_FAILED, Result.CONNECTION_LOST}
        if {state.state for state in states} != {State.IDLE} or not results & {
            Result.UPDATED,
            Result.UPDATE_FAILED,
        }:
            return None
        runs = tuple(updater.version(instance) for instance in (1, 2))
        assert self.seen.outside == runs, "what runs is not what the device says"
        failed = [i for i, state in enumerate(states) if state.result is Result.UPDATE_FAILED]
        for instance in failed:
            assert states[instance].code == RefusalCode.COMPONENT_FAILED
            assert not self.failing or NAMES[self.failing[0]] in states[instance].text
        if not failed:
            assert runs == ("2.0.0", "2.0.0")
            assert updater.floor == 2
            return "updated"
        if len(failed) < len(states):
            assert tuple(failed) == self.failing
            assert all(runs[i - 1] == "2.0.0" for i in (1, 2) if i not in failed)
            return "partly"
        assert runs == ("1.0.0", "1.0.0")
        assert updater.floor == 1
        return "reverted"

    def _check(self, loader: BootLoader, boot: Boot, updater: ComponentUpdater) -> None:
        found = boot.image
        content = None if boot.slot is None or found is None else loader.slots[boot.slot].read(0, found.size)
        sight = Sight(
            content,
            "" if found is None else found.version,
            b"" if found is None else found.digest,
            boot.trial,
            boot.slot is not None and loader.slots[boot.slot].is_confirmed(),
            loader.floor,
        )
        main = check_invariants(self.seen.main, sight, Rules({"1.0.0": OLD[0], "2.0.0": NEW[0]}))
        assert updater.floor >= self.seen.floor, "the sequence number went down"
        versions = tuple(updater.version(instance) for instance in (1, 2))
        assert versions >= self.seen.versions, "the version of a component went down"
        self.seen = replace(self.seen, main=main, floor=updater.floor, versions=versions)
