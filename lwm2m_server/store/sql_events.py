"""The outbox over SQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lwm2m_server.store.database import AnySelect, Database, Prepared
from lwm2m_server.store.records import Event, NewEvent
from lwm2m_server.store.rows import event_of, event_row
from lwm2m_server.store.schema import events

_INSERT = Prepared(insert(events), columns=("kind", "at", "endpoint", "campaign_id", "data"))


async def append(connection: AsyncConnection, new: Sequence[NewEvent]) -> None:
    """Write events in the transaction under way."""
    await _INSERT.many(connection, [event_row(event) for event in new])


class SqlEventStore:
    """See `ports.EventStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, events: Sequence[NewEvent]) -> None:  # noqa: D102
        await self._database.write(lambda connection: append(connection, events))

    async def after(  # noqa: D102
        self, event_id: int, *, limit: int = 500, endpoint: str | None = None, campaign_id: str | None = None
    ) -> list[Event]:
        query = _of(endpoint, campaign_id).where(events.c.id > event_id)
        return await self._read(query.order_by(events.c.id).limit(limit))

    async def before(  # noqa: D102
        self,
        event_id: int | None = None,
        *,
        limit: int = 100,
        endpoint: str | None = None,
        campaign_id: str | None = None,
    ) -> list[Event]:
        query = _of(endpoint, campaign_id)
        if event_id is not None:
            query = query.where(events.c.id < event_id)
        return await self._read(query.order_by(events.c.id.desc()).limit(limit))

    async def last_id(self) -> int:  # noqa: D102
        return int((await self._database.read(select(func.coalesce(func.max(events.c.id), 0))))[0][0])

    async def wait(self, event_id: int) -> int:  # noqa: D102
        while True:
            committed = self._database.committed()  # taken before the look, so that no commit falls between
            newest = await self.last_id()
            if newest > event_id:
                return newest
            await committed.wait()

    async def prune(self, *, before: float, limit: int = 10_000) -> int:  # noqa: D102
        oldest = select(events.c.id, events.c.at).order_by(events.c.id).limit(limit).subquery()
        doomed = select(oldest.c.id).where(oldest.c.at < before)

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(delete(events).where(events.c.id.in_(doomed)))).rowcount

        return await self._database.write(work)

    async def _read(self, query: AnySelect) -> list[Event]:
        return [event_of(row) for row in await self._database.read(query)]


def _of(endpoint: str | None, campaign_id: str | None) -> AnySelect:
    query = select(events)
    if endpoint is not None:
        query = query.where(events.c.endpoint == endpoint)
    if campaign_id is not None:
        query = query.where(events.c.campaign_id == campaign_id)
    return query
