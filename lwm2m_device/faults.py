"""Faults on demand: a device that loses power at a chosen point of its download, or in the middle of a flash
operation.
"""

import os
import random
import signal

from lwm2m_device.flash import Operation, Tear
from lwm2m_device.settings import Faults, Log


class DeathByProgress:
    """SIGKILL to this process when the download reaches `percent`; a resumed download is spared."""

    def __init__(self, percent: int | None, log: Log) -> None:
        self._percent = percent
        self._log = log

    def spare(self) -> None:
        """Let the device live: it died before."""
        self._percent = None

    def at(self, percent: int) -> None:
        """Die when it is time."""
        if self._percent is not None and percent >= self._percent:
            self._log(f"Power lost at {percent} % (as ordered)")
            os.kill(os.getpid(), signal.SIGKILL)


class SuddenDeath:
    """A power supply that fails in the middle of one flash operation: the process gets SIGKILL."""

    def __init__(self, faults: Faults, log: Log) -> None:
        self._at = faults.cut_power_at
        self._seed = faults.seed
        self._log = log
        self._count = 0

    def spend(self, operation: Operation, offset: int, size: int) -> Tear | None:
        """Tear the operation whose turn it is."""
        self._count += 1
        if self._count != self._at:
            return None
        self._log(f"Power lost at flash operation {self._count}: {operation} of {size} bytes at {offset:#x}")
        return Tear(random.Random(self._seed).random(), self._seed)  # noqa: S311  must repeat

    def lost(self) -> None:
        """Be gone."""
        os.kill(os.getpid(), signal.SIGKILL)
