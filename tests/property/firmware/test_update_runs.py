"""Whole updates in virtual time: the machine against simulated devices behind a lossy network.

Invariant: every run ends in the outcome that fits what the device did, no device is told to install twice,
and the job survives its JSON form and restarts of the server at any moment.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.outcomes import Outcome
from lwm2m_server.firmware.update import step
from lwm2m_server.firmware.update_job import DeviceView, Kind, Timers, UpdateJob, new_job

OLD, NEW = "1.0.0", "2.0.0"
SIZE, BLOCK = 20_000, 1024
DIGEST = bytes(range(32))
LIMIT = 200_000


@dataclass
class Traits:
    """How a simulated device behaves; the defaults are those of a good one."""

    delivery: int = 2
    protocols: frozenset[int] | None = frozenset({0})
    kind: Kind = Kind.IMAGE
    download_result: int = 0
    install_result: int = 1
    new_version: str = NEW
    digest_known: bool = False
    notifies: bool = True
    dead_from: str = ""
    crashes: int = 0
    too_large: bool = False
    locks: bool = False
    stuck: bool = False
    uri_code: int = 68
    uri_result: int = 0
    refusal: str = ""
    auto: bool = False
    defers: float = 0.0
    old_result: int = 0
    keeps_result: bool = False
    silent_result: bool = False
    jumps: bool = False
    starts_in: int = 0
    resumes: bool = True


@dataclass
class World:
    """Clock, network, device and gateway in one."""

    traits: Traits
    seed: int
    loss: float = 0.0
    restarts: float = 0.0
    timers: Timers = field(default_factory=Timers)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.now = 1000.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = 0
        self.state, self.result = self.traits.starts_in, self.traits.old_result
        self.version, self.received, self.alive = OLD, 0, True
        self.installs = 0
        self.executes = 0
        self.crashes = self.traits.crashes
        self.locked_until = 0.0
        self.pushing = 0
        self.boot = 0
        self.view = DeviceView(registered=True)
        self.job = new_job(
            kind=self.traits.kind,
            digest=DIGEST,
            size=SIZE,
            uris=("coap://server/fw/x",),
            target_version=NEW,
            target_digest=DIGEST if self.traits.digest_known else None,
            timers=self.timers,
            now=self.now,
        )
        self.outcome: Outcome | None = None
        self.wake: float | None = None
        self.phases: list[str] = []

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

    def feed(self, event: ev.Event) -> None:
        if self.outcome is not None:
            return
        result = step(self.job, self.view, event, self.now)
        self.job, self.view, self.wake = result.job, result.view, result.wake_at
        assert UpdateJob.from_json(json.loads(json.dumps(self.job.to_json()))) == self.job
        if not self.phases or self.phases[-1] != self.job.phase:
            self.phases.append(self.job.phase)
        if result.outcome is not None:
            self.outcome = result.outcome
            return
        assert self.wake is not None
        if self.random.random() < self.restarts:
            # killed after the job was stored, before or after the actions were done
            if self.random.random() < 0.5:
                self.act(result.actions)
            self.pushing += 1
            self.boot += 1
            self.view = DeviceView(registered=self.view.registered)
            self.feed(ev.Started())
            return
        self.act(result.actions)

    def act(self, actions: tuple[ev.Action, ...]) -> None:
        for action in actions:
            match action:
                case ev.Observe():
                    pass
                case ev.StopPush():
                    self.pushing += 1
                case ev.Push():
                    self.pushing += 1
                    self.blocks(action.number, action.offset, self.pushing, self.boot)
                case ev.ReadStatus() | ev.Reset() | ev.WriteUri() | ev.Execute():
                    self.request(action)

    def answer(self, delay: float, event: ev.Event, boot: int) -> None:
        def deliver() -> None:
            if boot == self.boot:
                self.feed(event)
                if self.random.random() < self.loss / 2:
                    self.feed(event)

        self.later(delay, deliver)

    def request(self, action: ev.ReadStatus | ev.Reset | ev.WriteUri | ev.Execute) -> None:
        boot = self.boot
        lost = not self.alive or self.random.random() < self.loss * 0.3
        if lost:
            self.answer(93.0, ev.Answered(action.number, None), boot)
            return
        if self.now < self.locked_until:
            self.answer(0.1, ev.Answered(action.number, 163), boot)
            return
        event = self.handle(action)
        if self.random.random() < self.loss * 0.3:
            event = ev.Answered(action.number, None)
            self.answer(93.0, event, boot)
        else:
            self.answer(0.1, event, boot)

    # -- device --

    def set(self, state: int, result: int) -> None:
        if self.traits.keeps_result and result == 0:
            result = self.result
        changed = (state, result) != (self.state, self.result)
        self.state, self.result = state, result
        if changed and self.traits.notifies and self.random.random() >= self.loss:
            boot = self.boot
            self.later(0.01, lambda: self.feed(ev.Notified(state, result)) if boot == self.boot else None)
        if self.traits.dead_from and self.traits.dead_from == str(state):
            self.alive = False

    def handle(self, action: ev.ReadStatus | ev.Reset | ev.WriteUri | ev.Execute) -> ev.Event:
        traits, number = self.traits, action.number
        if isinstance(action, ev.ReadStatus):
            digest = DIGEST if self.version == NEW else bytes(32)
            return ev.StatusRead(
                number,
                state=self.state,
                result=self.result,
                version=self.version,
                delivery=traits.delivery,
                protocols=traits.protocols,
                running_digest=digest if traits.digest_known else None,
                refusal_code=traits.refusal if self.result > 1 else "",
                refusal_text="no" if traits.refusal else "",
            )
        if isinstance(action, ev.Execute):
            return ev.Answered(number, self.execute())
        if traits.stuck:
            return ev.Answered(number, 68)
        if self.state == 3:
            return ev.Answered(number, 133)
        if isinstance(action, ev.Reset):
            self.received = 0
            self.set(0, 0)
            return ev.Answered(number, 68)
        if self.state != 0:
            return ev.Answered(number, 128)
        if traits.uri_code != 68:
            self.set(0, traits.uri_result)
            return ev.Answered(number, traits.uri_code)
        self.received = 0
        self.set(1, 0)
        self.fetch()
        return ev.Answered(number, 68)

    def fetch(self) -> None:
        """Pull block by block; survives a crash when it resumes."""
        boot_state = self.received

        def block() -> None:
            if self.state != 1 or not self.alive or self.received != boot_state:
                return
            if self.crash():
                return
            self.received = min(SIZE, self.received + 4 * BLOCK)
            self.feed(ev.DownloadProgress(self.received))
            if self.received >= SIZE:
                self.downloaded()
            else:
                self.fetch()

        self.later(2.0, block)

    def downloaded(self) -> None:
        if self.traits.download_result:
            self.set(0, self.traits.download_result)
        elif self.traits.auto:
            self.install()
        else:
            self.set(2, 0)

    def crash(self) -> bool:
        """Lose power in mid-transfer, come back after a minute."""
        if self.crashes <= 0 or self.random.random() < 0.7:
            return False
        self.crashes -= 1
        self.alive = False

        def back() -> None:
            self.alive = True
            if not self.traits.resumes:
                self.state, self.result, self.received = 0, 0, 0
            self.register()
            if self.state == 1 and self.job.method == "pull":
                self.fetch()

        self.later(60.0, back)
        return True

    def register(self) -> None:
        if self.outcome is None:
            self.feed(ev.Registered())

    def execute(self) -> int:
        if self.traits.stuck:
            self.state = 2
            return 68
        if self.state != 2:
            return 133
        self.executes += 1
        if self.traits.defers:
            self.set(2, 11)
            self.later(self.traits.defers, self.install)
            return 68
        self.install()
        return 68

    def install(self) -> None:
        self.installs += 1
        if not self.traits.jumps:
            self.set(3, 0)
        self.later(1.0, self.reboot)

    def reboot(self) -> None:
        self.alive = False

        def back() -> None:
            if self.traits.dead_from == "reboot":
                return
            self.alive = True
            if self.traits.install_result in (0, 1):
                self.version = self.traits.new_version
            self.state, self.result = 0, 0 if self.traits.silent_result else self.traits.install_result
            self.register()

        if self.traits.dead_from != "3":
            self.later(20.0, back)

    # -- push --

    def blocks(self, number: int, offset: int, push: int, boot: int) -> None:
        """Block1 transfer in steps of four blocks, as the engine reports progress."""
        traits = self.traits

        def end(code: int | None, at: int, delay: float = 0.1) -> None:
            self.answer(delay, ev.PushEnded(number, code, at), boot)

        def go(at: int) -> None:
            if push != self.pushing:
                if traits.locks and 0 < at < SIZE:
                    self.locked_until = self.now + 300.0
                return
            if not self.alive:
                end(None, at, 93.0)
            elif self.random.random() < self.loss * 0.1:
                if traits.locks and at:
                    self.locked_until = self.now + 300.0
                end(None, at, 93.0)
            elif traits.too_large and at >= 8192:
                self.set(0, 0)
                end(141, at)
            elif traits.stuck:
                end(68, SIZE)
            elif at == 0 and (self.state != 0 or self.now < self.locked_until):
                end(163 if self.now < self.locked_until else 128, 0)
            elif at and (self.state != 1 or at != self.received):
                if traits.locks and self.now < self.locked_until:
                    end(163, at)
                else:
                    end(136, at)
            elif self.crash():
                end(None, at, 93.0)
            else:
                self.locked_until = 0.0
                if at == 0:
                    self.received = 0
                    self.set(1, 0)
                self.received = min(SIZE, at + 4 * BLOCK)
                if self.received >= SIZE:
                    self.downloaded()
                    end(68, SIZE)
                else:
                    if boot == self.boot:
                        self.feed(ev.PushProgress(number, self.received))
                    reached = self.received
                    self.later(1.0, lambda: go(reached))

        go(offset)


GOOD = ("succeeded", {"confirmed-version", "confirmed-digest"})
CASES: dict[str, tuple[Traits, tuple[str, set[str]]]] = {
    "pull": (Traits(delivery=0), GOOD),
    "push": (Traits(delivery=1), GOOD),
    "both": (Traits(), GOOD),
    "no-protocols": (Traits(protocols=None), GOOD),
    "manifest": (Traits(kind=Kind.MANIFEST, digest_known=True), GOOD),
    "manifest-pull": (Traits(kind=Kind.MANIFEST, delivery=0), GOOD),
    "without-notifications": (Traits(notifies=False), GOOD),
    "push-without-notifications": (Traits(delivery=1, notifies=False), GOOD),
    "jumps-over-updating": (Traits(jumps=True), GOOD),
    "auto-upgrade": (Traits(auto=True), GOOD),
    "result-0-after-success": (Traits(silent_result=True), GOOD),
    "stale-result": (Traits(old_result=8), GOOD),
    "keeps-old-result": (Traits(old_result=5, keeps_result=True, silent_result=True), GOOD),
    "left-in-downloaded": (Traits(starts_in=2, delivery=1), GOOD),
    "locks-after-broken-push": (Traits(delivery=1, locks=True), GOOD),
    "crashes-and-resumes": (Traits(crashes=3), GOOD),
    "crashes-and-forgets": (Traits(crashes=2, resumes=False), GOOD),
    "push-crashes-and-forgets": (Traits(delivery=1, crashes=2, resumes=False), GOOD),
    "defers": (Traits(defers=7200.0), GOOD),
    "too-large-to-push": (Traits(kind=Kind.MANIFEST, too_large=True), GOOD),
    "uri-refused-then-push": (Traits(uri_code=128, uri_result=9), GOOD),
    "uri-refused-without-result": (Traits(uri_code=133), GOOD),
    "too-large-push-only": (Traits(delivery=1, too_large=True), ("failed", {"storage-full"})),
    "no-common-protocol": (Traits(delivery=0, protocols=frozenset({2, 3})), ("failed", {"protocol"})),
    "uri-refused-pull-only": (Traits(delivery=0, uri_code=128, uri_result=9), ("failed", {"protocol"})),
    "uri-method-not-allowed": (Traits(delivery=0, uri_code=133), ("failed", {"device-error"})),
    "damaged": (Traits(download_result=5), ("failed", {"integrity"})),
    "disk-full": (Traits(download_result=2), ("failed", {"storage-full"})),
    "wrong-package": (Traits(download_result=6), ("rejected", {"unsupported"})),
    "cancelled-on-device": (Traits(download_result=10), ("cancelled", {"cancelled-by-device"})),
    "unknown-result": (Traits(download_result=77), ("failed", {"unknown-result"})),
    "wrong-class": (
        Traits(kind=Kind.MANIFEST, download_result=6, refusal="class-mismatch"),
        ("rejected", {"class-mismatch"}),
    ),
    "older": (
        Traits(kind=Kind.MANIFEST, download_result=8, refusal="version-rollback"),
        ("rejected", {"version-rollback"}),
    ),
    "full-by-manifest": (
        Traits(kind=Kind.MANIFEST, download_result=2, refusal="storage-full"),
        ("failed", {"storage-full"}),
    ),
    "install-failed": (Traits(install_result=8), ("failed", {"update-failed"})),
    "rolled-back": (Traits(new_version=OLD, install_result=1), ("failed", {"rolled-back"})),
    "rolled-back-silently": (Traits(new_version=OLD, silent_result=True), ("failed", {"rolled-back"})),
    "another-version": (Traits(new_version="3.0.0"), ("failed", {"wrong-version"})),
    "silent-while-downloading": (Traits(dead_from="1"), ("failed", {"silent"})),
    "silent-before-execute": (Traits(dead_from="2"), ("failed", {"silent"})),
    "silent-after-execute": (Traits(dead_from="3"), ("failed", {"silent"})),
    "never-comes-back": (Traits(dead_from="reboot"), ("failed", {"silent"})),
    "never-progresses": (Traits(delivery=1, stuck=True, starts_in=1), ("failed", {"stalled"})),
    "never-starts": (Traits(delivery=1, stuck=True), ("failed", {"stalled", "update-failed"})),
}


def check(world: World, expected: tuple[str, set[str]]) -> None:
    outcome = world.run()
    assert (outcome.ending, outcome.reason in expected[1]) == (expected[0], True), (outcome, world.phases)
    assert world.executes <= 1
    if outcome.ending == "succeeded":
        assert world.version == NEW


@pytest.mark.parametrize("case", CASES)
def test_update_ends_in_what_the_device_did(case: str) -> None:
    traits, expected = CASES[case]
    check(World(traits, seed=1), expected)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("case", CASES)
def test_loss_duplicates_and_restarts_change_no_outcome(case: str, seed: int) -> None:
    traits, expected = CASES[case]
    world = World(traits, seed=seed, loss=0.25, restarts=0.02 if seed % 2 else 0.0)
    outcome = world.run()
    assert world.executes <= 1
    assert outcome.ending == expected[0], (outcome, world.phases)
    assert outcome.reason in expected[1], (outcome, world.phases)
