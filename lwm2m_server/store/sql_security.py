# ruff: noqa: D102  the docstrings are the ports'
"""Credentials, authorities and sessions over SQL."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from lwm2m_server.store import sql_events
from lwm2m_server.store.database import Database
from lwm2m_server.store.prepared import KEYS, AnySelect, PlainRow, Prepared, PreparedQuery
from lwm2m_server.store.records import (
    Authority,
    ClaimedSession,
    Credential,
    Grant,
    NewEvent,
    Page,
    StoredSession,
)
from lwm2m_server.store.rows import event_row, page_of, plain_of, plain_values
from lwm2m_server.store.schema import authorities, credentials, sealing, sessions
from lwm2m_server.store.security_rules import (
    LOWEST,
    check_successor,
    credential_taken,
    is_replaceable,
    session_key,
    signed,
    unsigned,
)
from lwm2m_server.store.sql_content import add_new

_CHUNK = 500
_CHECK = "check"
_CLAIMS = "claims"
_c = credentials.c
_s = sessions.c
_COLUMNS = tuple(field.name for field in fields(Credential))
_MANY = PreparedQuery(select(*(_c[name] for name in _COLUMNS)).where(_c.identity.in_(KEYS)), "keys")
_GRANTS = PreparedQuery(select(*(_c[name] for name in Grant._fields)).where(_c.identity.in_(KEYS)), "keys")
_new = insert(credentials)
# What is there was found replaceable before, in the same transaction.
_PUT = Prepared(
    _new.on_conflict_do_update(
        index_elements=["identity"],
        set_={name: _new.excluded[name] for name in _COLUMNS if name != "identity"},
    ),
    _COLUMNS,
)
_GENERATIONS = PreparedQuery(select(_s.record, _s.generation).where(_s.record.in_(KEYS)), "keys")
_PAGE = PreparedQuery(
    select(_s.record, _s.generation, _s.sealed)
    .where(_s.record >= bindparam("start"))
    .order_by(_s.record)
    .limit(bindparam("limit")),
    "start",
    "limit",
)
_COUNTED = PreparedQuery(select(sealing.c.value).where(sealing.c.name == _CLAIMS))
_saved = insert(sessions)
_SESSION_COLUMNS = ("record", "generation", "sealed", "updated_at")
_SAVE = Prepared(
    _saved.on_conflict_do_update(
        index_elements=["record"],
        set_={name: _saved.excluded[name] for name in _SESSION_COLUMNS if name != "record"},
        where=_s.generation <= _saved.excluded.generation,
    ),
    _SESSION_COLUMNS,
)


class _Taken(Exception):
    """An identity of `add_all` is there already."""

    def __init__(self, identity: str) -> None:
        super().__init__(identity)
        self.identity = identity


class SqlCredentialStore:
    """See `security_ports.CredentialStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, credential: Credential, *, events: Sequence[NewEvent] = ()) -> bool:
        def work(connection: Connection) -> bool:
            (is_new,) = _put(connection, [credential])
            sql_events.append(connection, events if is_new else ())
            return is_new

        return await self._database.write(work)

    async def add_many(self, credentials: Sequence[tuple[Credential, NewEvent]]) -> list[bool]:
        results = await self._database.submit(_add, credentials)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result is True for result in results]

    async def add_all(self, each: Callable[[], Iterator[tuple[Credential, NewEvent]]]) -> str | None:
        def work(connection: Connection) -> None:
            items = each()
            while chunk := list(islice(items, _CHUNK)):
                taken = _put(connection, [credential for credential, _ in chunk])
                if not all(taken):
                    raise _Taken(chunk[taken.index(False)][0].identity)
                sql_events.append_rows(connection, [event_row(event) for _, event in chunk])

        try:
            await self._database.write(work)
        except _Taken as taken:
            return taken.identity
        return None

    async def get(self, identity: str) -> Credential | None:
        rows = await self._database.read(select(credentials).where(_c.identity == identity))
        return plain_of(Credential, rows[0]) if rows else None

    async def get_many(self, identities: Iterable[str]) -> dict[str, Credential]:
        rows = await self._database.read_by(_MANY, json.dumps(list(dict.fromkeys(identities))))
        return {row[0]: Credential(**dict(zip(_COLUMNS, row, strict=True))) for row in rows}

    async def grants(self, identities: Iterable[str]) -> dict[str, Grant]:
        rows = await self._database.read_by(_GRANTS, json.dumps(list(dict.fromkeys(identities))))
        return {row[0]: Grant._make(row) for row in rows}

    async def page(
        self,
        *,
        endpoint: str | None = None,
        kind: str | None = None,
        revoked: bool = False,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Credential]:
        query: AnySelect = select(credentials).order_by(_c.identity).limit(limit + 1)
        if endpoint is not None:
            query = query.where(_c.endpoint == endpoint)
        if kind is not None:  # an identity begins with its kind and a colon; the semicolon comes next
            query = query.where(_c.identity > f"{kind}:", _c.identity < f"{kind};")
        if not revoked:
            query = query.where(_c.revoked_at.is_(None))
        if after is not None:
            query = query.where(_c.identity > after)
        found = [plain_of(Credential, row) for row in await self._database.read(query)]
        return page_of(found, limit, lambda row: row.identity)

    async def change(
        self,
        old: Credential,
        new: Credential,
        *,
        successor: Credential | None = None,
        events: Sequence[NewEvent] = (),
    ) -> bool:
        check_successor(old, new)
        same = (_c.identity == old.identity) & (_c.revision == old.revision)

        def work(connection: Connection) -> bool:
            if connection.execute(select(_c.revision).where(same)).first() is None:
                return False
            if successor is not None and _put(connection, [successor]) != [True]:
                raise credential_taken(successor.identity)
            connection.execute(update(credentials).where(same).values(plain_values(new)))
            sql_events.append(connection, events)
            return True

        return await self._database.write(work)

    async def due(self, *, now: float, limit: int = 1000) -> list[Credential]:
        ended = (_c.expires_at <= now) & _c.expires_at.is_not(None) & _c.revoked_at.is_(None)
        query = select(credentials).where(or_(_c.previous_until <= now, ended)).limit(limit)
        return [plain_of(Credential, row) for row in await self._database.read(query)]

    async def delete(self, identity: str) -> bool:
        statement = delete(credentials).where(_c.identity == identity)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount > 0)

    async def seal_check(self, value: bytes | None = None) -> bytes | None:
        def work(connection: Connection) -> bytes | None:
            if value is not None:
                add_new(connection, sealing, {"name": _CHECK, "value": value}, ())
            query = select(sealing.c.value).where(sealing.c.name == _CHECK)
            found: bytes | None = connection.execute(query).scalar_one_or_none()
            return found

        return await self._database.write(work)

    async def forget_secrets(self, *, events: Sequence[NewEvent] = ()) -> int:
        def work(connection: Connection) -> int:
            gone = connection.execute(delete(credentials).where(_c.kind == "psk")).rowcount
            connection.execute(delete(sessions))
            connection.execute(delete(sealing))
            sql_events.append(connection, events)
            return gone

        return await self._database.write(work)


class SqlAuthorityStore:
    """See `security_ports.AuthorityStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, authority: Authority, *, events: Sequence[NewEvent] = ()) -> bool:
        values = plain_values(authority)
        return await self._database.write(lambda connection: add_new(connection, authorities, values, events))

    async def get(self, authority_id: str) -> Authority | None:
        rows = await self._database.read(select(authorities).where(authorities.c.id == authority_id))
        return plain_of(Authority, rows[0]) if rows else None

    async def all(self) -> list[Authority]:
        rows = await self._database.read(select(authorities).order_by(authorities.c.id))
        return [plain_of(Authority, row) for row in rows]

    async def remove(self, authority_id: str, *, events: Sequence[NewEvent] = ()) -> list[str] | None:
        own = (_c.authority == authority_id) & _c.revoked_at.is_(None)

        def work(connection: Connection) -> list[str] | None:
            statement = delete(authorities).where(authorities.c.id == authority_id)
            if connection.execute(statement).rowcount == 0:
                return None
            doomed = select(_c.identity).where(own).order_by(_c.identity)
            identities = list(connection.execute(doomed).scalars())
            connection.execute(delete(credentials).where(own))
            sql_events.append(connection, events)
            return identities

        return await self._database.write(work)


