"""The table of the update machine is complete, its answers are sound, and the job survives its JSON form."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.update import step
from lwm2m_server.firmware.update_decide import TABLE
from lwm2m_server.firmware.update_job import Ask, DeviceView, Kind, Method, Phase, State, UpdateJob, new_job

OLD, NEW = "1.0.0", "1.1.0"
SIZE = 10_000
CHANGED, NOT_ALLOWED, TOO_LARGE, BUSY = 68, 133, 141, 163


def fresh_job() -> UpdateJob:
    return new_job(
        kind=Kind.IMAGE,
        digest=bytes(32),
        size=SIZE,
        uris=("coap://s/fw/x",),
        target_version=NEW,
        now=0.0,
        severity=0,
        max_defer=600,
    )


def events(number: int) -> list[ev.Event]:
    return [
        ev.Started(), ev.Registered(), ev.Gone(), ev.Notified(state=3), ev.Notified(result=5),
        ev.Notified(0, 0),
        ev.Answered(number, None), ev.Answered(number, CHANGED), ev.Answered(number, NOT_ALLOWED),
        ev.Answered(number, BUSY), ev.PushProgress(number, 2048), ev.PushEnded(number, CHANGED, SIZE),
        ev.PushEnded(number, TOO_LARGE, 2048), ev.PushEnded(number, None, 2048), ev.DownloadProgress(4096),
        ev.CancelRequested(), ev.Tick(), ev.StatusRead(number + 1, 0, 1, version=NEW),
    ]  # fmt: skip


def test_table_has_a_rule_for_every_phase_and_state() -> None:
    assert set(TABLE) == set(itertools.product(Phase, State))


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("method", [None, *Method])
@pytest.mark.parametrize("deferred", [None, 60.0])
def test_every_combination_has_a_defined_answer(
    phase: Phase, method: Method | None, deferred: float | None
) -> None:
    sent = 50.0 if phase in (Phase.INSTALLING, Phase.CONFIRMING) else None
    base = replace(
        fresh_job(), phase=phase, method=method, ask_number=5, asked_at=90.0, progress_at=90.0,
        base_version=OLD,
        deliveries=method is not None, push_offset=1024, execute_sent_at=sent, accepted=sent is not None,
        deferred_since=deferred, configured=deferred is not None,
    )  # fmt: skip
    for ask, state, result in itertools.product([None, *Ask], range(5), (0, 1, 5, 8, 9, 11, 99)):
        job = replace(base, ask=ask)
        view = DeviceView(
            registered=True,
            fresh=ask is None,
            state=state,
            result=result,
            version=OLD,
            delivery=2,
            severity=1,
        )
        read = ev.StatusRead(5, state, result, version=OLD, delivery=2, severity=1)
        for event in [*events(5), read]:
            done = step(job, view, event, 100.0)
            check(job, done)
            again = step(done.job, done.view, event, 100.0)
            if done.outcome is None and isinstance(event, ev.Answered | ev.StatusRead | ev.PushEnded):
                assert (again.job, again.actions) == (done.job, ()), event


def check(job: UpdateJob, done: ev.Step) -> None:
    requests = [action for action in done.actions if not isinstance(action, ev.Observe | ev.StopPush)]
    if done.outcome is not None:
        assert not requests
        assert done.wake_at is None
        return
    assert done.wake_at is not None
    assert done.wake_at >= 100.0
    assert len(requests) == (done.job.ask_number != job.ask_number)
    assert all(action.number == done.job.ask_number for action in requests)
    assert bool(requests) <= (done.job.ask is not None)


def test_job_survives_its_json_form() -> None:
    job = replace(
        fresh_job(),
        target_digest=bytes(32),
        prefer=Method.PUSH,
        method=Method.PUSH,
        refused=(Method.PULL,),
        ask=Ask.PUSH,
    )
    assert UpdateJob.from_json(json.loads(json.dumps(job.to_json()))) == job


@pytest.mark.parametrize(
    "damage", [{"format": 2}, {"phase": "lost"}, {"digest": "xy"}, {"more": 1}, {"timers": {"x": 1}}]
)
def test_damaged_job_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        UpdateJob.from_json(fresh_job().to_json() | damage)
    with pytest.raises(InvalidInput):
        UpdateJob.from_json({"format": 1})


def test_job_of_an_older_server_is_read_and_is_about_object_5() -> None:
    old = fresh_job().to_json()
    for name in ("severity", "max_defer", "configured", "deferred_since", "deferred_until", "instance"):
        del old[name]
    assert UpdateJob.from_json(old) == replace(fresh_job(), severity=None, max_defer=None, instance="/5/0")
