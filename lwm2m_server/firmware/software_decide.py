"""The table of the software machine: what to do in each phase of the job for each State of the instance.

Rules run on fresh knowledge only. A CoAP answer alone proves nothing: success is State INSTALLED with the wanted
name and version, and active where that is wanted. DELIVERED tells nothing of whether an installation is under way,
so Install is repeated only when that State has lasted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lwm2m_server import versions
from lwm2m_server.firmware.machine_run import dotted
from lwm2m_server.firmware.outcomes import Outcome, cancelled, failed, failed_for_good, succeeded
from lwm2m_server.firmware.software_job import State
from lwm2m_server.firmware.software_results import (
    INVALID_URI,
    UNINSTALL_FAILED,
    by_software_result,
    by_status_reason,
)
from lwm2m_server.firmware.software_run import MAX_ACTIVATIONS, MAX_REMOVALS, Run
from lwm2m_server.firmware.update_job import Kind, Method, Phase

METHOD_NOT_ALLOWED: Final = 133
_STARTING: Final = 5.0
"""Seconds until an application that was activated is looked at again: nothing notifies of Activation State."""
Rule = Callable[[Run], None]


def decide(run: Run) -> None:
    """Next action, or the outcome."""
    view = run.view
    if not run.job.looked:
        installed = view.state == State.INSTALLED
        # What an attempt before has installed may be off because that one did not come to switch it on.
        meant = installed and not (run.job.again and run.shows_version())
        run.change(
            looked=True,
            base_version=view.version if installed else None,
            base_active=view.active if meant else None,
        )
    if confirm(run):
        return
    if run.job.phase is Phase.OFFERED and run.is_foreign():
        run.finish(
            failed_for_good(
                "no-application-place", f"the instance {run.job.instance} holds application {view.name}"
            )
        )
        return
    if run.job.cancelling_since is not None and _cancel(run):
        return
    if view.state not in set(State):
        run.wait()
        return
    TABLE[run.job.phase, State(view.state)](run)


def confirm(run: Run) -> bool:
    """End in success when the application shows its version, and is active where it is to be."""
    if not run.shows_version() or (run.job.wants_active and run.view.active is False):
        return False
    version = f"{run.job.application} {run.job.target_version}"
    if run.job.method is None and not run.job.activations:
        run.finish(succeeded("already-current", f"the device already has {version}"))
    else:
        state = "" if run.job.wants_active else ", switched off as before"
        run.finish(succeeded("confirmed-version", f"the device has {version} installed{state}"))
    return True


def _cancel(run: Run) -> bool:
    """Drop what was delivered; once Install was sent there is no way back."""
    if run.job.install_sent_at is not None:
        return False
    if run.view.state in (State.INITIAL, State.INSTALLED):
        run.finish(cancelled("the update was cancelled before the installation"))
    elif run.job.removals < MAX_REMOVALS:
        run.uninstall()
    else:
        run.finish(cancelled("the update was cancelled; the device did not drop the package"))
    return True


# -- rules ---------------------------------------------------------------------


def _wait(run: Run) -> None:
    run.wait()


def _prepare(run: Run) -> None:
    if run.job.error is not None:
        _refused(run)
    elif run.job.removals and run.view.state == State.INSTALLED and run.view.result == UNINSTALL_FAILED:
        run.finish(by_software_result(UNINSTALL_FAILED))
    else:
        run.prepare()


def _refused(run: Run) -> None:
    """Judge a write that was answered with an error: the Result says why, else the way is not taken."""
    code, result = run.job.error or 0, run.failure()
    run.change(error=None)
    if result == INVALID_URI and run.job.method is Method.PULL:
        run.refuse_method()
        if run.can(Method.PUSH):
            run.deliver_again()
        else:
            run.finish(_failure(run, result))
    elif result:
        run.finish(_failure(run, result))
    elif run.view.state == State.INITIAL:
        run.refuse_method()
        if not run.job.too_large and not any(run.can(method) for method in Method):
            run.finish(failed_for_good("device-error", f"the device answered {dotted(code)} to the package"))
        else:
            run.deliver_again()
    else:
        run.restart_push()


def _downloading_initial(run: Run) -> None:
    result = run.failure()
    if run.job.error is not None:
        _refused(run)
    elif result:
        run.finish(_failure(run, result))
    elif run.job.method is Method.PUSH and run.job.push_offset < run.job.size:
        run.restart_push()
    else:
        _deliver_again_soon(run)


def _deliver_again_soon(run: Run) -> None:
    """It restarted and forgot, or never began."""
    if run.job.registered_since or run.settled():
        run.deliver_again()
    else:
        run.wait()


def _downloading(run: Run) -> None:
    run.change(settling_since=None)
    if run.job.error is not None:
        _refused(run)
    elif run.job.method is Method.PUSH and run.job.push_offset < run.job.size:
        run.push(run.job.push_offset)
    else:
        run.wait()


def _arrived(run: Run) -> None:
    # an error of a transfer that is complete after all: only its last acknowledgement was lost
    run.change(error=None)
    _delivered(run)


def _delivered(run: Run) -> None:
    """Ready to be installed, or being installed: the State is the same."""
    if run.job.phase is Phase.DOWNLOADING:
        run.enter(Phase.DOWNLOADED)
    sent, result, code = run.job.install_sent_at is not None, run.failure(), run.job.error
    if sent and result:
        run.finish(_failure(run, result))
    elif code is not None and code != METHOD_NOT_ALLOWED:
        run.finish(failed("device-error", f"the device answered {dotted(code)} to Install", max_retries=1))
    elif run.job.accepted and not run.job.registered_since:
        run.wait()
    elif sent and not run.settled():
        # 4.05, no answer, or a restart in between: it may well be installing
        run.wait()
    else:
        run.change(error=None)
        run.install()


def _fallen_back(run: Run) -> None:
    """INITIAL after the package was whole."""
    result = run.failure()
    if result:
        run.finish(_failure(run, result))
    elif run.job.install_sent_at is None:
        run.deliver_again()
    elif run.job.registered_since or run.settled():
        run.finish(failed("update-failed", "the device gave the package up", max_retries=1))
    else:
        run.wait()


def _offered_installed(run: Run) -> None:
    """Something is in place before anything was delivered: what an attempt before has brought is only switched on."""
    if run.shows_version():
        _activate(run, run.failure())
    else:
        _prepare(run)


def _installed(run: Run) -> None:
    """INSTALLED, but not what is wanted: not active yet, or another version."""
    result = run.failure()
    if run.shows_version():
        _activate(run, result)
    elif run.job.install_sent_at is None:
        # what was there before is back
        _deliver_again_soon(run)
    elif result:
        run.finish(_failure(run, result))
    elif not run.job.registered_since and not run.settled():
        run.wait()
    elif not run.view.version:
        # fails closed: without a version there is no evidence
        if run.settled():
            run.finish(failed_for_good("unconfirmed", "the device does not report the version installed"))
        else:
            run.wait()
    elif run.job.base_version is not None and versions.same(run.view.version, run.job.base_version):
        run.finish(
            failed("rolled-back", f"the application is back at version {run.view.version}", max_retries=1)
        )
    else:
        run.finish(
            failed_for_good(
                "wrong-version",
                f"version {run.view.version} is installed instead of {run.job.target_version}",
            )
        )


def _activate(run: Run, result: int) -> None:
    code = run.job.error
    if run.job.activations and (result or code is not None):
        why = f"Update Result {result}" if result else f"the device answered {dotted(code or 0)}"
        run.finish(
            failed_for_good("activation-failed", f"the application is installed but does not start: {why}")
        )
    elif run.job.activations and not run.settled():
        run.wait(min(run.job.timers.poll, _STARTING))
    elif run.job.activations >= MAX_ACTIVATIONS:
        run.finish(
            failed_for_good("activation-failed", "the application is installed but stays switched off")
        )
    else:
        run.change(error=None)
        run.activate()


def _failure(run: Run, result: int) -> Outcome:
    """Say what an Update Result means; a refusal in Status Reason that fits the Result says it better."""
    if run.job.kind is Kind.MANIFEST:
        return by_status_reason(result, run.view.reason)
    return by_software_result(result)


TABLE: Final[dict[tuple[Phase, State], Rule]] = {
    (Phase.OFFERED, State.INITIAL): _prepare,
    (Phase.OFFERED, State.DOWNLOAD_STARTED): _prepare,
    (Phase.OFFERED, State.DOWNLOADED): _prepare,
    (Phase.OFFERED, State.DELIVERED): _prepare,
    (Phase.OFFERED, State.INSTALLED): _offered_installed,
    (Phase.DOWNLOADING, State.INITIAL): _downloading_initial,
    (Phase.DOWNLOADING, State.DOWNLOAD_STARTED): _downloading,
    (Phase.DOWNLOADING, State.DOWNLOADED): _wait,
    (Phase.DOWNLOADING, State.DELIVERED): _arrived,
    (Phase.DOWNLOADING, State.INSTALLED): _installed,
    (Phase.DOWNLOADED, State.INITIAL): _fallen_back,
    (Phase.DOWNLOADED, State.DOWNLOAD_STARTED): _wait,
    (Phase.DOWNLOADED, State.DOWNLOADED): _wait,
    (Phase.DOWNLOADED, State.DELIVERED): _delivered,
    (Phase.DOWNLOADED, State.INSTALLED): _installed,
    (Phase.INSTALLING, State.INITIAL): _fallen_back,
    (Phase.INSTALLING, State.DOWNLOAD_STARTED): _wait,
    (Phase.INSTALLING, State.DOWNLOADED): _wait,
    (Phase.INSTALLING, State.DELIVERED): _delivered,
    (Phase.INSTALLING, State.INSTALLED): _installed,
    (Phase.CONFIRMING, State.INITIAL): _fallen_back,
    (Phase.CONFIRMING, State.DOWNLOAD_STARTED): _wait,
    (Phase.CONFIRMING, State.DOWNLOADED): _wait,
    (Phase.CONFIRMING, State.DELIVERED): _delivered,
    (Phase.CONFIRMING, State.INSTALLED): _installed,
}
"""Complete: every phase and every State of the instance has its rule."""
