"""The JSON of campaigns and deployments."""

from datetime import datetime

from pydantic import AwareDatetime, BaseModel, Field

from lwm2m_server.api.models.common import Body, Event, moment, optional_moment
from lwm2m_server.api.models.deltas import Savings
from lwm2m_server.campaigns import records as campaigns
from lwm2m_server.campaigns.records import MAX_DEFER, CampaignState, DeploymentState, Severity
from lwm2m_server.campaigns.statistics import Statistics as Tally
from lwm2m_server.store import delta_ports


class CampaignBody(Body):
    """A new campaign; what is not given takes the server's default."""

    name: str = Field(min_length=1, max_length=100, examples=["pumps to 2.1.0"])
    manifest_id: str = Field(min_length=1, max_length=128)
    filter: str = Field(
        default="", max_length=4096, examples=['manufacturer = "Acme" and firmware.version < 2.1']
    )
    description: str = Field(default="", max_length=2000)
    limit: int | None = Field(default=None, ge=1, le=1_000_000, description="Devices being updated at a time")
    retries: int | None = Field(
        default=None, ge=0, le=100, description="Attempts after the first one, each device"
    )
    stop: str | None = Field(default=None, max_length=200, examples=["failures > 20 % after 10"])
    approval: bool = Field(default=False, description="Someone else must approve before it starts")
    start_at: AwareDatetime | None = Field(default=None, description="Not before; with a time zone")
    severity: Severity | None = Field(
        default=None, description="Written to devices that have /5/0/11; null leaves it to them"
    )
    max_defer: int | None = Field(
        default=None,
        ge=0,
        le=MAX_DEFER,
        description="Seconds for which a device may put the update off (/5/0/13), 0: not at all; null leaves it",
    )


class CampaignPatch(Body):
    """What to change of a draft; members that are not given stay."""

    name: str | None = Field(default=None, min_length=1, max_length=100)
    manifest_id: str | None = Field(default=None, min_length=1, max_length=128)
    filter: str | None = Field(default=None, max_length=4096)
    description: str | None = Field(default=None, max_length=2000)
    limit: int | None = Field(default=None, ge=1, le=1_000_000)
    retries: int | None = Field(default=None, ge=0, le=100)
    stop: str | None = Field(default=None, max_length=200)
    approval: bool | None = None
    start_at: AwareDatetime | None = Field(default=None, description="null: start at once")
    severity: Severity | None = Field(default=None, description="null: leave it to the devices")
    max_defer: int | None = Field(
        default=None, ge=0, le=MAX_DEFER, description="null: leave it to the devices"
    )


class Campaign(BaseModel):
    """An update for the devices that a filter names."""

    id: str
    name: str
    description: str
    state: CampaignState
    reason: str
    text: str
    manifest_id: str
    filter: str
    limit: int
    retries: int
    stop: str
    approval: bool
    severity: Severity | None
    max_defer: int | None
    targets: int
    created_at: datetime
    created_by: str
    approved_by: str
    updated_at: datetime
    start_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    revision: int

    @classmethod
    def of(cls, campaign: campaigns.Campaign) -> "Campaign":
        """Convert the record."""
        same = (
            "id",
            "name",
            "description",
            "state",
            "reason",
            "text",
            "manifest_id",
            "filter",
            "limit",
            "retries",
        )
        more = (
            "stop",
            "approval",
            "severity",
            "max_defer",
            "targets",
            "created_by",
            "approved_by",
            "revision",
        )
        return cls(
            **{name: getattr(campaign, name) for name in same + more},
            created_at=moment(campaign.created_at),
            updated_at=moment(campaign.updated_at),
            start_at=optional_moment(campaign.start_at),
            started_at=optional_moment(campaign.started_at),
            ended_at=optional_moment(campaign.ended_at),
        )


class Totals(BaseModel):
    """`targets` is the sum of the others (`done` apart, which counts all that came to an end)."""

    targets: int
    pending: int
    active: int
    succeeded: int
    failed: int
    rejected: int
    skipped: int
    cancelled: int
    done: int


class Statistics(BaseModel):
    """Devices of a campaign by state, and by reason within each state."""

    totals: Totals
    states: dict[DeploymentState, int]
    reasons: dict[DeploymentState, dict[str, int]]
    savings: Savings = Field(description="What deltas saved in this campaign")

    @classmethod
    def of(cls, tally: Tally, savings: delta_ports.Savings) -> "Statistics":
        """Convert the counts."""
        totals = Totals(**{name: getattr(tally.totals, name) for name in Totals.model_fields})
        return cls(totals=totals, states=tally.states, reasons=tally.reasons, savings=Savings.of(savings))


class Deployment(BaseModel):
    """One device in one campaign."""

    campaign_id: str
    endpoint: str
    state: DeploymentState
    reason: str
    text: str
    attempt: int
    retry_at: datetime | None
    from_version: str | None
    to_version: str | None
    offset: int = Field(description="Bytes that the device has")
    size: int = Field(description="Bytes of what it gets; 0 while unknown")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, deployment: campaigns.Deployment) -> "Deployment":
        """Convert the record."""
        same = ("campaign_id", "endpoint", "state", "reason", "text", "attempt", "from_version", "to_version")
        return cls(
            **{name: getattr(deployment, name) for name in (*same, "offset", "size")},
            retry_at=optional_moment(deployment.retry_at),
            created_at=moment(deployment.created_at),
            updated_at=moment(deployment.updated_at),
            started_at=optional_moment(deployment.started_at),
            ended_at=optional_moment(deployment.ended_at),
        )


class DeploymentHistory(BaseModel):
    """A device in a campaign and all that happened to it there, the oldest first."""

    deployment: Deployment
    events: list[Event]


class FilterPreview(BaseModel):
    """How many devices a filter matches now, and the first of them."""

    filter: str
    count: int
    sample: list[str]
