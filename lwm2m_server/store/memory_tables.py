# ruff: noqa: D102  the docstrings are the ports'
"""What the stores in memory share: the tables and the outbox."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from lwm2m_server.campaigns.records import Campaign, Deployment
from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.devices.records import Device, Observation
from lwm2m_server.store.records import (
    Authority,
    Credential,
    Event,
    NewEvent,
    Page,
    StoredImage,
    StoredManifest,
    StoredSession,
    Token,
    TrustedKey,
)
from lwm2m_server.store.rows import from_json, to_json

T = TypeVar("T")


class Tables:
    """All records, by their keys."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.locations: dict[str, str] = {}  # endpoint of each live registration, by its id
        self.attribute_types: dict[str, AttributeType] = {}
        self.observations: dict[tuple[str, str, str], Observation] = {}
        self.images: dict[bytes, StoredImage] = {}
        self.manifests: dict[str, StoredManifest] = {}
        self.keys: dict[str, TrustedKey] = {}
        self.tokens: dict[str, Token] = {}
        self.credentials: dict[str, Credential] = {}
        self.authorities: dict[str, Authority] = {}
        self.sessions: dict[int, StoredSession] = {}
        self.seal_check: bytes | None = None
        self.campaigns: dict[str, Campaign] = {}
        self.deployments: dict[tuple[str, str], Deployment] = {}
        self.events: list[Event] = []
        self.last_event = 0
        self.changed = asyncio.Event()

    def append(self, events: Sequence[NewEvent]) -> None:
        """Give the events their numbers."""
        for event in events:
            self.last_event += 1
            self.events.append(
                Event(
                    id=self.last_event,
                    kind=event.kind,
                    at=event.at,
                    endpoint=event.endpoint,
                    campaign_id=event.campaign_id,
                    data=from_json(to_json(event.data)),
                )
            )
        if events:
            self.changed.set()
            self.changed = asyncio.Event()


def cut(items: Iterable[T], key: Callable[[T], str], after: str | None, limit: int) -> Page[T]:
    """Return the page of the items after a key."""
    rest = sorted((item for item in items if after is None or key(item) > after), key=key)
    if len(rest) <= limit:
        return Page(tuple(rest))
    return Page(tuple(rest[:limit]), key(rest[limit - 1]))


class MemoryEventStore:
    """See `ports.EventStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def append(self, events: Sequence[NewEvent]) -> None:
        self._tables.append(events)

    async def after(
        self, event_id: int, *, limit: int = 500, endpoint: str | None = None, campaign_id: str | None = None
    ) -> list[Event]:
        found = [event for event in self._of(endpoint, campaign_id) if event.id > event_id]
        return found[:limit]

    async def before(
        self,
        event_id: int | None = None,
        *,
        limit: int = 100,
        endpoint: str | None = None,
        campaign_id: str | None = None,
    ) -> list[Event]:
        found = [e for e in self._of(endpoint, campaign_id) if event_id is None or e.id < event_id]
        return found[::-1][:limit]

    async def last_id(self) -> int:
        return self._tables.events[-1].id if self._tables.events else 0

    async def wait(self, event_id: int) -> int:
        while self._tables.last_event <= event_id:
            await self._tables.changed.wait()
        return self._tables.last_event

    async def prune(self, *, before: float, limit: int = 10_000) -> int:
        last = self._tables.last_event
        doomed = {event.id for event in self._tables.events[:limit] if event.at < before and event.id < last}
        self._tables.events = [event for event in self._tables.events if event.id not in doomed]
        return len(doomed)

    def _of(self, endpoint: str | None, campaign_id: str | None) -> list[Event]:
        return [
            event
            for event in self._tables.events
            if (endpoint is None or event.endpoint == endpoint)
            and (campaign_id is None or event.campaign_id == campaign_id)
        ]
