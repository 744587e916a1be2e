"""The hook of a component: what the device's application brings to install an image on another processor.

A hook gets an image that is proven (signature and digest, right before) and brings it in place. It is called again
after a power cut, with the same image, so it has to end in the same however often it is begun; and it is called
with the image before (`restore`) when the update is taken back. That it returns means that the image runs there.
Applications have one hook for all of them, which is called for their removal, start and stop too.
"""

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from lwm2m_device.components import ComponentSettings
from lwm2m_server.errors import InvalidInput

_PIECE = 65536


class Action(StrEnum):
    """What a hook is called for."""

    INSTALL = "install"
    RESTORE = "restore"
    # of applications alone
    REMOVE = "remove"
    START = "start"
    STOP = "stop"


@dataclass(frozen=True)
class HookOrder:
    """One call: bring this image in place. `read` gives bytes of it: offset, length. `digest` is SHA-256."""

    component: str
    action: Action
    version: str
    digest: bytes
    size: int
    read: Callable[[int, int], bytes]


Progress = Callable[[int], None]
"""Takes how much is done, in percent."""


class HookFailed(Exception):
    """The image is not in place; the text says why, for the operator."""


class ComponentHook(Protocol):
    """The application's part. What it raises counts as a failure with that text."""

    async def run(self, order: HookOrder, progress: Progress) -> None:
        """Bring the image in place and return; raises HookFailed."""
        ...


def hook_of(settings: ComponentSettings) -> ComponentHook:
    """Return the hook that the settings name; raises InvalidInput when there is none such."""
    if settings.program is not None:
        return HookProgram(settings.program, settings.hook_timeout)
    field = f"components/{settings.name}/entry_point"
    return HookFunction(_load(settings.entry_point or "", field), settings.hook_timeout)


def named_hook(name: str, seconds: float) -> ComponentHook:
    """Return the hook with this name, a path or `module:function`; raises InvalidInput when there is none such."""
    if ":" in name and "/" not in name:
        return HookFunction(_load(name, "application-hook"), seconds)
    program = Path(name).absolute()
    if not program.is_file():
        raise InvalidInput(f"There is no program {name}.", field="application-hook")
    return HookProgram(program, seconds)


class HookProgram:
    """A program as hook: `PROGRAM ACTION NAME VERSION DIGEST`, the image on its stdin.

    Its stdout has lines of JSON: {"progress": 40} as often as it likes, then {"result": "installed"}, where nothing
    was installed {"result": "done"}, or {"result": "failed", "text": "…"}. It has to end with code 0.
    """

    def __init__(self, program: Path, seconds: float) -> None:
        """`seconds` is the time that it has."""
        self._program = program
        self._seconds = seconds

    async def run(self, order: HookOrder, progress: Progress) -> None:
        """Run the program; raises HookFailed."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                order.action,
                order.component,
                order.version,
                order.digest.hex(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise HookFailed(f"the hook can't be started: {error.strerror}") from None
        try:
            async with asyncio.timeout(self._seconds):
                _, ended = await asyncio.gather(_feed(process, order), _listen(process, progress))
                code = await process.wait()
        except TimeoutError:
            raise HookFailed(f"the hook did not end within {self._seconds:g} s") from None
        finally:
            # Its children may hold the pipes open: they go with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if ended is not None:
            raise HookFailed(ended)
        if code != 0:
            raise HookFailed(f"the hook ended with code {code}")


class HookFunction:
    """A Python function as hook, called with order and progress; it may be a coroutine."""

    def __init__(
        self, function: Callable[[HookOrder, Progress], Awaitable[None] | None], seconds: float
    ) -> None:
        """`seconds` is the time that a coroutine has."""
        self._function = function
        self._seconds = seconds

    async def run(self, order: HookOrder, progress: Progress) -> None:
        """Call it; raises HookFailed, and whatever it raises."""
        result = self._function(order, progress)
        if inspect.isawaitable(result):
            try:
                async with asyncio.timeout(self._seconds):
                    await result
            except TimeoutError:
                raise HookFailed(f"the hook did not end within {self._seconds:g} s") from None


async def _feed(process: asyncio.subprocess.Process, order: HookOrder) -> None:
    """Write the image; a program that does not want all of it may close its end."""
    assert process.stdin is not None  # noqa: S101  it was asked for
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for offset in range(0, order.size, _PIECE):
            process.stdin.write(order.read(offset, min(_PIECE, order.size - offset)))
            await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()


async def _listen(process: asyncio.subprocess.Process, progress: Progress) -> str | None:
    """Read what it says; return None when the image is in place, else why not."""
    assert process.stdout is not None  # noqa: S101  it was asked for
    result: str | None = "the hook ended without a result"
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            return "the hook writes lines that are too long"
        if not line:
            return result
        match _json(line):
            case {"progress": int(percent), **rest} if not rest and 0 <= percent <= 100:
                progress(percent)
            case {"result": "installed" | "done", **rest} if not rest:
                result = None
            case {"result": "failed", "text": str(text), **rest} if not rest:
                result = text or "the hook gives no reason"
            case _:
                return "the hook says what is neither progress nor result"


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _load(entry_point: str, field: str) -> Callable[[HookOrder, Progress], Awaitable[None] | None]:
    module, _, name = entry_point.partition(":")
    try:
        function: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidInput(f"The hook can't be loaded: {error}.", field=field) from None
    if not callable(function):
        raise InvalidInput(f"{entry_point} is no function.", field=field)
    return function  # type: ignore[no-any-return]
