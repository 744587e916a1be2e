"""What commands print: tables for people, JSON for programs.

Data goes to standard output, all the rest to standard error.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Record = Mapping[str, Any]
Column = tuple[str, str | Callable[[Record], Any]]

PIPE_WIDTH = 10_000  # a table in a pipe is never folded


def clean(value: object) -> str:
    """Make text of a value; control characters, which a terminal would obey, become visible."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value)
        if isinstance(value, dict | list)
        else str(value)
    )
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def size(count: int) -> str:
    """Write a number of bytes for people."""
    if count < 1024:
        return f"{count} B"
    scaled, units = count / 1024, ["KB", "MB", "GB"]
    while scaled >= 1024 and len(units) > 1:
        scaled /= 1024
        units.pop(0)
    return f"{scaled:.1f} {units[0]}"


def moment(text: str | None) -> str:
    """Shorten an ISO 8601 time of the API to seconds; it stays in UTC."""
    if not text:
        return "-"
    return text.split(".")[0].removesuffix("Z").replace("T", " ") + "Z"


def dig(record: Record, path: str) -> Any:
    """Follow a dotted path into nested objects; None where it ends."""
    value: Any = record
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


class Output:
    """Where a command prints to."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def console(self, *, error: bool = False) -> "Console":
        """Return rich's console for a stream."""
        from rich.console import Console

        stream = sys.stderr if error else sys.stdout
        width = None if stream.isatty() else PIPE_WIDTH
        return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)

    def records(
        self, records: Sequence[Record], columns: Sequence[Column], *, empty: str = "nothing found"
    ) -> None:
        """Print a list."""
        if self.as_json:
            print(json.dumps(list(records), indent=2, ensure_ascii=False))
            return
        if not records:
            self.note(empty)
            return
        from rich.box import SIMPLE
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE, pad_edge=False, show_edge=False)
        for title, _ in columns:
            table.add_column(title, overflow="fold")
        for record in records:
            cells = (dig(record, get) if isinstance(get, str) else get(record) for _, get in columns)
            table.add_row(*(Text(clean(cell)) for cell in cells))
        self.console().print(table)

    def record(self, record: Record, fields: Sequence[Column] | None = None) -> None:
        """Print one thing, a field a line."""
        if self.as_json:
            print(json.dumps(record, indent=2, ensure_ascii=False))
            return
        chosen = fields if fields is not None else [(name.replace("_", " "), name) for name in record]
        width = max((len(title) for title, _ in chosen), default=0)
        for title, get in chosen:
            value = dig(record, get) if isinstance(get, str) else get(record)
            print(f"{title:<{width}}  {clean(value)}")

    def line(self, record: Record) -> None:
        """Print one JSON object on one line, for streams."""
        print(json.dumps(record, ensure_ascii=False), flush=True)

    def done(self, text: str, record: Record | None = None) -> None:
        """Say what was done: the record for programs, a sentence on standard error for people."""
        if self.as_json:
            if record is not None:
                self.record(record)
        else:
            self.note(text)

    def note(self, text: str) -> None:
        """Say something that is not data."""
        print(clean(text), file=sys.stderr)

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar on standard error meanwhile; the callback takes how much came along."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=self.console(error=True), transient=True) as progress:
            task = progress.add_task(text, total=total)
            yield lambda amount: progress.advance(task, amount)
