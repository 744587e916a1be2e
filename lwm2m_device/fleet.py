"""Many light devices: the engine's simulator, watched."""

import socket
import time
from typing import Any

from lwm2m_device import uri
from lwm2m_device.settings import Log
from lwm2m_server.errors import InvalidInput
from lwm2m_server.transport.simulator import Fleet

_SLICE = 1.0  # seconds between two looks for Ctrl-C
_REPORT = 10  # slices between two lines of the log


def run_fleet(server: str, count: int, *, seconds: float | None, log: Log, **options: Any) -> dict[str, int]:
    """Let `count` devices live for so many seconds (None: until Ctrl-C) and return what happened.

    Raises InvalidInput for a server or options that can't be used.
    """
    target = uri.parse(server, field="server")
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
        fleet = Fleet(uri.address(str(found[0][4][0]), target.port), count, **options)
    except OSError as error:
        raise InvalidInput(
            f"The host {target.host} has no address: {error.strerror}.", field="server"
        ) from None
    except Exception as error:  # noqa: BLE001  the engine's own error, which only the transport may import
        raise InvalidInput(f"The fleet can't start: {error}", field="fleet") from None
    sums: dict[str, int] = {}
    end = None if seconds is None else time.monotonic() + seconds
    rounds = 0
    try:
        while end is None or (left := end - time.monotonic()) > 0:
            sums = fleet.run(_SLICE if end is None else min(_SLICE, left))
            rounds += 1
            if rounds % _REPORT == 0:
                log(", ".join(f"{value} {name}" for name, value in sums.items()))
    except KeyboardInterrupt:
        log("Stopped")
    return sums
