"""The outbox as a feed: pages for history, and an endless iterator for SSE and webhooks."""

from collections.abc import AsyncIterator

from lwm2m_server.store.ports import EventStore
from lwm2m_server.store.records import Event, Page

_BATCH = 500


class EventFeed:
    """Reads of the outbox. Events come in the order of their commits and are never missed."""

    def __init__(self, events: EventStore) -> None:
        self._events = events

    async def last_id(self) -> int:
        """Return the id of the newest event, 0 when there is none."""
        return await self._events.last_id()

    async def page(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        endpoint: str | None = None,
        campaign_id: str | None = None,
    ) -> Page[Event]:
        """Return events with a higher id than `after`, the oldest first."""
        found = await self._events.after(after, limit=limit, endpoint=endpoint, campaign_id=campaign_id)
        return Page(tuple(found), str(found[-1].id) if len(found) == limit else None)

    async def recent(
        self,
        *,
        before: int | None = None,
        limit: int = 100,
        endpoint: str | None = None,
        campaign_id: str | None = None,
    ) -> Page[Event]:
        """Return events with a lower id than `before` (None: from the end), the newest first."""
        found = await self._events.before(before, limit=limit, endpoint=endpoint, campaign_id=campaign_id)
        return Page(tuple(found), str(found[-1].id) if len(found) == limit else None)

    async def stream(
        self, *, after: int | None = None, endpoint: str | None = None, campaign_id: str | None = None
    ) -> AsyncIterator[Event]:
        """Yield events with a higher id than `after` (None: from now on), for ever, as they are committed."""
        last = await self._events.last_id() if after is None else after
        while True:
            newest = await self._events.wait(last)
            while last < newest:
                found = await self._events.after(
                    last, limit=_BATCH, endpoint=endpoint, campaign_id=campaign_id
                )
                for event in found:
                    yield event
                # A short batch means that nothing else up to `newest` is of this device or campaign.
                last = found[-1].id if len(found) == _BATCH else max(newest, found[-1].id if found else 0)
