"""What is known of a campaign and of each device in it: plain values, changed only through the machines.

A record is never changed in place. A transition makes a new one with `revision + 1`, and the store writes it
only if the row still has the old state and revision (compare-and-set).
"""

from dataclasses import dataclass
from enum import StrEnum


class CampaignState(StrEnum):
    """Where a campaign stands; the order is that of its life."""

    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    HALTED = "halted"
    ABORTED = "aborted"
    ARCHIVED = "archived"


class DeploymentState(StrEnum):
    """Where one device of a campaign stands; the order is that of its life."""

    PENDING = "pending"
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    INSTALLING = "installing"
    CONFIRMING = "confirming"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class Severity(StrEnum):
    """How urgent an update is, as object 5 has it (resource 11); the order is that of its values."""

    CRITICAL = "critical"
    MANDATORY = "mandatory"
    OPTIONAL = "optional"

    @property
    def number(self) -> int:
        """The value of the resource."""
        return list(Severity).index(self)


MAX_DEFER = 0xFFFFFFFF
"""The largest Maximum Defer Period in seconds (resource 13 of object 5)."""

ACTIVE = frozenset(
    {
        DeploymentState.OFFERED,
        DeploymentState.DOWNLOADING,
        DeploymentState.DOWNLOADED,
        DeploymentState.INSTALLING,
        DeploymentState.CONFIRMING,
    }
)
FINAL = frozenset(
    {
        DeploymentState.SUCCEEDED,
        DeploymentState.FAILED,
        DeploymentState.REJECTED,
        DeploymentState.SKIPPED,
        DeploymentState.CANCELLED,
    }
)
EDITABLE = frozenset({CampaignState.DRAFT})
ENDED = frozenset(
    {CampaignState.COMPLETED, CampaignState.HALTED, CampaignState.ABORTED, CampaignState.ARCHIVED}
)

DEFAULT_LIMIT = 100
DEFAULT_RETRIES = 3
DEFAULT_STOP = "failures > 20 % after 10"


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One update for many devices.

    `filter` and `stop` are texts in their languages (devices.filter, campaigns.stop), parsed when the
    campaign is created and again when they are used: what can't be read then stops the campaign. `targets` is
    the number of devices in the snapshot that was taken at the start (0 before). Times are seconds since the
    epoch.
    """

    id: str
    name: str
    manifest_id: str
    created_at: float
    updated_at: float
    filter: str = ""
    description: str = ""
    state: CampaignState = CampaignState.DRAFT
    reason: str = ""  # code of campaigns.reasons, of the last transition
    text: str = ""
    limit: int = DEFAULT_LIMIT  # devices being updated at the same time
    retries: int = DEFAULT_RETRIES  # attempts after the first one, each device
    stop: str = DEFAULT_STOP
    approval: bool = False  # a second person must approve before it may start
    severity: Severity | None = None  # written to each device that has it; None leaves it
    max_defer: int | None = None  # seconds for which the device may put the update off; None leaves it
    created_by: str = ""
    approved_by: str = ""
    start_at: float | None = None  # not before, when scheduled
    started_at: float | None = None
    ended_at: float | None = None
    targets: int = 0
    snapshot_done: bool = False  # every target has its deployment; the snapshot may take several steps
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One device in one campaign, found by (campaign_id, endpoint).

    `job` is the update machine's own state as JSON text, opaque here and to the store, empty when none is
    under way. `attempt` counts attempts begun. `retry_at` holds a pending deployment back until then.
    """

    campaign_id: str
    endpoint: str
    created_at: float
    updated_at: float
    state: DeploymentState = DeploymentState.PENDING
    reason: str = ""  # code of campaigns.reasons, of the last transition
    text: str = ""
    attempt: int = 0
    retry_at: float | None = None
    from_version: str | None = None
    to_version: str | None = None
    offset: int = 0  # bytes of the artefact that the device has
    size: int = 0  # bytes of the artefact, 0 while unknown
    started_at: float | None = None
    ended_at: float | None = None
    job: str = ""
    revision: int = 1

    @property
    def active(self) -> bool:
        """Whether the device is being updated now and counts against the limit."""
        return self.state in ACTIVE

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it in this campaign."""
        return self.state in FINAL


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many deployments of a campaign are in `state` with `reason`."""

    state: DeploymentState
    reason: str
    count: int
