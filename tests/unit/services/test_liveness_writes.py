"""Signs of life are collected before they are written, and none is lost by that."""

from lwm2m_server.services.addresses import AddressBook
from lwm2m_server.services.statements import new_ids
from lwm2m_server.transport import Peer
from memory.world import World


async def test_many_updates_within_two_seconds_are_one_write(world: World, monkeypatch) -> None:
    device = await world.device()
    written: list[list[tuple[str, float]]] = []
    alive = world.store.registrations.alive

    async def note(beats):
        written.append(list(beats))
        await alive(beats)

    monkeypatch.setattr(world.store.registrations, "alive", note)
    for _ in range(5):
        await world.answer(device.update())
    await world.run(4.0)
    assert [len(beats) for beats in written] == [1]


async def test_what_was_collected_is_written_before_expiry_is_decided(world: World, monkeypatch) -> None:
    device = await world.device(lifetime=60)
    order: list[str] = []
    registrations = world.store.registrations
    alive, expire = registrations.alive, registrations.expire

    async def note_alive(beats):
        order.append("alive")
        await alive(beats)

    async def note_expire(**options):
        order.append("expire")
        return await expire(**options)

    monkeypatch.setattr(registrations, "alive", note_alive)
    monkeypatch.setattr(registrations, "expire", note_expire)
    registration = (await world.store.devices.get("dev-1")).registration
    world.server.gateway.on_alive([(registration.registration_id, registration.last_seen + 5.0)])
    await world.server.gateway._expire()
    assert order == ["alive", "expire"]
    assert device.location


def test_ids_sort_by_time_and_share_nothing_else() -> None:
    early, late = new_ids(1_700_000_000.0, 50), new_ids(1_700_000_001.5, 50)
    assert max(early) < min(late)
    assert len({*early, *late}) == 100
    assert {len(each) for each in early} == {16}
    assert len({each[6:] for each in early}) == 50


def test_a_peer_that_another_device_has_taken_over_stays_with_it() -> None:
    book, one, two = AddressBook(), Peer("192.0.2.1:1"), Peer("192.0.2.2:2")
    assert book.put("a", one) is None
    assert book.put("b", one) is None
    assert book.drop("a") is None
    assert book.endpoint(one) == "b"
    assert book.put("b", two) == one
    assert (book.endpoint(one), len(book)) == (None, 1)
    assert book.drop("b") == two.address
    assert len(book) == 0


def test_a_device_with_an_identity_is_known_by_it_wherever_it_is() -> None:
    book = AddressBook()
    assert book.put("a", Peer("192.0.2.1:1", identity="psk:a")) is None
    assert book.put("a", Peer("192.0.2.2:2", identity="psk:a")) is None
    assert book.endpoint(Peer("192.0.2.9:9", identity="psk:a")) == "a"
    assert book.endpoint(Peer("192.0.2.2:2")) is None
    assert book.put("a", Peer("192.0.2.2:2", identity="rpk:" + "00" * 32)) == Peer(
        "10.0.0.1:1", identity="psk:a"
    )
