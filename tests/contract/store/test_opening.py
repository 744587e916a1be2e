"""Opening a database: new, old, newer, damaged, in use."""

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from lwm2m_server.store import migrate, open_sqlite
from lwm2m_server.store.errors import SchemaError, StoreError
from lwm2m_server.store.migrate import Upgrade, head, upgrade
from lwm2m_server.store.schema import metadata


def run(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_the_migrations_build_the_schema(tmp_path):
    path = tmp_path / "new" / "test.sqlite3"
    assert upgrade(path) == Upgrade(None, head())
    assert upgrade(path).changed is False
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


async def test_what_was_stored_is_there_after_reopening(tmp_path):
    path = tmp_path / "test.sqlite3"
    store = await open_sqlite(path)
    await store.events.append([])
    await store.close()
    store = await open_sqlite(path)
    assert await store.events.last_id() == 0
    await store.close()


@pytest.mark.parametrize(
    ("prepare", "kind", "message", "hint"),
    [
        (
            lambda path: path.write_bytes(b"text, not a database" * 100),
            StoreError,
            "is not a database",
            "another file",
        ),
        (lambda path: run(path, "CREATE TABLE songs (x)"), SchemaError, "another program", "another file"),
        (
            lambda path: (upgrade(path), run(path, "UPDATE alembic_version SET version_num = '9999'")),
            SchemaError,
            "newer version of the server",
            "install that version",
        ),
        (lambda path: path.mkdir(), StoreError, "can't be opened", "folder"),
    ],
)
async def test_a_database_that_cannot_be_used_is_named_with_the_way_out(
    tmp_path, prepare, kind, message, hint
):
    path = tmp_path / "test.sqlite3"
    prepare(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(kind) as caught:
        await open_sqlite(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.field == str(path)
    if before is not None:
        assert path.read_bytes() == before


async def test_damage_is_found_at_the_start(tmp_path):
    path = tmp_path / "test.sqlite3"
    upgrade(path)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged") as caught:
        await open_sqlite(path)
    assert ".recover" in caught.value.hint


async def test_a_database_that_another_process_holds_is_said_to_be_in_use(tmp_path, monkeypatch):
    path = tmp_path / "test.sqlite3"
    store = await open_sqlite(path)
    holder = sqlite3.connect(path)
    holder.execute("BEGIN IMMEDIATE")
    store.events._database._writer._connection.exec_driver_sql("PRAGMA busy_timeout = 1")
    store.events._database._writer._connection.commit()
    from lwm2m_server.store.records import NewEvent

    with pytest.raises(StoreError, match="in use by another process"):
        await store.events.append([NewEvent(kind="x", at=1.0)])
    holder.rollback()
    holder.close()
    await store.events.append([NewEvent(kind="x", at=1.0)])
    await store.close()


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "test.sqlite3"

    def fail(config, revision):
        config.attributes["connection"].exec_driver_sql("CREATE TABLE half (x)")
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(migrate.command, "upgrade", fail)
    with pytest.raises(StoreError, match="disk is full"):
        upgrade(path)
    monkeypatch.undo()
    assert upgrade(path) == Upgrade(None, head())
