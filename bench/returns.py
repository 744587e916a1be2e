"""Whole fleets that come back: a server that restarts with their sessions, and all devices shaking hands at once."""

import asyncio
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from bench.children import Server
from bench.keys import Keys
from bench.scenarios import SETTLE
from lwm2m_server.transport import EngineTransport, Peer, Security, TransportError
from lwm2m_server.transport.codes import Code

_PROBE = "probe-000000"
_GAP = 0.05  # seconds between two tries of the device that waits for the server
_LIMIT = 60.0


@dataclass(frozen=True)
class Fact:
    """One figure that is no cost of an operation."""

    what: str
    who: str
    value: float
    unit: str
    note: str = ""

    def json(self) -> dict[str, object]:
        """Return it for the JSON report."""
        return asdict(self)


def restarts(keys: Keys, devices: int) -> list[Fact]:
    """Restart the server while that many devices have sessions, after a clean end and after SIGKILL.

    The time is from the start of the new process to the first answer that a device gets on the session that it had
    before. All devices then send an Update on their old sessions; after SIGKILL each has to answer first whether it
    is there.
    """
    note = f"{devices} sessions"
    facts: list[Fact] = []
    with Server(keys) as server:
        server.enrol("back-", devices)
        server.enrol("probe-", 1)
        load = server.new_load(devices)
        load.register(devices, prefix="back-")
        time.sleep(SETTLE)
        for how, kill in (("SIGTERM", False), ("SIGKILL", True)):
            stopped, answered = asyncio.run(_restart(server, keys, kill=kill))
            if not kill:
                facts.append(Fact("stop: all sessions stored", server.name, stopped, "s", note))
            facts.append(Fact(f"first answer after {how}", server.name, answered, "s", note))
            report = load.update(1)
            share = report["answered"] / devices * 100
            facts.append(Fact(f"answered on their old session after {how}", server.name, share, "%", note))
            facts.append(Fact(f"all of them after {how}", server.name, report["seconds"], "s", note))
            time.sleep(SETTLE)
    return facts


async def _restart(server: Server, keys: Keys, *, kill: bool) -> tuple[float, float]:
    """Return the seconds that stopping took, and those from the start to the answer."""
    device = EngineTransport(
        nstart=64, max_queued=4096, ack_timeout=0.1, ack_random_factor=1.0, max_retransmit=8
    )
    await device.start()
    device.secure(Security(psk=(_PROBE.encode(), keys.psk(_PROBE)), handshake_timeout=1.0))
    peer = Peer(server.address, scheme="coaps")
    try:
        answer = await device.request(
            peer,
            Code.POST,
            ("rd",),
            query=(f"ep={_PROBE}", "lt=86400", "lwm2m=1.1", "b=U"),
            payload=b"</1/0>,</3/0>,</5/0>",
            content_format=40,
        )
        location = answer.location_path
        # What the engine has learned is stored a moment later.
        await asyncio.sleep(SETTLE)
        begin = time.perf_counter()
        await asyncio.to_thread(server.stop, kill=kill)
        stopped = time.perf_counter() - begin
        await asyncio.to_thread(server.restart)
        return stopped, await _first_answer(device, server, location)
    finally:
        await device.close()


async def _first_answer(device: EngineTransport, server: Server, location: tuple[str, ...]) -> float:
    """Ask as soon as the server has its port, then every 50 ms, until one is answered; return the seconds.

    The server has its port before it has its sessions; what comes meanwhile waits in the socket.
    """
    begin = time.perf_counter()
    peer = Peer(server.address, scheme="coaps")
    waiting: set[asyncio.Task[float]] = set()

    async def ask() -> float:
        await device.request(peer, Code.POST, location, timeout=_LIMIT)
        return time.perf_counter() - begin

    try:
        while time.perf_counter() - begin < _LIMIT:
            if not server.has_port():
                await asyncio.sleep(0.002)
                continue
            waiting.add(asyncio.create_task(ask()))
            done, waiting = await asyncio.wait(waiting, timeout=_GAP, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with suppress(TransportError):
                    return task.result()
    finally:
        for task in waiting:
            task.cancel()
    raise RuntimeError(f"no answer within {_LIMIT:.0f} s")


def storm(keys: Keys, devices: int) -> list[Fact]:
    """All devices shake hands and register at the same time, each from an address of its own.

    One core for the server, the other for the devices; the server's bounds are its defaults.
    """
    note = f"{devices} devices, each with an address of its own"
    with Server(keys) as server:
        server.enrol("storm-", devices)
        before = server.memory()
        cpu = server.cpu()
        report = server.new_load(devices).register(devices, prefix="storm-")
        return [
            Fact("storm: registered", server.name, report["answered"] / devices * 100, "%", note),
            Fact("storm: all in", server.name, report["seconds"], "s", note),
            Fact("storm: CPU a device", server.name, (server.cpu() - cpu) / devices * 1e6, "µs", note),
            Fact("storm: half of them in", server.name, report["p50"] / 1e6, "s", note),
            Fact("storm: memory before", server.name, before / 2**20, "MiB", note),
            Fact("storm: memory at its peak", server.name, server.memory("VmHWM") / 2**20, "MiB", note),
        ]
