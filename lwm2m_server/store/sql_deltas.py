# ruff: noqa: D102  the docstrings are the ports'
"""Deltas and transfers over SQL."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Table, case, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from lwm2m_server.store.database import Database
from lwm2m_server.store.delta_ports import Savings, StoredDelta, Transfer
from lwm2m_server.store.rows import plain_of
from lwm2m_server.store.schema import delta_failures, deltas, images, transfers

_d, _f, _t = deltas.c, delta_failures.c, transfers.c


class SqlDeltaStore:
    """See `delta_ports.DeltaStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, deltas: Sequence[StoredDelta]) -> None:
        def work(connection: Connection) -> None:
            wanted = {digest for delta in deltas for digest in (delta.base, delta.target)}
            found = connection.execute(select(images.c.digest).where(images.c.digest.in_(wanted)))
            there = {b"", *(row[0] for row in found)}
            for delta in deltas:
                if {delta.base, delta.target} <= there:
                    _upsert(connection, _TABLE, asdict(delta))

        await self._database.write(work)

    async def of(self, base: bytes, target: bytes) -> list[StoredDelta]:
        present = select(images.c.digest).where(images.c.digest == base).exists()
        query = (
            select(deltas)
            .where(_d.target == target, or_(_d.base == b"", (_d.base == base) & present))
            .order_by(_d.method)
        )
        return [plain_of(StoredDelta, row) for row in await self._database.read(query)]

    async def digests(self) -> set[bytes]:
        query = select(_d.digest).where(
            _d.digest != b"", or_(_d.base == b"", _d.base.in_(select(images.c.digest)))
        )
        return {row[0] for row in await self._database.read(query)}

    async def fail(self, endpoint: str, digest: bytes, *, reason: str, at: float) -> int:
        values = {"endpoint": endpoint, "digest": digest, "reason": reason, "at": at}

        def work(connection: Connection) -> int:
            _upsert(connection, delta_failures, values)
            count = select(func.count()).select_from(delta_failures).where(_f.digest == digest)
            return int(connection.execute(count).scalar_one())

        return await self._database.write(work)

    async def failed(self, endpoint: str) -> set[bytes]:
        query = select(_f.digest).where(_f.endpoint == endpoint)
        return {row[0] for row in await self._database.read(query)}

    async def withdraw(self, digest: bytes) -> None:
        def work(connection: Connection) -> None:
            connection.execute(update(deltas).where(_d.digest == digest).values(state="withdrawn"))

        await self._database.write(work)

    async def record(self, transfers: Sequence[Transfer]) -> None:
        def work(connection: Connection) -> None:
            for transfer in transfers:
                _upsert(connection, _TRANSFERS, asdict(transfer))

        await self._database.write(work)

    async def transfers(self, campaign_id: str, endpoint: str) -> list[Transfer]:
        query = (
            select(_TRANSFERS)
            .where(_t.campaign_id == campaign_id, _t.endpoint == endpoint)
            .order_by(_t.digest)
        )
        return [plain_of(Transfer, row) for row in await self._database.read(query)]

    async def savings(self, *, campaign_id: str | None = None, endpoint: str | None = None) -> Savings:
        by_update = (
            select(
                func.sum(case((_t.applied, _t.image_size), else_=0)).label("image"),
                func.sum(_t.sent).label("sent"),
                func.max(case((_t.applied & (_t.method != ""), 1), else_=0)).label("delta"),
            )
            .group_by(_t.campaign_id, _t.endpoint)
            .having(func.max(case((_t.applied, 1), else_=0)) == 1)
        )
        if campaign_id is not None:
            by_update = by_update.where(_t.campaign_id == campaign_id)
        if endpoint is not None:
            by_update = by_update.where(_t.endpoint == endpoint)
        found = by_update.subquery()
        query = select(
            func.count(),
            func.coalesce(func.sum(found.c.delta), 0),
            func.coalesce(func.sum(found.c.image), 0),
            func.coalesce(func.sum(found.c.sent), 0),
        ).select_from(found)
        return Savings(*(await self._database.read(query))[0])


_TABLE, _TRANSFERS = deltas, transfers


def _upsert(connection: Connection, table: Table, values: dict[str, Any]) -> None:
    statement = insert(table).values(values)
    keys = list(table.primary_key)
    changed = {name: value for name, value in values.items() if table.c[name] not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))
