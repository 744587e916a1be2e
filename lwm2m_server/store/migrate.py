"""Brings a database to this version's schema; run at a start that finds another one, and by `lwm2m db upgrade`."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, inspect
from sqlalchemy.exc import DatabaseError

from lwm2m_server.store.errors import SchemaError, explain
from lwm2m_server.store.schema_check import check_file


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What an upgrade did: revisions before (None: the database was empty) and after."""

    before: str | None
    after: str

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return self.before != self.after


def head() -> str:
    """Return the revision of the schema that this version works with."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None  # noqa: S101  the package always has its migrations
    return revision


def upgrade(path: Path) -> Upgrade:
    """Create the database if need be and bring it to `head()`. Blocking: call it in a thread.

    Raises `SchemaError` for a database of a newer server or of another program, `StoreError` for one
    that can't be read or written. An upgrade that fails leaves the database as it was.
    """
    engine = create_engine(URL.create("sqlite", database=str(path)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_file(path)
        with engine.connect() as connection:
            before = _current(connection, path)
            if before != head():
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
            return Upgrade(before, head())
    except (DatabaseError, sqlite3.Error, OSError) as error:
        raise explain(error, path) from error
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _current(connection: Connection, path: Path) -> str | None:
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        tables = inspect(connection).get_table_names()
        if tables:
            raise SchemaError(
                f"{path} is a database of another program (it has the table {tables[0]!r})",
                field=str(path),
                hint="name another file",
            )
    elif current not in {
        script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()
    }:
        raise SchemaError(
            f"the database {path} was written by a newer version of the server (its schema is {current!r})",
            field=str(path),
            hint="install that version, or restore the backup from before the upgrade",
        )
    return current
