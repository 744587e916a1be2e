"""Whole updates of applications in virtual time: the machine against simulated devices behind a lossy network.

Invariant: every run ends in the outcome that fits what the device did; what is in place is never removed before its
successor is there; success is never claimed of what is not installed; the job survives its JSON form and restarts of
the server at any moment.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.outcomes import Outcome
from lwm2m_server.firmware.software import step
from lwm2m_server.firmware.software_events import (
    Activate,
    Install,
    ReadSoftware,
    SoftwareAction,
    SoftwareEvent,
    SoftwareRead,
    Uninstall,
)
from lwm2m_server.firmware.software_job import SoftwareJob, SoftwareView, new_software_job
from lwm2m_server.firmware.update_job import Kind

OLD, NEW = "1.0.0", "2.0.0"
SIZE, PIECE = 20_000, 4096
LIMIT = 200_000
_Request = ReadSoftware | Uninstall | ev.WriteUri | Install | Activate


@dataclass
class Traits:
    """How a simulated device behaves; the defaults are those of a good one with version 1 running."""

    kind: Kind = Kind.IMAGE
    empty: bool = False
    push_only: bool = False
    pull_only: bool = False
    notifies: bool = True
    download_result: int = 3
    install_result: int = 2
    install_seconds: float = 40.0
    installed_version: str = NEW
    reboots: bool = False
    crashes: int = 0
    forgets: bool = False
    starts: bool = True
    knows_for_update: bool = True
    left_in: int = 4
    dies: bool = False


class World:
    """Clock, network, device and gateway in one."""

    def __init__(self, traits: Traits, seed: int, *, loss: float = 0.0, restarts: float = 0.0) -> None:
        self.traits, self.loss, self.restarts = traits, loss, restarts
        self.random = Random(seed)
        self.now = 1000.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = self.received = self.installs = self.boot = self.pushing = self.turn = 0
        self.state, self.result = (0, 0) if traits.empty else (traits.left_in, 2)
        self.version = "" if traits.empty else OLD
        self.package = ""
        self.active = not traits.empty and traits.left_in == 4
        self.alive, self.installing = True, False
        self.crashes = traits.crashes
        self.view = SoftwareView(registered=True)
        self.job = new_software_job(
            kind=traits.kind, digest=bytes(32), size=SIZE, uris=("coap://server/fw/x",), application="meter",
            target_version=NEW, instance="/9/0", now=self.now,
        )  # fmt: skip
        self.outcome: Outcome | None = None
        self.wake: float | None = None

    # -- clock and gateway --

    def later(self, delay: float, action: Callable[[], None]) -> None:
        self.serial += 1
        heapq.heappush(self.queue, (self.now + delay, self.serial, action))

    def run(self) -> Outcome:
        self.feed(ev.Started())
        for _ in range(LIMIT):
            if self.outcome is not None:
                return self.outcome
            due = self.queue[0][0] if self.queue else float("inf")
            if self.wake is not None and self.wake <= due:
                self.now = max(self.now, self.wake)
                self.feed(ev.Tick())
            else:
                self.now, _, action = heapq.heappop(self.queue)
                action()
        raise AssertionError(f"no end: {self.job}")

    def feed(self, event: SoftwareEvent) -> None:
        if self.outcome is not None:
            return
        done = step(self.job, self.view, event, self.now)
        self.job, self.view, self.wake = done.job, done.view, done.wake_at
        assert SoftwareJob.from_json(json.loads(json.dumps(self.job.to_json()))) == self.job
        if done.outcome is not None:
            self.outcome = done.outcome
            return
        if self.random.random() < self.restarts:
            # killed after the job was stored, before or after the actions were done
            if self.random.random() < 0.5:
                self.act(done.actions)
            self.pushing += 1
            self.turn += 1
            self.view = SoftwareView(registered=self.view.registered)
            self.feed(ev.Started())
            return
        self.act(done.actions)

    def act(self, actions: tuple[SoftwareAction, ...]) -> None:
        for action in actions:
            match action:
                case ev.Observe():
                    pass
                case ev.StopPush():
                    self.pushing += 1
                case ev.Push():
                    self.pushing += 1
                    self.take_blocks(action.number, action.offset, self.pushing)
                case _:
                    self.request(action)

    def answer(self, delay: float, event: SoftwareEvent) -> None:
        boot, turn = self.boot, self.turn

        def deliver() -> None:
            if (boot, turn) == (self.boot, self.turn):
                self.feed(event)
                if self.random.random() < self.loss / 2:
                    self.feed(event)

        # reordered against notifications and against each other
        self.later(delay + self.random.random() * self.loss * 5, deliver)

    def request(self, action: _Request) -> None:
        if not self.alive or self.random.random() < self.loss * 0.3:
            self.answer(93.0, ev.Answered(action.number, None))
            return
        event = self.handle(action)
        if self.random.random() < self.loss * 0.3:
            self.answer(93.0, ev.Answered(action.number, None))
        else:
            self.answer(0.1, event)

    # -- device --

    def set(self, state: int, result: int) -> None:
        changed = (state, result) != (self.state, self.result)
        self.state, self.result = state, result
        if changed and self.traits.notifies and self.random.random() >= self.loss:
            boot, turn = self.boot, self.turn

            def notify() -> None:
                if (boot, turn) == (self.boot, self.turn):
                    self.feed(ev.Notified(state, result))

            self.later(0.01 + self.random.random() * self.loss * 5, notify)

    def handle(self, action: _Request) -> SoftwareEvent:
        number = action.number
        match action:
            case ReadSoftware():
                name = "meter" if self.version else ""
                return SoftwareRead(number, self.state, self.result, name, self.version, self.active)
            case Uninstall():
                return ev.Answered(number, self.uninstall(for_update=action.for_update))
            case Install():
                return ev.Answered(number, self.install())
            case Activate():
                return ev.Answered(number, self.activate())
            case _:
                return ev.Answered(number, self.take_uri())

    def uninstall(self, *, for_update: bool) -> int:
        if for_update and not self.traits.knows_for_update:
            return 128
        if self.state == 4:
            assert for_update, "what is in place was removed before its successor was there"
        self.received, self.active, self.package = 0, False, ""
        self.set(0, 0)
        return 68

    def take_uri(self) -> int:
        if self.traits.push_only:
            return 133
        if self.state != 0:
            return 133
        self.received = 0
        self.set(1, 1)
        self.fetch()
        return 68

    def fetch(self) -> None:
        before = self.received

        def block() -> None:
            if self.state != 1 or not self.alive or self.received != before or self.crash():
                return
            self.received = min(SIZE, self.received + PIECE)
            self.feed(ev.DownloadProgress(self.received))
            self.whole() if self.received >= SIZE else self.fetch()

        self.later(2.0, block)

    def whole(self) -> None:
        if self.traits.download_result != 3:
            self.set(0, self.traits.download_result)
            return
        self.set(2, 1)
        self.package = NEW
        self.later(3.0, lambda: self.set(3, 3) if self.state == 2 else None)

    def install(self) -> int:
        if self.state != 3 or self.installing:
            return 133
        self.installs += 1
        self.installing = True
        if self.traits.dies:
            self.alive = False
            return 68
        self.later(self.traits.install_seconds, self.installed)
        return 68

    def installed(self) -> None:
        self.installing = False
        if self.state != 3:
            return
        if self.traits.install_result != 2:
            self.set(3, self.traits.install_result)
            return
        self.version = self.traits.installed_version
        if self.traits.reboots:
            self.reboot(lambda: (self.set(4, 2), None)[1])
        else:
            self.set(4, 2)

    def activate(self) -> int:
        if self.state != 4:
            return 133
        if self.traits.starts:
            self.active = True
        else:
            self.set(4, 57)
        return 68

    def reboot(self, then: Callable[[], None] = lambda: None) -> None:
        self.alive = False
        self.boot += 1

        def back() -> None:
            self.alive = True
            then()
            if self.outcome is None:
                self.feed(ev.Registered())
            if self.state == 1 and self.job.method == "pull":
                self.fetch()

        self.later(20.0, back)

    def crash(self) -> bool:
        if self.crashes <= 0 or self.random.random() < 0.7:
            return False
        self.crashes -= 1
        if self.traits.forgets:
            self.state, self.result, self.received = 0, 0, 0
        self.reboot()
        return True

    def take_blocks(self, number: int, offset: int, push: int) -> None:
        def go(at: int) -> None:
            if push != self.pushing:
                return
            if not self.alive or self.random.random() < self.loss * 0.1:
                self.answer(93.0, ev.PushEnded(number, None, at))
            elif self.traits.pull_only or (at == 0 and self.state != 0):
                self.answer(0.1, ev.PushEnded(number, 133, 0))
            elif at and (self.state != 1 or at != self.received):
                self.answer(0.1, ev.PushEnded(number, 136, at))
            elif self.crash():
                self.answer(93.0, ev.PushEnded(number, None, at))
            else:
                if at == 0:
                    self.received = 0
                    self.set(1, 1)
                self.received = min(SIZE, at + PIECE)
                if self.received >= SIZE:
                    self.whole()
                    self.answer(0.1, ev.PushEnded(number, 68, SIZE))
                else:
                    self.feed(ev.PushProgress(number, self.received))
                    reached = self.received
                    self.later(1.0, lambda: go(reached))

        go(offset)


GOOD = ("succeeded", {"confirmed-version"})
CASES: dict[str, tuple[Traits, tuple[str, set[str]]]] = {
    "update": (Traits(), GOOD),
    "empty": (Traits(empty=True), GOOD),
    "manifest": (Traits(kind=Kind.MANIFEST), GOOD),
    "push-only": (Traits(push_only=True), GOOD),
    "pull-only": (Traits(kind=Kind.MANIFEST, pull_only=True), GOOD),
    "without-notifications": (Traits(notifies=False), GOOD),
    "slow-installation": (Traits(install_seconds=1500.0), GOOD),
    "reboots": (Traits(reboots=True), GOOD),
    "crashes": (Traits(crashes=3), GOOD),
    "crashes-and-forgets": (Traits(crashes=2, forgets=True), GOOD),
    "push-crashes": (Traits(kind=Kind.MANIFEST, crashes=3, forgets=True), GOOD),
    "left-in-delivered": (Traits(left_in=3), GOOD),
    "left-in-delivered-no-argument": (Traits(left_in=3, knows_for_update=False), GOOD),
    "damaged": (Traits(download_result=53), ("failed", {"integrity"})),
    "no-storage": (Traits(download_result=50), ("failed", {"no-storage"})),
    "wrong-type": (Traits(download_result=54), ("failed", {"package-type"})),
    "undefined": (Traits(download_result=55), ("failed", {"unknown-result"})),
    "installation-fails": (Traits(install_result=58), ("failed", {"update-failed"})),
    "does-not-start": (Traits(starts=False), ("failed", {"activation-failed"})),
    "another-version": (Traits(installed_version="7.0.0"), ("failed", {"wrong-version"})),
    "comes-back-old": (Traits(installed_version=OLD), ("failed", {"rolled-back"})),
    "keeps-what-it-has": (Traits(knows_for_update=False), ("failed", {"stalled"})),
    "dies": (Traits(dies=True), ("failed", {"silent"})),
}


@pytest.mark.parametrize("name", CASES)
def test_every_run_ends_as_the_device_behaved(name: str) -> None:
    traits, (ending, reasons) = CASES[name]
    world = World(traits, 1)
    outcome = world.run()
    assert outcome.ending == ending
    assert outcome.reason in reasons
    if ending == "succeeded":
        assert (world.state, world.version, world.active) == (4, NEW, True)
        assert world.installs == 1


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize(
    "name", ["update", "manifest", "reboots", "crashes", "without-notifications", "empty"]
)
def test_loss_duplication_reordering_and_restarts_change_no_good_end(name: str, seed: int) -> None:
    traits, _ = CASES[name]
    world = World(traits, seed, loss=0.3, restarts=0.05)
    outcome = world.run()
    assert outcome.ending == "succeeded", (seed, outcome, world.job)
    assert (world.state, world.version, world.active) == (4, NEW, True)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", sorted(set(CASES) - {"update", "manifest", "reboots", "crashes", "empty"}))
def test_on_a_bad_network_success_is_claimed_only_of_what_is_there(name: str, seed: int) -> None:
    traits, (ending, _) = CASES[name]
    world = World(traits, seed, loss=0.5, restarts=0.1)
    outcome = world.run()
    if outcome.ending == "succeeded":
        assert (world.state, world.version, world.active) == (4, NEW, True)
        assert ending == "succeeded"
