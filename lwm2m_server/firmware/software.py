"""The software machine: drives object 9 (Software Management) of one device from the offer to the evidence.

`step` is the whole interface: job, view and one event in; the new job, the new view, actions and perhaps the
outcome out. This file folds events into job and view and keeps the timers; `software_decide` has the table of what
to do next; `software_run` the requests. Like the update machine it has one request outstanding at a time, reads again
after each registration, notification or doubtful answer before anything is decided, and bounds each phase by a timer
that only progress restarts, and the whole by another one.
"""

from __future__ import annotations

from typing import Final

from lwm2m_server.firmware.outcomes import Outcome, cancelled, failed, failed_for_good
from lwm2m_server.firmware.software_decide import confirm, decide
from lwm2m_server.firmware.software_events import SoftwareEvent, SoftwareRead, SoftwareStep
from lwm2m_server.firmware.software_job import Ask, SoftwareJob, SoftwareView, State
from lwm2m_server.firmware.software_run import MAX_RETURNS, Run
from lwm2m_server.firmware.update_events import (
    Answered,
    CancelRequested,
    DownloadProgress,
    Gone,
    Notified,
    Observe,
    PushEnded,
    PushProgress,
    Registered,
    Started,
    StopPush,
    Tick,
)
from lwm2m_server.firmware.update_job import Method, Phase

NOT_FOUND: Final = 132
INCOMPLETE: Final = 136
TOO_LARGE: Final = 141
BUSY: Final = 163
_FIRST_LOOK: Final = 5.0
"""Seconds from the answer to Install until the device is read, where nothing is heard of it before."""


def step(job: SoftwareJob, view: SoftwareView, event: SoftwareEvent, now: float) -> SoftwareStep:
    """Work in one event. Pure: the same arguments give the same step."""
    run = Run(job, view, now)
    _take(run, event)
    if run.outcome is None:
        _deadlines(run)
    if run.outcome is None:
        _go_on(run)
    if run.outcome is not None:
        stops = tuple(action for action in run.actions if isinstance(action, StopPush))
        return SoftwareStep(run.job, run.view, stops[:1], run.outcome, None)
    return SoftwareStep(run.job, run.view, tuple(run.actions), None, _wake_at(run))


# -- events ---------------------------------------------------------------------


def _take(run: Run, event: SoftwareEvent) -> None:
    match event:
        case Started():
            _started(run)
        case Registered():
            _registered(run)
        case Gone():
            _forget_request(run)
            run.know(registered=False, fresh=False, locked=False)
        case SoftwareRead():
            _read(run, event)
        case Notified():
            _notified(run, event)
        case Answered():
            if event.number == run.job.ask_number and run.job.ask not in (None, Ask.PUSH):
                _answered(run, event.code, event.max_age)
        case PushProgress():
            _push_progress(run, event)
        case PushEnded():
            if event.number == run.job.ask_number and run.job.ask is Ask.PUSH:
                _push_ended(run, event)
        case DownloadProgress():
            _heard(run)
            _progress(run, event.offset)
        case CancelRequested():
            if run.job.cancelling_since is None:
                run.change(cancelling_since=run.now)
        case Tick():
            pass


def _started(run: Run) -> None:
    # what was outstanding has no answer any more; a phase gets its full time again
    run.change(ask=None, progress_at=run.now)
    run.know(fresh=False, locked=False)
    if run.view.registered:
        run.actions.append(Observe())


def _registered(run: Run) -> None:
    """Whatever was known counts no more, evidence neither."""
    _forget_request(run)
    _heard(run)
    run.view = SoftwareView(registered=True)
    run.change(wait_until=0.0, busy=False, registered_since=True, settling_since=None)
    if run.job.phase is Phase.INSTALLING:
        run.enter(Phase.CONFIRMING)
    elif run.job.phase is not Phase.CONFIRMING and run.job.returns < MAX_RETURNS:
        run.change(returns=run.job.returns + 1, progress_at=run.now)
    run.actions.append(Observe())


def _forget_request(run: Run) -> None:
    """Drop the request: the peer that was asked is no more; its answer will not come, or is late."""
    if run.job.ask is Ask.PUSH:
        run.actions.append(StopPush())
    run.change(ask=None)


def _read(run: Run, event: SoftwareRead) -> None:
    if event.number != run.job.ask_number or run.job.ask is not Ask.READ:
        return
    _heard(run)
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


def _notified(run: Run, event: Notified) -> None:
    _heard(run)
    news = [(event.state, run.view.state), (event.result, run.view.result)]
    if any(new is not None and new != old for new, old in news):
        run.know(
            fresh=False,
            state=event.state if event.state is not None else run.view.state,
            result=event.result if event.result is not None else run.view.result,
        )
        run.change(wait_until=min(run.job.wait_until, run.now))


def _push_progress(run: Run, event: PushProgress) -> None:
    if event.number != run.job.ask_number or run.job.ask is not Ask.PUSH:
        return
    _heard(run)
    run.change(push_offset=_bounded(run, event.offset))
    if event.offset > 0:
        run.enter(Phase.DOWNLOADING)
    _progress(run, event.offset)


