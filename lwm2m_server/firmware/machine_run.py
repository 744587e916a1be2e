"""What the machines of objects 5, 33629 and 9 have in common: a step in the making, and how they fold events and time.

Each has a job and a view of its own (`update_job`, `software_job`), whose fields have the same names as far as they
are used here. Of the kinds of requests only the Read and the push are known here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from lwm2m_server.firmware.outcomes import Outcome, cancelled, failed
from lwm2m_server.firmware.update_events import Notified, Observe, PushEnded, PushProgress, StopPush
from lwm2m_server.firmware.update_job import Phase

MAX_DELIVERIES: Final = 5
MAX_RESTARTS: Final = 4
"""Times that a push may begin again at byte 0."""
MAX_RETURNS: Final = 20
"""Registrations that count as progress; a device that restarts for ever must not hold its job for ever."""

READ: Final = "read"
PUSH: Final = "push"
INCOMPLETE: Final = 136
TOO_LARGE: Final = 141
BUSY: Final = 163


class MachineRun(ABC):
    """A step in the making: new job, new view, actions and perhaps the outcome. Subclasses say which they are."""

    job: Any
    view: Any
    actions: list[Any]

    def __init__(self, job: Any, view: Any, now: float) -> None:
        self.job = job
        self.view = view
        self.now = now
        self.actions = []
        self.outcome: Outcome | None = None

    @abstractmethod
    def read(self) -> None:
        """Ask the device how far it is."""

    @abstractmethod
    def push(self, offset: int) -> None:
        """Push the package from this byte on."""

    @abstractmethod
    def deliver_again(self) -> None:
        """Begin the delivery anew, a bounded number of times."""

    def change(self, **changes: Any) -> None:
        """Set fields of the job."""
        self.job = replace(self.job, **changes)

    def know(self, **changes: Any) -> None:
        """Set fields of the view."""
        self.view = replace(self.view, **changes)

    def finish(self, outcome: Outcome) -> None:
        """End the job; a push that is running is stopped."""
        if self.job.ask == PUSH:
            self.actions.append(StopPush())
        self.outcome = outcome

    def enter(self, phase: Phase) -> None:
        """Go to a phase; that is progress."""
        if phase is not self.job.phase:
            self.change(phase=phase, progress_at=self.now, settling_since=None)

    def wait(self, seconds: float | None = None) -> None:
        """Do nothing for a while, then read again."""
        self.know(fresh=False)
        self.change(wait_until=self.now + (self.job.timers.poll if seconds is None else seconds))

    def settled(self) -> bool:
        """Whether the present finding has lasted for the settling time; begins to count at the first call."""
        if self.job.settling_since is None:
            self.change(settling_since=self.now)
        return bool(self.now - (self.job.settling_since or 0.0) >= self.job.timers.settle)

    def refuse_method(self) -> None:
        """Do not deliver in the present way again."""
        method = self.job.method
        if method is not None and method not in self.job.refused:
            self.change(refused=(*self.job.refused, method))

    def ask(self, ask: str) -> int:
        """Make a request the one that is outstanding; return its number."""
        number: int = self.job.ask_number + 1
        # whatever is asked may change the device: it is read again before the next decision
        self.know(fresh=False)
        self.change(ask=ask, ask_number=number, asked_at=self.now)
        return number

    # -- events ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or go on after a restart of the server."""
        # what was outstanding has no answer any more; a phase gets its full time again
        self.change(ask=None, progress_at=self.now)
        self.know(fresh=False, locked=False)
        if self.view.registered:
            self.actions.append(Observe())

    def registered(self, view: Any) -> None:
        """Take a new registration: whatever was known counts no more, evidence neither. `view` knows nothing."""
        self.forget_request()
        self.heard()
        self.view = view
        self.change(wait_until=0.0, busy=False, registered_since=True, settling_since=None)
        if self.job.phase is Phase.INSTALLING:
            self.enter(Phase.CONFIRMING)
        elif self.job.phase is not Phase.CONFIRMING and self.job.returns < MAX_RETURNS:
            self.change(returns=self.job.returns + 1, progress_at=self.now)
        self.actions.append(Observe())

    def gone(self) -> None:
        """Take the end of the registration."""
        self.forget_request()
        self.know(registered=False, fresh=False, locked=False)

    def forget_request(self) -> None:
        """Drop the request: the peer that was asked is no more; its answer will not come, or is late."""
        if self.job.ask == PUSH:
            self.actions.append(StopPush())
        self.change(ask=None)

    def notified(self, event: Notified) -> None:
        """Take a notification: what is news is read, at once."""
        self.heard()
        news = [(event.state, self.view.state), (event.result, self.view.result)]
        if any(new is not None and new != old for new, old in news):
            self.know(
                fresh=False,
                state=event.state if event.state is not None else self.view.state,
                result=event.result if event.result is not None else self.view.result,
            )
            self.change(wait_until=min(self.job.wait_until, self.now))

    def push_progress(self, event: PushProgress) -> None:
        """Take how far a push has come."""
        if event.number != self.job.ask_number or self.job.ask != PUSH:
            return
        self.heard()
        self.change(push_offset=self._bounded(event.offset))
        if event.offset > 0:
            self.enter(Phase.DOWNLOADING)
        self.progress(event.offset)

    def push_ended(self, event: PushEnded, busy: Callable[[float | None], None]) -> None:
        """Take the end of a push; `busy` is called with Max-Age where the device was."""
        if event.number != self.job.ask_number or self.job.ask != PUSH:
            return
        self.change(ask=None, push_offset=self._bounded(event.offset))
        self.know(fresh=False)
        code = event.code
        if code is None:
            self.wait()
            return
        self.heard()
        if success(code):
            self.change(push_offset=self.job.size)
            self.enter(Phase.DOWNLOADING)
            self.progress(self.job.size)
        elif code == BUSY:
            busy(event.max_age)
        elif code == INCOMPLETE:
            self.change(push_offset=0)
            self.enter(Phase.DOWNLOADING)
        elif code == TOO_LARGE:
            self.change(too_large=True, error=code)
            self.refuse_method()
        else:
            self.change(error=code)

    def wait_busy(self, max_age: float | None) -> None:
        """5.03: later, as the device says, within bounds."""
        busy = self.job.timers.busy
        self.wait(min(max(max_age or busy, 1.0), 5 * busy))
        self.change(busy=True)

    def heard(self) -> None:
        """The device is there."""
        self.change(heard_at=self.now)

    def progress(self, offset: int) -> None:
        """Bytes arrived; only those that never arrived before count as progress."""
        if offset > self.job.offset:
            self.change(offset=offset, progress_at=self.now, busy=False)
            if self.job.phase is Phase.OFFERED and self.job.method is not None:
                self.enter(Phase.DOWNLOADING)

    def _bounded(self, offset: int) -> int:
        size: int = self.job.size
        return max(0, min(offset, size))

    # -- time and cancelling ---------------------------------------------------------------------

    def expired(self) -> Outcome:
        """Say why a phase, or the whole, took too long."""
        job, limit = self.job, phase_limit(self.job)
        span = int(self.now - job.progress_at)
        silence = job.timers.answer + 2 * job.timers.poll
        if job.heard_at is None or self.now - job.heard_at > min(silence, limit / 2):
            return failed("silent", f"the device was silent while {job.phase}", retry_after=300.0)
        if span < limit:
            return failed("stalled", f"the update was not done within {int(job.timers.total)} s")
        if job.busy:
            return failed(
                "busy", f"the device answered 5.03 (busy) for {span} s while {job.phase}", retry_after=300.0
            )
        return failed(
            "stalled", f"the device made no progress for {span} s while {job.phase}", retry_after=300.0
        )

    def wake_at(self, end: float, *, revocable: bool) -> float:
        """Return when time alone changes something; `end` is that of the phase or of the whole."""
        job, answer = self.job, self.job.timers.answer
        times = [end]
        if job.cancelling_since is not None and revocable:
            times.append(job.cancelling_since + answer)
        if job.ask not in (None, PUSH):
            times.append(job.asked_at + answer)
        elif job.ask is None and self.view.registered:
            times.append(job.wait_until)
        return max(min(times), self.now)

    def go_on(self, decide: Callable[[Any], None], *, revocable: bool) -> None:
        """Ask for what comes next, where nothing is outstanding; `decide` needs a device that was just read."""
        if self.job.cancelling_since is not None and revocable:
            self.stop_delivery()
        if self.outcome is not None or not self.view.registered or self.job.ask is not None:
            return
        if self.now < self.job.wait_until:
            return
        if self.view.locked:
            self.push(self.job.push_offset)
        elif not self.view.fresh:
            self.read()
        else:
            decide(self)

    def restart_push(self) -> None:
        """Begin the push again at byte 0, a bounded number of times."""
        if self.job.restarts >= MAX_RESTARTS:
            self.finish(failed("transfer-failed", f"the device lost the transfer {MAX_RESTARTS} times"))
            return
        self.change(restarts=self.job.restarts + 1, deliveries=max(0, self.job.deliveries - 1))
        self.deliver_again()

    def stop_delivery(self) -> None:
        """Stop sending before the installation; end at once where the device has nothing to drop."""
        job = self.job
        if job.ask == PUSH:
            self.forget_request()
            self.change(wait_until=self.now)
        if job.method is None and job.ask in (None, READ):
            self.finish(cancelled("the update was cancelled before it was delivered"))
        elif not self.view.registered:
            self.finish(
                cancelled(
                    "the update was cancelled; the device is not reachable and may still hold the package"
                )
            )


def phase_limit(job: Any) -> float:
    """Return the seconds that the job's phase may last without progress."""
    timers = job.timers
    limits: dict[Phase, float] = {
        Phase.OFFERED: timers.offered,
        Phase.DOWNLOADING: timers.downloading,
        Phase.DOWNLOADED: timers.downloaded,
        Phase.INSTALLING: timers.installing,
        Phase.CONFIRMING: timers.confirming,
    }
    return limits[job.phase]


def success(code: int) -> bool:
    """Whether a CoAP code is 2.xx."""
    return 64 <= code < 96


def dotted(code: int) -> str:
    """Write a CoAP code as people do: 4.05."""
    return f"{code >> 5}.{code & 31:02d}"
