"""Consent: the application on the device accepts an update, puts it off or refuses it.

It is asked twice: before an image is fetched, and once its installation was ordered. Without a hook
everything is accepted. A hook that is missing, fails, takes too long or answers what can't be understood
counts as one that puts the update off for a minute. How long an update may be put off in all is the server's
to say (Maximum Defer Period, /5/0/13); after that the application is not asked any more.
"""

import asyncio
import contextlib
import json
import os
import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from lwm2m_device.pace import Pace
from lwm2m_device.settings import Log
from lwm2m_device.updater import Updater
from lwm2m_server.firmware.refusals import RefusalCode, refusal

BROKEN_SECONDS = 60.0
"""For how long a hook that does not work puts an update off."""
_SEVERITIES = ("critical", "mandatory", "optional")
_TEXT_LIMIT = 255
"""Bytes of Refusal Text (42800/0/5)."""


class ConsentPhase(StrEnum):
    """What the application is asked for."""

    DOWNLOAD = "download"
    INSTALL = "install"


@dataclass(frozen=True)
class Question:
    """What is asked. `version` and `size` (bytes) are None while unknown.

    `severity` is critical, mandatory or optional (/5/0/11), `deferred` the seconds for which the update has
    been put off so far, `may_defer` those for which it may still be.
    """

    phase: ConsentPhase
    version: str | None
    size: int | None
    severity: str
    deferred: float
    may_defer: float


@dataclass(frozen=True)
class Accept:
    """Go on."""


@dataclass(frozen=True)
class Defer:
    """Ask again after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Refuse:
    """Not this update; `text` says why, for the operator."""

    text: str = ""


Answer = Accept | Defer | Refuse


class Consent(Protocol):
    """The application's hook. What it raises counts as an answer that can't be understood."""

    async def ask(self, question: Question) -> Answer:
        """Answer; the device waits for it."""
        ...


class HookFailed(Exception):
    """The hook gave no answer that can be understood."""


class ConsentProgram:
    """A program as hook: the question is JSON on its stdin, the answer JSON on its stdout.

    Answers are {"answer": "accept"}, {"answer": "defer", "seconds": 600} and {"answer": "refuse", "text": "…"}.
    """

    def __init__(self, program: Path, seconds: float) -> None:
        """`seconds` is the time that it has for an answer."""
        self._program = program
        self._seconds = seconds

    async def ask(self, question: Question) -> Answer:
        """Run the program; raises HookFailed."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise HookFailed(f"it can't be started: {error.strerror}") from None
        try:
            asked = process.communicate(json.dumps(vars(question)).encode())
            output, _ = await asyncio.wait_for(asked, self._seconds)
        except TimeoutError:
            raise HookFailed(f"no answer within {self._seconds:g} s") from None
        finally:
            # Its children may hold the pipes open: they go with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if process.returncode != 0:
            raise HookFailed(f"it ended with code {process.returncode}")
        return parse_answer(output)


def parse_answer(output: bytes) -> Answer:
    """Read an answer in JSON; raises HookFailed for anything else."""
    try:
        found: Any = json.loads(output)
    except (ValueError, RecursionError):
        raise HookFailed("its answer is no JSON") from None
    match found:
        case {"answer": "accept", **rest} if not rest:
            return Accept()
        case {"answer": "defer", "seconds": int() | float() as seconds, **rest} if not rest:
            if not isinstance(seconds, bool) and 0 < seconds < float("inf"):
                return Defer(seconds)
        case {"answer": "refuse", "text": str() as text, **rest} if not rest:
            return Refuse(text)
    raise HookFailed("its answer is neither accept, nor defer with seconds, nor refuse with a text")


class ConsentGate:
    """Asks the application, keeps what it said in flash, and waits while an update is put off."""

    def __init__(self, updater: Updater, consent: Consent | None, pace: Pace, log: Log) -> None:
        self._updater = updater
        self._consent = consent
        self._pace = pace
        self._log = log

    @property
    def asks(self) -> bool:
        """Say whether there is anybody to ask."""
        return self._consent is not None

    async def passed(self, phase: ConsentPhase) -> bool:
        """Wait for the application's consent; False when it refused, and the update has ended."""
        updater = self._updater
        while self._consent is not None and not updater.state.agreed:
            pause = updater.pause()
            if pause > 0:
                await self._pace.sleep(pause)
                continue
            if updater.state.deferred_since and updater.may_defer() <= 0:
                self._log(f"The {phase} has been put off for as long as the server allows; it begins now.")
                break
            answer = await self._answer(self._consent, phase)
            if isinstance(answer, Refuse):
                text = _short(answer.text) or f"The application refuses the {phase}."
                updater.refused(refusal(RefusalCode.REFUSED_BY_APPLICATION, text))
                self._log(f"Refused by the application: {text}")
                return False
            if isinstance(answer, Accept):
                break
            if not updater.defer(answer.seconds):
                self._log(f"The application puts the {phase} off, which the server does not allow.")
                break
            self._log(f"The application puts the {phase} off for {updater.pause():.0f} s")
        if self._consent is not None or updater.state.deferred_until:
            updater.agree()
        return True

    async def _answer(self, consent: Consent, phase: ConsentPhase) -> Answer:
        updater, state = self._updater, self._updater.state
        question = Question(
            phase,
            state.version or None,
            state.size or None,
            _SEVERITIES[state.severity],
            updater.deferred(),
            updater.may_defer(),
        )
        try:
            answer: object = await consent.ask(question)
        except Exception as error:  # noqa: BLE001  the application's fault, whatever it is, must not end the device
            problem = str(error)
        else:
            if isinstance(answer, Accept | Refuse) or (isinstance(answer, Defer) and answer.seconds > 0):
                return answer
            problem = f"{answer!r} is no answer"
        self._log(f"The consent hook does not work: {problem}")
        return Defer(BROKEN_SECONDS)


def _short(text: str) -> str:
    """Make one line of a text that fits into the resource."""
    return " ".join(text.split()).encode(errors="replace")[:_TEXT_LIMIT].decode(errors="ignore")
