"""The update machine driven by hand."""

from __future__ import annotations

from typing import Any

from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.outcomes import Outcome
from lwm2m_server.firmware.update import step
from lwm2m_server.firmware.update_job import DeviceView, Kind, new_job

OLD, NEW = "1.0.0", "1.1.0"
SIZE = 10_000
CHANGED, BAD_REQUEST, NOT_FOUND, NOT_ALLOWED, INCOMPLETE, TOO_LARGE, BUSY = 68, 128, 132, 133, 136, 141, 163


class Drive:
    """Feeds a machine by hand; answers refer to the request that is outstanding."""

    def __init__(self, *, kind: Kind = Kind.IMAGE, view: DeviceView | None = None, **job: Any) -> None:
        arguments: dict[str, Any] = {
            "digest": bytes(32), "size": SIZE, "uris": ("coap://s/fw/x",), "target_version": NEW, "now": 0.0,
        }  # fmt: skip
        self.job = new_job(kind=kind, **(arguments | job))
        self.view = view or DeviceView(registered=True)
        self.now = 0.0
        self.outcome: Outcome | None = None
        self.actions: tuple[ev.Action, ...] = ()
        self.feed(ev.Started())

    def feed(self, event: ev.Event, *, after: float = 0.0) -> Drive:
        self.now += after
        done = step(self.job, self.view, event, self.now)
        self.job, self.view, self.actions, self.outcome = done.job, done.view, done.actions, done.outcome
        self.wake_at = done.wake_at
        return self

    def status(self, state: int, result: int = 0, *, version: str | None = OLD, **more: Any) -> Drive:
        return self.feed(ev.StatusRead(self.job.ask_number, state, result, version=version, **more))

    def answer(self, code: int | None, *, max_age: float | None = None) -> Drive:
        return self.feed(ev.Answered(self.job.ask_number, code, max_age))

    def pushed(self, code: int | None, offset: int = SIZE) -> Drive:
        return self.feed(ev.PushEnded(self.job.ask_number, code, offset))

    def progress(self, offset: int) -> Drive:
        return self.feed(ev.PushProgress(self.job.ask_number, offset))

    def wake(self) -> Drive:
        assert self.wake_at is not None
        self.now = max(self.now, self.wake_at)
        return self.feed(ev.Tick())

    @property
    def asked(self) -> ev.Action:
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

    def pulling(self) -> Drive:
        return self.status(0).answer(CHANGED)

    def downloaded(self) -> Drive:
        return self.pulling().status(2)

    def installing(self) -> Drive:
        return self.downloaded().answer(CHANGED)


PULL, PUSH, BOTH = {"delivery": 0}, {"delivery": 1}, {"delivery": 2}
