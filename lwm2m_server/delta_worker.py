"""The process that makes the deltas between two images, apart from the server: bounded in memory, killed when late.

    python -m lwm2m_server.delta_worker BASE TARGET FOLDER MEMORY METHOD...

`BASE` may be `-` for methods without one, `MEMORY` are the bytes that may be taken beyond the interpreter's. Each
patch is applied back before it is written to FOLDER under its method's name; a line of JSON on stdout tells of it.
"""

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lwm2m_server.firmware.deltas import Method, PatchError, create, verify
from lwm2m_server.firmware.deltas.detools_patches import create_in_place

_TOO_MUCH = "it would take more memory than is allowed"


def main(arguments: list[str]) -> None:
    """Make the patches and write a line for each."""
    base, target, folder, memory, *methods = arguments
    # What a library has to say when memory ends must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _limit(int(memory))
    try:
        old = b"" if base == "-" else Path(base).read_bytes()
        new = Path(target).read_bytes()
    except MemoryError:
        told = {"error": _TOO_MUCH, "seconds": 0.0, "memory": 0}
        print(
            *(json.dumps({"method": method, **told}) for method in methods),
            sep="\n",
            file=answers,
            flush=True,
        )
        return
    for method in methods:
        print(json.dumps(make(Method(method), old, new, Path(folder))), file=answers, flush=True)


def make(method: Method, old: bytes, new: bytes, folder: Path) -> dict[str, object]:
    """Make one patch and check it; return what to tell of it."""

    def work() -> bytes:
        patch = create(method, old, new)
        verify(method, old, patch, new)
        return patch

    return _told(method.value, work, folder)


def make_in_place(
    old: bytes, new: bytes, folder: Path, slot_size: int, segment_size: int
) -> dict[str, object]:
    """Make the patch for a device with one slot and check it; return what to tell of it."""

    def work() -> bytes:
        return create_in_place(old, new, memory_size=slot_size, segment_size=segment_size)

    return _told("detools-in-place", work, folder)


def _told(name: str, work: Callable[[], bytes], folder: Path) -> dict[str, object]:
    began, worked = time.perf_counter(), time.process_time()
    result: dict[str, object] = {"method": name}
    try:
        patch = work()
    except PatchError as error:
        result["error"] = error.message
    except MemoryError:
        result["error"] = _TOO_MUCH
    except Exception as error:  # noqa: BLE001  one library's fault must not cost the other methods
        result["error"] = f"the library failed: {type(error).__name__}"
    else:
        (folder / name).write_bytes(patch)
        result |= {"size": len(patch), "digest": hashlib.sha256(patch).hexdigest()}
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result | {"seconds": round(seconds, 4), "cpu": round(cpu, 4), "memory": peak}


def _limit(memory: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main(sys.argv[1:])
