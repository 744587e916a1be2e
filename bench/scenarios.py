"""What is measured: a scenario asks a server for many of one thing and divides its CPU time by that."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from bench.children import BLOB_SIZE, Child
from lwm2m_server.transport.simulator import Fleet, Load

BLOCKS = BLOB_SIZE // 1024
LANES = 50


@dataclass(frozen=True)
class Measurement:
    """One row: cost per operation on the server's core, rate, and times that the asker saw (microseconds)."""

    work: str
    who: str
    count: int
    cpu_us: float
    per_second: float
    p50_us: float
    p99_us: float
    max_us: float
    errors: int
    note: str = ""

    def json(self) -> dict[str, object]:
        """Return it for the JSON report."""
        return asdict(self)


def _measure(
    work: str,
    child: Child,
    ask: Callable[[], dict[str, float]],
    *,
    warm_up: Callable[[], object] | None = None,
) -> Measurement:
    if warm_up is not None:
        warm_up()
    before = child.cpu()
    report = ask()
    cpu = child.cpu() - before
    count = int(report["answered"])
    return Measurement(
        work=work,
        who=child.name,
        count=count,
        cpu_us=cpu * 1e6 / max(count, 1),
        per_second=count / report["seconds"],
        p50_us=report["p50"],
        p99_us=report["p99"],
        max_us=report["max"],
        errors=int(report["errors"]),
    )


def answers(child: Child, count: int) -> Measurement:
    """A request that is answered with 1 KB in one message."""
    load = Load(child.address, LANES)
    return _measure(
        "1 KB answer",
        child,
        lambda: load.get(["small"], count),
        warm_up=lambda: load.get(["small"], max(count // 4, LANES)),
    )


def blocks_served(child: Child, count: int) -> Measurement:
    """Blocks of 1 KB out of a blob of 300 KB, asked for one after the other by each of the sockets."""
    load = Load(child.address, LANES)
    return _measure(
        "block served",
        child,
        lambda: load.get(["blob"], count, blocks=BLOCKS),
        warm_up=lambda: load.get(["blob"], max(count // 4, LANES), blocks=BLOCKS),
    )


def blocks_pushed(child: Child, devices: int) -> Measurement:
    """A blob of 300 KB written by Block1 to each of the devices at the same time."""
    fleet = Fleet(child.address, devices, prefix="push-", spread=0.1, lifetime=86400)
    while fleet.run(0.2)["registered"] < devices:
        pass
    stop = threading.Event()
    counts: dict[str, int] = {}

    def live() -> None:
        while not stop.is_set():
            counts.update(fleet.run(0.05))

    thread = threading.Thread(target=live)
    thread.start()
    before, start = child.cpu(), time.perf_counter()
    child.ask("push")
    cpu, seconds = child.cpu() - before, time.perf_counter() - start
    stop.set()
    thread.join()
    blocks = counts["bytes"] // 1024
    return Measurement(
        work="block pushed",
        who=child.name,
        count=blocks,
        cpu_us=cpu * 1e6 / max(blocks, 1),
        per_second=blocks / seconds,
        p50_us=0.0,
        p99_us=0.0,
        max_us=0.0,
        errors=devices - counts["downloads"],
        note=f"{devices} devices at once",
    )


def registrations(child: Child, devices: int, *, memory: Callable[[], int], rounds: int) -> list[Measurement]:
    """Registrations of that many devices, then bare Updates of all of them; memory before and after."""
    lanes = LANES if devices % LANES == 0 else 1
    load = Load(child.address, lanes)
    load.register(lanes * 20, prefix="warm-")
    load.update(5)
    before = memory()
    registered = _measure("registration", child, lambda: load.register(devices, prefix=f"n{devices}-"))
    grown = (memory() - before) / devices
    updated = _measure("registration update", child, lambda: load.update(rounds))
    note = f"{devices} devices"
    return [
        Measurement(**{**registered.json(), "note": f"{note}, {grown:.0f} bytes each"}),  # type: ignore[arg-type]
        Measurement(**{**updated.json(), "note": note}),  # type: ignore[arg-type]
    ]
