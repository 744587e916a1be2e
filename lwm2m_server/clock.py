"""Time comes in from outside: the pure packages get `now` as an argument, services get a `Clock`.

Times are seconds since the epoch as float everywhere; only the faces turn them into ISO 8601.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What services know of time."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()


class ManualClock:
    """A clock that tests move by hand."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        """Return the time that was set."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Move forward and return the new time."""
        self._now += seconds
        return self._now
