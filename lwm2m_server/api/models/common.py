"""What the JSON of all resources has in common.

Times are ISO 8601 in UTC, digests and identifiers lower hex, versions text.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from lwm2m_server.store import records

T = TypeVar("T")

AttributeValue = StrictBool | StrictInt | StrictFloat | StrictStr
HexDigest = Annotated[
    str,
    Field(
        pattern="^[0-9a-f]{64}$",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]
ResourceScalar = str | int | float | bool | None


def moment(seconds: float) -> datetime:
    """Turn seconds since the epoch into a time of the API; what a calendar can't say becomes its last day."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        return datetime(9999, 12, 31, tzinfo=UTC)


def optional_moment(seconds: float | None) -> datetime | None:
    """Do so, None staying None."""
    return None if seconds is None else moment(seconds)


def hex_or_none(data: bytes | None) -> str | None:
    """Write bytes as lower hex, None staying None."""
    return None if data is None else data.hex()


class Body(BaseModel):
    """What clients send: unknown members are mistakes."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[T]):
    """Some items in the order of their key; `next` given as `after` continues, null is the end."""

    items: list[T]
    next: str | None = None


class Event(BaseModel):
    """Something that happened."""

    id: int
    kind: str = Field(examples=["device.registered"])
    at: datetime
    endpoint: str | None
    campaign_id: str | None
    data: dict[str, Any]

    @classmethod
    def of(cls, event: records.Event) -> "Event":
        """Convert the record."""
        data: Mapping[str, Any] = event.data
        return cls(
            id=event.id,
            kind=event.kind,
            at=moment(event.at),
            endpoint=event.endpoint,
            campaign_id=event.campaign_id,
            data=dict(data),
        )


class Health(BaseModel):
    """Parts of the server and how they are."""

    status: Literal["ok"]
    parts: dict[str, str] = {}
