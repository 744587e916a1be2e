"""Invariants of the update machine under any sequence of events.

It never raises; at most one request is outstanding; Execute is only sent after the State was read as
Downloaded; the job survives its JSON form; without progress it ends; and it never asks on and on while no
time passes.
"""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.outcomes import Outcome
from lwm2m_server.firmware.update import step
from lwm2m_server.firmware.update_job import (
    Ask,
    DeviceView,
    Goal,
    Kind,
    Shown,
    Timers,
    UpdateJob,
    new_job,
)

TIMERS = Timers(
    offered=600.0, downloading=600.0, downloaded=600.0, installing=600.0, confirming=600.0, total=20_000.0,
    deferral=5_000.0,
)  # fmt: skip
NUMBERS = st.sampled_from([0, 0, 0, -1, 1])
CODES = st.sampled_from([None, 68, 68, 65, 95, 128, 132, 133, 136, 141, 160, 163])
STATES = st.integers(0, 3) | st.just(9)
RESULTS = st.sampled_from([0, 0, 0, 1, 2, 5, 8, 9, 10, 11, 12, 12, 13, 77])
VERSIONS = st.sampled_from([None, "1.0.0", "1.0.0", "2.0.0", "3.0.0", "x"])
OFFSETS = st.integers(0, 12_000)
GOALS = (
    Goal(name="00", version="2.0.0", digest=bytes(32), before="1.0.0"),
    Goal(name="modem", version=None, digest=bytes(32)),
)
COMPONENTS = st.none() | st.tuples(
    st.builds(Shown, instance=st.just(0), name=st.just("00"), version=VERSIONS),
    st.builds(
        Shown,
        instance=st.just(1),
        name=st.sampled_from(["modem", "radio"]),
        digest=st.sampled_from([None, bytes(32), bytes([1]) * 32]),
    ),
)

statuses = st.fixed_dictionaries(
    {
        "state": STATES,
        "result": RESULTS,
        "version": VERSIONS,
        "package_version": VERSIONS,
        "delivery": st.sampled_from([None, 0, 1, 2, 7]),
        "protocols": st.sampled_from([None, frozenset(), frozenset({0}), frozenset({3})]),
        "running_digest": st.sampled_from([None, None, bytes(32), bytes([1]) * 32]),
        "severity": st.sampled_from([None, 0, 1, 9]),
        "max_defer": st.sampled_from([None, 0, 600]),
        "deferred_until": st.sampled_from([None, 0.0, 5_000.0]),
        "refusal_code": st.sampled_from(["", "", "signature", "fetch-failed", "new-code"]),
        "components": COMPONENTS,
        "conflicting": st.sampled_from([(), (), (1,), (1, 2)]),
    }
)
happenings: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("answer"), st.tuples(NUMBERS, CODES)),
    st.tuples(st.just("answer"), st.tuples(NUMBERS, CODES)),
    st.tuples(st.just("status"), st.tuples(NUMBERS, statuses)),
    st.tuples(st.just("status"), st.tuples(NUMBERS, statuses)),
    st.tuples(st.just("progress"), st.tuples(NUMBERS, OFFSETS)),
    st.tuples(st.just("push-ended"), st.tuples(NUMBERS, CODES, OFFSETS)),
    st.tuples(st.just("notified"), st.tuples(st.none() | STATES, st.none() | RESULTS)),
    st.tuples(st.just("download"), OFFSETS),
    st.tuples(st.sampled_from(["registered", "gone", "started", "tick", "restart"]), st.none()),
)
delays = st.sampled_from([0.0, 0.0, 1.0, 35.0, 100.0, 500.0])


