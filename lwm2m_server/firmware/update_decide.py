"""The table of the update machine: what to do in each phase of the job for each State of the device.

Rules run on fresh knowledge only: State, Result and versions were read since the last registration or
notification. A CoAP answer alone proves nothing, and success is reached on the evidence of the running
version and digest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from lwm2m_server import versions
from lwm2m_server.firmware.machine_run import dotted
from lwm2m_server.firmware.outcomes import (
    Outcome,
    by_refusal,
    by_result,
    cancelled,
    failed,
    failed_for_good,
    succeeded,
)
from lwm2m_server.firmware.refusals import UPDATE_RESULT, RefusalCode
from lwm2m_server.firmware.update_job import Goal, Kind, Method, Phase, State, UpdateJob
from lwm2m_server.firmware.update_run import MAX_RESETS, Run

UPDATED, URI_RESULT, PROTOCOL, DEFERRED, CONFLICT, DEPENDENCY = 1, 7, 9, 11, 12, 13
METHOD_NOT_ALLOWED: Final = 133
Rule = Callable[[Run], None]

_RESULTS_OF: Final[dict[str, set[int]]] = {code.value: {result} for code, result in UPDATE_RESULT.items()} | {
    RefusalCode.FETCH_FAILED.value: {UPDATE_RESULT[RefusalCode.FETCH_FAILED], URI_RESULT}
}


def decide(run: Run) -> None:
    """Next action, or the outcome."""
    if run.job.phase is Phase.OFFERED and run.job.base_version is None:
        run.change(base_version=run.view.version)
    if run.view.state != State.UPDATING and confirm(run):
        return
    if run.job.cancelling_since is not None and _cancel(run):
        return
    if run.job.deferred_since is not None and run.fresh_result() != DEFERRED:
        # it goes on: what comes now has its full time
        run.change(deferred_since=None, deferred_until=None, progress_at=run.now)
    if run.view.state not in set(State):
        run.wait()
        return
    TABLE[run.job.phase, State(run.view.state)](run)


def confirm(run: Run) -> bool:
    """End in success when the device shows the target version, and the digest where it reports one."""
    agrees = run.digest_agrees()
    if not run.shows_version():
        known = run.view.version is not None or bool(run.job.goals)
        packaged = run.view.result == UPDATED and versions.same(
            run.view.package_version, run.job.target_version
        )
        if known or run.job.execute_sent_at is None or not (agrees or (agrees is None and packaged)):
            return False
    elif agrees is False:
        return False
    if run.job.method is None:
        run.finish(succeeded("already-current", f"the device already runs {run.target()}"))
    elif agrees:
        run.finish(succeeded("confirmed-digest", f"the device runs {run.target()}, digest confirmed"))
    else:
        run.finish(succeeded("confirmed-version", f"the device runs {run.target()}"))
    return True


def _cancel(run: Run) -> bool:
    """Undo what was delivered; once the installation has begun there is no way back."""
    state = run.view.state
    if state == State.UPDATING or run.job.accepted:
        return False
    if state == State.IDLE and (run.job.execute_sent_at is None or run.job.deferred_since is not None):
        run.finish(cancelled("the update was cancelled before the installation"))
    elif state == State.IDLE:
        return False
    elif run.job.resets < MAX_RESETS:
        run.reset()
    else:
        run.finish(cancelled("the update was cancelled; the device did not drop the package"))
    return True


# -- rules ---------------------------------------------------------------------


def _wait(run: Run) -> None:
    run.wait()


def _other_update(run: Run) -> None:
    """Another update is being installed; what was refused meanwhile says nothing about ours."""
    run.change(error=None)
    run.wait()


def _prepare(run: Run) -> None:
    if run.job.error is not None:
        _refused(run)
    else:
        run.prepare()


def _refused(run: Run) -> None:
    """Judge a write that was answered with an error: the Result says why, else the way is not taken."""
    code, result = run.job.error or 0, run.fresh_result()
    run.change(error=None)
    if result in (PROTOCOL, URI_RESULT) and run.job.method is Method.PULL:
        run.refuse_method()
        if run.can(Method.PUSH):
            run.deliver_again()
        else:
            _fail(run, result)
    elif result:
        _fail(run, result)
    elif run.view.state == State.IDLE:
        run.refuse_method()
        if not run.job.too_large and not any(run.can(method) for method in Method):
            run.finish(failed_for_good("device-error", f"the device answered {dotted(code)} to the package"))
        else:
            run.deliver_again()
    else:
        run.restart_push()


def _downloading_idle(run: Run) -> None:
    result = run.fresh_result()
    if run.job.error is not None:
        _refused(run)
    elif result == PROTOCOL and run.job.method is Method.PULL:
        run.change(error=0)
        _refused(run)
    elif result:
        _fail(run, result)
    elif run.job.method is Method.PUSH and run.job.push_offset < run.job.size:
        run.restart_push()
    elif run.job.registered_since or run.settled():
        # it restarted and forgot, or never began
        run.deliver_again()
    else:
        run.wait()


def _downloading(run: Run) -> None:
    run.change(settling_since=None)
    if run.job.error is not None:
        _refused(run)
    elif run.job.method is Method.PUSH and run.job.push_offset < run.job.size:
        run.push(run.job.push_offset)
    elif run.fresh_result() == DEFERRED:
        _deferred(run)
    else:
        run.wait()


def _arrived(run: Run) -> None:
    # an error of a transfer that is complete after all: only its last acknowledgement was lost
    run.change(error=None)
    _downloaded(run)


def _downloaded(run: Run) -> None:
    run.enter(Phase.DOWNLOADED)
    result = run.fresh_result()
    if result == DEFERRED:
        _deferred(run)
    elif run.job.execute_sent_at is not None and result:
        _fail(run, result)
    elif run.job.error is not None and run.job.error != METHOD_NOT_ALLOWED:
        code = run.job.error
        run.finish(failed("device-error", f"the device answered {dotted(code)} to Update", max_retries=1))
    else:
        # 4.05 says "not Downloaded", yet it is: a second try, bounded by the number of executes
        run.change(error=None)
        run.execute()


def _downloaded_idle(run: Run) -> None:
    result = run.fresh_result()
    if run.job.execute_sent_at is not None:
        _installed(run)
    elif result:
        _fail(run, result)
    else:
        run.deliver_again()


def _installing(run: Run) -> None:
    if not run.job.accepted:
        run.change(accepted=True, registered_since=False)
    run.enter(Phase.CONFIRMING if run.job.registered_since else Phase.INSTALLING)
    run.change(error=None, settling_since=None)
    run.wait()


def _not_begun(run: Run) -> None:
    """Execute was sent and the device is (still or again) in Downloaded."""
    result = run.fresh_result()
    if result == DEFERRED:
        _deferred(run)
    elif result:
        _fail(run, result)
    elif run.job.accepted and not run.job.registered_since:
        run.wait()
    else:
        # the State proves that an unanswered Execute was not taken, or the device restarted before it began
        run.execute()


def _installed(run: Run) -> None:
    """Idle after Execute, and the target version is not running."""
    result = run.fresh_result()
    if result not in (0, UPDATED):
        _fail(run, result)
    elif not run.job.registered_since and not run.settled():
        run.wait()
    elif run.shows_version():
        run.finish(
            failed_for_good(
                "digest-mismatch", "the device shows the new version, but runs another image than the target"
            )
        )
    elif run.job.goals:
        _components_installed(run)
    elif run.view.version is None:
        # fails closed: without a version there is no evidence
        if run.settled():
            run.finish(failed_for_good("unconfirmed", "the device reports neither a version nor a digest"))
        else:
            run.wait()
    elif run.job.base_version is None or versions.same(run.view.version, run.job.base_version):
        run.finish(
            failed("rolled-back", f"the device came back with version {run.view.version}", max_retries=1)
        )
    else:
        run.finish(
            failed_for_good(
                "wrong-version",
                f"the device came back with version {run.view.version} instead of {run.job.target_version}",
            )
        )


def _components_installed(run: Run) -> None:
    """Idle after Execute, and some component is not what it should be."""
    old = [goal for goal in run.job.goals if not run.meets(goal)]
    if any((there := run.shown(goal.name)) is None or there.version is None for goal in old):
        if run.settled():
            run.finish(
                failed_for_good("unconfirmed", f"the device does not show the versions of {_names(old)}")
            )
        else:
            run.wait()
        return
    versions_now = ", ".join(f"{goal.name} {_version(run, goal)}" for goal in old)
    if not all(goal.before is None or versions.same(_version(run, goal), goal.before) for goal in old):
        run.finish(failed_for_good("wrong-version", f"the device came back with {versions_now}"))
    elif len(old) == len(run.job.goals):
        run.finish(failed("rolled-back", f"the device came back with {versions_now}", max_retries=1))
    else:
        run.finish(
            failed("partly-installed", f"the device came back with the old {versions_now}", max_retries=1)
        )


def _version(run: Run, goal: Goal) -> str | None:
    there = run.shown(goal.name)
    return None if there is None else there.version


def _names(goals: list[Goal]) -> str:
    return ", ".join(goal.name for goal in goals)


def _blockers(run: Run) -> str:
    """Name the components that the device calls conflicting."""
    names = {each.instance: each.name for each in run.view.components or ()}
    return ", ".join(names.get(number, f"instance {number}") for number in run.view.conflicting)


def _deferred(run: Run) -> None:
    """Wait while the device's application puts the update off: no failure, but bounded.

    The device was told to install and will do so by itself; it is not told again, but may still be reset.
    """
    since = run.now if run.job.deferred_since is None else run.job.deferred_since
    if run.now - since >= deferral_limit(run.job):
        run.finish(failed("deferred", "the update was put off for too long", retry_after=3600.0))
        return
    if run.view.state == State.DOWNLOADED:
        run.enter(Phase.DOWNLOADED)
    run.change(
        deferred_since=since,
        deferred_until=run.view.deferred_until or None,
        accepted=False,
        error=None,
        settling_since=None,
    )
    run.wait()


def deferral_limit(job: UpdateJob) -> float:
    """Return the seconds for which a device may put an update off, with a margin for its own clock."""
    return job.timers.deferral if job.max_defer is None else job.max_defer + job.timers.downloaded


def _fail(run: Run, result: int) -> None:
    """End as an Update Result says; where other components were in the way, reset those first."""
    if result == CONFLICT and run.clear_conflict():
        return
    run.finish(_failure(run, result))


def _failure(run: Run, result: int) -> Outcome:
    """Say what an Update Result means; a refusal in object 42800 that fits the Result says it better."""
    code = run.view.refusal_code
    if run.job.kind is Kind.MANIFEST and code and result in _RESULTS_OF.get(code, {result}):
        return by_refusal(code, run.view.refusal_text)
    if result == UPDATED:
        return failed("rolled-back", "the device reports an update that it does not run", max_retries=1)
    outcome = by_result(result)
    if result in (CONFLICT, DEPENDENCY) and run.view.conflicting:
        outcome = replace(outcome, text=f"{outcome.text}: {_blockers(run)}")
    return outcome


TABLE: Final[dict[tuple[Phase, State], Rule]] = {
    (Phase.OFFERED, State.IDLE): _prepare,
    (Phase.OFFERED, State.DOWNLOADING): _prepare,
    (Phase.OFFERED, State.DOWNLOADED): _prepare,
    (Phase.OFFERED, State.UPDATING): _other_update,
    (Phase.DOWNLOADING, State.IDLE): _downloading_idle,
    (Phase.DOWNLOADING, State.DOWNLOADING): _downloading,
    (Phase.DOWNLOADING, State.DOWNLOADED): _arrived,
    (Phase.DOWNLOADING, State.UPDATING): _installing,
    (Phase.DOWNLOADED, State.IDLE): _downloaded_idle,
    (Phase.DOWNLOADED, State.DOWNLOADING): _wait,
    (Phase.DOWNLOADED, State.DOWNLOADED): _downloaded,
    (Phase.DOWNLOADED, State.UPDATING): _installing,
    (Phase.INSTALLING, State.IDLE): _installed,
    (Phase.INSTALLING, State.DOWNLOADING): _wait,
    (Phase.INSTALLING, State.DOWNLOADED): _not_begun,
    (Phase.INSTALLING, State.UPDATING): _installing,
    (Phase.CONFIRMING, State.IDLE): _installed,
    (Phase.CONFIRMING, State.DOWNLOADING): _wait,
    (Phase.CONFIRMING, State.DOWNLOADED): _not_begun,
    (Phase.CONFIRMING, State.UPDATING): _installing,
}
"""Complete: every phase and every State of the device has its rule."""
