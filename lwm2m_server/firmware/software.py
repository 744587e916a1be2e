"""The software machine: drives object 9 (Software Management) of one device from the offer to the evidence.

`step` is the whole interface: job, view and one event in; the new job, the new view, actions and perhaps the
outcome out. This file folds events into job and view and keeps the timers; `software_decide` has the table of what
to do next; `software_run` the requests. Like the update machine it has one request outstanding at a time, reads again
after each registration, notification or doubtful answer before anything is decided, and bounds each phase by a timer
that only progress restarts, and the whole by another one.
"""

from __future__ import annotations

from typing import Final

from lwm2m_server.firmware.machine_run import BUSY, phase_limit, success
from lwm2m_server.firmware.outcomes import cancelled, failed_for_good
from lwm2m_server.firmware.software_decide import confirm, decide
from lwm2m_server.firmware.software_events import SoftwareEvent, SoftwareRead, SoftwareStep
from lwm2m_server.firmware.software_job import Ask, SoftwareJob, SoftwareView, State
from lwm2m_server.firmware.software_run import Run
from lwm2m_server.firmware.update_events import (
    Answered,
    CancelRequested,
    DownloadProgress,
    Gone,
    Notified,
    PushEnded,
    PushProgress,
    Registered,
    Started,
    StopPush,
    Tick,
)
from lwm2m_server.firmware.update_job import Method, Phase

NOT_FOUND: Final = 132
_FIRST_LOOK: Final = 5.0
"""Seconds from the answer to Install until the device is read, where nothing is heard of it before."""


def step(job: SoftwareJob, view: SoftwareView, event: SoftwareEvent, now: float) -> SoftwareStep:
    """Work in one event. Pure: the same arguments give the same step."""
    run = Run(job, view, now)
    _take(run, event)
    if run.outcome is None:
        _deadlines(run)
    if run.outcome is None:
        run.go_on(decide, revocable=_revocable(run.job))
    if run.outcome is not None:
        stops = tuple(action for action in run.actions if isinstance(action, StopPush))
        return SoftwareStep(run.job, run.view, stops[:1], run.outcome, None)
    end = min(_phase_end(run.job), _total_end(run.job))
    wake_at = run.wake_at(end, revocable=_revocable(run.job))
    return SoftwareStep(run.job, run.view, tuple(run.actions), None, wake_at)


# -- events ---------------------------------------------------------------------


def _take(run: Run, event: SoftwareEvent) -> None:
    match event:
        case Started():
            run.start()
        case Registered():
            run.registered(SoftwareView(registered=True))
        case Gone():
            run.gone()
        case SoftwareRead():
            _read(run, event)
        case Notified():
            run.notified(event)
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


def _read(run: Run, event: SoftwareRead) -> None:
    if event.number != run.job.ask_number or run.job.ask is not Ask.READ:
        return
    run.heard()
    run.change(ask=None, busy=False)
    if run.job.phase is not Phase.OFFERED and event.result != run.job.stale_result:
        # the device has begun anew: the old result can't come back by itself
        run.change(stale_result=0)
    run.know(
        fresh=True,
        locked=False,
        state=event.state,
        result=event.result,
        name=event.name,
        version=event.version,
        active=event.active,
        reason=event.reason,
        read_at=run.now,
    )


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
                failed_for_good("no-software-object", f"the device has no instance {run.job.instance}")
            )
        run.wait()
    elif success(code):
        _done(run, ask)
    elif ask is Ask.UNINSTALL:
        run.change(removal_refused=True)
    else:
        run.change(error=code)


def _done(run: Run, ask: Ask | None) -> None:
    """The device has taken a request; what it made of it is read."""
    if ask is Ask.URI:
        run.enter(Phase.DOWNLOADING)
    elif ask is Ask.UNINSTALL:
        run.change(removing=True)
    elif ask is Ask.INSTALL:
        run.change(accepted=True)
        run.enter(Phase.INSTALLING)
        if run.view.state == State.DELIVERED and not run.failure():
            run.wait(min(run.job.timers.poll, _FIRST_LOOK))
        # else the news of an installation that takes no time have come before this answer


def _unanswered(run: Run, ask: Ask | None) -> None:
    """Wait, then read whether it was taken; what was not does not count, the timer of the phase bounds it."""
    if ask is Ask.URI:
        run.change(deliveries=max(0, run.job.deliveries - 1))
    elif ask is Ask.INSTALL:
        run.change(installs=max(0, run.job.installs - 1))
    if ask is not Ask.UNINSTALL:
        run.wait()


def _busy(run: Run, max_age: float | None, ask: Ask | None) -> None:
    """5.03: later. An offer or an Install that was put off so did not happen."""
    if ask is Ask.INSTALL:
        run.change(installs=max(0, run.job.installs - 1))
    elif ask in (Ask.URI, Ask.PUSH) and run.job.phase is Phase.OFFERED:
        run.change(deliveries=max(0, run.job.deliveries - 1))
    run.wait_busy(max_age)


# -- time ---------------------------------------------------------------------


def _phase_end(job: SoftwareJob) -> float:
    return job.progress_at + phase_limit(job)


def _total_end(job: SoftwareJob) -> float:
    return job.started_at + job.timers.total


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
    elif run.view.fresh and job.install_sent_at is not None and confirm(run):
        return
    else:
        run.finish(run.expired())


def _revocable(job: SoftwareJob) -> bool:
    return job.phase not in (Phase.INSTALLING, Phase.CONFIRMING) and job.install_sent_at is None
