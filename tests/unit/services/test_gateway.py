"""Registration over the real gateway: what devices get, and what is stored by then."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest

from lwm2m_server.devices.records import Registration
from lwm2m_server.lwm2m.links import parse_object_list
from lwm2m_server.services.gateway import Gateway
from lwm2m_server.services.statements import object_paths
from lwm2m_server.store.memory import MemoryStore
from lwm2m_server.store.records import LiveRegistration, Registered
from lwm2m_server.transport import Code, Peer, Request, Response
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport
from memory import ScriptedDevice, World
from memory.world import ADDRESS


async def stored(world: World, endpoint: str = "dev-1") -> Registration | None:
    device = await world.store.devices.get(endpoint)
    return device.registration if device is not None and device.registered else None


async def ask(world: World, device: ScriptedDevice, code: int, *path: str, **options: Any) -> Response:
    return await world.answer(device.send(code, path, **options))


async def test_a_register_is_stored_before_its_answer(world: World) -> None:
    device = await world.device(booted=False)
    answer = await world.answer(device.boot())
    assert answer.code == Code.CREATED
    assert answer.location_path[0] == "rd"
    registration = await stored(world)
    assert registration is not None
    assert registration.registration_id == answer.location_path[1]
    assert registration.objects == ("/1/0", "/3/0", "/5/0")
    assert registration.expires_at == registration.last_seen + 86400 + 30


@pytest.mark.parametrize(
    ("query", "code", "text"),
    [
        (("lt=60",), Code.BAD_REQUEST, "ep"),
        (("ep=",), Code.BAD_REQUEST, "ep"),
        (("ep=x", "lt=soon"), Code.BAD_REQUEST, "lt"),
        (("ep=x", "ep=y"), Code.BAD_REQUEST, "ep"),
        (("ep=x", "b=Z"), Code.BAD_REQUEST, "b"),
        (("ep=x", "lwm2m=2.0"), Code.PRECONDITION_FAILED, "2.0"),
    ],
)
async def test_a_bad_register_is_told_why_and_makes_nothing(
    world: World, query: tuple[str, ...], code: Code, text: str
) -> None:
    device = await world.device()
    answer = await ask(world, device, Code.POST, "rd", query=query, payload=b"</1/0>")
    assert answer.code == code
    assert text in answer.payload.decode()
    assert await world.server.services.directory.count() == 1


async def test_bad_links_are_told_too(world: World) -> None:
    device = await world.device()
    answer = await ask(world, device, Code.POST, "rd", query=("ep=x",), payload=b"<</1>")
    assert (answer.code, answer.payload[:5]) == (Code.BAD_REQUEST, b"links")


async def test_a_new_register_replaces_the_old_one_and_keeps_the_device(world: World) -> None:
    device = await world.device()
    old = device.location
    await world.server.services.directory.set_attributes("dev-1", {"site": "north"}, actor="ann")
    await world.answer(device.register())
    assert device.location != old
    gone = await ask(world, device, Code.POST, *old)
    assert gone.code == Code.NOT_FOUND, "the old location has ended"
    assert (await world.answer(device.update())).code == Code.CHANGED
    assert (await world.server.services.directory.get("dev-1")).attributes == {"site": "north"}


async def test_a_bare_update_is_recorded(world: World) -> None:
    device = await world.device()
    await world.run(50.0)
    assert (await world.answer(device.update())).code == Code.CHANGED
    await world.run(3.0)
    registration = await stored(world)
    assert registration is not None
    assert 50.0 <= registration.last_seen - registration.registered_at < 51.0


async def test_an_update_changes_lifetime_and_objects(world: World) -> None:
    device = await world.device()
    answer = await ask(
        world, device, Code.POST, *device.location, query=("lt=60", "b=U"), payload=b"</3/0>,</9>"
    )
    assert answer.code == Code.CHANGED
    registration = await stored(world)
    assert registration is not None
    assert (registration.lifetime, registration.objects) == (60, ("/3/0", "/9"))
    assert registration.expires_at == registration.last_seen + 60 + 30


async def test_an_update_from_a_new_address_moves_the_device(world: World) -> None:
    device = await world.device()
    other = MemoryTransport(world.network)
    await other.listen("10.0.7.7", 0)
    answer = await world.answer(other.request(Peer(ADDRESS), Code.POST, device.location))
    assert answer.code == Code.CHANGED
    registration = await stored(world)
    assert registration is not None
    assert registration.address.startswith("10.0.7.7:")
    assert world.server.gateway.addresses.endpoint(Peer(registration.address)) == "dev-1"
    await other.close()


@pytest.mark.parametrize("code", [Code.POST, Code.DELETE])
async def test_an_unknown_location_is_not_found(world: World, code: Code) -> None:
    device = await world.device()
    assert (await ask(world, device, code, "rd", "nonsense")).code == Code.NOT_FOUND


async def test_deregister_ends_it(world: World) -> None:
    device = await world.device()
    assert (await world.answer(device.deregister())).code == Code.DELETED
    assert await stored(world) is None
    assert (await world.answer(device.update())).code == Code.NOT_FOUND
    assert len(world.server.gateway.addresses) == 0


async def test_a_silent_device_expires_after_lifetime_and_grace(world: World) -> None:
    await world.device(lifetime=60)
    await world.run(85.0)
    assert await stored(world) is not None
    await world.run(20.0)
    assert await stored(world) is None
    assert [event.endpoint for event in await world.events("device.expired")] == ["dev-1"]


async def test_lifetime_zero_is_for_a_very_long_time(world: World) -> None:
    await world.device(lifetime=0)
    registration = await stored(world)
    assert registration is not None
    assert registration.expires_at > registration.last_seen + 30_000_000


async def test_registrations_outlive_a_restart(world: World) -> None:
    device = await world.device()
    await world.restart()
    assert (await world.answer(device.update())).code == Code.CHANGED
    assert world.server.gateway.addresses.endpoint(Peer((await stored(world)).address)) == "dev-1"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("code", "path", "expected"),
    [
        (Code.GET, ("nothing",), Code.NOT_FOUND),
        (Code.GET, ("rd",), Code.METHOD_NOT_ALLOWED),
        (Code.GET, ("rd", "x"), Code.METHOD_NOT_ALLOWED),
        (Code.GET, ("dp",), Code.METHOD_NOT_ALLOWED),
        (Code.POST, ("rd", "x", "y"), Code.NOT_FOUND),
        (Code.POST, ("bs",), Code.NOT_FOUND),
        (Code.GET, (), Code.NOT_FOUND),
    ],
)
async def test_what_is_not_offered(world: World, code: Code, path: tuple[str, ...], expected: Code) -> None:
    device = await world.device()
    assert (await ask(world, device, code, *path)).code == expected


async def test_the_well_known_core_names_the_resource_directory(world: World) -> None:
    device = await world.device()
    answer = await ask(world, device, Code.GET, ".well-known", "core")
    assert answer.content_format == 40
    assert b"</rd>" in answer.payload


async def test_a_send_becomes_an_event(world: World) -> None:
    device = await world.device()
    payload = b'[{"bn":"/3/0/","n":"9","v":77}]'
    answer = await ask(world, device, Code.POST, "dp", payload=payload, content_format=110)
    assert answer.code == Code.CHANGED
    await world.settle()
    (event,) = await world.events("device.sent")
    assert event.endpoint == "dev-1"
    assert event.data["values"] == [{"path": "/3/0/9", "value": 77, "time": None}]


async def test_a_send_of_a_stranger_or_of_garbage_is_refused(world: World) -> None:
    device = await world.device()
    garbage = await ask(world, device, Code.POST, "dp", payload=b"\xff", content_format=112)
    assert garbage.code == Code.BAD_REQUEST
    stranger = MemoryTransport(world.network)
    await stranger.listen("10.0.9.9", 0)
    answer = await world.answer(stranger.request(Peer(ADDRESS), Code.POST, ("dp",), payload=b"[]"))
    assert answer.code == Code.FORBIDDEN
    await stranger.close()


# batches, with a store whose commits the test sees


class Counting(MemoryStore):
    """Counts hand-overs, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.broken: Exception | None = None
        self._inner = self.registrations.register
        self.registrations.register = self._register  # type: ignore[method-assign]

    async def _register(self, registrations: Sequence[Registration]) -> list[Registered | Exception]:
        self.batches.append(len(registrations))
        if self.broken is not None:
            raise self.broken
        return await self._inner(registrations)


