"""Registrations over SQL: whole batches, with statements that are compiled once.

A registration is a part of its device's row. In each batch reading comes before writing (which endpoints and ids are
there), then one `executemany` for the rows and one for the events.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Column, bindparam, func, select, true, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lwm2m_server.devices.records import Registration
from lwm2m_server.store import sql_events
from lwm2m_server.store.database import BIND, AnyRow, Database, Prepared
from lwm2m_server.store.records import (
    JsonValue,
    LiveRegistration,
    NewEvent,
    Page,
    Registered,
    RegistrationUpdate,
)
from lwm2m_server.store.rows import (
    REGISTERED_COLUMNS,
    REGISTRATION_COLUMNS,
    page_of,
    registered_row,
    registration_of,
)
from lwm2m_server.store.schema import devices

_CHUNK = 500  # parameters of one `in (…)`
_d = devices.c

_insert = insert(devices)
_REGISTER = Prepared(
    _insert.on_conflict_do_update(
        index_elements=["endpoint"],
        set_={name: _insert.excluded[name] for name in REGISTERED_COLUMNS if name != "endpoint"},
    ),
    (*REGISTERED_COLUMNS, "created_at"),
)
_UPDATED_COLUMNS = (
    "address", "identity", "lifetime", "binding", "queue_mode", "links", "objects", "last_seen", "expires_at",
)  # fmt: skip
_UPDATE = Prepared(
    update(devices).where(_d.registration_id == bindparam(BIND + "id")), (*_UPDATED_COLUMNS, BIND + "id")
)
_ALIVE = Prepared(
    update(devices)
    .where(
        _d.registration_id == bindparam(BIND + "id"), _d.last_seen < bindparam(BIND + "since"), _d.registered
    )
    .values(expires_at=_d.expires_at - _d.last_seen + bindparam(BIND + "seen")),
    ("last_seen", BIND + "seen", BIND + "id", BIND + "since"),
)
_END = Prepared(
    update(devices).where(_d.registration_id == bindparam(BIND + "id")), ("registered", BIND + "id")
)


class SqlRegistrationStore:
    """See `ports.RegistrationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(  # noqa: D102
        self, registrations: Sequence[Registration]
    ) -> list[Registered | Exception]:
        return await self._database.submit(_register, registrations)

    async def update(  # noqa: D102
        self, updates: Sequence[RegistrationUpdate]
    ) -> list[Registration | Exception | None]:
        return await self._database.submit(_update, updates)

    async def alive(self, beats: Sequence[tuple[str, float]]) -> None:  # noqa: D102
        for result in await self._database.submit(_alive, beats):
            if isinstance(result, Exception):
                raise result

    async def deregister(  # noqa: D102
        self, registration_ids: Sequence[str], *, now: float
    ) -> list[str | Exception | None]:
        return await self._database.submit(_deregister, [(id_, now) for id_ in registration_ids])

    async def expire(self, *, now: float, limit: int = 1000) -> list[Registered]:  # noqa: D102
        query = (
            select(_d.registration_id, _d.endpoint)
            .where(_d.registered == true(), _d.expires_at <= now)
            .order_by(_d.expires_at)
            .limit(limit)
        )

        async def work(connection: AsyncConnection) -> list[Registered]:
            ended = [Registered(*tuple(row)) for row in await connection.execute(query)]
            await _end(connection, [(each.registration_id, each.endpoint, now) for each in ended], "expired")
            return ended

        return await self._database.write(work)

    async def next_expiry(self) -> float | None:  # noqa: D102
        query = select(func.min(_d.expires_at)).where(_d.registered == true())
        expiry: float | None = (await self._database.read(query))[0][0]
        return expiry

    async def find(self, registration_id: str) -> Registration | None:  # noqa: D102
        query = select(*REGISTRATION_COLUMNS).where(
            _d.registration_id == registration_id, _d.registered == true()
        )
        rows = await self._database.read(query)
        return registration_of(rows[0]) if rows else None

    async def live(  # noqa: D102
        self, *, after: str | None = None, limit: int = 1000
    ) -> Page[LiveRegistration]:
        query = select(_d.registration_id, _d.endpoint, _d.address, _d.identity, _d.expires_at)
        query = query.where(_d.registered == true()).order_by(_d.endpoint).limit(limit + 1)
        if after is not None:
            query = query.where(_d.endpoint > after)
        found = [LiveRegistration(*tuple(row)) for row in await self._database.read(query)]
        return page_of(found, limit, lambda each: each.endpoint)


async def _register(connection: AsyncConnection, items: Sequence[Registration]) -> list[Registered]:
    rows = await _rows(
        connection, (_d.endpoint, _d.registration_id, _d.registered), _d.endpoint, (r.endpoint for r in items)
    )
    known: dict[str, str | None] = {row[0]: row[1] if row[2] else None for row in rows}
    last: dict[str, Registration] = {}
    results: list[Registered] = []
    for item in items:
        created = item.endpoint not in known
        replaced = known.get(item.endpoint)
        known[item.endpoint] = item.registration_id
        last[item.endpoint] = item
        results.append(Registered(item.registration_id, item.endpoint, created, replaced))
    await _REGISTER.many(connection, [(*registered_row(r), r.registered_at) for r in last.values()])
    await sql_events.append(
        connection,
        [_registered_event(item, result) for item, result in zip(items, results, strict=True)],
    )
    return results


def _registered_event(item: Registration, result: Registered) -> NewEvent:
    return NewEvent(
        kind="device.registered",
        at=item.registered_at,
        endpoint=item.endpoint,
        data={
            "registration_id": item.registration_id,
            "address": item.address,
            "lifetime": item.lifetime,
            "created": result.created,
            "replaced": result.replaced,
        },
    )


async def _update(
    connection: AsyncConnection, items: Sequence[RegistrationUpdate]
) -> list[Registration | None]:
    rows = await _rows(
        connection,
        REGISTRATION_COLUMNS,
        _d.registration_id,
        (item.registration_id for item in items),
    )
    now = {row[0]: registration_of(row) for row in rows}
    events: list[NewEvent] = []
    results: list[Registration | None] = []
    for item in items:
        old = now.get(item.registration_id)
        if old is None:
            results.append(None)
            continue
        new = updated(old, item)
        now[item.registration_id] = new
        results.append(new)
        if changes := changed(old, new):
            data: dict[str, JsonValue] = {
                "registration_id": new.registration_id,
                "changed": list[JsonValue](changes),
                "lifetime": new.lifetime,
            }
            events.append(NewEvent(kind="device.updated", at=item.at, endpoint=new.endpoint, data=data))
    await _UPDATE.many(
        connection,
        (_updated_row(new) for new in now.values()),
    )
    await sql_events.append(connection, events)
    return results


def updated(old: Registration, update: RegistrationUpdate) -> Registration:
    """Return the registration after an Update; time never goes back."""
    seen = max(old.last_seen, update.at)
    given = {
        name: value
        for name in ("lifetime", "binding", "queue_mode", "links", "objects")
        if (value := getattr(update, name)) is not None
    }
    if update.address is not None:
        given |= {"address": update.address, "identity": update.identity}
    expires = old.expires_at - old.last_seen + seen if update.expires_at is None else update.expires_at
    return replace(old, **given, last_seen=seen, expires_at=expires)


def changed(old: Registration, new: Registration) -> list[str]:
    """Return what changed beyond liveness and address."""
    return [
        name
        for name in ("lifetime", "binding", "queue_mode", "objects", "links")
        if getattr(old, name) != getattr(new, name)
    ]


def _updated_row(new: Registration) -> tuple[object, ...]:
    return (
        new.address,
        new.identity,
        new.lifetime,
        new.binding,
        new.queue_mode,
        new.links,
        " ".join(new.objects),
        new.last_seen,
        new.expires_at,
        new.registration_id,
    )


async def _alive(connection: AsyncConnection, items: Sequence[tuple[str, float]]) -> Sequence[None]:
    await _ALIVE.many(connection, [(seen, seen, id_, seen) for id_, seen in items])
    return [None] * len(items)


async def _deregister(connection: AsyncConnection, items: Sequence[tuple[str, float]]) -> list[str | None]:
    rows = await _rows(
        connection, (_d.registration_id, _d.endpoint), _d.registration_id, (id_ for id_, _ in items)
    )
    live = {row[0]: row[1] for row in rows}
    # popped: of two that end the same registration one has ended it
    ended = [(id_, live.pop(id_, None), now) for id_, now in items]
    await _end(connection, [(id_, endpoint, now) for id_, endpoint, now in ended if endpoint], "deregistered")
    return [endpoint for _, endpoint, _ in ended]


async def _end(connection: AsyncConnection, ended: Sequence[tuple[str, str, float]], how: str) -> None:
    await _END.many(connection, [(False, id_) for id_, _, _ in ended])
    await sql_events.append(
        connection,
        [
            NewEvent(kind=f"device.{how}", at=now, endpoint=endpoint, data={"registration_id": id_})
            for id_, endpoint, now in ended
        ],
    )


async def _rows(
    connection: AsyncConnection, columns: tuple[Column[Any], ...], key: Column[Any], keys: Iterable[str]
) -> list[AnyRow]:
    """Return the rows of live registrations (or of any, by endpoint) under these keys."""
    distinct = list(dict.fromkeys(keys))
    rows: list[AnyRow] = []
    for start in range(0, len(distinct), _CHUNK):
        query = select(*columns).where(key.in_(distinct[start : start + _CHUNK]))
        if key is _d.registration_id:
            query = query.where(_d.registered == true())
        rows += (await connection.execute(query)).all()
    return rows
