"""The software machine driven by hand."""

from __future__ import annotations

from typing import Any

from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.outcomes import Outcome
from lwm2m_server.firmware.software import step
from lwm2m_server.firmware.software_events import SoftwareAction, SoftwareEvent, SoftwareRead
from lwm2m_server.firmware.software_job import SoftwareView, new_software_job
from lwm2m_server.firmware.update_job import Kind

OLD, NEW = "1.0.0", "1.1.0"
SIZE = 10_000
CHANGED, BAD_REQUEST, NOT_FOUND, NOT_ALLOWED, INCOMPLETE, TOO_LARGE, BUSY = 68, 128, 132, 133, 136, 141, 163


class SoftwareDrive:
    """Feeds a machine by hand; answers refer to the request that is outstanding."""

    def __init__(self, *, kind: Kind = Kind.IMAGE, view: SoftwareView | None = None, **job: Any) -> None:
        arguments: dict[str, Any] = {
            "digest": bytes(32), "size": SIZE, "uris": ("coap://s/fw/x",), "application": "meter",
            "target_version": NEW, "instance": "/9/0", "now": 0.0,
        }  # fmt: skip
        self.job = new_software_job(kind=kind, **(arguments | job))
        self.view = view or SoftwareView(registered=True)
        self.now = 0.0
        self.outcome: Outcome | None = None
        self.actions: tuple[SoftwareAction, ...] = ()
        self.feed(ev.Started())

    def feed(self, event: SoftwareEvent, *, after: float = 0.0) -> SoftwareDrive:
        self.now += after
        done = step(self.job, self.view, event, self.now)
        self.job, self.view, self.actions, self.outcome = done.job, done.view, done.actions, done.outcome
        self.wake_at = done.wake_at
        return self

    def status(self, state: int, result: int = 0, *, version: str | None = "", **more: Any) -> SoftwareDrive:
        given = {"name": "meter", **more}
        return self.feed(SoftwareRead(self.job.ask_number, state, result, version=version, **given))

    def answer(self, code: int | None, *, max_age: float | None = None) -> SoftwareDrive:
        return self.feed(ev.Answered(self.job.ask_number, code, max_age))

    def pushed(self, code: int | None, offset: int = SIZE) -> SoftwareDrive:
        return self.feed(ev.PushEnded(self.job.ask_number, code, offset))

    def wake(self) -> SoftwareDrive:
        assert self.wake_at is not None
        self.now = max(self.now, self.wake_at)
        return self.feed(ev.Tick())

    @property
    def asked(self) -> SoftwareAction:
        """The one request of the last step."""
        requests = [action for action in self.actions if not isinstance(action, ev.Observe | ev.StopPush)]
        assert len(requests) == 1, self.actions
        return requests[0]

    @property
    def idle(self) -> bool:
        return not [action for action in self.actions if not isinstance(action, ev.Observe)]

    def ended(self) -> tuple[str, str]:
        assert self.outcome is not None
        return self.outcome.ending.value, self.outcome.reason

    # -- ways to a phase --

    def pulling(self) -> SoftwareDrive:
        return self.status(0).answer(CHANGED)

    def delivered(self) -> SoftwareDrive:
        return self.pulling().status(3, 3)

    def installing(self) -> SoftwareDrive:
        return self.delivered().answer(CHANGED)

    def activating(self) -> SoftwareDrive:
        return self.installing().wake().status(4, 2, version=NEW, active=False)
