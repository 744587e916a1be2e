"""The tables for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.returns import Fact
from bench.scenarios import Measurement, Memory

_WIDTH = 160
OURS = "lwm2m-server"


def show(
    results: Sequence[Measurement], memory: Sequence[Memory], facts: Sequence[Fact], notes: Sequence[str]
) -> None:
    """Print what was measured, and what was not."""
    console = Console(width=_WIDTH)
    if results:
        console.print(_speed(results))
    if memory:
        console.print(_memory(memory))
    if facts:
        console.print(_facts(facts))
    for note in notes:
        console.print(f"note: {note}", highlight=False)


def _speed(results: Sequence[Measurement]) -> Table:
    table = Table(title="cost on the server's core; one core for the server, another for the load")
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
    ours = {_key(m): m.cpu_us for m in results if m.who.startswith(OURS)}
    for m in sorted(results, key=lambda m: (*_key(m), m.cpu_us)):
        own = ours.get(_key(m))
        table.add_row(
            m.work,
            m.who,
            f"{m.cpu_us:.2f}",
            f"{m.cpu_us / own:.1f}" if own else "",
            f"{m.per_second:,.0f}",
            *(f"{time:,.0f}" if time else "" for time in (m.p50_us, m.p99_us, m.max_us)),
            f"{m.count:,}",
            f"{m.errors:,}",
            m.note,
        )
    return table


def _key(m: Measurement) -> tuple[str, str]:
    """What may be compared: of registrations, those of as many devices; of images, those of a format."""
    if m.work.startswith("image"):
        return (m.work, m.note.partition(":")[0])
    return (m.work, m.note if "registration" in m.work else "")


def _memory(memory: Sequence[Memory]) -> Table:
    table = Table(title="memory a registered device, and a DTLS session")
    table.add_column("who")
    table.add_column("bytes each", justify="right")
    table.add_column("devices", justify="right")
    table.add_column("note")
    for m in memory:
        table.add_row(m.who, f"{m.bytes_each:,.0f}", f"{m.devices:,}", m.note)
    return table


def _facts(facts: Sequence[Fact]) -> Table:
    table = Table(title="fleets that come back over coaps; one core for the server, another for the devices")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("note")
    for each in facts:
        table.add_row(each.what, f"{each.value:,.2f}", each.unit, each.note)
    return table
