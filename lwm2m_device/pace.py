"""The passing of time for the device's tasks, so that tests run in virtual time."""

import asyncio
from typing import Protocol


class Pace(Protocol):
    """A clock that only moves forward, in seconds, and a way to wait."""

    def now(self) -> float:
        """Return the present time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that time."""
        ...


class LoopPace:
    """The running event loop's time."""

    def now(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def wait_for(event: asyncio.Event, seconds: float | None, pace: Pace) -> bool:
    """Wait until the event is set or the time is over (None: no limit); say whether it was set."""
    tasks: set[asyncio.Future[object]] = {asyncio.ensure_future(event.wait())}
    if seconds is not None:
        tasks.add(asyncio.ensure_future(pace.sleep(seconds)))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    return event.is_set()


class Backoff:
    """Growing pauses: doubled after each failure up to a limit, reset by success. Seconds."""

    def __init__(self, first: float = 2.0, limit: float = 60.0) -> None:
        self._first = first
        self._limit = limit
        self._next = first

    def reset(self) -> None:
        """Start over with the first pause."""
        self._next = self._first

    def next(self) -> float:
        """Return the pause to make now."""
        pause = self._next
        self._next = min(self._next * 2, self._limit)
        return pause
