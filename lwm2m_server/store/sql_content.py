# ruff: noqa: D102  the docstrings are the ports'
"""Images, manifests, trusted keys and tokens over SQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import IntegrityError

from lwm2m_server.store import sql_events
from lwm2m_server.store.database import Database
from lwm2m_server.store.prepared import AnySelect
from lwm2m_server.store.records import NewEvent, Page, StoredImage, StoredManifest, Token, TrustedKey
from lwm2m_server.store.rows import (
    key_of,
    key_values,
    manifest_of,
    manifest_values,
    page_of,
    plain_of,
    plain_values,
)
from lwm2m_server.store.rules import (
    check_sequence,
    digest_key,
    image_in_use,
    manifest_in_use,
    no_image,
    token_taken,
)
from lwm2m_server.store.schema import campaigns, images, manifests, tokens, trusted_keys


def add_new(connection: Connection, table: Table, values: dict[str, Any], events: Sequence[NewEvent]) -> bool:
    """Insert a row with its events unless the primary key is there."""
    statement = insert(table).values(values).on_conflict_do_nothing(index_elements=list(table.primary_key))
    added = (connection.execute(statement)).rowcount > 0
    sql_events.append(connection, events if added else ())
    return added


def one(connection: Connection, query: AnySelect) -> bool:
    """Return whether the query has a row."""
    return (connection.execute(query.limit(1))).first() is not None


class SqlImageStore:
    """See `ports.ImageStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, image: StoredImage, *, events: Sequence[NewEvent] = ()) -> bool:
        values = plain_values(image)
        return await self._database.write(lambda connection: add_new(connection, images, values, events))

    async def get(self, digest: bytes) -> StoredImage | None:
        rows = await self._database.read(select(images).where(images.c.digest == digest))
        return plain_of(StoredImage, rows[0]) if rows else None

    async def page(self, *, after: str | None = None, limit: int = 100) -> Page[StoredImage]:
        query: AnySelect = select(images).order_by(images.c.digest).limit(limit + 1)
        if after is not None:
            query = query.where(images.c.digest > digest_key(after))
        found = [plain_of(StoredImage, row) for row in await self._database.read(query)]
        return page_of(found, limit, lambda image: image.digest.hex())

    async def delete(self, digest: bytes, *, events: Sequence[NewEvent] = ()) -> bool:
        def work(connection: Connection) -> bool:
            named = or_(manifests.c.image_digest == digest, manifests.c.further_images.contains(digest.hex()))
            if one(connection, select(manifests.c.id).where(named)):
                raise image_in_use(digest)
            gone = (connection.execute(delete(images).where(images.c.digest == digest))).rowcount > 0
            sql_events.append(connection, events if gone else ())
            return gone

        return await self._database.write(work)


class SqlManifestStore:
    """See `ports.ManifestStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, manifest: StoredManifest, *, events: Sequence[NewEvent] = ()) -> bool:
        check_sequence(manifest)
        values = manifest_values(manifest)

        def work(connection: Connection) -> bool:
            for digest in (manifest.image_digest, *manifest.further_images):
                if not one(connection, select(images.c.size).where(images.c.digest == digest)):
                    raise no_image(digest)
            return add_new(connection, manifests, values, events)

        return await self._database.write(work)

    async def get(self, manifest_id: str) -> StoredManifest | None:
        rows = await self._database.read(select(manifests).where(manifests.c.id == manifest_id))
        return manifest_of(rows[0]) if rows else None

    async def page(self, *, after: str | None = None, limit: int = 100) -> Page[StoredManifest]:
        query: AnySelect = select(manifests).order_by(manifests.c.id).limit(limit + 1)
        if after is not None:
            query = query.where(manifests.c.id > after)
        found = [manifest_of(row) for row in await self._database.read(query)]
        return page_of(found, limit, lambda manifest: manifest.id)

    async def highest_sequence(self, vendor_id: bytes, class_id: bytes) -> int | None:
        own = manifests.c
        query = select(func.max(own.sequence)).where(own.vendor_id == vendor_id, own.class_id == class_id)
        highest: int | None = (await self._database.read(query))[0][0]
        return highest

    async def delete(self, manifest_id: str, *, events: Sequence[NewEvent] = ()) -> bool:
        def work(connection: Connection) -> bool:
            if one(connection, select(campaigns.c.id).where(campaigns.c.manifest_id == manifest_id)):
                raise manifest_in_use(manifest_id)
            statement = delete(manifests).where(manifests.c.id == manifest_id)
            gone = (connection.execute(statement)).rowcount > 0
            sql_events.append(connection, events if gone else ())
            return gone

        return await self._database.write(work)


class SqlTrustStore:
    """See `ports.TrustStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: TrustedKey, *, events: Sequence[NewEvent] = ()) -> bool:
        values = key_values(key)
        return await self._database.write(
            lambda connection: add_new(connection, trusted_keys, values, events)
        )

    async def get(self, key_id: str) -> TrustedKey | None:
        rows = await self._database.read(select(trusted_keys).where(trusted_keys.c.key_id == key_id))
        return key_of(rows[0]) if rows else None

    async def all(self, *, revoked: bool = False) -> list[TrustedKey]:
        query: AnySelect = select(trusted_keys).order_by(trusted_keys.c.key_id)
        if not revoked:
            query = query.where(trusted_keys.c.revoked_at.is_(None))
        return [key_of(row) for row in await self._database.read(query)]

    async def change(self, key: TrustedKey, *, events: Sequence[NewEvent] = ()) -> bool:
        values = {
            name: value
            for name, value in key_values(key).items()
            if name in ("name", "roles", "not_before", "not_after", "requires")
        }
        own = trusted_keys.c
        statement = update(trusted_keys).where(own.key_id == key.key_id, own.revoked_at.is_(None))

        def work(connection: Connection) -> bool:
            changed = connection.execute(statement.values(values)).rowcount > 0
            sql_events.append(connection, events if changed else ())
            return changed

        return await self._database.write(work)

    async def revoke(self, key_id: str, *, now: float, events: Sequence[NewEvent] = ()) -> bool:
        return await _revoke(self._database, trusted_keys, key_id, now, events)


class SqlTokenStore:
    """See `ports.TokenStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, token: Token, *, events: Sequence[NewEvent] = ()) -> None:
        def work(connection: Connection) -> None:
            connection.execute(insert(tokens).values(plain_values(token)))
            sql_events.append(connection, events)

        try:
            await self._database.write(work)
        except IntegrityError as error:
            raise token_taken(token) from error

    async def by_hash(self, secret_hash: bytes) -> Token | None:
        rows = await self._database.read(select(tokens).where(tokens.c.secret_hash == secret_hash))
        return plain_of(Token, rows[0]) if rows else None

    async def all(self) -> list[Token]:
        rows = await self._database.read(select(tokens).order_by(tokens.c.id))
        return [plain_of(Token, row) for row in rows]

    async def revoke(self, token_id: str, *, now: float, events: Sequence[NewEvent] = ()) -> bool:
        return await _revoke(self._database, tokens, token_id, now, events)


async def _revoke(database: Database, table: Table, key: str, now: float, events: Sequence[NewEvent]) -> bool:
    (column,) = table.primary_key

    def work(connection: Connection) -> bool:
        statement = update(table).where(column == key, table.c.revoked_at.is_(None)).values(revoked_at=now)
        changed = (connection.execute(statement)).rowcount > 0
        sql_events.append(connection, events if changed else ())
        return changed

    return await database.write(work)
