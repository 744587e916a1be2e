# ruff: noqa: D102  the docstrings are the ports'
"""Campaigns and deployments over SQL: every change is a compare-and-set with its events."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from lwm2m_server.campaigns.records import ACTIVE, Campaign, Deployment, DeploymentState, StateCount
from lwm2m_server.store import sql_events
from lwm2m_server.store.database import Database
from lwm2m_server.store.prepared import BIND, AnySelect, Prepared
from lwm2m_server.store.records import NewEvent, Page
from lwm2m_server.store.rows import (
    campaign_of,
    campaign_values,
    deployment_of,
    deployment_values,
    page_of,
)
from lwm2m_server.store.rules import campaign_taken, check_step, no_campaign, no_manifest
from lwm2m_server.store.schema import campaigns, deployments, manifests
from lwm2m_server.store.sql_content import one

_CHUNK = 500
_ACTIVE = sorted(state.value for state in ACTIVE)
_c = campaigns.c
_d = deployments.c

_INSERT = Prepared(insert(deployments), tuple(column.name for column in deployments.columns))

# Compiled once by SQLAlchemy's cache; the values come with each execution.
_CHANGE = update(deployments).where(
    _d.campaign_id == bindparam(BIND + "campaign_id"),
    _d.endpoint == bindparam(BIND + "endpoint"),
    _d.state == bindparam(BIND + "state"),
    _d.revision == bindparam(BIND + "revision"),
)


class SqlCampaignStore:
    """See `ports.CampaignStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, campaign: Campaign, *, events: Sequence[NewEvent] = ()) -> None:
        def work(connection: Connection) -> None:
            if not one(connection, select(manifests.c.id).where(manifests.c.id == campaign.manifest_id)):
                raise no_manifest(campaign.manifest_id)
            connection.execute(insert(campaigns).values(campaign_values(campaign)))
            sql_events.append(connection, events)

        try:
            await self._database.write(work)
        except IntegrityError as error:
            raise campaign_taken(campaign) from error

    async def get(self, campaign_id: str) -> Campaign | None:
        rows = await self._database.read(select(campaigns).where(_c.id == campaign_id))
        return campaign_of(rows[0]) if rows else None

    async def find(self, name: str) -> Campaign | None:
        rows = await self._database.read(select(campaigns).where(_c.name == name))
        return campaign_of(rows[0]) if rows else None

    async def page(
        self, *, states: Iterable[str] | None = None, after: str | None = None, limit: int = 100
    ) -> Page[Campaign]:
        query: AnySelect = select(campaigns).order_by(_c.id).limit(limit + 1)
        if states is not None:
            query = query.where(_c.state.in_([str(state) for state in states]))
        if after is not None:
            query = query.where(_c.id > after)
        found = [campaign_of(row) for row in await self._database.read(query)]
        return page_of(found, limit, lambda campaign: campaign.id)

    async def change(self, old: Campaign, new: Campaign, *, events: Sequence[NewEvent] = ()) -> bool:
        check_step(old, new)

        def work(connection: Connection) -> bool:
            statement = update(campaigns).where(*_unchanged(old)).values(campaign_values(new))
            changed = (connection.execute(statement)).rowcount > 0
            sql_events.append(connection, events if changed else ())
            return changed

        try:
            return await self._database.write(work)
        except IntegrityError as error:
            rows = await self._database.read(select(manifests.c.id).where(manifests.c.id == new.manifest_id))
            raise (campaign_taken(new) if rows else no_manifest(new.manifest_id)) from error

    async def delete(self, campaign: Campaign, *, events: Sequence[NewEvent] = ()) -> bool:
        def work(connection: Connection) -> bool:
            gone = (connection.execute(delete(campaigns).where(*_unchanged(campaign)))).rowcount > 0
            sql_events.append(connection, events if gone else ())
            return gone

        return await self._database.write(work)


def _unchanged(campaign: Campaign) -> tuple[Any, ...]:
    return (_c.id == campaign.id, _c.state == campaign.state.value, _c.revision == campaign.revision)


class SqlDeploymentStore:
    """See `ports.DeploymentStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, deployments: Sequence[Deployment], *, events: Sequence[NewEvent] = ()) -> int:
        rows = [deployment_values(deployment) for deployment in deployments]

        def work(connection: Connection) -> int:
            return _add(connection, rows, events)

        try:
            return await self._database.write(work)
        except IntegrityError as error:
            raise no_campaign(deployments[0].campaign_id) from error

    async def get(self, campaign_id: str, endpoint: str) -> Deployment | None:
        query = select(deployments).where(_d.campaign_id == campaign_id, _d.endpoint == endpoint)
        found = await self._read(query)
        return found[0] if found else None

    async def page(
        self,
        campaign_id: str,
        *,
        state: DeploymentState | None = None,
        reason: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Deployment]:
        query: AnySelect = select(deployments).where(_d.campaign_id == campaign_id)
        if state is not None:
            query = query.where(_d.state == state.value)
        if reason is not None:
            query = query.where(_d.reason == reason)
        return await self._page(query, after, limit)

    async def of(self, endpoint: str) -> list[Deployment]:
        query: AnySelect = select(deployments).where(_d.endpoint == endpoint)
        return await self._read(query.order_by(_d.created_at.desc(), _d.campaign_id.desc()))

    async def open(self, endpoint: str) -> list[Deployment]:
        return (await self.open_many([endpoint])).get(endpoint, [])

    async def open_many(self, endpoints: Iterable[str]) -> dict[str, list[Deployment]]:
        wanted = list(dict.fromkeys(endpoints))
        found: dict[str, list[Deployment]] = {}
        for start in range(0, len(wanted), _CHUNK):
            query: AnySelect = select(deployments).where(
                _d.endpoint.in_(wanted[start : start + _CHUNK]), _d.state.in_(_ACTIVE)
            )
            for deployment in await self._read(query.order_by(_d.created_at, _d.campaign_id)):
                found.setdefault(deployment.endpoint, []).append(deployment)
        return found

    async def active(
        self, campaign_id: str, *, after: str | None = None, limit: int = 1000
    ) -> Page[Deployment]:
        query: AnySelect = select(deployments).where(_d.campaign_id == campaign_id, _d.state.in_(_ACTIVE))
        return await self._page(query, after, limit)

    async def due(self, campaign_id: str, *, now: float, limit: int) -> list[Deployment]:
        query: AnySelect = select(deployments).where(*_pending(campaign_id), _d.retry_at <= now)
        return await self._read(query.order_by(_d.retry_at, _d.endpoint).limit(limit))

    async def next_retry(self, campaign_id: str) -> float | None:
        query = select(func.min(_d.retry_at)).where(*_pending(campaign_id), _d.retry_at > 0.0)
        earliest: float | None = (await self._database.read(query))[0][0]
        return earliest

    async def change(self, old: Deployment, new: Deployment, *, events: Sequence[NewEvent] = ()) -> bool:
        check_step(old, new)
        values = deployment_values(new) | {
            BIND + "campaign_id": old.campaign_id,
            BIND + "endpoint": old.endpoint,
            BIND + "state": old.state.value,
            BIND + "revision": old.revision,
        }

        def work(connection: Connection) -> bool:
            changed = (connection.execute(_CHANGE, values)).rowcount > 0
            sql_events.append(connection, events if changed else ())
            return changed

        return await self._database.write(work)

    async def progress(self, campaign_id: str, endpoint: str, *, offset: int, size: int, now: float) -> None:
        statement = (
            update(deployments)
            .where(
                _d.campaign_id == campaign_id,
                _d.endpoint == endpoint,
                _d.state.in_(_ACTIVE),
                _d.updated_at <= now,
            )
            .values(offset=offset, size=size, updated_at=now)
        )

        def work(connection: Connection) -> None:
            connection.execute(statement)

        await self._database.write(work)

    async def statistics(self, campaign_id: str) -> list[StateCount]:
        query = (
            select(_d.state, _d.reason, func.count())
            .where(_d.campaign_id == campaign_id)
            .group_by(_d.state, _d.reason)
            .order_by(_d.state, _d.reason)
        )
        rows = await self._database.read(query)
        return [StateCount(DeploymentState(state), reason, count) for state, reason, count in rows]

    async def _page(self, query: AnySelect, after: str | None, limit: int) -> Page[Deployment]:
        if after is not None:
            query = query.where(_d.endpoint > after)
        found = await self._read(query.order_by(_d.endpoint).limit(limit + 1))
        return page_of(found, limit, lambda deployment: deployment.endpoint)

    async def _read(self, query: AnySelect) -> list[Deployment]:
        return [deployment_of(row) for row in await self._database.read(query)]


def _pending(campaign_id: str) -> tuple[Any, ...]:
    return (_d.campaign_id == campaign_id, _d.state == DeploymentState.PENDING.value)


def _add(connection: Connection, rows: Sequence[dict[str, Any]], events: Sequence[NewEvent]) -> int:
    new = {(row["campaign_id"], row["endpoint"]): row for row in rows}
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        there = select(_d.campaign_id, _d.endpoint).where(
            _d.campaign_id.in_({row["campaign_id"] for row in chunk}),
            _d.endpoint.in_([row["endpoint"] for row in chunk]),
        )
        for key in connection.execute(there):
            new.pop(tuple(key), None)
    _INSERT.many(connection, [tuple(row.values()) for row in new.values()])
    sql_events.append(connection, events if new else ())
    return len(new)
