"""`lwm2m campaigns watch`: looks at a campaign again and again until it ends.

On a terminal bars are drawn: one for all devices, one for each of the first that download. In a pipe a line
is written for each change, with `--json` an object. A server that restarts meanwhile is waited for.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lwm2m_server.cli.output import clean
from lwm2m_server.cli.session import Session
from lwm2m_server.errors import Unavailable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ENDED = frozenset({"completed", "halted", "aborted", "archived"})
BARS = 8  # devices with a bar of their own
_COUNTS = ("succeeded", "failed", "rejected", "skipped", "cancelled", "active", "pending")

sleep = time.sleep


def is_terminal() -> bool:
    """Tell whether somebody looks at the output."""
    return sys.stdout.isatty()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended."""

    good: bool
    text: str


def outcome(campaign: dict[str, Any], totals: dict[str, int]) -> Outcome:
    """Judge a campaign that ended: good is completed without a failed device."""
    counts = ", ".join(f"{totals[name]} {name}" for name in _COUNTS if totals[name])
    state = campaign["state"]
    why = campaign["text"] or campaign["reason"]
    good = state in {"completed", "archived"} and totals["failed"] == 0
    reason = f" ({why})" if why and state not in {"completed", "archived"} else ""
    return Outcome(good, f"{campaign['name']} is {state}{reason}: {counts or 'no devices'}")


class Watch:
    """One run."""

    def __init__(self, session: Session, path: str, *, interval: float, patience: float) -> None:
        """Take times in seconds; `patience` is how long the server may be away."""
        self._session = session
        self._path = path
        self._interval = interval
        self._patience = patience
        self._last: object = None
        self._line = ""

    def run(self) -> Outcome:
        """Look until the campaign ends."""
        away = 0.0
        with self._screen() as screen:
            while True:
                try:
                    campaign = self._session.client.get(self._path)
                    counts = self._session.client.get(self._path + "/statistics")
                    downloads = self._downloads() if screen is not None else []
                except Unavailable as error:
                    if away >= self._patience:
                        raise
                    if not away:
                        self._session.out.note(f"{error.message}; trying again")
                    away += self._interval
                else:
                    away = 0.0
                    self._change(campaign, counts)
                    if screen is not None:
                        screen.draw(campaign, counts["totals"], downloads)
                    # An aborted campaign still counts devices that were installing.
                    if campaign["state"] in ENDED and not counts["totals"]["active"]:
                        return outcome(campaign, counts["totals"])
                sleep(self._interval)

    def _downloads(self) -> list[dict[str, Any]]:
        page = self._session.client.get(self._path + "/deployments", state="downloading", limit=BARS)
        found: list[dict[str, Any]] = page["items"]
        return found

    def _change(self, campaign: dict[str, Any], counts: dict[str, Any]) -> None:
        """Write a line if something is different from the last look."""
        now = {
            "state": campaign["state"],
            "reason": campaign["reason"],
            "totals": counts["totals"],
            "states": counts["states"],
            "reasons": counts["reasons"],
        }
        if now == self._last:
            return
        self._last = now
        if self._session.out.as_json:
            self._session.out.line({"id": campaign["id"], "name": campaign["name"], **now})
        elif not is_terminal():
            totals = counts["totals"]
            text = ", ".join(f"{totals[name]} {name}" for name in _COUNTS if totals[name])
            done = f"{totals['done']}/{totals['targets']} done"
            line = f"{campaign['state']}: {done}" + (f"; {text}" if text else "")
            if line != self._line:  # what changed may be a reason, which the line does not tell
                print(line, flush=True)
            self._line = line

    @contextmanager
    def _screen(self) -> "Iterator[_Screen | None]":
        if self._session.out.as_json or not is_terminal():
            yield None
            return
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self._session.out.console()) as progress:
            yield _Screen(progress)


class _Screen:
    """The bars."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._all = progress.add_task("all devices", total=None, note="")
        self._tasks: dict[str, TaskID] = {}

    def draw(self, campaign: dict[str, Any], totals: dict[str, int], downloads: list[dict[str, Any]]) -> None:
        """Show what is so now."""
        counts = ", ".join(f"{totals[name]} {name}" for name in _COUNTS if totals[name])
        self._progress.update(
            self._all,
            description=clean(campaign["name"]),
            total=totals["targets"] or None,
            completed=totals["done"],
            note=f"{campaign['state']}: {counts}",
        )
        shown = {clean(deployment["endpoint"]): deployment for deployment in downloads}
        for endpoint in self._tasks.keys() - shown.keys():
            self._progress.remove_task(self._tasks.pop(endpoint))
        for endpoint, deployment in shown.items():
            if endpoint not in self._tasks:
                self._tasks[endpoint] = self._progress.add_task(f"  {endpoint}", total=None, note="")
            self._progress.update(
                self._tasks[endpoint],
                total=deployment["size"] or None,
                completed=deployment["offset"],
                note=f"{deployment['offset']} of {deployment['size']} bytes, attempt {deployment['attempt']}",
            )
