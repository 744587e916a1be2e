"""Work that goes on by itself: timers that tests can drive, and tasks that never fail unnoticed."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import structlog

from lwm2m_server.errors import Lwm2mError

_log = structlog.get_logger(__name__)


def report(error: BaseException, what: str, **where: str) -> None:
    """Log a failure: what is known may go wrong in a sentence, a mistake in the program with its trace."""
    if isinstance(error, Lwm2mError):
        _log.error(what, error=error.message, **where)
    else:
        _log.error(what, exc_info=error, **where)


class Cancellable(Protocol):
    """A timer that was armed."""

    def cancel(self) -> object:
        """Disarm it."""
        ...


class Timers(Protocol):
    """What services know of waiting. `MemoryNetwork` is one in virtual time."""

    def later(self, seconds: float, callback: Callable[[], None]) -> Cancellable:
        """Call back once, after so many seconds."""
        ...


class LoopTimers:
    """Timers of the running event loop."""

    def later(self, seconds: float, callback: Callable[[], None]) -> Cancellable:
        """Call back once, after so many seconds."""
        return asyncio.get_running_loop().call_later(seconds, callback)


AGAIN = 5.0


class Background:
    """Tasks of one service: an exception is logged, and `close` ends them all."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any] | None:
        """Start a task; after `close` nothing starts any more, and None comes back."""
        if self._closed:
            work.close()
            return None
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            report(error, "background work failed", service=self._name)


class Pump:
    """Runs one piece of work whenever it is woken, never twice at a time, and every `interval` seconds.

    Waking it while it runs makes it run once more: what arrived meanwhile is not forgotten. A round that fails is
    logged and repeated: at the next interval, or, without one, `AGAIN` seconds later.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        timers: Timers | None = None,
        interval: float | None = None,
    ) -> None:
        self._name = name
        self._work = work
        self._timers = timers
        self._interval = interval
        self._background = Background(name)
        self._timer: Cancellable | None = None
        self._running = False
        self._again = False
        self._closed = False

    def start(self) -> None:
        """Begin the interval, if there is one; without one only `wake` makes it run."""
        self._arm()

    def wake(self) -> None:
        """Run as soon as possible."""
        if self._running:
            self._again = True
        elif not self._closed:
            self._running = True
            self._background.spawn(self._run())

    async def close(self) -> None:
        """End it, also in the middle of its work."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._background.close()

    def _arm(self) -> None:
        if self._timers is not None and self._interval is not None and not self._closed:
            self._timer = self._timers.later(self._interval, self._tick)

    def _repeat(self) -> None:
        if self._timers is not None and self._interval is None and not self._closed:
            self._timer = self._timers.later(AGAIN, self.wake)

    def _tick(self) -> None:
        self._arm()
        self.wake()

    async def _run(self) -> None:
        try:
            while True:
                self._again = False
                try:
                    await self._work()
                except Exception as error:  # noqa: BLE001  one bad round must not end the service
                    report(error, "background work failed", service=self._name)
                    self._repeat()
                if not self._again:
                    return
        finally:
            self._running = False
