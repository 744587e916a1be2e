"""Runs the scenarios against the server and its peers and prints a table; see `scripts/bench --help`."""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import children, images, openssl, profile, report, returns, scenarios, secure
from bench.children import LOAD_CORE, Child, Server
from bench.keys import Keys
from bench.returns import Fact
from bench.scenarios import Measurement, Memory

_FLEET = 10_000


class Run:
    """What was measured so far, and what could not be."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.results: list[Measurement] = []
        self.memory: list[Memory] = []
        self.facts: list[Fact] = []
        self.notes: list[str] = []

    def with_peer(
        self, name: str, start: Callable[[], Child | None], measure: Callable[[Child], None]
    ) -> None:
        """Measure one server; a peer that is missing, or breaks, becomes a note."""
        print(f"bench: {name}", file=sys.stderr, flush=True)
        try:
            child = start()
            if child is None:
                self.notes.append(f"{name}: not measured, the peer is not installed (scripts/peers)")
                return
            with child:
                measure(child)
        except (RuntimeError, OSError) as error:
            self.notes.append(f"{name}: not measured, {error}")

    def blocks(self, child: Child, requests: int, pushes: int) -> None:
        """Answers and blocks both ways."""
        self.results += [
            scenarios.answers(child, requests),
            scenarios.blocks_served(child, requests),
            scenarios.blocks_pushed(child, pushes),
        ]

    def all_blocks(self) -> None:
        """The engine alone, aiocoap, Leshan."""
        tenth = 10 if self.quick else 1
        with children.engine() as child:
            print("bench: engine: answers and blocks", file=sys.stderr, flush=True)
            self.blocks(child, 400_000 // tenth, 500 // tenth)
        self.with_peer(
            "aiocoap: answers and blocks",
            children.aiocoap,
            lambda child: self.blocks(child, 20_000 // tenth, 20 // tenth),
        )
        self.with_peer(
            "Leshan: answers and blocks",
            children.leshan,
            lambda child: self.blocks(child, 200_000 // tenth, 100 // tenth),
        )

    def all_registrations(self) -> None:
        """The whole server and Leshan, with each size of fleet, and their memory."""
        for devices in (10_000,) if self.quick else (10_000, 100_000):
            print(f"bench: lwm2m-server: {devices} durable registrations", file=sys.stderr, flush=True)
            with Server() as child:
                self.results += scenarios.registrations(child, devices, rounds=3, durable=True)

            def peer(child: Child, devices: int = devices) -> None:
                # The machine code of a Java server is good after some tens of thousands of requests.
                scenarios.registrations(child, 20_000, rounds=2, durable=False)
                self.results.extend(scenarios.registrations(child, devices, rounds=3, durable=False))

            self.with_peer(f"Leshan: {devices} registrations", children.leshan, peer)
        count = _FLEET // 5 if self.quick else _FLEET
        print("bench: memory", file=sys.stderr, flush=True)
        with Server() as child:
            self.memory.append(scenarios.memory(child, count, child.memory))
        self.with_peer(
            "Leshan: memory",
            children.leshan,
            lambda child: self.memory.append(scenarios.memory(child, count, lambda: _heap(child))),
        )

    def all_handshakes(self, keys: Keys) -> None:
        """Handshakes, answers over DTLS, and the memory of sessions: the engine alone, OpenSSL, Leshan, aiocoap."""
        tenth = 10 if self.quick else 1
        held = 50_000 // tenth
        print("bench: engine: handshakes", file=sys.stderr, flush=True)
        with children.engine(keys) as child:
            self.results.append(secure.psk_handshakes(child, 40_000 // tenth))
            self.results.append(secure.psk_handshakes_again(child, 40_000 // tenth))
            self.results.append(secure.answers(child, 400_000 // tenth))
            self.results.append(
                secure.mutual_handshakes(child, keys.rpk_devices(count := 10_000 // tenth), count)
            )
        with children.engine(keys) as child:
            self.memory.append(secure.session_memory(child, held, child.memory))
        try:
            self.results += openssl.handshakes(secure.PSK, secure.MUTUAL, 10_000 // tenth)
        except (RuntimeError, OSError) as error:
            self.notes.append(f"OpenSSL: not measured, {error}")
        self.with_peer("Leshan: handshakes", lambda: children.leshan(keys), self._leshan_handshakes(tenth))
        devices = keys.rpk_devices(2_000, one_key=True)
        self.with_peer(
            "Leshan: handshakes with raw public keys",
            lambda: children.leshan(keys, rpk=True),
            lambda child: self.results.append(secure.mutual_handshakes(child, devices, 4_000 // tenth // 2)),
        )
        self.with_peer(
            "aiocoap + tinydtls: handshakes",
            lambda: children.aiocoap(keys),
            lambda child: self.results.extend(
                [
                    secure.psk_handshakes(child, 2_000 // tenth, shared=False),
                    secure.answers(child, 10_000 // tenth),
                ]
            ),
        )

    def _leshan_handshakes(self, tenth: int) -> Callable[[Child], None]:
        def measure(child: Child) -> None:
            self.results.append(secure.psk_handshakes(child, 20_000 // tenth))
            self.results.append(secure.answers(child, 100_000 // tenth))
            self.memory.append(secure.session_memory(child, 20_000 // tenth, lambda: _heap(child)))

        return measure

    def all_secure_registrations(self, keys: Keys) -> None:
        """The whole server and Leshan over coaps."""
        for devices in (10_000,) if self.quick else (10_000, 100_000):
            print(f"bench: lwm2m-server: {devices} secured registrations", file=sys.stderr, flush=True)
            with Server(keys) as child:
                child.enrol("warm-", scenarios.WARM)
                child.enrol(f"n{devices}-", devices)
                self.results += secure.secure_registrations(child, devices, rounds=3, durable=True)

        def peer(child: Child) -> None:
            secure.secure_registrations(child, 2_000 if self.quick else 10_000, rounds=2, durable=False)
            self.results.extend(secure.secure_registrations(child, 10_000, rounds=3, durable=False))

        self.with_peer("Leshan: 10000 secured registrations", lambda: children.leshan(keys), peer)

    def all_returns(self, keys: Keys) -> None:
        """Fleets that come back to ours over coaps."""
        count = 2_000 if self.quick else 100_000
        for name, measure in (("restarts", returns.restarts), ("storm", returns.storm)):
            print(f"bench: {name} with {count} devices", file=sys.stderr, flush=True)
            self.facts += measure(keys, count)

    def json(self) -> dict[str, object]:
        """Return all of it, and the machine."""
        cpu = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in cpu if "model name" in line), platform.machine())
        return {
            "machine": model,
            "cores": os.cpu_count(),
            "results": [each.json() for each in self.results],
            "memory": [each.json() for each in self.memory],
            "facts": [each.json() for each in self.facts],
            "notes": self.notes,
        }


def _heap(leshan: Child) -> int:
    """Return the bytes of heap in use after a collection."""
    return int(leshan.ask("memory").split()[3])


def main() -> int:
    """Run what was asked for; 1 when our server failed a request."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, for a first look")
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    parser.add_argument(
        "--only", choices=("blocks", "registrations", "coaps", "returns", "images"), help="one part of it"
    )
    parser.add_argument("--profile", action="store_true", help="show where registrations spend their time")
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    if options.profile:
        profile.show(5_000 if options.quick else 30_000)
        return 0
    run = Run(quick=options.quick)
    if options.only in {None, "blocks"}:
        run.all_blocks()
    if options.only in {None, "registrations"}:
        run.all_registrations()
    with tempfile.TemporaryDirectory(prefix="lwm2m-bench-") as folder:
        keys = Keys(Path(folder) / "secret")
        if options.only in {None, "coaps"}:
            run.all_handshakes(keys)
            run.all_secure_registrations(keys)
        if options.only in {None, "coaps", "returns"}:
            run.all_returns(keys)
    if options.only in {None, "images"}:
        run.results += images.measure()
    report.show(run.results, run.memory, run.facts, run.notes)
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        Path(options.json).write_text(json.dumps(run.json(), indent=1) + "\n")
    # A peer's errors stand in the table; ours are a failure.
    return 1 if any(each.errors for each in run.results if each.who.startswith(report.OURS)) else 0


if __name__ == "__main__":
    raise SystemExit(main())
