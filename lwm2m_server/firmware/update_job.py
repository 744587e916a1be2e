"""The durable record of one update of one device, and what is known of its update object at the moment.

The job survives restarts (`to_json`, `from_json`); the view does not, it is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import IntEnum, StrEnum
from typing import Any, Self

from lwm2m_server.errors import InvalidInput

FORMAT = 1
"""Version of the JSON form."""
FIRMWARE = "/5/0"
"""The only instance of object 5, Firmware Update."""
_ADDED = frozenset(
    {
        "severity",
        "max_defer",
        "configured",
        "deferred_since",
        "deferred_until",
        "instance",
        "goals",
        "conflicts",
    }
)
"""Fields that the first jobs of this form did not have."""


class State(IntEnum):
    """Resource 3 of an update object."""

    IDLE = 0
    DOWNLOADING = 1
    DOWNLOADED = 2
    UPDATING = 3


class Kind(StrEnum):
    """What is delivered as the package."""

    MANIFEST = "manifest"
    IMAGE = "image"


class Method(StrEnum):
    """How it is delivered."""

    PUSH = "push"
    PULL = "pull"


class Phase(StrEnum):
    """Where the job stands; the texts are the deployment states of the campaign."""

    OFFERED = "offered"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    INSTALLING = "installing"
    CONFIRMING = "confirming"


class Ask(StrEnum):
    """The one request that is outstanding."""

    READ = "read"
    RESET = "reset"
    URI = "uri"
    PUSH = "push"
    CONFIGURE = "configure"
    EXECUTE = "execute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """Bounds in seconds.

    A phase ends as `silent` or `stalled` after its time without progress. `downloading` must cover the 300 s
    for which some clients answer 5.03 after a broken transfer. `total` bounds the whole job. `deferral` bounds
    how long an update may be put off where the job has no Maximum Defer Period of its own.
    """

    offered: float = 3600.0
    downloading: float = 900.0
    downloaded: float = 900.0
    installing: float = 3600.0
    confirming: float = 1200.0
    total: float = 7 * 86400.0
    poll: float = 30.0
    busy: float = 60.0
    answer: float = 400.0
    settle: float = 120.0
    deferral: float = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What one component has to show in the end; `before` is the version that it showed when the job was made.

    Where the manifest says no `version`, its `digest` (SHA-256) has to be shown.
    """

    name: str
    version: str | None
    digest: bytes | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A component as the device shows it now: an instance of object 33629, and what 42800 says of it."""

    instance: int
    name: str
    version: str | None = None
    digest: bytes | None = None
    capacity: int | None = None
    linked: tuple[int, ...] = ()
    conflicting: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateJob:
    """One update of one device.

    `digest` and `size` describe what is delivered (envelope or image); `uris` are its absolute URIs, one a
    scheme, best first. `target_version` and `target_digest` (of the image) are the evidence of success.
    `prefer` decides for images where the device takes both ways (pull by default); a manifest is pushed
    wherever the device allows it. `severity` (0 critical, 1 mandatory, 2 optional) and `max_defer` (seconds) are
    written to the device before the delivery, where it has these resources; None leaves them as they are.
    `instance` is the path of the update object's instance that is driven: `/5/0`, or `/33629/n` (Advanced Firmware
    Update), which has the same resources under the same numbers. `goals` is the evidence that is asked of a device
    that shows its components; without them it is version and digest of its firmware.

    The rest is the machine's own: build jobs with `new_job` and change them through `update.step` only. Of
    use to others: `phase`, `method`, `offset` (bytes that arrived), `started_at`, `heard_at`, `deferred_since`
    (not None while the device's application puts the update off) and `deferred_until` (None: unknown).
    """

    kind: Kind
    digest: bytes
    size: int
    uris: tuple[str, ...]
    target_version: str
    target_digest: bytes | None = None
    prefer: Method | None = None
    timers: Timers = Timers()
    severity: int | None = None
    max_defer: int | None = None
    instance: str = FIRMWARE
    goals: tuple[Goal, ...] = ()

    phase: Phase = Phase.OFFERED
    started_at: float = 0.0
    progress_at: float = 0.0
    heard_at: float | None = None
    method: Method | None = None
    refused: tuple[Method, ...] = ()
    too_large: bool = False
    base_version: str | None = None
    push_offset: int = 0
    offset: int = 0
    ask: Ask | None = None
    ask_number: int = 0
    asked_at: float = 0.0
    wait_until: float = 0.0
    busy: bool = False
    error: int | None = None
    stale_result: int = 0
    resets: int = 0
    deliveries: int = 0
    restarts: int = 0
    executes: int = 0
    execute_sent_at: float | None = None
    accepted: bool = False
    registered_since: bool = False
    returns: int = 0
    settling_since: float | None = None
    cancelling_since: float | None = None
    configured: bool = False
    deferred_since: float | None = None
    deferred_until: float | None = None
    conflicts: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; bytes as lower hex."""
        data = asdict(self)
        data["format"] = FORMAT
        data["digest"] = self.digest.hex()
        data["target_digest"] = self.target_digest.hex() if self.target_digest is not None else None
        data["uris"] = list(self.uris)
        data["goals"] = [
            asdict(goal) | {"digest": None if goal.digest is None else goal.digest.hex()}
            for goal in self.goals
        ]
        data["refused"] = list(self.refused)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; `InvalidInput` for what it did not write."""
        known = {item.name for item in fields(cls)}
        if data.get("format") != FORMAT or set(data) - known - {"format"}:
            raise InvalidInput("the stored update job has an unknown form", field="job")
        try:
            values = {name: data[name] for name in known if name in data or name not in _ADDED}
            values.update(
                kind=Kind(data["kind"]),
                digest=bytes.fromhex(data["digest"]),
                target_digest=bytes.fromhex(data["target_digest"])
                if data["target_digest"] is not None
                else None,
                uris=tuple(data["uris"]),
                prefer=Method(data["prefer"]) if data["prefer"] is not None else None,
                timers=Timers(**data["timers"]),
                phase=Phase(data["phase"]),
                method=Method(data["method"]) if data["method"] is not None else None,
                refused=tuple(Method(item) for item in data["refused"]),
                ask=Ask(data["ask"]) if data["ask"] is not None else None,
                goals=tuple(_goal(each) for each in data.get("goals", ())),
            )
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput("the stored update job is damaged", field="job") from error


def _goal(data: Mapping[str, Any]) -> Goal:
    return Goal(**{**data, "digest": None if data["digest"] is None else bytes.fromhex(data["digest"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """What is known of the device now; `DeviceView()` when nothing is.

    `fresh` says that State, Result and versions were read since the last registration or notification: only
    then is anything decided on them. `locked`: it answers 5.03 to everything because a push of ours is
    unfinished. `components` is None while they were not asked for; `conflicting` are the instances that were in the
    way of the one that is driven.
    """

    registered: bool = False
    fresh: bool = False
    locked: bool = False
    state: int | None = None
    result: int | None = None
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
    read_at: float | None = None


def new_job(
    *,
    kind: Kind,
    digest: bytes,
    size: int,
    uris: tuple[str, ...],
    target_version: str,
    now: float,
    target_digest: bytes | None = None,
    prefer: Method | None = None,
    timers: Timers | None = None,
    severity: int | None = None,
    max_defer: int | None = None,
    instance: str = FIRMWARE,
    goals: tuple[Goal, ...] = (),
) -> UpdateJob:
    """Make a job for one attempt, not yet started; give it `Started` as its first event."""
    job = UpdateJob(
        kind=kind,
        digest=digest,
        size=size,
        uris=uris,
        target_version=target_version,
        target_digest=target_digest,
        prefer=prefer,
        timers=timers or Timers(),
        severity=severity,
        max_defer=max_defer,
        instance=instance,
        goals=goals,
    )
    return replace(job, started_at=now, progress_at=now)
