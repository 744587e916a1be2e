"""What is measured: a scenario asks a server for many of one thing and divides its CPU time by that."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from bench.children import BLOB_SIZE, Child
from lwm2m_server.transport.simulator import Fleet

BLOCKS = BLOB_SIZE // 1024
LANES = 50
# As many registrations are under way at a time: a fleet that comes back, not devices one by one.
REGISTRATION_LANES = 200
WARM = REGISTRATION_LANES * 10
SETTLE = 4.0  # seconds until the last sign of life is stored: one in the engine, two in the gateway


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


@dataclass(frozen=True)
class Memory:
    """Growth of a server's own memory for each registered device, in bytes."""

    who: str
    devices: int
    bytes_each: float
    note: str

    def json(self) -> dict[str, object]:
        """Return it for the JSON report."""
        return asdict(self)


def measure(
    work: str,
    child: Child,
    ask: Callable[[], dict[str, float]],
    *,
    warm_up: Callable[[], object] | None = None,
    idle: float = 0.0,
) -> Measurement:
    """Measure one scenario; `idle` are CPU seconds that the server would have used meanwhile without it."""
    if warm_up is not None:
        warm_up()
    before = child.cpu()
    report = ask()
    cpu = child.cpu() - before - idle
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
    load = child.load(LANES)
    return measure(
        "1 KB answer",
        child,
        lambda: load.get(["small"], count),
        warm_up=lambda: load.get(["small"], max(count // 4, LANES)),
    )


def blocks_served(child: Child, count: int) -> Measurement:
    """Blocks of 1 KB out of a blob of 300 KB, asked for one after the other by each of the devices."""
    load = child.load(LANES)
    return measure(
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


def registrations(child: Child, devices: int, *, rounds: int, durable: bool) -> list[Measurement]:
    """Registrations of that many devices, then bare Updates of all of them.

    Of a durable server the CPU time of what it writes later is counted too. Devices update faster here than in
    the field, so several Updates of one become one write; a further row shows what it costs without that.
    """
    load = child.load(REGISTRATION_LANES)
    load.register(WARM, prefix="warm-")
    load.update(5)
    settle = SETTLE if durable else 0.0
    time.sleep(settle)

    def register() -> dict[str, float]:
        report = load.register(devices, prefix=f"n{devices}-")
        time.sleep(settle)  # its log is copied back behind it; that is no Update's cost
        return report

    def update(rounds: int) -> dict[str, float]:
        report = load.update(rounds)
        time.sleep(settle)
        return report

    start = child.cpu()
    time.sleep(settle)
    idle = child.cpu() - start

    note = f"{devices} devices, {REGISTRATION_LANES} at a time"
    done = [
        measure("registration", child, register, idle=idle),
        measure("registration update", child, lambda: update(rounds), idle=idle),
    ]
    if durable:
        done.append(measure("registration update, each stored", child, lambda: update(1), idle=idle))
    return [replace(each, note=note) for each in done]


def memory(child: Child, devices: int, used: Callable[[], int]) -> Memory:
    """Memory after registrations of that many devices, each from an address of its own."""
    load = child.load(LANES)
    load.register(LANES * 40, prefix="warm-")
    before = used()
    fleet = Fleet(child.address, devices, prefix="own-", spread=devices / 2000, lifetime=86400)
    while fleet.run(0.2)["registered"] < devices:
        pass
    return Memory(child.name, devices, (used() - before) / devices, "each from its own address")
