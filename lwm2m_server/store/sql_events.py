# ruff: noqa: D102  the docstrings are the ports'
"""The outbox over SQL.

`bucket` is the last id before the batch that an event came in, divided by 1024: it never falls while ids
rise. So the index on (bucket, endpoint) grows at its end, and a device's events are found by one look
into it a bucket.
"""

from collections.abc import Sequence

from sqlalchemy import CTE, Connection, delete, func, insert, select

from lwm2m_server.store.database import Database
from lwm2m_server.store.prepared import AnySelect, Prepared, PreparedQuery
from lwm2m_server.store.records import Event, NewEvent
from lwm2m_server.store.rows import event_of, event_row
from lwm2m_server.store.schema import events
from lwm2m_server.store.writer import NEWEST

_BUCKET = 1024  # events
_e = events.c
_INSERT = Prepared(insert(events), ("bucket", "kind", "at", "endpoint", "campaign_id", "data"))
_LAST = select(func.coalesce(func.max(_e.id), 0))
_LAST_NOW = PreparedQuery(_LAST)
_COLUMNS = (_e.id, _e.kind, _e.at, _e.endpoint, _e.campaign_id, _e.data)


def append(connection: Connection, new: Sequence[NewEvent]) -> None:
    """Write events in the transaction under way."""
    append_rows(connection, [event_row(event) for event in new])


def append_rows(connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Write events that are rows already, see `rows.event_row`."""
    if rows:
        last = _LAST_NOW.rows(connection)[0][0]
        bucket = last // _BUCKET
        _INSERT.many(connection, [(bucket, *row) for row in rows])
        connection.info[NEWEST] = last + len(rows)


class SqlEventStore:
    """See `ports.EventStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, events: Sequence[NewEvent]) -> None:
        await self._database.write(lambda connection: append(connection, events))

    async def after(
        self, event_id: int, *, limit: int = 500, endpoint: str | None = None, campaign_id: str | None = None
    ) -> list[Event]:
        query = _of(endpoint, campaign_id, since=event_id).where(_e.id > event_id)
        return await self._read(query.order_by(_e.id).limit(limit))

    async def before(
        self,
        event_id: int | None = None,
        *,
        limit: int = 100,
        endpoint: str | None = None,
        campaign_id: str | None = None,
    ) -> list[Event]:
        query = _of(endpoint, campaign_id, until=event_id)
        if event_id is not None:
            query = query.where(_e.id < event_id)
        return await self._read(query.order_by(_e.id.desc()).limit(limit))

    async def last_id(self) -> int:
        return int((await self._database.read(_LAST))[0][0])

    async def wait(self, event_id: int) -> int:
        while True:
            newest = self._database.newest
            if newest > event_id:
                return newest
            await self._database.committed().wait()

    async def prune(self, *, before: float, limit: int = 10_000) -> int:
        oldest = select(_e.id, _e.at).order_by(_e.id).limit(limit).subquery()
        doomed = select(oldest.c.id).where(oldest.c.at < before, oldest.c.id < _LAST.scalar_subquery())

        def work(connection: Connection) -> int:
            return (connection.execute(delete(events).where(_e.id.in_(doomed)))).rowcount

        return await self._database.write(work)

    async def _read(self, query: AnySelect) -> list[Event]:
        return [event_of(row) for row in await self._database.read(query)]


def _of(
    endpoint: str | None, campaign_id: str | None, *, since: int = 0, until: int | None = None
) -> AnySelect:
    query: AnySelect = select(*_COLUMNS)
    if endpoint is not None:
        buckets = _buckets(since, until)
        query = query.where(_e.bucket == buckets.c.n, _e.endpoint == endpoint)
    if campaign_id is not None:
        query = query.where(_e.campaign_id == campaign_id)
    return query


def _buckets(since: int, until: int | None) -> CTE:
    """Return the numbers of the buckets that hold the events after `since` and before `until`."""
    lowest = select(func.min(_e.id)).where(_e.id > since)
    highest = select(func.max(_e.id))
    if until is not None:
        highest = highest.where(_e.id < until)
    first, last = (
        select(_e.bucket).where(_e.id == id_.scalar_subquery()).scalar_subquery() for id_ in (lowest, highest)
    )
    numbers = select(first.label("n")).cte("buckets", recursive=True)
    return numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < last))