class Wire(MemoryTransport):
    """Keeps the answers and what the engine's table is told."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__(network)
        self.answers: dict[int, tuple[int, tuple[str, ...]]] = {}
        self.kept: dict[str, Peer] = {}

    def respond(self, exchange: int, code: int, **options: Any) -> None:
        self.answers[exchange] = (code, options.get("location_path", ()))

    def keep(self, location: str, peer: Peer) -> None:
        self.kept[location] = peer

    def welcome(self, registrations: Sequence[tuple[int, str, Peer]]) -> None:
        for exchange, location, peer in registrations:
            self.keep(location, peer)
            self.respond(exchange, Code.CREATED, location_path=("rd", location))

    def keep_all(self, registrations: Sequence[tuple[str, str, str | None]]) -> None:
        for location, address, identity in registrations:
            self.keep(location, Peer(address, identity=identity))

    def drop(self, location: str) -> None:
        self.kept.pop(location, None)


def register(exchange: int, endpoint: str, address: str) -> Request:
    return Request(
        exchange=exchange,
        peer=Peer(address),
        code=Code.POST,
        path=("rd",),
        query=(f"ep={endpoint}", "lt=60"),
        payload=b"</3/0>",
    )


STRANGER = "rpk:" + "00" * 32


class Names:
    """`psk:<name>` may be <name>; others have no name."""

    def __init__(self) -> None:
        self.refused: list[tuple[str | None, str]] = []

    async def endpoints_of(self, identities: Iterable[str]) -> dict[str, str | None]:
        """Return the names."""
        return {each: each.removeprefix("psk:") if each.startswith("psk:") else None for each in identities}

    def foreign(self, peer: Peer, endpoint: str) -> None:
        """Note it."""
        self.refused.append((peer.identity, endpoint))


@pytest.fixture
def parts() -> tuple[Gateway, Wire, Counting]:
    network = MemoryNetwork()
    wire, store = Wire(network), Counting()
    gateway = Gateway(
        wire,
        store.registrations,
        Names(),
        network.clock,
        network,
        on_registered=lambda _: None,
        on_contact=lambda _: None,
        on_gone=lambda _: None,
        on_sent=lambda _, __: None,
    )
    return gateway, wire, store


async def settle() -> None:
    await MemoryNetwork().settle()


async def test_a_batch_is_one_hand_over_to_the_store(parts: tuple[Gateway, Wire, Counting]) -> None:
    gateway, wire, store = parts
    gateway.on_requests([register(number, f"d{number}", f"10.0.0.9:{number}") for number in range(1, 501)])
    await settle()
    assert store.batches == [500]
    assert {code for code, _ in wire.answers.values()} == {Code.CREATED}
    assert len(wire.kept) == 500
    await gateway.close()


async def test_what_waits_is_bounded_and_the_rest_is_told_to_come_later(
    parts: tuple[Gateway, Wire, Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lwm2m_server.services.gateway.MAX_WAITING", 10)
    gateway, wire, store = parts
    gateway.on_requests([register(number, f"d{number}", f"10.0.0.9:{number}") for number in range(1, 31)])
    await settle()
    codes = [code for code, _ in wire.answers.values()]
    assert (codes.count(Code.SERVICE_UNAVAILABLE), codes.count(Code.CREATED)) == (20, 10)
    assert store.batches == [10]
    await gateway.close()


async def test_the_same_register_twice_makes_one_registration(parts: tuple[Gateway, Wire, Counting]) -> None:
    gateway, wire, store = parts
    gateway.on_requests([register(1, "d", "10.0.0.9:1"), register(2, "d", "10.0.0.9:1")])
    await settle()
    assert store.batches == [1]
    assert wire.answers[1] == wire.answers[2]
    assert len(wire.kept) == 1
    await gateway.close()


async def test_one_name_from_two_addresses_the_later_one_stays(
    parts: tuple[Gateway, Wire, Counting],
) -> None:
    gateway, wire, store = parts
    gateway.on_requests([register(1, "d", "10.0.0.9:1"), register(2, "d", "10.0.0.9:2")])
    await settle()
    assert store.batches == [1, 1]
    assert [peer.address for peer in wire.kept.values()] == ["10.0.0.9:2"]
    assert wire.answers[2][1] == ("rd", *wire.kept)
    await gateway.close()


@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("bug")])
async def test_what_could_not_be_stored_is_not_acknowledged(
    parts: tuple[Gateway, Wire, Counting], error: Exception
) -> None:
    gateway, wire, store = parts
    store.broken = error
    gateway.on_requests([register(1, "d", "10.0.0.9:1")])
    await settle()
    assert wire.answers[1][0] == Code.SERVICE_UNAVAILABLE
    assert wire.kept == {}
    store.broken = None
    gateway.on_requests([register(2, "d", "10.0.0.9:1")])
    await settle()
    assert wire.answers[2][0] == Code.CREATED, "the gateway goes on"
    await gateway.close()


async def test_signs_of_life_are_written_once_each(parts: tuple[Gateway, Wire, Counting]) -> None:
    gateway, _, store = parts
    gateway.on_requests([register(1, "d", "10.0.0.9:1")])
    await settle()
    (live,) = (await store.registrations.live()).items
    assert isinstance(live, LiveRegistration)
    gateway.on_alive([(live.registration_id, 1_000_010.0), (live.registration_id, 1_000_020.0)])
    await gateway.close()
    device = await store.devices.get("d")
    assert device is not None
    assert device.registration is not None
    assert device.registration.last_seen == 1_000_020.0


def asked(exchange: int, identity: str | None, code: int, path: tuple[str, ...], *query: str) -> Request:
    peer = Peer(f"10.0.0.9:{exchange}", identity=identity)
    return Request(exchange=exchange, peer=peer, code=code, path=path, query=query, payload=b"")


async def test_the_proven_identity_decides_the_name(parts: tuple[Gateway, Wire, Counting]) -> None:
    gateway, wire, _ = parts
    names = ("psk:d", "psk:other", STRANGER, "psk:e")
    for exchange, identity in enumerate(names, 1):
        query = () if identity == "psk:e" else ("ep=d",)
        gateway.on_requests([asked(exchange, identity, Code.POST, ("rd",), "lt=60", *query)])
        await settle()
    codes = [wire.answers[exchange][0] for exchange in range(1, 5)]
    assert codes == [Code.CREATED, Code.FORBIDDEN, Code.FORBIDDEN, Code.CREATED]
    assert gateway.addresses.endpoint(Peer("10.9.9.9:9", identity="psk:e")) == "e"
    await gateway.close()


@pytest.mark.parametrize("code", [Code.POST, Code.DELETE], ids=["Update", "Deregister"])
@pytest.mark.parametrize("identity", [None, "psk:other", STRANGER])
async def test_a_registration_is_touched_by_its_identity_alone(
    parts: tuple[Gateway, Wire, Counting], code: int, identity: str | None
) -> None:
    gateway, wire, store = parts
    names = cast("Names", gateway._identities)
    gateway.on_requests([asked(1, "psk:d", Code.POST, ("rd",), "ep=d", "lt=60")])
    await settle()
    location = wire.answers[1][1]
    query = ("lt=77",) if code == Code.POST else ()
    gateway.on_requests([asked(2, identity, code, location, *query)])
    await settle()
    assert wire.answers[2][0] == Code.FORBIDDEN
    assert names.refused == [(identity, "d")]
    kept = await store.registrations.find(location[1])
    assert kept is not None
    assert (kept.lifetime, kept.identity) == (60, "psk:d")
    gateway.on_requests([asked(3, "psk:d", code, location, *query)])
    await settle()
    assert wire.answers[3][0] == (Code.CHANGED if code == Code.POST else Code.DELETED)
    await gateway.close()


async def test_a_name_that_was_proved_once_is_not_taken_without_proof(
    parts: tuple[Gateway, Wire, Counting],
) -> None:
    gateway, wire, _ = parts
    gateway.on_requests([asked(1, "psk:d", Code.POST, ("rd",), "ep=d", "lt=60")])
    await settle()
    gateway.on_requests([asked(2, None, Code.POST, ("rd",), "ep=d", "lt=60")])
    await settle()
    assert wire.answers[2][0] == Code.FORBIDDEN
    assert cast("Names", gateway._identities).refused == [(None, "d")]
    await gateway.close()


async def test_only_who_registered_may_send(parts: tuple[Gateway, Wire, Counting]) -> None:
    gateway, wire, _ = parts
    gateway.on_requests([asked(1, "psk:d", Code.POST, ("dp",))])
    assert wire.answers[1][0] == Code.FORBIDDEN
    await gateway.close()


def test_object_paths_of_a_list() -> None:
    assert object_paths(parse_object_list(b"</>;rt=x,</5>,</3/0>,</3/1>")) == ("/3/0", "/3/1", "/5")
