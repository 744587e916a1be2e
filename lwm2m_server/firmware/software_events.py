"""What goes into the software machine and comes out of it, beside what it shares with `update_events`.

As there, every action carries a number that its answer repeats. Writing the URI, pushing and observing, and the
events that tell of them, of registrations and of time, are those of `update_events`; resources are those of object 9:
State 7, Result 9, Package 2, Package URI 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lwm2m_server.firmware.outcomes import Outcome
from lwm2m_server.firmware.software_job import SoftwareJob, SoftwareView
from lwm2m_server.firmware.update_events import (
    Answered,
    CancelRequested,
    DownloadProgress,
    Gone,
    Notified,
    Observe,
    Push,
    PushEnded,
    PushProgress,
    Registered,
    Started,
    StopPush,
    Tick,
    WriteUri,
)


@dataclass(frozen=True, slots=True)
class ReadSoftware:
    """Read the instance; answer with `SoftwareRead`, or `Answered` when it fails."""

    number: int


@dataclass(frozen=True, slots=True)
class Uninstall:
    """Execute Uninstall (6): with argument 1 (ForUpdate), or without any; answer with `Answered`."""

    number: int
    for_update: bool


@dataclass(frozen=True, slots=True)
class Install:
    """Execute Install (4); answer with `Answered`. Never repeated by anyone but this machine."""

    number: int


@dataclass(frozen=True, slots=True)
class Activate:
    """Execute Activate (10); answer with `Answered`."""

    number: int


SoftwareAction = Observe | ReadSoftware | Uninstall | WriteUri | Push | StopPush | Install | Activate


@dataclass(frozen=True, slots=True)
class SoftwareRead:
    """Answer to `ReadSoftware`. `None`: the device has no such resource or the value could not be read.

    `name`, `version`, `active`, `reason` are resources 0, 1, 12, 16.
    """

    number: int
    state: int
    result: int
    name: str | None = None
    version: str | None = None
    active: bool | None = None
    reason: str = ""


SoftwareEvent = (
    Started | Registered | Gone | SoftwareRead | Notified | Answered | PushProgress | PushEnded
    | DownloadProgress | CancelRequested | Tick
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SoftwareStep:
    """Result of one step. Store `job` durably first, then do `actions` in order; arm one timer for `wake_at`.

    With an `outcome` the job is over: `actions` holds at most a `StopPush`, `wake_at` is `None`.
    """

    job: SoftwareJob
    view: SoftwareView
    actions: tuple[SoftwareAction, ...] = field(default=())
    outcome: Outcome | None = None
    wake_at: float | None = None