def _push_ended(run: Run, event: PushEnded) -> None:
    run.change(ask=None, push_offset=_bounded(run, event.offset))
    run.know(fresh=False)
    code = event.code
    if code is None:
        run.wait()
        return
    _heard(run)
    if _success(code):
        run.change(push_offset=run.job.size)
        run.enter(Phase.DOWNLOADING)
        _progress(run, run.job.size)
    elif code == BUSY:
        _busy(run, event.max_age, Ask.PUSH)
    elif code == INCOMPLETE:
        run.change(push_offset=0)
        run.enter(Phase.DOWNLOADING)
    elif code == TOO_LARGE:
        run.change(too_large=True, error=code)
        run.refuse_method()
    else:
        run.change(error=code)


def _answered(run: Run, code: int | None, max_age: float | None) -> None:
    ask = run.job.ask
    run.change(ask=None)
    run.know(fresh=False)
    if code is None:
        _unanswered(run, ask)
        return
    _heard(run)
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
    elif _success(code):
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
    timers = run.job.timers
    if ask is Ask.INSTALL:
        run.change(installs=max(0, run.job.installs - 1))
    elif ask in (Ask.URI, Ask.PUSH) and run.job.phase is Phase.OFFERED:
        run.change(deliveries=max(0, run.job.deliveries - 1))
    run.wait(min(max(max_age or timers.busy, 1.0), 5 * timers.busy))
    run.change(busy=True)


def _heard(run: Run) -> None:
    run.change(heard_at=run.now)


def _progress(run: Run, offset: int) -> None:
    """Bytes arrived; only those that never arrived before count as progress."""
    if offset > run.job.offset:
        run.change(offset=offset, progress_at=run.now, busy=False)
        if run.job.phase is Phase.OFFERED and run.job.method is not None:
            run.enter(Phase.DOWNLOADING)


def _bounded(run: Run, offset: int) -> int:
    return max(0, min(offset, run.job.size))


def _success(code: int) -> bool:
    return 64 <= code < 96


# -- time ---------------------------------------------------------------------


def _phase_limit(job: SoftwareJob) -> float:
    timers = job.timers
    limits = {
        Phase.OFFERED: timers.offered,
        Phase.DOWNLOADING: timers.downloading,
        Phase.DOWNLOADED: timers.downloaded,
        Phase.INSTALLING: timers.installing,
        Phase.CONFIRMING: timers.confirming,
    }
    return limits[job.phase]


def _phase_end(job: SoftwareJob) -> float:
    return job.progress_at + _phase_limit(job)


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
        run.finish(_expired(run))


def _expired(run: Run) -> Outcome:
    job = run.job
    span = int(run.now - job.progress_at)
    silence = job.timers.answer + 2 * job.timers.poll
    if job.heard_at is None or run.now - job.heard_at > min(silence, _phase_limit(job) / 2):
        return failed("silent", f"the device was silent while {job.phase}", retry_after=300.0)
    if span < _phase_limit(job):
        return failed("stalled", f"the update was not done within {int(job.timers.total)} s")
    if job.busy:
        return failed(
            "busy", f"the device answered 5.03 (busy) for {span} s while {job.phase}", retry_after=300.0
        )
    return failed("stalled", f"the device made no progress for {span} s while {job.phase}", retry_after=300.0)


def _revocable(job: SoftwareJob) -> bool:
    return job.phase not in (Phase.INSTALLING, Phase.CONFIRMING) and job.install_sent_at is None


def _wake_at(run: Run) -> float:
    job, timers = run.job, run.job.timers
    times = [_phase_end(job), _total_end(job)]
    if job.cancelling_since is not None and _revocable(job):
        times.append(job.cancelling_since + timers.answer)
    if job.ask not in (None, Ask.PUSH):
        times.append(job.asked_at + timers.answer)
    elif job.ask is None and run.view.registered:
        times.append(job.wait_until)
    return max(min(times), run.now)


# -- what next ---------------------------------------------------------------------


def _go_on(run: Run) -> None:
    if run.job.cancelling_since is not None and _revocable(run.job):
        _stop_delivery(run)
    if run.outcome is not None or not run.view.registered or run.job.ask is not None:
        return
    if run.now < run.job.wait_until:
        return
    if run.view.locked:
        run.push(run.job.push_offset)
    elif not run.view.fresh:
        run.read()
    else:
        decide(run)


def _stop_delivery(run: Run) -> None:
    """Stop sending before the installation; end at once where the device has nothing to drop."""
    job = run.job
    if job.ask is Ask.PUSH:
        _forget_request(run)
        run.change(wait_until=run.now)
    if job.method is None and job.ask in (None, Ask.READ):
        run.finish(cancelled("the update was cancelled before it was delivered"))
    elif not run.view.registered:
        run.finish(
            cancelled("the update was cancelled; the device is not reachable and may still hold the package")
        )