class Machine:
    """Steps a job and checks what must hold after every step."""

    def __init__(self, kind: Kind, digest: bytes | None, goals: tuple[Goal, ...] = ()) -> None:
        self.now = 0.0
        self.job = new_job(
            kind=kind, digest=bytes(32), size=10_000, uris=("coap://s/x",), target_version="2.0.0",
            target_digest=digest, timers=TIMERS, now=0.0, severity=1, max_defer=600,
            goals=goals,
        )  # fmt: skip
        self.view = DeviceView(registered=True)
        self.outcome: Outcome | None = None
        self.wake_at: float | None = None
        self.state: int | None = None
        self.feed(ev.Started())

    def feed(self, event: ev.Event) -> None:
        if self.outcome is not None:
            return
        before = self.job
        if isinstance(event, ev.StatusRead) and before.ask is Ask.READ and event.number == before.ask_number:
            self.state = event.state
        done = step(before, self.view, event, self.now)
        assert UpdateJob.from_json(json.loads(json.dumps(done.job.to_json()))) == done.job
        requests = [action for action in done.actions if not isinstance(action, ev.Observe | ev.StopPush)]
        assert len(requests) <= 1
        for action in requests:
            assert action.number == done.job.ask_number > before.ask_number
            if isinstance(action, ev.Execute):
                assert self.state == 2
                self.state = None
        if done.outcome is None:
            assert done.wake_at is not None
            assert self.now <= done.wake_at <= TIMERS.total + 600 + self.now
        self.job, self.view, self.outcome, self.wake_at = done.job, done.view, done.outcome, done.wake_at

    def happen(self, kind: str, data: Any) -> None:
        number = self.job.ask_number
        match kind:
            case "answer":
                self.feed(ev.Answered(number + data[0], data[1]))
            case "status":
                self.feed(ev.StatusRead(number + data[0], **data[1]))
            case "progress":
                self.feed(ev.PushProgress(number + data[0], data[1]))
            case "push-ended":
                self.feed(ev.PushEnded(number + data[0], data[1], data[2]))
            case "notified":
                self.feed(ev.Notified(*data))
            case "download":
                self.feed(ev.DownloadProgress(data))
            case "restart":
                self.job = UpdateJob.from_json(self.job.to_json())
                self.view = DeviceView(registered=self.view.registered)
                self.feed(ev.Started())
            case _:
                events = {"registered": ev.Registered(), "gone": ev.Gone(), "started": ev.Started()}
                self.feed(events.get(kind, ev.Tick()))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(Kind),
    st.sampled_from([None, bytes(32)]),
    st.sampled_from([(), GOALS]),
    st.lists(st.tuples(delays, happenings), max_size=50),
    st.integers(0, 60),
)
def test_any_events_keep_the_rules_and_silence_ends_the_job(
    kind: Kind,
    digest: bytes | None,
    goals: tuple[Goal, ...],
    history: list[tuple[float, tuple[str, Any]]],
    cancel_at: int,
) -> None:
    machine = Machine(kind, digest, goals)
    for index, (delay, (name, data)) in enumerate(history):
        machine.now += delay
        if index == cancel_at:
            machine.feed(ev.CancelRequested())
        machine.happen(name, data)
    for _ in range(100):
        if machine.outcome is not None:
            return
        assert machine.wake_at is not None
        machine.now = max(machine.now, machine.wake_at)
        machine.feed(ev.Tick())
    raise AssertionError(machine.job)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(Kind),
    st.lists(CODES, min_size=1, max_size=12),
    st.lists(statuses, min_size=1, max_size=12),
    st.lists(st.tuples(CODES, OFFSETS), min_size=1, max_size=6),
    st.sampled_from([0, 7, 40]),
    st.sampled_from([(), GOALS]),
)
def test_device_that_answers_anything_at_once_never_makes_the_machine_spin(
    kind: Kind,
    codes: list[int | None],
    reads: list[dict[str, Any]],
    pushes: list[tuple[int | None, int]],
    returns: int,
    goals: tuple[Goal, ...],
) -> None:
    machine = Machine(kind, None, goals)
    still, at = 0, machine.now
    for turn in range(20_000):
        if machine.outcome is not None:
            return
        number, ask = machine.job.ask_number, machine.job.ask
        if returns and turn % returns == returns - 1:
            machine.feed(ev.Registered())
        elif ask is Ask.READ:
            machine.feed(ev.StatusRead(number, **reads[turn % len(reads)]))
        elif ask is Ask.PUSH:
            machine.feed(ev.PushEnded(number, *pushes[turn % len(pushes)]))
        elif ask is not None:
            machine.feed(ev.Answered(number, codes[turn % len(codes)]))
        else:
            assert machine.wake_at is not None
            machine.now = max(machine.now + (1.0 if returns else 0.0), machine.wake_at)
            machine.feed(ev.Tick())
        still = still + 1 if machine.now == at else 0
        at = machine.now
        assert still < 200, machine.job
    raise AssertionError(machine.job)
