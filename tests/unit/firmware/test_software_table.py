"""The table of the software machine is complete, its answers are sound, and the job survives its JSON form."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import outcomes
from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.outcomes import Ending
from lwm2m_server.firmware.refusals import RefusalCode
from lwm2m_server.firmware.software import step
from lwm2m_server.firmware.software_decide import TABLE
from lwm2m_server.firmware.software_events import (
    Install,
    SoftwareEvent,
    SoftwareRead,
    SoftwareStep,
    Uninstall,
)
from lwm2m_server.firmware.software_job import Ask, SoftwareJob, SoftwareView, State, new_software_job
from lwm2m_server.firmware.software_results import (
    BY_SOFTWARE_RESULT,
    GOOD,
    SOFTWARE_RESULT,
    by_software_result,
    by_status_reason,
)
from lwm2m_server.firmware.update_job import Kind, Method, Phase

OLD, NEW = "1.0.0", "1.1.0"
SIZE = 10_000
CHANGED, NOT_ALLOWED, TOO_LARGE, BUSY = 68, 133, 141, 163
RESULTS = (0, 2, 3, 53, 55, 56, 58, 59)
INSTALLED = ((OLD, True), (NEW, False), (NEW, True), (None, None))


def fresh_job() -> SoftwareJob:
    return new_software_job(
        kind=Kind.IMAGE, digest=bytes(32), size=SIZE, uris=("coap://s/fw/x",), application="meter",
        target_version=NEW, instance="/9/0", now=0.0,
    )  # fmt: skip


def events(number: int) -> list[SoftwareEvent]:
    return [
        ev.Started(), ev.Registered(), ev.Gone(), ev.Notified(state=4), ev.Notified(result=58),
        ev.Notified(0, 0),
        ev.Answered(number, None), ev.Answered(number, CHANGED), ev.Answered(number, NOT_ALLOWED),
        ev.Answered(number, BUSY), ev.PushProgress(number, 2048), ev.PushEnded(number, CHANGED, SIZE),
        ev.PushEnded(number, TOO_LARGE, 2048), ev.PushEnded(number, None, 2048), ev.DownloadProgress(4096),
        ev.CancelRequested(), ev.Tick(), SoftwareRead(number + 1, 4, 2, "meter", NEW, True),
    ]  # fmt: skip


def test_table_has_a_rule_for_every_phase_and_state() -> None:
    assert set(TABLE) == set(itertools.product(Phase, State))


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("method", [None, *Method])
def test_every_combination_has_a_defined_answer(phase: Phase, method: Method | None) -> None:
    sent = 50.0 if phase in (Phase.INSTALLING, Phase.CONFIRMING) else None
    base = replace(
        fresh_job(), phase=phase, method=method, ask_number=5, asked_at=90.0, progress_at=90.0, looked=True,
        base_version=OLD, base_active=True, deliveries=method is not None, push_offset=1024,
        install_sent_at=sent, installs=sent is not None, accepted=sent is not None,
    )  # fmt: skip
    for state, result, (version, active) in itertools.product(range(6), RESULTS, INSTALLED):
        known: dict[str, Any] = {"name": "meter", "version": version, "active": active}
        view = SoftwareView(registered=True, fresh=True, state=state, result=result, **known)
        for event in events(5):
            take(base, view, event)
        asking = replace(view, fresh=False)
        take(replace(base, ask=Ask.READ), asking, SoftwareRead(5, state, result, **known))
        if result == 0:
            # what an answer does depends on what was asked, hardly on what was known before
            for ask, event in itertools.product(Ask, events(5)):
                take(replace(base, ask=ask), asking, event)


def take(job: SoftwareJob, view: SoftwareView, event: SoftwareEvent) -> None:
    done = step(job, view, event, 100.0)
    check(job, done)
    again = step(done.job, done.view, event, 100.0)
    if done.outcome is None and isinstance(event, ev.Answered | SoftwareRead | ev.PushEnded):
        assert (again.job, again.actions) == (done.job, ()), event


def check(job: SoftwareJob, done: SoftwareStep) -> None:
    requests = [action for action in done.actions if not isinstance(action, ev.Observe | ev.StopPush)]
    if done.outcome is not None:
        assert not requests
        assert done.wake_at is None
        if done.outcome.ending is Ending.SUCCEEDED:
            # on evidence alone
            view = done.view
            assert (view.fresh, view.state, view.version) == (True, State.INSTALLED, NEW)
            assert view.active is True
        return
    assert done.wake_at is not None
    assert done.wake_at >= 100.0
    assert len(requests) == (done.job.ask_number != job.ask_number)
    assert all(action.number == done.job.ask_number for action in requests)
    assert bool(requests) <= (done.job.ask is not None)
    for action in requests:
        if isinstance(action, Install):
            assert done.view.state == State.DELIVERED
        if isinstance(action, Uninstall) and done.view.state == State.INSTALLED:
            assert action.for_update, "what is in place was removed before its successor is there"


def test_no_result_of_object_9_is_judged_by_the_number_of_object_5() -> None:
    assert not set(BY_SOFTWARE_RESULT) & set(outcomes.BY_RESULT)
    for result in range(201):
        if result not in GOOD and result not in BY_SOFTWARE_RESULT:
            assert by_software_result(result).reason == "unknown-result"
    assert all(50 <= number <= 59 and number != 55 for number in SOFTWARE_RESULT.values())


@pytest.mark.parametrize(
    ("result", "reason", "most"),
    [
        (50, "no-storage", 1), (51, "out-of-memory", 3), (52, "connection-lost", None), (53, "integrity", 1),
        (54, "package-type", 1), (56, "invalid-uri", 1), (57, "device-error", 1), (58, "update-failed", 1),
        (59, "uninstall-failed", 1),
    ],
)  # fmt: skip
def test_each_failure_has_its_reason_and_bounded_retries(result: int, reason: str, most: int | None) -> None:
    found = by_software_result(result)
    assert (found.ending, found.reason, found.retryable, found.max_retries) == (
        Ending.FAILED,
        reason,
        True,
        most,
    )


@pytest.mark.parametrize("code", RefusalCode)
def test_a_refusal_in_status_reason_says_it_better_where_it_fits_the_result(code: RefusalCode) -> None:
    assert by_status_reason(SOFTWARE_RESULT[code], f"{code}: because").reason == code
    other = 51
    assert by_status_reason(other, f"{code}: because").reason == "out-of-memory"
    assert by_status_reason(53, "whatever the application says").reason == "integrity"


def test_job_survives_its_json_form() -> None:
    job = replace(fresh_job(), prefer=Method.PUSH, method=Method.PUSH, refused=(Method.PULL,), ask=Ask.PUSH)
    assert SoftwareJob.from_json(json.loads(json.dumps(job.to_json()))) == job


@pytest.mark.parametrize(
    "damage",
    [{"format": 2}, {"machine": "x"}, {"phase": "lost"}, {"digest": "xy"}, {"more": 1}, {"timers": {"x": 1}}],
)
def test_damaged_job_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        SoftwareJob.from_json(fresh_job().to_json() | damage)
    with pytest.raises(InvalidInput):
        SoftwareJob.from_json({"format": 1})
