"""Plays one scenario against a client that is started by a command line, and says what did not hold."""

import asyncio
import contextlib
import json
import secrets
import shlex
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.link import Link
from conformance.scenarios import FORMAT
from conformance.server import Psk, Server

_ENDPOINT = "conformance"


@dataclass(frozen=True)
class Client:
    """How the client is started.

    `command` has places such as {server}, {endpoint}, {trust}, {state}; `flags` are added to it by scenarios
    that ask for a fault inside the client. `able` are the needs of scenarios that the client meets. With `secure`
    it speaks coaps, and is told {identity} and {key}.
    """

    command: str
    flags: dict[str, str] = field(default_factory=dict)
    able: frozenset[str] = frozenset({"manifest"})
    secure: bool = False


@dataclass
class Verdict:
    """What came of a scenario: `failures` is empty when all held."""

    scenario: str
    failures: list[str]
    trace: list[dict[str, Any]]
    log: str = ""


def load(kit: Path) -> list[dict[str, Any]]:
    """Return the scenarios of a kit; raises ValueError for another form."""
    found = [json.loads(file.read_text()) for file in sorted((kit / "scenarios").glob("*.json"))]
    for scenario in found:
        if scenario["format"] != FORMAT:
            raise ValueError(f"{scenario['id']} has form {scenario['format']}, this player knows {FORMAT}")
    return found


def missing(scenario: dict[str, Any], client: Client) -> set[str]:
    """Return what the scenario needs and the client can't do."""
    return set(scenario["needs"]) - client.able


async def play(kit: Path, scenario: dict[str, Any], client: Client) -> Verdict:
    """Play one scenario with a fresh state of the client."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        game = _Game(kit, scenario, client, Path(folder))
        return await game.play()


class _Game:
    def __init__(self, kit: Path, scenario: dict[str, Any], client: Client, folder: Path) -> None:
        self._kit = kit
        self._scenario = scenario
        self._client = client
        self._folder = folder
        # made for one scenario: what it proves is worth nothing afterwards
        self._psk = Psk(_ENDPOINT, secrets.token_bytes(16))
        self._server = Server(kit / "packages", scenario, self._psk if client.secure else None)
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._cuts = 0
        self._port = 0
        self._off_until = 0.0

    async def play(self) -> Verdict:
        link = Link(await self._server.start(), self._scenario["faults"], self._happened)
        self._port = self._server.front_port = await link.open()
        self._server.served = link.told
        failures: list[str] = []
        try:
            async with asyncio.timeout(self._scenario["within"]):
                playing = asyncio.ensure_future(self._server.play())
                alive = asyncio.ensure_future(self._keep_alive())
                try:
                    await asyncio.wait({playing, alive}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    playing.cancel()
                    alive.cancel()
                    ended = await asyncio.gather(playing, alive, return_exceptions=True)
                failures += [str(each) for each in ended if isinstance(each, Exception)]
        except TimeoutError:
            failures.append(f"the update did not end within {self._scenario['within']} s")
        finally:
            if self._process is not None:
                self._kill()
            link.close()
            await self._server.close()
        seen_on_the_wire = None if self._client.secure else link.image_bytes
        failures += check(
            self._scenario, self._server.trace, seen_on_the_wire, self._cuts, self._image_size()
        )
        return Verdict(self._scenario["id"], failures, self._server.trace, self._log())

    async def _keep_alive(self) -> None:
        """Start the client, and start it again whenever it has lost its power or has ended by itself."""
        loop = asyncio.get_running_loop()
        crashes = 0
        while True:
            if (self._process is None or self._process.poll() is not None) and loop.time() >= self._off_until:
                if self._process is not None and self._process.returncode >= 0:
                    crashes += 1
                    if crashes > 20:
                        raise RuntimeError(f"the client ends by itself with {self._process.returncode}")
                self._start()
            await asyncio.sleep(0.05)

    def _start(self) -> None:
        about = json.loads((self._kit / "kit.json").read_text())
        places = {
            "server": f"{self._server.scheme}://127.0.0.1:{self._port}",
            "port": self._port,
            "endpoint": _ENDPOINT,
            "identity": self._psk.identity,
            "key": self._psk.key.hex(),
            "trust": self._kit / "trust.pem",
            "state": self._folder / "state",
            "vendor": about["vendor"],
            "class": about["class"],
            "version": about["old_version"],
        }
        command = self._client.command.format(**places)
        for name, values in self._scenario.get("flags", {}).items():
            # A power cut inside of the client is for its first life only; other flags stay.
            if name != "cut-power" or self._starts == 0:
                packages = self._kit / "packages"
                command += " " + self._client.flags[name].format(**values, packages=packages)
        self._starts += 1
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(shlex.split(command), stdout=log, stderr=log, cwd=self._folder)
        self._server.trace.append({"started": self._starts})

    def _happened(self, fault: dict[str, Any]) -> None:
        if fault["do"] == "cut-power":
            self._cuts += 1
            self._off_until = asyncio.get_running_loop().time() + float(fault["seconds"])
            self._kill()
            self._server.trace.append({"power": "cut"})
        elif fault["do"] == "serve-next":
            self._server.serve_next(fault["path"])

    def _kill(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def _image_size(self) -> int:
        return (self._kit / "packages" / "new.bin").stat().st_size

    def _log(self) -> str:
        file = self._folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""


def check(
    scenario: dict[str, Any], trace: list[dict[str, Any]], image_bytes: int | None, cuts: int, image_size: int
) -> list[str]:
    """Return in sentences what of `holds` does not hold; `image_bytes` is None where they can't be counted."""
    holds = scenario["holds"]
    seen = [each["seen"] for each in trace if "seen" in each]
    if not seen:
        return ["the device never registered and answered"]
    failures = []
    last = seen[-1]
    for name in ("version", "state", "result"):
        wanted = holds.get(name)
        if wanted is not None and last[name] not in (wanted if isinstance(wanted, list) else [wanted]):
            failures.append(f"at the end {name} is {last[name]}, not {wanted}")
    strange = {each["version"] for each in seen} - set(holds["shown_versions"])
    if strange:
        failures.append(f"the device showed version {', '.join(sorted(strange))}")
    if holds.get("never_back"):
        done = next(
            (n for n, each in enumerate(seen) if each["version"] == "2.0.0" and each["state"] == 0), None
        )
        if done is not None and any(each["version"] != "2.0.0" for each in seen[done:]):
            failures.append("the device went back to an older version")
    if "fetched_again" in holds and image_bytes is not None:
        # Each life may fetch one page again, and the block that was on its way when the power went.
        lives = cuts + len(scenario.get("flags", {}))
        allowed = image_size + lives * (int(holds["fetched_again"]) + 1024)
        if image_bytes > allowed:
            failures.append(
                f"{image_bytes} bytes were fetched for an image of {image_size}: more than a page again"
            )
    return failures
