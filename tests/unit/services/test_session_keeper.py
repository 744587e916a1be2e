"""Sessions are confirmed only after they are durable, and handed back once."""

import asyncio

import pytest

from lwm2m_server.clock import ManualClock
from lwm2m_server.services.sessions import SessionKeeper
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.memory import MemoryStore

NOW = 1_000_000.0


def export(record, mark=1, *, generation=0, sealed=b"sealed"):
    return record, generation, mark, sealed


class Transport:
    def __init__(self):
        self.confirmed = []
        self.restored = []

    def confirm_sessions(self, marks):
        self.confirmed += marks

    def restore(self, sessions):
        self.restored += sessions
        return {"restored": len(sessions) - 1, "duplicate": 1}


class Timers:
    """What was asked for in so many seconds; a test lets the time pass."""

    def __init__(self):
        self.armed = {}

    def later(self, seconds, callback):
        timer = Timer(self.armed)
        self.armed[timer] = callback
        return timer

    def pass_by(self):
        armed = list(self.armed.values())
        self.armed.clear()
        for callback in armed:
            callback()


class Timer:
    def __init__(self, armed):
        self._armed = armed

    def cancel(self):
        self._armed.pop(self, None)


class Desk:
    def __init__(self):
        self.sessions = MemoryStore().sessions
        self.timers = Timers()
        self.transport = Transport()
        self.keeper = SessionKeeper(
            self.sessions, self.transport, ManualClock(NOW), self.timers, lifetime=100.0
        )

    async def stored(self):
        return {row.record: row for row in (await self.sessions.page()).items}


@pytest.fixture
async def desk():
    desk = Desk()
    yield desk
    await desk.keeper.close()


async def turns(desk):
    desk.timers.pass_by()
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_export_is_confirmed_when_it_is_stored_and_not_before(desk, monkeypatch):
    gate = asyncio.Event()
    save = desk.sessions.save

    async def slow(sessions):
        await gate.wait()
        return await save(sessions)

    monkeypatch.setattr(desk.sessions, "save", slow)
    desk.keeper.exported([export(2**64 - 1, mark=7)])
    await turns(desk)
    assert desk.transport.confirmed == []
    gate.set()
    await turns(desk)
    assert desk.transport.confirmed == [(2**64 - 1, 7)]
    assert await desk.sessions.claim(since=NOW) == 1, "it is as old as it is"


async def test_only_the_last_word_on_a_session_counts(desk):
    desk.keeper.exported([export(1, mark=1)])
    desk.keeper.exported([export(1, mark=2, sealed=b"newer")])
    desk.keeper.exported([export(2)])
    desk.keeper.gone(2)
    await turns(desk)
    assert {record: row.sealed for record, row in (await desk.stored()).items()} == {1: b"newer"}
    assert desk.transport.confirmed == [(1, 2)]


async def test_exports_are_collected_for_a_moment(desk, monkeypatch):
    saved = []
    save = desk.sessions.save
    monkeypatch.setattr(desk.sessions, "save", lambda rows: saved.append(len(rows)) or save(rows))
    for record in range(1, 6):
        desk.keeper.exported([export(record)])
        await asyncio.sleep(0)
    assert saved == []
    await turns(desk)
    assert saved == [5]
    desk.keeper.exported([export(6)])
    await turns(desk)
    assert saved == [5, 1]


async def test_what_somebody_else_has_claimed_is_not_confirmed(desk):
    await desk.sessions.save([(1, 5, b"x", NOW)])
    desk.keeper.exported([export(1, generation=4)])
    await turns(desk)
    assert desk.transport.confirmed == []
    assert (await desk.stored())[1].sealed == b"x"


async def test_a_store_that_fails_confirms_nothing_and_loses_nothing(desk, monkeypatch):
    async def fails(_):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(desk.sessions, "save", fails)
        desk.keeper.exported([export(1, mark=1)])
        await turns(desk)
    assert desk.transport.confirmed == []
    desk.keeper.exported([export(1, mark=2)])
    await turns(desk)
    assert desk.transport.confirmed == [(1, 2)]


async def test_the_last_exports_are_stored_at_the_end(desk):
    desk.keeper.exported([export(1)])
    await desk.keeper.close()
    assert list(await desk.stored()) == [1]


async def test_a_start_claims_what_is_young_enough_and_hands_it_over_in_pages(desk, monkeypatch):
    monkeypatch.setattr("lwm2m_server.services.sessions._PAGE", 2)
    await desk.sessions.save(
        [(n, n, b"s", at) for n, at in ((1, NOW), (2, NOW - 100), (3, NOW - 101), (4, NOW), (5, NOW))]
    )
    assert await desk.keeper.restore() == {"restored": 2, "duplicate": 2}
    assert desk.transport.restored == [(n, n + 1, b"s") for n in (1, 2, 4, 5)]
    assert list(await desk.stored()) == [1, 2, 4, 5]


async def test_a_damaged_store_gives_no_sessions_and_does_not_stop_the_start(desk, monkeypatch):
    async def fails(**_):
        raise StoreError("the database is damaged")

    monkeypatch.setattr(desk.sessions, "claim", fails)
    assert await desk.keeper.restore() == {"lost": 1}
    assert desk.transport.restored == []
