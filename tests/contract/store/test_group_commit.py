"""Writes that come together share a commit; each still succeeds or fails on its own."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, NullPool, Table, create_engine, event
from sqlalchemy.exc import IntegrityError, OperationalError

from lwm2m_server.errors import Conflict
from lwm2m_server.store import writer
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.prepared import Prepared, driver_of
from lwm2m_server.store.writer import GroupCommit

_DIRECT = Prepared(sqlalchemy.insert(Table("t", MetaData(), Column("x", Integer))), ("x",))


class Bench:
    """A writer over a table of one unique column, with its commits counted."""

    def __init__(self, path):
        self.path = path
        self.commits = 0
        self.thread = ThreadPoolExecutor(1)
        self.engine = create_engine(
            f"sqlite:///{path}", poolclass=NullPool, connect_args={"check_same_thread": False}
        )
        event.listen(self.engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
        self.connection = self.engine.connect()
        self.connection.exec_driver_sql("CREATE TABLE t (x INTEGER UNIQUE)")
        self.connection.commit()
        self.writer = GroupCommit(
            self.connection, self.thread, explain=lambda error: StoreError(str(error)), on_commit=self.count
        )

    def count(self):
        self.commits += 1

    def rows(self):
        with closing(sqlite3.connect(self.path)) as connection:
            return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY x")]

    async def close(self):
        await self.writer.close()
        self.thread.shutdown()
        self.connection.close()
        self.engine.dispose()


@pytest.fixture
async def bench(tmp_path):
    opened = Bench(tmp_path / "t.sqlite3")
    yield opened
    await opened.close()


def insert(connection, items):
    for x in items:
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", (x,))
    return [f"wrote {x}" for x in items]


def insert_directly(connection, items):
    _DIRECT.many(connection, [(x,) for x in items])
    return [f"wrote {x}" for x in items]


async def test_writes_that_wait_together_are_committed_together(bench):
    results = await asyncio.gather(*(bench.writer.submit(insert, [n]) for n in range(100)))
    assert results == [[f"wrote {n}"] for n in range(100)]
    assert bench.rows() == list(range(100))
    assert bench.commits == 1


async def test_a_batch_is_bounded(bench, monkeypatch):
    monkeypatch.setattr(writer, "MAX_ITEMS", 10)
    await asyncio.gather(*(bench.writer.submit(insert, [n]) for n in range(95)))
    assert bench.commits == 10


async def test_neighbours_of_one_lane_are_written_in_one_call(bench):
    calls = []

    def lane(connection, items):
        calls.append(list(items))
        return insert(connection, items)

    def other(connection, items):
        return insert(connection, items)

    submissions = [(lane, [1, 2]), (lane, [3]), (other, [4]), (lane, [5])]
    results = await asyncio.gather(*(bench.writer.submit(*each) for each in submissions))
    assert calls == [[1, 2, 3], [5]]
    assert results == [["wrote 1", "wrote 2"], ["wrote 3"], ["wrote 4"], ["wrote 5"]]


@pytest.mark.parametrize("lane", [insert, insert_directly])
async def test_what_the_database_refuses_fails_alone(bench, lane):
    await bench.writer.submit(lane, [7])
    first, second, third = await asyncio.gather(
        bench.writer.submit(lane, [1, 7, 2]),
        bench.writer.submit(lane, [3]),
        bench.writer.submit(lane, [7]),
    )
    assert (first[0], first[2], second) == ("wrote 1", "wrote 2", ["wrote 3"])
    assert isinstance(first[1], IntegrityError)
    assert isinstance(third[0], IntegrityError)
    assert bench.rows() == [1, 2, 3, 7]


async def test_a_database_that_another_holds_fails_the_batch_and_not_the_next(bench):
    driver_of(bench.connection).execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            await bench.writer.submit(insert_directly, [1])
        other.execute("COMMIT")
    assert await bench.writer.submit(insert_directly, [2]) == ["wrote 2"]
    assert bench.rows() == [2]


async def test_a_mistake_in_one_lane_leaves_the_others_alone(bench):
    def wrong(connection, items):
        insert(connection, items)
        raise TypeError("mistake")

    wronged, right = await asyncio.gather(bench.writer.submit(wrong, [1]), bench.writer.submit(insert, [2]))
    assert isinstance(wronged[0], TypeError)
    assert right == ["wrote 2"]
    assert bench.rows() == [2]


async def test_a_refusal_before_the_first_write_costs_the_others_nothing(bench):
    def refuse(connection):
        raise Conflict("no")

    runs = [bench.writer.run(refuse), bench.writer.submit(insert, [1]), bench.writer.submit(insert, [2])]
    refused, *_ = await asyncio.gather(*runs, return_exceptions=True)
    assert isinstance(refused, Conflict)
    assert bench.rows() == [1, 2]
    assert bench.commits == 1


async def test_when_the_database_as_a_whole_fails_all_of_the_batch_fail(bench):
    tries = []

    def full(connection, items):
        tries.append(items)
        raise OperationalError("INSERT", None, Exception("database or disk is full"))

    runs = [bench.writer.submit(full, [n, n]) for n in range(3)]
    results = await asyncio.gather(*runs, bench.writer.submit(insert, [9]), return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
    assert len(tries) == 1
    assert bench.rows() == []
    assert await bench.writer.submit(insert, [1]) == ["wrote 1"]


async def test_a_caller_that_goes_away_stops_nobody(bench):
    gone = asyncio.create_task(bench.writer.submit(insert, [1]))
    stays = asyncio.create_task(bench.writer.submit(insert, [2]))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == ["wrote 2"]
    assert bench.rows() == [1, 2]


async def test_too_many_waiting_writes_are_refused(bench, monkeypatch):
    monkeypatch.setattr(writer, "MAX_PENDING", 3)
    with pytest.raises(StoreError, match="keep up"):
        await bench.writer.submit(insert, [1, 2, 3, 4])
    assert await bench.writer.submit(insert, [1, 2, 3]) == ["wrote 1", "wrote 2", "wrote 3"]


async def test_closing_writes_what_waits_and_refuses_what_comes_after(bench):
    waiting = [asyncio.create_task(bench.writer.submit(insert, [n])) for n in range(5)]
    await asyncio.sleep(0)
    await bench.writer.close()
    assert [await each for each in waiting] == [[f"wrote {n}"] for n in range(5)]
    with pytest.raises(StoreError, match="closing"):
        await bench.writer.submit(insert, [9])
