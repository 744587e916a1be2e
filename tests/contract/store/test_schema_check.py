"""What a start finds out about a database without the migration tool."""

import sqlite3

from lwm2m_server.store import open_sqlite
from lwm2m_server.store.migrate import head, upgrade
from lwm2m_server.store.schema_check import is_current, newest


def test_the_newest_revision_is_the_head_of_the_migrations():
    assert newest() == head()


def test_a_database_of_this_version_needs_no_upgrade_and_every_other_does(tmp_path):
    path = tmp_path / "a name with % and #.sqlite3"
    assert not is_current(path)
    assert not path.exists()
    upgrade(path)
    assert is_current(path)
    for statement in ("UPDATE alembic_version SET version_num = '0001'", "DROP TABLE alembic_version"):
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
        assert not is_current(path)


def test_a_damaged_database_is_left_to_the_upgrade_to_explain(tmp_path):
    path = tmp_path / "test.sqlite3"
    upgrade(path)
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)
    assert not is_current(path)


async def test_a_current_database_is_opened_without_the_migration_tool(tmp_path, monkeypatch):
    path = tmp_path / "test.sqlite3"
    upgrade(path)
    monkeypatch.setattr("lwm2m_server.store.migrate.upgrade", None)
    store = await open_sqlite(path)
    await store.close()
