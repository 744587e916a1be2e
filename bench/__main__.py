"""Runs the scenarios against the server and its peers and prints a table; see `scripts/bench --help`."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import children, scenarios
from bench.children import LOAD_CORE, Child, Server
from bench.scenarios import Measurement


def _run(name: str, measure: Callable[[], list[Measurement]], results: list[Measurement]) -> None:
    print(f"bench: {name}", file=sys.stderr, flush=True)
    results.extend(measure())


def _engine(quick: bool) -> list[Measurement]:
    count = 50_000 if quick else 400_000
    with children.engine() as child:
        return [
            scenarios.answers(child, count),
            scenarios.blocks_served(child, count),
            scenarios.blocks_pushed(child, 50 if quick else 500),
        ]


def _aiocoap(quick: bool) -> list[Measurement]:
    count = 3_000 if quick else 20_000
    with children.aiocoap() as child:
        return [
            scenarios.answers(child, count),
            scenarios.blocks_served(child, count),
            scenarios.blocks_pushed(child, 5 if quick else 20),
        ]


def _leshan(child: Child, quick: bool) -> list[Measurement]:
    count = 50_000 if quick else 200_000
    return [
        scenarios.answers(child, count),
        scenarios.blocks_served(child, count),
        scenarios.blocks_pushed(child, 20 if quick else 100),
    ]


def _server_registrations(quick: bool) -> list[Measurement]:
    results = []
    for devices in (10_000,) if quick else (10_000, 100_000):
        with Server() as child:
            results += scenarios.registrations(child, devices, memory=child.memory, rounds=3)
    return results


def _leshan_registrations(quick: bool) -> list[Measurement]:
    results = []
    for devices in (10_000,) if quick else (10_000, 100_000):
        child = children.leshan()
        if child is None:
            return []
        with child:

            def heap(child: Child = child) -> int:
                return int(child.ask("memory").split()[3])

            # The machine code of a Java server is good after some tens of thousands of requests.
            scenarios.registrations(child, 20_000, memory=lambda: 0, rounds=2)
            results += scenarios.registrations(child, devices, memory=heap, rounds=3)
    return results


def _table(results: list[Measurement]) -> Table:
    table = Table(title="cost on the server's core, one core each for server and load")
    table.add_column("work")
    table.add_column("who")
    for column in (
        "CPU µs each",
        "times ours",
        "per second",
        "p50 µs",
        "p99 µs",
        "max µs",
        "count",
        "errors",
    ):
        table.add_column(column, justify="right")
    table.add_column("note")
    ours = {(m.work, m.count): m.cpu_us for m in results if m.who.startswith("lwm2m-server")}
    for m in sorted(
        results, key=lambda m: (m.work, m.note.split(",")[0] if "regis" in m.work else "", m.cpu_us)
    ):
        own = ours.get((m.work, m.count)) or next((v for (w, _), v in ours.items() if w == m.work), 0.0)
        table.add_row(
            m.work,
            m.who,
            f"{m.cpu_us:.2f}",
            f"{m.cpu_us / own:.1f}" if own else "",
            f"{m.per_second:,.0f}",
            f"{m.p50_us:,.0f}" if m.p50_us else "",
            f"{m.p99_us:,.0f}" if m.p99_us else "",
            f"{m.max_us:,.0f}" if m.max_us else "",
            f"{m.count:,}",
            f"{m.errors:,}",
            m.note,
        )
    return table


def _report(results: list[Measurement]) -> dict[str, object]:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {"machine": model, "cores": os.cpu_count(), "results": [m.json() for m in results]}


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, for a first look")
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    parser.add_argument("--only", choices=("blocks", "registrations"), help="one half of it")
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    results: list[Measurement] = []
    if options.only != "registrations":
        _run("engine: answers and blocks", lambda: _engine(options.quick), results)
        _run("aiocoap: answers and blocks", lambda: _aiocoap(options.quick), results)
        peer = children.leshan()
        if peer is None:
            print("bench: the Leshan peers are missing (scripts/peers)", file=sys.stderr)
        else:
            with peer:
                _run("Leshan: answers and blocks", lambda: _leshan(peer, options.quick), results)
    if options.only != "blocks":
        _run("lwm2m-server: durable registrations", lambda: _server_registrations(options.quick), results)
        _run("Leshan: registrations", lambda: _leshan_registrations(options.quick), results)
    Console(width=160).print(_table(results))
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        Path(options.json).write_text(json.dumps(_report(results), indent=1) + "\n")
    return 1 if any(m.errors for m in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
