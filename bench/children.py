"""Servers under measurement: child processes on one core, their CPU time and memory read from /proc."""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from bench.keys import Keys
from lwm2m_server.transport.simulator import DeviceSecurity, Load

ROOT = Path(__file__).resolve().parent.parent
LESHAN = ROOT / "tests/interop/leshan/target"
TINYDTLS = ROOT / ".cache/tinydtls/bin/python"
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

    def __init__(
        self, name: str, command: Sequence[str], *, port: int, devices: DeviceSecurity | None = None
    ) -> None:
        """`devices`: how the load secures its traffic by default; None: plain CoAP."""
        self.name = name
        self.port = port
        self._devices = devices
        self._loads: dict[int, Load] = {}
        self._command = command
        self._process = self._start()

    @property
    def is_secure(self) -> bool:
        """The load speaks DTLS."""
        return self._devices is not None

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=self._environment(),
            text=True,
        )

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    @property
    def address(self) -> str:
        """Where the load goes."""
        return f"127.0.0.1:{self.port}"

    def load(self, sources: int) -> Load:
        """Return the load from so many addresses, the same each time.

        A new one might get ports that an earlier one used, and its first message ids with them: the server
        would take its requests for repeated ones (RFC 7252 4.5) and answer what it has answered before.
        """
        if sources not in self._loads:
            self._loads[sources] = self.new_load(sources)
        return self._loads[sources]

    def new_load(self, sources: int, devices: DeviceSecurity | None = None) -> Load:
        """Return load from so many addresses and ports that nobody had before, of these devices when given."""
        return Load(self.address, sources, security=devices or self._devices)

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

    def memory(self, line: str = "RssAnon") -> int:
        """Return the resident bytes that belong to the process alone; of all, at their highest, by VmHWM."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = next(each for each in status.splitlines() if each.startswith(f"{line}:"))
        return int(found.split()[1]) * 1024

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


def engine(keys: Keys | None = None) -> Child:
    """Start the engine alone: blobs, pushes, and registrations that are answered and kept in memory only."""
    port = free_port()
    command = [sys.executable, "-m", "bench.engine_server", str(port), *_secret(keys)]
    child = Child(
        "lwm2m-server engine", command, port=port, devices=keys.psk_devices() if keys is not None else None
    )
    child.line()
    return child


def aiocoap(keys: Keys | None = None) -> Child | None:
    """Start the same on aiocoap, with keys on tinydtls; None when that is not installed."""
    if keys is None:
        python = sys.executable if importlib.util.find_spec("aiocoap") is not None else None
    else:
        python = str(TINYDTLS) if TINYDTLS.exists() else None
    if python is None:
        return None
    port = free_port()
    name = "aiocoap" if keys is None else "aiocoap + tinydtls"
    # It puts coaps one port higher.
    command = [python, "bench/aiocoap_server.py", str(port - int(keys is not None)), *_secret(keys)]
    devices = None if keys is None else keys.psk_devices(connection_ids=False)
    child = Child(name, command, port=port, devices=devices)
    child.line()
    return child


def leshan(keys: Keys | None = None, *, rpk: bool = False) -> Child | None:
    """Start the same on Leshan and Californium; None when the peers aren't built or Java is missing.

    With `rpk` it knows one raw public key, that of devices that share one.
    """
    if not (LESHAN / "peers.jar").exists() or shutil.which("java") is None:
        return None
    ports = [free_port()]
    command = ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
    if keys is not None:
        ports.append(free_port())
        command.append(f"-Dpsk.secret={keys.file}")
        if rpk:
            command += _key_files(keys)
    command += ["-cp", f"{LESHAN / 'peers.jar'}:{LESHAN / 'lib'}/*", "LeshanServer", *map(str, ports)]
    child = Child("Leshan", command, port=ports[-1], devices=keys.psk_devices() if keys is not None else None)
    child.line()
    return child


def _secret(keys: Keys | None) -> list[str]:
    return [] if keys is None else [str(keys.file)]


def _key_files(keys: Keys) -> list[str]:
    files = {
        "public": keys.shared.public_key,
        "server.key": keys.server.private_key,
        "server.public": keys.server.public_key,
    }
    for name, content in files.items():
        keys.file.with_name(name).write_bytes(content)
    return [f"-D{name}={keys.file.with_name(name)}" for name in files]


class Server(Child):
    """The whole server: SQLite on disk, REST, campaigns. With `profile` under cProfile, written to that file.

    With keys it speaks coaps, and plain CoAP without.
    """

    def __init__(self, keys: Keys | None = None, *, profile: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lwm2m-bench-", dir=os.environ.get("BENCH_DIR"))
        self._keys = keys
        port, self._api = free_port(), free_port()
        config = Path(self._folder.name) / "lwm2m.toml"
        listen = {"coap": "[]", "coaps": "[]", "coap" if keys is None else "coaps": f'["127.0.0.1:{port}"]'}
        config.write_text(
            f'data_dir = "{self._folder.name}/data"\ninventory = false\n'
            f"[coap]\nlisten = {listen['coap']}\n[coaps]\nlisten = {listen['coaps']}\n"
            f'[api]\nport = {self._api}\n[log]\nlevel = "warning"\n'
        )
        self._lwm2m = str(Path(sys.executable).parent / "lwm2m")
        program = [self._lwm2m]
        if profile is not None:
            program = [sys.executable, "-m", "bench.profiled_server", str(profile)]
        command = [*program, "serve", "--config", str(config)]
        super().__init__(
            "lwm2m-server", command, port=port, devices=keys.psk_devices() if keys is not None else None
        )
        self._await()

    def enrol(self, prefix: str, count: int) -> None:
        """Make that many simulated devices known, by their pre-shared keys."""
        assert self._keys is not None
        file = Path(self._folder.name) / "devices.csv"
        file.write_text(self._keys.csv(prefix, count))
        token = (Path(self._folder.name) / "data/admin-token").read_text().strip()
        environment = {**os.environ, "LWM2M_URL": f"http://127.0.0.1:{self._api}", "LWM2M_TOKEN": token}
        command = [self._lwm2m, "credentials", "import", "--strict", str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{prefix}: credentials were refused: {done.stderr.strip()}")

    def _environment(self) -> dict[str, str]:
        # As after an installation: the second start compiles nothing.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{self._folder.name}/compiled"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def stop(self, *, kill: bool = False) -> None:
        """End it as an operator does, or as a crash does, and wait for that."""
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(60)

    def restart(self) -> None:
        """Start it again with what it has stored; return at once."""
        self._process = self._start()

    def has_port(self) -> bool:
        """Datagrams that come for it now are not lost."""
        local = f"0100007F:{self.port:04X}"
        lines = Path("/proc/net/udp").read_text().splitlines()[1:]
        return any(line.split(maxsplit=2)[1] == local for line in lines)

    def _await(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            # The port opens before the REST interface is loaded, whose cost is not the devices'. As long as nobody
            # listens, a connection to a port of this range may meet itself, and gets its own request for an answer.
            with (
                contextlib.suppress(OSError, HTTPException),
                urlopen(f"http://127.0.0.1:{self._api}/health/ready"),
            ):
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
