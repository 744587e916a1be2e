"""Connections to SQLite: one that writes, a few that read.

WAL with synchronous=FULL: a commit is on the disk before it is acknowledged, so it survives both `kill -9` and a
power cut; group commit pays for the wait once a batch. Readers see the last commit and never wait for the writer.
"""

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Executable, Row, Select, event
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.dml import UpdateBase

from lwm2m_server.store.errors import StoreError, explain
from lwm2m_server.store.writer import GroupCommit, Item, Lane, Result, T, Work

AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]

BIND = "b_"  # begins the names of parameters in conditions, which may not be those of columns
READERS = 4
BUSY_SECONDS = 5.0
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
)
_WRITER_PRAGMAS = ("PRAGMA cache_size = -65536", "PRAGMA wal_autocheckpoint = 4000")
_READER_PRAGMAS = ("PRAGMA query_only = ON",)


class Database:
    """One SQLite file with its schema in place (see `migrate.upgrade`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = _engine(path, _READER_PRAGMAS, READERS).execution_options(isolation_level="AUTOCOMMIT")
        self._writer_engine = _engine(path, _WRITER_PRAGMAS, 1)
        event.listen(self._writer_engine.sync_engine, "begin", _begin_immediate)
        self._connection: AsyncConnection | None = None
        self._writer: GroupCommit | None = None
        self._committed = asyncio.Event()

    async def open(self) -> None:
        """Connect. Raises `StoreError`."""
        try:
            self._connection = await self._writer_engine.connect()
        except (DatabaseError, sqlite3.Error) as error:
            await self.close()
            raise explain(error, self._path) from error
        self._writer = GroupCommit(
            self._connection, explain=lambda error: explain(error, self._path), on_commit=self._notify
        )

    async def close(self) -> None:
        """Write what is waiting and disconnect."""
        if self._writer is not None:
            await self._writer.close()
        if self._connection is not None:
            await self._connection.close()
        await self._reader.dispose()
        await self._writer_engine.dispose()

    async def read(self, statement: Executable) -> Sequence[AnyRow]:
        """Return the rows of a query, as of the last commit."""
        try:
            async with self._reader.connect() as connection:
                return (await connection.execute(statement)).all()
        except DatabaseError as error:
            raise explain(error, self._path) from error

    async def write(self, work: Work[T]) -> T:
        """Do `work` in a transaction, see `GroupCommit.run`; `IntegrityError` is the caller's to explain."""
        return await self._ready.run(work)

    async def submit(self, lane: Lane[Item, Result], items: Sequence[Item]) -> list[Result | Exception]:
        """Write items, see `GroupCommit.submit`; what the database refuses comes back as `StoreError`."""
        results = await self._ready.submit(lane, items)
        return [
            explain(result, self._path) if isinstance(result, IntegrityError) else result
            for result in results
        ]

    def committed(self) -> asyncio.Event:
        """Return what will be set by the next commit."""
        return self._committed

    @property
    def _ready(self) -> GroupCommit:
        if self._writer is None:
            raise StoreError(f"the database {self._path} is not open", field=str(self._path))
        return self._writer

    def _notify(self) -> None:
        self._committed.set()
        self._committed = asyncio.Event()


class Prepared:
    """A statement of Core that is compiled once, so that the driver gets plain tuples.

    `columns` are the names of the values in the rows that `many` takes: columns, and parameters of conditions.
    """

    def __init__(self, statement: UpdateBase, columns: Sequence[str]) -> None:
        compiled = statement.compile(dialect=dialect(paramstyle="qmark"), column_keys=list(columns))
        order = compiled.positiontup or []
        self._sql = str(compiled)
        self._pick = itemgetter(*(columns.index(name) for name in order))

    async def many(self, connection: AsyncConnection, rows: Iterable[tuple[object, ...]]) -> None:
        """Execute for each row."""
        if values := [self._pick(row) for row in rows]:
            await connection.exec_driver_sql(self._sql, values)


def _engine(path: Path, pragmas: Sequence[str], size: int) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS},
        pool_size=size,
        max_overflow=0,
        pool_reset_on_return=None if size > 1 else "rollback",
    )

    def configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
        cursor = connection.cursor()
        for pragma in (*_PRAGMAS, *pragmas):
            cursor.execute(pragma)
        cursor.close()

    event.listen(engine.sync_engine, "connect", configure)
    return engine


def _begin_immediate(connection: Any) -> None:
    # The write lock is taken at once: a later upgrade from reading could only fail.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
