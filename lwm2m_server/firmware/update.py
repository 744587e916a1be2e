"""The update machine: drives an update object (5 or 33629) of one device from the offer to the evidence.

`step` is the whole interface: job, view and one event in; the new job, the new view, actions and perhaps the
outcome out. This file folds events into job and view and keeps the timers; `update_decide` has the table of
what to do next; `update_run` the requests.

One request is outstanding at a time. After each registration, notification or doubtful answer the device is
read again before anything is decided. Each phase is bounded by a timer that only progress restarts, and the
whole by another one, so that every job ends.
"""

from __future__ import annotations

from typing import Final

from lwm2m_server.firmware.machine_run import BUSY, phase_limit, success
from lwm2m_server.firmware.outcomes import cancelled, failed_for_good
from lwm2m_server.firmware.update_decide import confirm, decide, deferral_limit
from lwm2m_server.firmware.update_events import (
    Answered,
    CancelRequested,
    DownloadProgress,
    Event,
    Gone,
    Notified,
    PushEnded,
    PushProgress,
    Registered,
    Started,
    StatusRead,
    Step,
    StopPush,
    Tick,
)
from lwm2m_server.firmware.update_job import Ask, DeviceView, Method, Phase, State, UpdateJob
from lwm2m_server.firmware.update_run import Run

NOT_FOUND: Final = 132

_INSTALLING: Final = frozenset({Phase.INSTALLING, Phase.CONFIRMING})


def step(job: UpdateJob, view: DeviceView, event: Event, now: float) -> Step:
    """Work in one event. Pure: the same arguments give the same step."""
    run = Run(job, view, now)
    _take(run, event)
    if run.outcome is None:
        _deadlines(run)
    if run.outcome is None:
        run.go_on(decide, revocable=_revocable(run.job))
    if run.outcome is not None:
        stops = tuple(action for action in run.actions if isinstance(action, StopPush))
        return Step(run.job, run.view, stops[:1], run.outcome, None)
    end = min(_phase_end(run.job), _total_end(run.job))
    wake_at = run.wake_at(end, revocable=_revocable(run.job))
    return Step(run.job, run.view, tuple(run.actions), None, wake_at)


# -- events ---------------------------------------------------------------------


def _take(run: Run, event: Event) -> None:
    match event:
        case Started():
            run.start()
        case Registered():
            run.registered(DeviceView(registered=True))
        case Gone():
            run.gone()
        case StatusRead():
            _status_read(run, event)
        case Notified():
            _notified(run, event)
        case Answered():
            if event.number == run.job.ask_number and run.job.ask not in (None, Ask.PUSH):
                _answered(run, event.code, event.max_age)
        case PushProgress():
            run.push_progress(event)
        case PushEnded():
            run.push_ended(event, lambda max_age: _busy(run, max_age, Ask.PUSH))
        case DownloadProgress():
            run.heard()
            run.progress(event.offset)
        case CancelRequested():
            if run.job.cancelling_since is None:
                run.change(cancelling_since=run.now)
        case Tick():
            pass


def _status_read(run: Run, event: StatusRead) -> None:
    if event.number != run.job.ask_number or run.job.ask is not Ask.READ:
        return
    run.heard()
    run.change(ask=None, busy=False)
    run.know(
        fresh=True,
        locked=False,
        state=event.state,
        result=event.result,
        version=event.version,
        package_version=event.package_version,
        delivery=event.delivery,
        protocols=event.protocols,
        running_digest=event.running_digest,
        refusal_code=event.refusal_code,
        refusal_text=event.refusal_text,
        severity=event.severity,
        max_defer=event.max_defer,
        deferred_until=event.deferred_until,
        components=event.components,
        conflicting=event.conflicting,
        read_at=run.now,
    )


def _notified(run: Run, event: Notified) -> None:
    if run.job.ask is Ask.EXECUTE and event.state == State.UPDATING:
        # it comes before the 2.04
        run.change(accepted=True, registered_since=False)
        run.enter(Phase.INSTALLING)
    run.notified(event)


def _answered(run: Run, code: int | None, max_age: float | None) -> None:
    ask = run.job.ask
    run.change(ask=None)
    run.know(fresh=False)
    if code is None:
        _unanswered(run, ask)
        return
    run.heard()
    if code == BUSY:
        _busy(run, max_age, ask)
        if ask is Ask.READ and run.job.method is Method.PUSH and 0 < run.job.push_offset < run.job.size:
            # a client with an unfinished block-wise transfer answers nothing else: try the next block
            run.know(locked=True)
            run.change(wait_until=run.now)
    elif ask is Ask.READ:
        if code == NOT_FOUND and run.job.phase is Phase.OFFERED:
            run.finish(
                failed_for_good("no-firmware-object", f"the device has no update object {run.job.instance}")
            )
        run.wait()
    elif ask is Ask.CONFIGURE:
        # a device that refuses them is updated all the same
        run.change(configured=True)
    elif ask is Ask.URI and success(code):
        run.enter(Phase.DOWNLOADING)
    elif ask is Ask.EXECUTE and success(code):
        run.change(accepted=True)
        run.enter(Phase.INSTALLING)
        run.wait()
    elif not success(code) and ask in (Ask.URI, Ask.EXECUTE):
        run.change(error=code)


def _unanswered(run: Run, ask: Ask | None) -> None:
    """Wait, then read whether it was taken; what was not does not count, the timer of the phase bounds it."""
    if ask is Ask.URI:
        run.change(deliveries=max(0, run.job.deliveries - 1))
    elif ask is Ask.EXECUTE:
        run.change(executes=max(0, run.job.executes - 1))
    if ask is not Ask.RESET:
        run.wait()


def _busy(run: Run, max_age: float | None, ask: Ask | None) -> None:
    """5.03: later. An offer or an Execute that was put off so did not happen."""
    if run.job.execute_sent_at is not None and run.job.phase is Phase.DOWNLOADED:
        run.change(executes=max(0, run.job.executes - 1))
    elif run.job.phase is Phase.OFFERED and ask is not Ask.CONFIGURE:
        run.change(deliveries=max(0, run.job.deliveries - 1))
    run.wait_busy(max_age)


# -- time ---------------------------------------------------------------------


def _phase_end(job: UpdateJob) -> float:
    """When the phase is over without progress; a device that puts the update off need not even be there."""
    if job.deferred_since is None:
        return job.progress_at + phase_limit(job)
    return job.deferred_since + deferral_limit(job) + phase_limit(job)


def _total_end(job: UpdateJob) -> float:
    return job.started_at + job.timers.total + (job.max_defer or 0)


def _deadlines(run: Run) -> None:
    job, timers = run.job, run.job.timers
    if run.now >= min(_phase_end(job), _total_end(job)):
        _expire(run)
    elif (
        job.cancelling_since is not None
        and run.now >= job.cancelling_since + timers.answer
        and _revocable(job)
    ):
        run.finish(cancelled("the update was cancelled; the device did not confirm it"))
    elif job.ask not in (None, Ask.PUSH) and run.now >= job.asked_at + timers.answer:
        _answered(run, None, None)


def _expire(run: Run) -> None:
    job = run.job
    if job.cancelling_since is not None and _revocable(job):
        run.finish(cancelled("the update was cancelled; the device did not confirm it"))
    elif job.execute_sent_at is not None and (run.view.read_at or 0.0) > job.execute_sent_at and confirm(run):
        # it shows the new version, though it never left Updating
        return
    else:
        run.finish(run.expired())


def _revocable(job: UpdateJob) -> bool:
    return job.phase not in _INSTALLING and job.execute_sent_at is None
