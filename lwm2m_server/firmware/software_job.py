"""The durable record of one application's update on one device, and what is known of its object 9 at the moment.

The job survives restarts (`to_json`, `from_json`); the view does not, it is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import IntEnum, StrEnum
from typing import Any, Final, Self

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.update_job import Kind, Method, Phase, Timers

MACHINE: Final = "software"
"""Tells the JSON form from that of an update of firmware."""
FORMAT: Final = 1
_TIMERS: Final = Timers()


class State(IntEnum):
    """Update State, resource 7 of object 9."""

    INITIAL = 0
    DOWNLOAD_STARTED = 1
    DOWNLOADED = 2
    DELIVERED = 3
    INSTALLED = 4


class Ask(StrEnum):
    """The one request that is outstanding."""

    READ = "read"
    UNINSTALL = "uninstall"
    URI = "uri"
    PUSH = "push"
    INSTALL = "install"
    ACTIVATE = "activate"


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareJob:
    """One update of one application on one device.

    `application` is its PkgName, `instance` the path of the instance of object 9 that is driven (`/9/n`). `digest`
    and `size` describe what is delivered (envelope or file), `uris` are its absolute URIs, best first.
    `target_version` is the evidence of success. `prefer` decides for files how they are delivered (pull by default);
    a manifest is pushed first. `again`: an attempt went before this one.

    The rest is the machine's own: build jobs with `new_software_job` and change them through `software.step` only. Of
    use to others: `phase`, `method`, `offset` (bytes that arrived), `started_at`, `heard_at`. `base_version` and
    `base_active` are what the device had in place when it was first asked: an application that was switched off
    stays so.
    """

    kind: Kind
    digest: bytes
    size: int
    uris: tuple[str, ...]
    application: str
    target_version: str
    instance: str
    prefer: Method | None = None
    timers: Timers = _TIMERS
    again: bool = False

    phase: Phase = Phase.OFFERED
    started_at: float = 0.0
    progress_at: float = 0.0
    heard_at: float | None = None
    method: Method | None = None
    refused: tuple[Method, ...] = ()
    too_large: bool = False
    looked: bool = False
    base_version: str | None = None
    base_active: bool | None = None
    push_offset: int = 0
    offset: int = 0
    ask: Ask | None = None
    ask_number: int = 0
    asked_at: float = 0.0
    wait_until: float = 0.0
    busy: bool = False
    error: int | None = None
    stale_result: int = 0
    removals: int = 0
    removing: bool = False
    removal_refused: bool = False
    deliveries: int = 0
    restarts: int = 0
    installs: int = 0
    install_sent_at: float | None = None
    accepted: bool = False
    activations: int = 0
    registered_since: bool = False
    returns: int = 0
    settling_since: float | None = None
    cancelling_since: float | None = None

    @property
    def wants_active(self) -> bool:
        """Whether the application is to run in the end: one that was switched off is not switched on."""
        return self.base_active is not False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; bytes as lower hex."""
        data = asdict(self)
        data["machine"], data["format"] = MACHINE, FORMAT
        data["digest"] = self.digest.hex()
        data["uris"] = list(self.uris)
        data["refused"] = list(self.refused)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; `InvalidInput` for what it did not write."""
        known = {item.name for item in fields(cls)}
        if (data.get("machine"), data.get("format")) != (MACHINE, FORMAT) or (
            set(data) - known != {"machine", "format"}
        ):
            raise InvalidInput("the stored update job has an unknown form", field="job")
        try:
            values = {name: data[name] for name in known}
            values.update(
                kind=Kind(data["kind"]),
                digest=bytes.fromhex(data["digest"]),
                uris=tuple(data["uris"]),
                prefer=Method(data["prefer"]) if data["prefer"] is not None else None,
                timers=Timers(**data["timers"]),
                phase=Phase(data["phase"]),
                method=Method(data["method"]) if data["method"] is not None else None,
                refused=tuple(Method(item) for item in data["refused"]),
                ask=Ask(data["ask"]) if data["ask"] is not None else None,
            )
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput("the stored update job is damaged", field="job") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareView:
    """What is known of the instance now; `SoftwareView()` when nothing is.

    `fresh` says that it was read since the last registration or notification: only then is anything decided on it.
    `locked`: the device answers 5.03 to everything because a push of ours is unfinished.
    """

    registered: bool = False
    fresh: bool = False
    locked: bool = False
    state: int | None = None
    result: int | None = None
    name: str | None = None
    version: str | None = None
    active: bool | None = None
    reason: str = ""
    read_at: float | None = None


def new_software_job(
    *,
    kind: Kind,
    digest: bytes,
    size: int,
    uris: tuple[str, ...],
    application: str,
    target_version: str,
    instance: str,
    now: float,
    prefer: Method | None = None,
    timers: Timers | None = None,
    again: bool = False,
) -> SoftwareJob:
    """Make a job for one attempt, not yet started; give it `Started` as its first event."""
    job = SoftwareJob(
        kind=kind,
        digest=digest,
        size=size,
        uris=uris,
        application=application,
        target_version=target_version,
        instance=instance,
        prefer=prefer,
        timers=timers or Timers(),
        again=again,
    )
    return replace(job, started_at=now, progress_at=now)
