"""Refusals become few events, and none is lost from the count."""

import asyncio

import pytest

from lwm2m_server.clock import ManualClock
from lwm2m_server.services.security_log import MAX_KINDS, SecurityLog, network_of
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.memory import MemoryStore


class Timers:
    def __init__(self):
        self.armed = []

    def later(self, seconds, callback):
        self.armed.append((seconds, callback))
        return self

    def cancel(self):
        pass

    def fire(self):
        armed, self.armed = self.armed, []
        for _, callback in armed:
            callback()


class Desk:
    def __init__(self):
        self.store = MemoryStore()
        self.timers = Timers()
        self.log = SecurityLog(self.store.events, ManualClock(), self.timers)

    async def told(self):
        for _ in range(5):
            await asyncio.sleep(0)
        return [event.data for event in await self.store.events.after(0)]


@pytest.fixture
async def desk():
    desk = Desk()
    yield desk
    await desk.log.close()


async def test_the_first_is_told_at_once_and_the_rest_of_a_minute_as_one_count(desk):
    for host in range(1, 101):
        desk.log.refused("wrong-key", address=f"192.0.2.{host}:1", identity="psk:a")
    (first,) = await desk.told()
    assert (first["count"], first["address"]) == (1, "192.0.2.1:1")
    (minute,) = desk.timers.armed
    assert minute[0] == 60.0
    desk.timers.fire()
    assert [(each["count"], each["address"]) for each in (await desk.told())[1:]] == [(99, "192.0.2.0/24")]
    desk.log.refused("wrong-key", address="192.0.2.1:1", identity="psk:a")
    assert len(await desk.told()) == 3, "a new minute begins with a new event"


async def test_identities_networks_and_reasons_are_told_apart(desk):
    desk.log.refused("wrong-key", address="192.0.2.1:1", identity="psk:a")
    desk.log.refused("wrong-key", address="192.0.3.1:1", identity="psk:a")
    desk.log.refused("wrong-key", address="192.0.2.1:1", identity="psk:b")
    desk.log.refused("revoked", address="192.0.2.1:1", identity="psk:a")
    told = await desk.told()
    assert len(told) == 4
    assert told[3]["text"] == "the credential was removed"


async def test_a_flood_makes_a_bounded_number_of_events_and_none_is_left_out_of_the_count(desk):
    total = 5000
    for number in range(total):
        desk.log.refused("unknown-identity", address=f"[2001:db8:{number:x}::1]:5", identity=f"psk:{number}")
    desk.timers.fire()
    told = await desk.told()
    assert len(told) <= MAX_KINDS + 1
    assert sum(each["count"] for each in told) == total
    assert told[-1]["reason"] == "others"


async def test_events_that_could_not_be_stored_are_told_later(desk, monkeypatch):
    async def fails(_):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store.events, "append", fails)
        desk.log.refused("wrong-key", identity="psk:a")
        assert await desk.told() == []
    desk.timers.fire()
    assert [each["identity"] for each in await desk.told()] == ["psk:a"]


async def test_what_was_counted_is_told_at_the_end(desk):
    for _ in range(3):
        desk.log.refused("wrong-key", identity="psk:a", endpoint="meter-1")
    await desk.log.close()
    assert sum(each["count"] for each in await desk.told()) == 3
    assert {event.endpoint for event in await desk.store.events.after(0)} == {"meter-1"}


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77:5683", "192.0.2.0/24"),
        ("[2001:db8:1:2:3::4]:5684", "2001:db8:1:2::/64"),
        ("", ""),
        ("somewhere", ""),
    ],
)
def test_networks(address, network):
    assert network_of(address) == network
