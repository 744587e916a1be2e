"""How small deltas of real firmware are, what they cost: `scripts/bench delta`.

The images are releases of LEGO hubs' firmware (npm `@pybricks/firmware`), fetched into `.cache` and never committed.
Each pair of releases that follow each other there goes through the server's own worker, one process a pair with the
memory that the limit allows; every patch is applied back. Neighbours are releases with nothing published between
(4.0.0 and 4.0.1, 7.27 and 7.28), the others are up to years apart. Deltas in place, which manifests name for devices
with one slot, stand in a table of their own: nobody can choose another method there.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lwm2m_server.delta_worker import make_in_place

CACHE = Path(".cache/pybricks")
VERSIONS = ("4.0.0", "4.0.1", "4.17.0", "6.2.0", "7.2.0", "7.22.0", "7.27.0", "7.28.0")
NEIGHBOURS = {("4.0.0", "4.0.1"), ("7.27.0", "7.28.0")}
HUBS = ("cityhub", "essentialhub", "movehub", "primehub", "technichub", "nxt", "ev3")
METHODS = ("thumb", "hdiffpatch", "bsdiff", "detools-heatshrink", "lzma", "heatshrink")
IN_PLACE = "detools-in-place"
SEGMENT = 4096
SPARE = 16
"""Segments that the slot has beyond the larger image."""
MEMORY = 200 << 20
AIM = 0.06
_ALIKE = range(250_000, 310_000)
"""Bytes of the images that the aims for time and memory are about: 300 KB."""
SECONDS = 1.0


def main(arguments: list[str]) -> int:
    """Measure and print; 1 when the aim is missed or a patch could not be made."""
    parser = argparse.ArgumentParser(prog="scripts/bench delta", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    options = parser.parse_args(arguments)
    rows = [row for hub in HUBS for pair in pairwise(VERSIONS) for row in _measure(hub, *pair)]
    in_place = [row for hub in HUBS for pair in pairwise(VERSIONS) for row in _measure_in_place(hub, *pair)]
    neighbours = [row for row in rows if (row["from"], row["to"]) in NEIGHBOURS]
    console = Console(width=150)
    console.print(_table("releases next to each other", neighbours))
    console.print(_table("all pairs, up to years apart", rows))
    near = [row for row in in_place if (row["from"], row["to"]) in NEIGHBOURS]
    console.print(_table("in place, releases next to each other", near, (IN_PLACE,)))
    console.print(_table("in place, all pairs", in_place, (IN_PLACE,)))
    mean = _mean_of_best(neighbours)
    console.print(f"smallest of all methods, mean over neighbouring releases: {mean:.2%} (aim: {AIM:.0%})")
    console.print(f"the same over all {len(rows) // len(METHODS)} pairs: {_mean_of_best(rows):.2%}")
    alike = [row for row in rows if row["image"] in _ALIKE]
    console.print(_costs(alike))
    slowest = max(row["cpu"] for row in alike)
    console.print(
        f"one method, made, applied back and compared: {slowest:.2f} s at most (aim: {SECONDS:g} s)"
    )
    most = max(row["memory"] for row in rows)
    console.print(
        f"memory of a process that made all methods of a pair: {most / 1e6:.0f} MB at most, images of up to 1 MB"
        f" among them (aim: {MEMORY >> 20} MiB)"
    )
    if options.json:
        Path(options.json).write_text(json.dumps([*rows, *in_place], indent=1) + "\n")
    missed = mean > AIM or slowest > SECONDS or most > MEMORY
    return int(missed or any("error" in row for row in (*rows, *in_place)))


def _image(hub: str, version: str) -> bytes | None:
    """Return an image; None for a hub that the release does not have."""
    folder = CACHE / version
    if not (folder / "package").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"@pybricks/firmware@{version}"]
        name = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run(["tar", "-xzf", name], cwd=folder, check=True)
        (folder / name).unlink()
    archive = folder / "package/build" / f"{hub}.zip"
    if not archive.exists():
        return None
    with zipfile.ZipFile(archive) as package:
        return package.read("firmware-base.bin") if "firmware-base.bin" in package.namelist() else None


def _measure(hub: str, before: str, after: str) -> list[dict[str, Any]]:
    old, new = _image(hub, before), _image(hub, after)
    if old is None or new is None:
        return []
    print(f"bench: {hub} {before} to {after}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "old").write_bytes(old)
        (folder / "new").write_bytes(new)
        command = [sys.executable, "-m", "lwm2m_server.delta_worker"]
        command += [str(folder / "old"), str(folder / "new"), name, str(MEMORY), *METHODS]
        output = subprocess.run(command, check=True, capture_output=True).stdout
    return [_row(hub, before, after, new, told) for told in map(json.loads, output.splitlines())]


def _measure_in_place(hub: str, before: str, after: str) -> list[dict[str, Any]]:
    old, new = _image(hub, before), _image(hub, after)
    if old is None or new is None:
        return []
    slot = (-(-max(len(old), len(new)) // SEGMENT) + SPARE) * SEGMENT
    with tempfile.TemporaryDirectory() as name:
        return [_row(hub, before, after, new, make_in_place(old, new, Path(name), slot, SEGMENT))]


def _row(hub: str, before: str, after: str, new: bytes, told: dict[str, Any]) -> dict[str, Any]:
    share = told.get("size", len(new)) / len(new)
    return {"hub": hub, "from": before, "to": after, "image": len(new), "share": share, **told}


def _table(title: str, rows: list[dict[str, Any]], methods: tuple[str, ...] = METHODS) -> Table:
    table = Table(title=f"{title}: patch in % of the new image, time to make and verify")
    for column in ("method", "mean %", "least %", "most %", "mean s", "most s", "failed"):
        table.add_column(column, justify="left" if column == "method" else "right")
    by_method: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_method[row["method"]].append(row)
    for method in methods:
        found = by_method[method]
        shares = [100 * row["share"] for row in found]
        seconds = [row["seconds"] for row in found]
        table.add_row(
            method,
            f"{sum(shares) / len(shares):.2f}",
            f"{min(shares):.2f}",
            f"{max(shares):.2f}",
            f"{sum(seconds) / len(seconds):.2f}",
            f"{max(seconds):.2f}",
            str(sum("error" in row for row in found)),
        )
    return table


def _costs(rows: list[dict[str, Any]]) -> Table:
    pairs = len({(row["hub"], row["from"], row["to"]) for row in rows})
    table = Table(title=f"images of 250 to 310 KB ({pairs} pairs): processor time to make and verify")
    for column in ("method", "mean s", "most s"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method in METHODS:
        seconds = [row["cpu"] for row in rows if row["method"] == method]
        table.add_row(method, f"{sum(seconds) / len(seconds):.2f}", f"{max(seconds):.2f}")
    return table


def _mean_of_best(rows: list[dict[str, Any]]) -> float:
    best: dict[tuple[str, str, str], float] = {}
    for row in rows:
        key = row["hub"], row["from"], row["to"]
        best[key] = min(row["share"], best.get(key, 1.0))
    return sum(best.values()) / len(best)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
