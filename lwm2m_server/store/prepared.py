"""Statements that are compiled once and given to the driver as they are.

The way through SQLAlchemy costs 30 µs a statement, which is more than SQLite needs for three rows. What runs for
every batch of devices goes by here; all other statements are SQLAlchemy's.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, cast

from sqlalchemy import Connection, Select, String, bindparam, func, select
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import UpdateBase

AnySelect = Select[*tuple[Any, ...]]
PlainRow = tuple[Any, ...]

BIND = "b_"  # begins the names of parameters in conditions, which may not be those of columns

# The keys of a batch go in as one JSON array: one statement for batches of any size, prepared once.
KEYS = select(func.json_each(bindparam("keys", type_=String)).table_valued("value").c.value)


class _DriverErrors:
    """Raises what the driver raises as SQLAlchemy would: everything above knows one vocabulary."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise DBAPIError.instance(None, None, error, sqlite3.Error) from error


driver_errors = _DriverErrors()


def driver_of(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection."""
    return cast("sqlite3.Connection", connection.connection.driver_connection)


class Prepared:
    """A statement of Core that changes rows; the driver gets plain tuples.

    `columns` are the names of the values in the rows that `many` takes: columns, and parameters of conditions. They
    must stand as they do in the statement (columns in the table's order), because rows go to the driver as they are.
    """

    def __init__(self, statement: UpdateBase, columns: Sequence[str]) -> None:
        compiled = statement.compile(dialect=dialect(paramstyle="qmark"), column_keys=list(columns))
        if compiled.positiontup != list(columns):
            raise ValueError(f"the statement takes {compiled.positiontup}, not {list(columns)}")
        self._sql = str(compiled)

    def many(self, connection: Connection, rows: Iterable[tuple[object, ...]]) -> int:
        """Execute for each row; return how many rows of the table that changed. Raises `DBAPIError`."""
        with driver_errors:
            return max(driver_of(connection).executemany(self._sql, rows).rowcount, 0)


class PreparedQuery:
    """A query: the driver's plain values come back, booleans as 0 and 1."""

    def __init__(self, query: AnySelect, *parameters: str) -> None:
        """`parameters` are those whose values are given with each execution, in that order."""
        compiled = query.compile(dialect=dialect(paramstyle="qmark"))
        self._sql = str(compiled)
        constants = compiled.params
        order = compiled.positiontup or []
        self._values = [constants[name] for name in order]
        self._places = [order.index(name) for name in parameters]

    def rows(self, connection: Connection, *values: object) -> list[PlainRow]:
        """Return the rows for these values of the parameters. Raises `DBAPIError`."""
        given = list(self._values)
        for place, value in zip(self._places, values, strict=True):
            given[place] = value
        with driver_errors:
            return driver_of(connection).execute(self._sql, given).fetchall()
