"""Faults on demand: a device that loses power at a chosen point of its download."""

import os
import signal

from lwm2m_device.settings import Log


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
