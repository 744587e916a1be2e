"""Servers under measurement: child processes on one core, their CPU time and memory read from /proc."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lwm2m_server.transport.simulator import Load

ROOT = Path(__file__).resolve().parent.parent
LESHAN = ROOT / "tests/interop/leshan/target"
SERVER_CORE = 0
LOAD_CORE = 1
START_SECONDS = 60.0
BLOB_SIZE = 300 * 1024
_SCHED = 2  # the scheduler's clock of another process, see clock_getcpuclockid(3)


def free_port() -> int:
    """Return a UDP port that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Child:
    """A server process that says one line when it listens, and one line for each line it gets."""

    def __init__(self, name: str, command: Sequence[str], *, port: int) -> None:
        self.name = name
        self.port = port
        self._loads: dict[int, Load] = {}
        self._process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            text=True,
        )

    @property
    def address(self) -> str:
        """Where the load goes."""
        return f"127.0.0.1:{self.port}"

    def load(self, sockets: int) -> Load:
        """Return the load from so many sockets, the same each time.

        A new one might get ports that an earlier one used, and its first message ids with them: the server
        would take its requests for repeated ones (RFC 7252 4.5) and answer what it has answered before.
        """
        if sockets not in self._loads:
            self._loads[sockets] = Load(self.address, sockets)
        return self._loads[sockets]

    @property
    def pid(self) -> int:
        """The process, for profilers."""
        return self._process.pid

    def line(self) -> str:
        """Return the next line that the child prints; RuntimeError when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with code {self._process.wait()}")
        return line.strip()

    def ask(self, line: str) -> str:
        """Send a line and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.line()

    def cpu(self) -> float:
        """Return the CPU seconds of all threads so far, those that have ended too, to the nanosecond."""
        return time.clock_gettime((~self.pid << 3) | _SCHED)

    def threads(self) -> list[tuple[str, float]]:
        """Return name and CPU seconds of each thread that lives, the busiest first."""
        found = [
            ((task / "comm").read_text().strip(), int((task / "schedstat").read_text().split()[0]) / 1e9)
            for task in Path(f"/proc/{self.pid}/task").iterdir()
        ]
        return sorted(found, key=lambda each: -each[1])

    def memory(self) -> int:
        """Return the resident bytes that belong to the process alone (RssAnon)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def engine() -> Child:
    """Start the engine alone: blobs, pushes, and registrations that are answered and kept in memory only."""
    port = free_port()
    child = Child("lwm2m-server engine", [sys.executable, "-m", "bench.engine_server", str(port)], port=port)
    child.line()
    return child


def aiocoap() -> Child | None:
    """Start the same on aiocoap; None when that is not installed."""
    if importlib.util.find_spec("aiocoap") is None:
        return None
    port = free_port()
    child = Child("aiocoap", [sys.executable, "-m", "bench.aiocoap_server", str(port)], port=port)
    child.line()
    return child


def leshan() -> Child | None:
    """Start the same on Leshan and Californium; None when the peers aren't built or Java is missing."""
    if not (LESHAN / "peers.jar").exists() or shutil.which("java") is None:
        return None
    port = free_port()
    command = [
        "java",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp",
        f"{LESHAN / 'peers.jar'}:{LESHAN / 'lib'}/*",
        "LeshanServer",
        str(port),
    ]
    child = Child("Leshan", command, port=port)
    child.line()
    return child


class Server(Child):
    """The whole server: SQLite on disk, REST, campaigns. With `profile` under cProfile, written to that file."""

    def __init__(self, *, profile: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lwm2m-bench-", dir=os.environ.get("BENCH_DIR"))
        port, api = free_port(), free_port()
        config = Path(self._folder.name) / "lwm2m.toml"
        config.write_text(
            f'data_dir = "{self._folder.name}/data"\ninventory = false\n'
            f'[coap]\nlisten = ["127.0.0.1:{port}"]\n[api]\nport = {api}\n[log]\nlevel = "warning"\n'
        )
        program = [str(Path(sys.executable).parent / "lwm2m")]
        if profile is not None:
            program = [sys.executable, "-m", "bench.profiled_server", str(profile)]
        super().__init__("lwm2m-server", [*program, "serve", "--config", str(config)], port=port)
        self._await(api)

    def stop(self) -> None:
        """End it as an operator does, and wait for that."""
        self._process.terminate()
        self._process.wait(30)

    def _await(self, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError("lwm2m serve did not start")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)
        self._folder.cleanup()
