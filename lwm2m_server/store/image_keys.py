# ruff: noqa: D102  the docstrings are the port's
"""Public keys that firmware images are signed with: the port, over SQL and in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, delete, select

from lwm2m_server.store import sql_events
from lwm2m_server.store.database import Database
from lwm2m_server.store.memory_tables import Tables
from lwm2m_server.store.prepared import AnySelect
from lwm2m_server.store.records import NewEvent
from lwm2m_server.store.rows import plain_of, plain_values
from lwm2m_server.store.schema import image_keys
from lwm2m_server.store.sql_content import add_new


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImageKey:
    """A key of a boot loader. `key_id` is lower hex, `public_key` PEM, `algorithm` a word of the firmware package."""

    key_id: str
    name: str
    algorithm: str
    public_key: bytes
    created_at: float
    created_by: str = ""


class ImageKeyStore(Protocol):
    """Keys that images may be signed with, by id."""

    async def add(self, key: StoredImageKey, *, events: Sequence[NewEvent] = ()) -> bool:
        """Add; False (and nothing changed, no events) when this id is there already."""
        ...

    async def all(self) -> list[StoredImageKey]:
        """Return all keys by id."""
        ...

    async def remove(self, key_id: str, *, events: Sequence[NewEvent] = ()) -> bool:
        """Remove; False when there is none."""
        ...


class SqlImageKeyStore:
    """See `ImageKeyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: StoredImageKey, *, events: Sequence[NewEvent] = ()) -> bool:
        values = plain_values(key)
        return await self._database.write(lambda connection: add_new(connection, image_keys, values, events))

    async def all(self) -> list[StoredImageKey]:
        query: AnySelect = select(image_keys).order_by(image_keys.c.key_id)
        return [plain_of(StoredImageKey, row) for row in await self._database.read(query)]

    async def remove(self, key_id: str, *, events: Sequence[NewEvent] = ()) -> bool:
        def work(connection: Connection) -> bool:
            gone = (connection.execute(delete(image_keys).where(image_keys.c.key_id == key_id))).rowcount > 0
            sql_events.append(connection, events if gone else ())
            return gone

        return await self._database.write(work)


class MemoryImageKeyStore:
    """See `ImageKeyStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._keys: dict[str, StoredImageKey] = {}

    async def add(self, key: StoredImageKey, *, events: Sequence[NewEvent] = ()) -> bool:
        if key.key_id in self._keys:
            return False
        self._keys[key.key_id] = key
        self._tables.append(events)
        return True

    async def all(self) -> list[StoredImageKey]:
        return [key for _, key in sorted(self._keys.items())]

    async def remove(self, key_id: str, *, events: Sequence[NewEvent] = ()) -> bool:
        if self._keys.pop(key_id, None) is None:
            return False
        self._tables.append(events)
        return True