class SqlSessionStore:
    """See `security_ports.SessionStore`.

    A claim raises one number, not one in each row: a row holds the generation less the claims that there were when
    it was written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, sessions: Sequence[StoredSession]) -> list[bool]:
        results = await self._database.submit(_save, sessions)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result is True for result in results]

    async def remove(self, records: Iterable[int]) -> None:
        for result in await self._database.submit(_remove, list(records)):
            if isinstance(result, Exception):
                raise result

    async def claim(self, *, since: float) -> int:
        def work(connection: Connection) -> int:
            connection.execute(delete(sessions).where(_s.updated_at < since))
            claims = _claims(connection) + 1
            value = claims.to_bytes(8)
            new = insert(sealing).values(name=_CLAIMS, value=value)
            connection.execute(new.on_conflict_do_update(index_elements=["name"], set_={"value": value}))
            return connection.execute(select(func.count()).select_from(sessions)).scalar_one()

        return await self._database.write(work)

    async def page(self, *, after: str | None = None, limit: int = 1000) -> Page[ClaimedSession]:
        start = LOWEST if after is None else session_key(after) + 1
        rows = await self._database.read_by(_PAGE, start, limit + 1)
        claims = _number(await self._database.read_by(_COUNTED))
        found = [ClaimedSession(unsigned(record), below + claims, sealed) for record, below, sealed in rows]
        return page_of(found, limit, lambda row: str(signed(row.record)))


def _put(connection: Connection, new: Sequence[Credential]) -> list[bool]:
    """Write those whose identity is free, in their order; say which were."""
    wanted = {credential.identity for credential in new}
    query = select(credentials).where(_c.identity.in_(wanted))
    there = {row.identity: plain_of(Credential, row) for row in connection.execute(query)}
    results: list[bool] = []
    rows: list[tuple[Any, ...]] = []
    for credential in new:
        old = there.get(credential.identity)
        is_free = old is None or is_replaceable(old, credential.created_at)
        results.append(is_free)
        if is_free:
            revision = credential.revision if old is None else old.revision + 1
            there[credential.identity] = stored = replace(credential, revision=revision)
            rows.append(tuple(getattr(stored, name) for name in _COLUMNS))
    _PUT.many(connection, rows)
    return results


def _add(connection: Connection, items: Sequence[tuple[Credential, NewEvent]]) -> list[bool]:
    results = _put(connection, [credential for credential, _ in items])
    done = [event_row(event) for (_, event), is_new in zip(items, results, strict=True) if is_new]
    sql_events.append_rows(connection, done)
    return results


def _claims(connection: Connection) -> int:
    return _number(_COUNTED.rows(connection))


def _number(rows: Sequence[PlainRow]) -> int:
    return int.from_bytes(rows[0][0]) if rows else 0


def _save(connection: Connection, items: Sequence[StoredSession]) -> list[bool]:
    claims = _claims(connection)
    rows = [
        (signed(record), generation - claims, sealed, updated_at)
        for record, generation, sealed, updated_at in items
    ]
    if _SAVE.many(connection, rows) == len(rows):
        return [True] * len(rows)
    there: dict[int, int] = dict(_GENERATIONS.rows(connection, json.dumps([row[0] for row in rows])))
    return [there[record] <= generation for record, generation, _, _ in rows]


def _remove(connection: Connection, items: Sequence[int]) -> Sequence[None]:
    connection.execute(delete(sessions).where(_s.record.in_([signed(item) for item in items])))
    return [None] * len(items)
