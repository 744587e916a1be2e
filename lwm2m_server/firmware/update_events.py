"""What goes into the update machine (events) and what comes out of it (actions).

Every action carries a number; answers (`Answered`, `StatusRead`, `PushProgress`, `PushEnded`) repeat it, and
those with another number than the outstanding one are late and ignored. CoAP codes are their numeric values
(2.04 is 68); `None` stands for "no answer": time-out, reset, peer gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lwm2m_server.firmware.outcomes import Outcome
from lwm2m_server.firmware.update_job import DeviceView, Shown, UpdateJob

# -- actions ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observe:
    """Observe State and Result (resources 3 and 5 of the update object).

    Report changes as `Notified`. Failing is no matter: we poll.
    """


@dataclass(frozen=True, slots=True)
class ReadStatus:
    """Read the update object, `/3/0/3` and, where registered, `/42800/0`.

    With `settings`, severity and maximum defer period too; with `components`, what object 33629 shows of each.
    Answer with `StatusRead`, or `Answered` when it fails.
    """

    number: int
    settings: bool = False
    components: bool = False


@dataclass(frozen=True, slots=True)
class Configure:
    """Write Severity (11) and Maximum Defer Period (13), each unless None; answer with `Answered`.

    The code is that of the first write that was refused, else success.
    """

    number: int
    severity: int | None
    max_defer: int | None


@dataclass(frozen=True, slots=True)
class Reset:
    """Write an empty string to Package URI (`by_uri`) or one NUL byte to Package; answer with `Answered`.

    Before it, the same to each of the `others`, instances of the same object; how they answer is no matter.
    """

    number: int
    by_uri: bool
    others: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteUri:
    """Write `uri` to Package URI (1); answer with `Answered`."""

    number: int
    uri: str


@dataclass(frozen=True, slots=True)
class Push:
    """Send the artefact to Package (0) from `offset`; `PushProgress` on the way, `PushEnded` at the end.

    Nothing else may be sent to the device meanwhile.
    """

    number: int
    offset: int


@dataclass(frozen=True, slots=True)
class StopPush:
    """Stop a push that may be running; no answer."""


@dataclass(frozen=True, slots=True)
class Execute:
    """Execute Update (2) without argument.

    Answer with `Answered`. Never repeated by anyone but this machine.
    """

    number: int


Action = Observe | ReadStatus | Configure | Reset | WriteUri | Push | StopPush | Execute

# -- events ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The job begins, or goes on after a restart of the server (then `view` is a fresh `DeviceView`)."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The device registered (not an Update): whatever was known of it must be read again."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The registration ended: de-registered or expired."""


@dataclass(frozen=True, slots=True)
class StatusRead:
    """Answer to `ReadStatus`. `None`: the device has no such resource or the value could not be read.

    `version` is `/3/0/3`; `package_version`, `protocols`, `delivery`, `severity`, `max_defer` are resources 7, 8, 9,
    11, 13 of the update object, `conflicting` its 17; `components` stay None unless asked for; the others are
    resources 3, 4, 5, 6 of 42800.
    """

    number: int
    state: int
    result: int
    version: str | None = None
    package_version: str | None = None
    delivery: int | None = None
    protocols: frozenset[int] | None = None
    running_digest: bytes | None = None
    refusal_code: str = ""
    refusal_text: str = ""
    severity: int | None = None
    max_defer: int | None = None
    deferred_until: float | None = None
    components: tuple[Shown, ...] | None = None
    conflicting: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Notified:
    """A notification of State or Result; `None` for what it does not contain."""

    state: int | None = None
    result: int | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """Answer to `Configure`, `Reset`, `WriteUri`, `Execute`, or failed `ReadStatus`.

    `max_age` in seconds where 5.03 carried one.
    """

    number: int
    code: int | None
    max_age: float | None = None


@dataclass(frozen=True, slots=True)
class PushProgress:
    """The device acknowledged the artefact up to `offset` (bytes)."""

    number: int
    offset: int


@dataclass(frozen=True, slots=True)
class PushEnded:
    """The push ended with `code` (2.04 when complete), or with no answer.

    `offset` is the next byte to be sent.
    """

    number: int
    code: int | None
    offset: int
    max_age: float | None = None


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """The device itself fetched the artefact, or the image that a manifest names, up to `offset` bytes."""

    offset: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The operator or the campaign wants this update ended."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; due at `Step.wake_at` at the latest."""


Event = (
    Started | Registered | Gone | StatusRead | Notified | Answered | PushProgress | PushEnded
    | DownloadProgress | CancelRequested | Tick
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """Result of one step. Store `job` durably first, then do `actions` in order; arm one timer for `wake_at`.

    With an `outcome` the job is over: `actions` holds at most a `StopPush`, `wake_at` is `None`.
    """

    job: UpdateJob
    view: DeviceView
    actions: tuple[Action, ...] = field(default=())
    outcome: Outcome | None = None
    wake_at: float | None = None
