"""Where the server's time goes while it registers devices: by thread, by Python function, by machine code."""

import pstats
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.children import LOAD_CORE, Child, Server
from bench.scenarios import REGISTRATION_LANES, SETTLE

_FUNCTIONS = 40
_SYMBOLS = 40


def show(devices: int) -> None:
    """Print the profiles of that many registrations and Updates."""
    with tempfile.TemporaryDirectory(prefix="lwm2m-profile-") as folder:
        _native(devices, Path(folder) / "perf.data")
        _python(devices, Path(folder) / "python.profile")


def _work(child: Child, devices: int) -> None:
    load = child.load(REGISTRATION_LANES)
    load.register(devices - devices % REGISTRATION_LANES, prefix="profiled-")
    load.update(3)
    time.sleep(SETTLE)


def _native(devices: int, data: Path) -> None:
    with Server() as child:
        perf = None
        if shutil.which("perf"):
            command = [
                "taskset",
                "-c",
                str(LOAD_CORE),
                "perf",
                "record",
                "-q",
                "-F",
                "1999",
                "-p",
                str(child.pid),
            ]
            perf = subprocess.Popen([*command, "-o", str(data)], stderr=subprocess.DEVNULL)
            time.sleep(1.0)
        start = child.cpu()
        _work(child, devices)
        total = child.cpu() - start
        print(f"{total * 1e6 / devices:.1f} µs of CPU a device: one registration and three Updates")
        print("threads of the process, CPU seconds since its start:")
        for name, seconds in child.threads():
            print(f"  {seconds:8.3f}  {name}")
        if perf is None:
            print("perf is not installed, so there is no profile of the machine code", file=sys.stderr)
            return
        perf.send_signal(signal.SIGINT)
        perf.wait()
    sort = ["--no-children", "--sort", "comm,dso,symbol", "-g", "none", "-i", str(data)]
    found = subprocess.run(["perf", "report", "--stdio", *sort], capture_output=True, text=True, check=False)
    lines = [line.rstrip() for line in found.stdout.splitlines() if line.strip() and not line.startswith("#")]
    print("\nmachine code (perf):", *lines[:_SYMBOLS], sep="\n")


def _python(devices: int, data: Path) -> None:
    with Server(profile=data) as child:
        _work(child, devices)
        child.stop()
    print("\nPython functions, CPU time of all threads, start included (cProfile doubles the cost of calls):")
    pstats.Stats(str(data), stream=sys.stdout).sort_stats("tottime").print_stats(_FUNCTIONS)
