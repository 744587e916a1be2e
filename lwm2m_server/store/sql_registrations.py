# ruff: noqa: D102  the docstrings are the ports'
"""Registrations over SQL: whole batches, with statements that are compiled once.

A registration is a part of its device's row. In each batch reading comes before writing (which endpoints
and ids are there), then one `executemany` for the rows and one for the events.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, Label, bindparam, delete, false, func, select, true, update
from sqlalchemy.dialects.sqlite import insert

from lwm2m_server.devices.records import Registration
from lwm2m_server.errors import ForeignName
from lwm2m_server.store import sql_events
from lwm2m_server.store.database import Database
from lwm2m_server.store.prepared import BIND, KEYS, Prepared, PreparedQuery
from lwm2m_server.store.records import (
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
from lwm2m_server.store.rules import changed, ended_event, foreign, updated, updated_event
from lwm2m_server.store.schema import LAST_SEEN, credentials, devices, signs_of_life

_quote = json.encoder.encode_basestring
_d = devices.c
_EXPIRES_AT = LAST_SEEN.element + _d.lease
_MOVED = 1000  # rows whose `due_at` one transaction brings up to date


def _by_key(columns: tuple[Column[Any] | Label[Any], ...], key: Column[Any]) -> PreparedQuery:
    return PreparedQuery(select(*columns, _d.registered).where(key.in_(KEYS)), "keys")


_KNOWN = _by_key((_d.endpoint, _d.registration_id, _d.identity), _d.endpoint)
_REGISTRATIONS = _by_key(REGISTRATION_COLUMNS, _d.registration_id)
_ENDPOINTS = _by_key((_d.registration_id, _d.endpoint, _d.identity), _d.registration_id)

_LIVE = PreparedQuery(
    select(_d.registration_id, _d.endpoint, _d.address, _d.identity)
    .where(_d.registered == true(), _d.endpoint > bindparam("after"))
    .order_by(_d.endpoint)
    .limit(bindparam("limit")),
    "after",
    "limit",
)
_CLAIMED = PreparedQuery(select(credentials.c.endpoint).where(credentials.c.endpoint.in_(KEYS)), "keys")

_insert = insert(devices)
_REGISTER = Prepared(
    _insert.on_conflict_do_update(
        index_elements=["endpoint"],
        set_={
            name: _insert.excluded[name]
            for name in REGISTERED_COLUMNS
            if name not in {"endpoint", "created_at"}
        },
    ),
    REGISTERED_COLUMNS,
)
_UPDATED_COLUMNS = (
    "address", "identity", "lifetime", "binding", "queue_mode", "links", "objects", "last_seen", "lease",
    "due_at",
)  # fmt: skip
_UPDATE = Prepared(
    update(devices).where(_d.registration_id == bindparam(BIND + "id")), (*_UPDATED_COLUMNS, BIND + "id")
)
_sign = insert(signs_of_life)
_ALIVE = Prepared(
    _sign.on_conflict_do_update(
        index_elements=["registration_id"], set_={"seen": func.max(signs_of_life.c.seen, _sign.excluded.seen)}
    ),
    ("registration_id", "seen"),
)
# An ended registration keeps the time of its last sign of life; the sign itself goes.
_END = Prepared(
    update(devices)
    .where(_d.registration_id == bindparam(BIND + "id"))
    .values(registered=false(), last_seen=LAST_SEEN.element),
    (BIND + "id",),
)
_SILENCE = Prepared(
    delete(signs_of_life).where(signs_of_life.c.registration_id == bindparam(BIND + "id")), (BIND + "id",)
)


def forget_strays(connection: Connection) -> None:
    """Delete signs of life that came after the end of their registration."""
    live = select(_d.registration_id).where(
        _d.registration_id == signs_of_life.c.registration_id, _d.registered == true()
    )
    connection.execute(delete(signs_of_life).where(~live.exists()))


class SqlRegistrationStore:
    """See `ports.RegistrationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, registrations: Sequence[Registration]) -> list[Registered | Exception]:
        return await self._database.submit(_register, registrations)

    async def update(self, updates: Sequence[RegistrationUpdate]) -> list[Registration | Exception | None]:
        return await self._database.submit(_update, updates)

    async def alive(self, beats: Sequence[tuple[str, float]]) -> None:
        for result in await self._database.submit(_alive, beats):
            if isinstance(result, Exception):
                raise result

    async def deregister(
        self, ends: Sequence[tuple[str, str | None]], *, now: float
    ) -> list[str | Exception | None]:
        return await self._database.submit(_deregister, [(id_, owner, now) for id_, owner in ends])

    async def expire(self, *, now: float, limit: int = 1000) -> list[Registered]:
        due = (_d.registered == true(), _d.due_at <= now)
        # `due_at` was written long ago for those that have shown signs of life since; first it is made true.
        late = select(_d.endpoint).where(*due, _d.due_at < _EXPIRES_AT).limit(_MOVED).scalar_subquery()
        move = update(devices).where(_d.endpoint.in_(late)).values(due_at=_EXPIRES_AT)
        while await self._database.write(lambda connection: connection.execute(move).rowcount) == _MOVED:
            pass
        query = select(_d.registration_id, _d.endpoint).where(*due).order_by(_d.due_at).limit(limit)

        def work(connection: Connection) -> list[Registered]:
            ended = [Registered(*tuple(row)) for row in connection.execute(query)]
            _end(connection, [(each.registration_id, each.endpoint, now) for each in ended], "expired")
            return ended

        return await self._database.write(work)

    async def find(self, registration_id: str) -> Registration | None:
        query = select(*REGISTRATION_COLUMNS).where(
            _d.registration_id == registration_id, _d.registered == true()
        )
        rows = await self._database.read(query)
        return registration_of(rows[0]) if rows else None

    async def live(self, *, after: str | None = None, limit: int = 1000) -> Page[LiveRegistration]:
        rows = await self._database.read_by(_LIVE, after or "", limit + 1)
        found = [LiveRegistration._make(row) for row in rows]
        return page_of(found, limit, lambda each: each.endpoint)


def _register(connection: Connection, items: Sequence[Registration]) -> list[Registered | Exception]:
    rows = _KNOWN.rows(connection, json.dumps([item.endpoint for item in items]))
    known: dict[str, str | None] = {row[0]: row[1] if row[3] else None for row in rows}
    identities: dict[str, str | None] = {row[0]: row[2] for row in rows}
    unproved = [item.endpoint for item in items if item.identity is None]
    claimed = {row[0] for row in _CLAIMED.rows(connection, json.dumps(unproved))} if unproved else set()
    last: dict[str, Registration] = {}
    results: list[Registered | Exception] = []
    events: list[tuple[object, ...]] = []
    for item in items:
        if item.identity is None and (item.endpoint in claimed or identities.get(item.endpoint)):
            results.append(ForeignName(item.endpoint))
            continue
        created = item.endpoint not in known
        replaced = known.get(item.endpoint)
        known[item.endpoint] = item.registration_id
        identities[item.endpoint] = item.identity
        last[item.endpoint] = item
        result = Registered(item.registration_id, item.endpoint, created, replaced)
        results.append(result)
        events.append(_registered_event(item, result))
    _REGISTER.many(connection, [registered_row(each) for each in last.values()])
    replaced_ids = [(r.replaced,) for r in results if isinstance(r, Registered) and r.replaced is not None]
    _SILENCE.many(connection, replaced_ids)
    sql_events.append_rows(connection, events)
    return results


def _registered_event(item: Registration, result: Registered) -> tuple[object, ...]:
    # Written out: the general way through NewEvent and the JSON encoder costs as much as the database's part.
    replaced = "null" if result.replaced is None else _quote(result.replaced)
    created = "true" if result.created else "false"
    data = (
        f'{{"registration_id":{_quote(item.registration_id)},"address":{_quote(item.address)},'
        f'"lifetime":{item.lifetime},"created":{created},"replaced":{replaced}}}'
    )
    return ("device.registered", item.registered_at, item.endpoint, None, data)


def _update(
    connection: Connection, items: Sequence[RegistrationUpdate]
) -> list[Registration | Exception | None]:
    rows = _REGISTRATIONS.rows(connection, json.dumps([item.registration_id for item in items]))
    now = {row[0]: registration_of(row) for row in rows if row[-1]}
    events: list[NewEvent] = []
    results: list[Registration | Exception | None] = []
    written: dict[str, Registration] = {}
    for item in items:
        old = now.get(item.registration_id)
        refusal = old and foreign(old.endpoint, old.identity, item.owner)
        if old is None or refusal:
            results.append(refusal)
            continue
        new = updated(old, item)
        now[item.registration_id] = written[item.registration_id] = new
        results.append(new)
        if changes := changed(old, new):
            events.append(updated_event(new, changes, item.at))
    _UPDATE.many(connection, (_updated_row(new) for new in written.values()))
    sql_events.append(connection, events)
    return results


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
        new.expires_at - new.last_seen,
        new.expires_at,
        new.registration_id,
    )


def _alive(connection: Connection, items: Sequence[tuple[str, float]]) -> Sequence[None]:
    _ALIVE.many(connection, items)
    return [None] * len(items)


def _deregister(
    connection: Connection, items: Sequence[tuple[str, str | None, float]]
) -> list[str | Exception | None]:
    rows = _ENDPOINTS.rows(connection, json.dumps([id_ for id_, _, _ in items]))
    live = {row[0]: (row[1], row[2]) for row in rows if row[-1]}
    ended: list[tuple[str, str, float]] = []
    results: list[str | Exception | None] = []
    for id_, owner, now in items:
        endpoint, identity = live.get(id_, (None, None))
        refusal = endpoint and foreign(endpoint, identity, owner)
        results.append(refusal or endpoint)
        if endpoint and not refusal:
            del live[id_]  # of two that end the same registration one has ended it
            ended.append((id_, endpoint, now))
    _end(connection, ended, "deregistered")
    return results


def _end(connection: Connection, ended: Sequence[tuple[str, str, float]], how: str) -> None:
    ids = [(id_,) for id_, _, _ in ended]
    _END.many(connection, ids)
    _SILENCE.many(connection, ids)
    sql_events.append(connection, [ended_event(*each, how) for each in ended])
