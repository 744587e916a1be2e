"""Makes deltas in processes of their own: a few at a time, with limits on memory and time."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one method: a patch in `file` (bytes, SHA-256), or `error` says why not."""

    method: str
    file: Path | None = None
    digest: bytes = b""
    size: int = 0
    seconds: float = 0.0
    memory: int = 0
    error: str = ""


Build = Callable[[Path | None, Path, Sequence[str], Path], Coroutine[Any, Any, list[Built]]]
"""Makes patches from a base (None: none) to a target by some methods, into a folder."""


class DeltaBuilder:
    """At most `workers` processes, each with `memory` bytes and `seconds` for all methods of a pair of images."""

    def __init__(self, *, workers: int, memory: int, seconds: float) -> None:
        self._places = asyncio.Semaphore(workers)
        self._memory = memory
        self._seconds = seconds

    async def build(
        self, base: Path | None, target: Path, methods: Sequence[str], folder: Path
    ) -> list[Built]:
        """Return one result a method, in their order. Cancelling it ends the process."""
        async with self._places:
            output, trouble = await self._run(base, target, methods, folder)
        found = {built.method: built for built in _results(output, folder)}
        return [found.get(method) or Built(method, error=trouble) for method in methods]

    async def _run(
        self, base: Path | None, target: Path, methods: Sequence[str], folder: Path
    ) -> tuple[bytes, str]:
        """Return what the process wrote, and what to say of methods that it did not come to."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lwm2m_server.delta_worker",
            "-" if base is None else str(base),
            str(target),
            str(folder),
            str(self._memory),
            *methods,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        lines: list[bytes] = []
        assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018  asked for above
        try:
            async with asyncio.timeout(self._seconds):
                async for line in process.stdout:
                    lines.append(line)  # noqa: PERF401  what came before a time-out counts
                trouble = await process.stderr.read()
                await process.wait()
        except TimeoutError:
            return b"".join(lines), f"it would take more than {self._seconds:.0f} seconds"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode:
            _log.error(
                "delta worker ended", code=process.returncode, text=trouble.decode(errors="replace")[-500:]
            )
        return b"".join(lines), "the process that makes deltas failed"


def _results(output: bytes, folder: Path) -> Iterator[Built]:
    """Yield what the process told, up to where it was ended in the middle of a line."""
    for line in output.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            return
        yield read_result(told, folder)


def read_result(told: dict[str, Any], folder: Path) -> Built:
    """Read what the worker told of one method."""
    method, seconds, memory = str(told["method"]), float(told["seconds"]), int(told["memory"])
    if "error" in told:
        return Built(method, error=str(told["error"]), seconds=seconds, memory=memory)
    digest, size = bytes.fromhex(told["digest"]), int(told["size"])
    return Built(method, folder / method, digest, size, seconds, memory)
