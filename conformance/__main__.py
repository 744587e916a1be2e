"""The command of scripts/conformance: write a kit, or replay one against a client."""

import argparse
import asyncio
import fnmatch
import json
import sys
from pathlib import Path

from conformance.kit import write_kit
from conformance.play import Client, Verdict, load, missing, play

_OWN = (
    "{python} -m lwm2m_device run --server {{server}} --endpoint {{endpoint}} --flash {{state}}"
    " --vendor {{vendor}} --class {{class}} --trust {{trust}} --initial-version {{version}}"
    " --ack-timeout 0.5 --confirm-timeout 20"
)
_OWN_KEYS = " --psk-identity {identity} --psk-key {key} --handshake-timeout 1"
_OWN_FLAGS = {
    "cut-power": "--cut-power-at {operation} --seed {seed}",
    "bad-boot": "--bad-boot --confirm-timeout 1",
    "one-slot": "--layout single --slot-size {slot} --staging-size {staging} --page-size {page}"
    " --initial-image {packages}/{image}",
}


def main() -> int:
    """Run the command; exit code 0: all held, 1: something did not, 2: wrong use."""
    parser = argparse.ArgumentParser(prog="scripts/conformance", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write a kit into a folder")
    export.add_argument("folder", type=Path)
    export.add_argument("--size", type=int, default=8192, help="bytes of the new image (at least 4096)")
    export.add_argument("--datagrams", type=int, default=40, help="how many datagrams get each fault in turn")
    export.add_argument(
        "--operations", type=int, default=60, help="how many flash operations get a power cut"
    )
    export.add_argument("--seed", type=int, default=1)
    run = commands.add_parser(
        "run", help="replay a kit against a client; without --client against lwm2m-device"
    )
    run.add_argument("folder", type=Path)
    run.add_argument(
        "--client",
        help="command line with {server} {endpoint} {trust} {state} {vendor} {class} {version} {identity} {key}",
    )
    run.add_argument("--coaps", action="store_true", help="speak coaps, with a pre-shared key")
    run.add_argument(
        "--flag", action="append", default=[], metavar="NAME=TEXT", help="what the client takes for a fault"
    )
    run.add_argument("--plain", action="store_true", help="the client knows no manifests")
    run.add_argument("--layout", choices=("ab", "swap", "single"), help="flash layout of lwm2m-device")
    run.add_argument("--only", default="*", help="pattern of scenario ids, such as 'refuse-*'")
    run.add_argument("--traces", type=Path, help="folder for the trace of each scenario that failed")
    run.add_argument("--stop", action="store_true", help="end at the first failure")
    given = parser.parse_args()
    if given.command == "export":
        if given.size < 4096:
            parser.error("--size is at least 4096")
        count = write_kit(
            given.folder,
            size=given.size,
            datagrams=given.datagrams,
            operations=given.operations,
            seed=given.seed,
        )
        print(f"{count} scenarios in {given.folder}")
        return 0
    try:
        return asyncio.run(_run(given))
    except (OSError, ValueError, KeyError) as error:
        print(f"conformance: {given.folder} can't be played: {error}", file=sys.stderr)
        return 2


def _client(given: argparse.Namespace) -> Client:
    flags = dict(each.split("=", 1) for each in given.flag)
    command = given.client
    if command is None:
        command = _OWN.format(python=sys.executable)
        command += _OWN_KEYS if given.coaps else ""
        command += " --plain" if given.plain else ""
        command += f" --layout {given.layout}" if given.layout else ""
        flags = _OWN_FLAGS | flags
    able = frozenset({"plain" if given.plain else "manifest", *flags})
    return Client(command, flags, able, secure=given.coaps)


async def _run(given: argparse.Namespace) -> int:
    client = _client(given)
    failed: list[Verdict] = []
    played = skipped = 0
    for scenario in load(given.folder):
        if not fnmatch.fnmatch(scenario["id"], given.only):
            continue
        lacking = missing(scenario, client)
        if lacking:
            skipped += 1
            print(f"skipped  {scenario['id']}: the client has no {', '.join(sorted(lacking))}")
            continue
        verdict = await play(given.folder.resolve(), scenario, client)
        played += 1
        print(f"{'FAILED ' if verdict.failures else 'held   '}  {scenario['id']}", flush=True)
        for failure in verdict.failures:
            print(f"         {failure}")
        if verdict.failures:
            failed.append(verdict)
            _keep(given.traces, verdict)
            if given.stop:
                break
    print(f"{played} played, {len(failed)} failed, {skipped} skipped")
    return 1 if failed or not played else 0


def _keep(folder: Path | None, verdict: Verdict) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        content = {"failures": verdict.failures, "trace": verdict.trace, "log": verdict.log.splitlines()}
        (folder / f"{verdict.scenario}.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
