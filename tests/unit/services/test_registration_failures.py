"""Registrations when something goes wrong: bad neighbours in a batch, a store that fails, a server that ends."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lwm2m_server.devices.records import Device, Registration
from lwm2m_server.store.errors import StoreError
from lwm2m_server.transport import Code, Peer, Response
from lwm2m_server.transport.memory import MemoryTransport
from memory import World
from memory.world import ADDRESS


class Client:
    """Something that sends requests to the server, well-formed or not."""

    def __init__(self, world: World) -> None:
        self.transport = MemoryTransport(world.network)
        self.transport.set_handlers(on_requests=lambda _: None)

    async def start(self, host: str = "10.9.0.1") -> "Client":
        await self.transport.start()
        await self.transport.listen(host, 0)
        return self

    async def send(self, code: int, path: tuple[str, ...], **options: Any) -> Response:
        return await self.transport.request(Peer(ADDRESS), code, path, **options)

    async def register(self, *query: str, payload: bytes = b"</1/0>,</3/0>") -> Response:
        return await self.send(Code.POST, ("rd",), query=query, payload=payload)

    async def update(self, location: tuple[str, ...], *query: str, payload: bytes = b"") -> Response:
        return await self.send(Code.POST, location, query=query, payload=payload)


@pytest.fixture
async def client(world: World) -> Client:
    return await Client(world).start()


async def known(world: World, endpoint: str = "d") -> Device:
    device = await world.store.devices.get(endpoint)
    assert device is not None
    return device


async def registration(world: World) -> Registration:
    found = (await known(world)).registration
    assert found is not None
    return found


def fails(*_: object, **__: object) -> Any:
    """Stand in for a method of a store whose disk is full."""
    raise StoreError("the disk is full")


async def test_of_two_different_registers_in_one_batch_the_last_word_holds(
    world: World, client: Client
) -> None:
    both = await asyncio.gather(client.register("ep=d", "lt=300"), client.register("ep=d", "lt=900"))
    assert both[0].location_path == both[1].location_path
    assert (await registration(world)).lifetime == 900


async def test_a_message_that_arrives_again_later_leaves_one_registration(
    world: World, client: Client
) -> None:
    world.network.duplicate = 1.0
    assert (await client.register("ep=d")).code == Code.CREATED
    world.network.duplicate = 0.0
    await world.settle()
    assert len((await world.store.registrations.live()).items) == 1


@pytest.mark.parametrize(
    ("query", "payload", "says"),
    [((), b"", "ep"), (("ep=d", "lt=soon"), b"", "lt"), (("ep=d",), b"</1/0", "links")],
)
async def test_a_refusal_is_plain_text_that_begins_with_the_field(
    client: Client, query: tuple[str, ...], payload: bytes, says: str
) -> None:
    answer = await client.register(*query, payload=payload)
    assert answer.code == Code.BAD_REQUEST
    assert answer.payload.decode().startswith(f"{says}: ")
    assert answer.content_format is None, "a diagnostic payload has none (RFC 7252 5.5.2)"


async def test_after_4_12_an_older_version_is_taken_at_once(client: Client) -> None:
    answer = await client.register("ep=d", "lwm2m=3.7")
    assert answer.code == Code.PRECONDITION_FAILED
    assert b"3.7" in answer.payload
    assert (await client.register("ep=d", "lwm2m=1.0")).code == Code.CREATED


async def test_one_bad_register_in_a_batch_harms_no_other(world: World, client: Client) -> None:
    wanted = [("ep=a",), ("lt=1",), ("ep=b",), ("ep=\x00",)]
    answers = await asyncio.gather(*(client.register(*query) for query in wanted))
    assert [Code(answer.code).name for answer in answers] == [
        "CREATED",
        "BAD_REQUEST",
        "CREATED",
        "BAD_REQUEST",
    ]
    assert await world.store.devices.count(now=0.0) == 2


async def test_a_malformed_update_changes_nothing(world: World, client: Client) -> None:
    location = (await client.register("ep=d", "lt=300")).location_path
    before = await registration(world)
    for query, payload in ((("lt=x",), b""), ((), b"</1/0")):
        assert (await client.update(location, *query, payload=payload)).code == Code.BAD_REQUEST
    assert await registration(world) == before


async def test_a_device_that_expired_while_the_server_was_down_expires_when_it_is_back(
    world: World, client: Client
) -> None:
    await client.register("ep=d", "lt=100")
    await world.kill()
    await world.network.advance(1000.0)
    await world.restart()
    await world.run(15.0)
    assert not (await known(world)).registered


@pytest.mark.parametrize("how", ["register", "update", "deregister"])
async def test_what_cant_be_stored_gets_5_03_and_is_taken_when_it_is_sent_again(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    location = (await client.register("ep=d", "lt=300")).location_path
    requests: dict[str, Callable[[], Any]] = {
        "register": lambda: client.register("ep=e"),
        "update": lambda: client.update(location, "lt=900"),
        "deregister": lambda: client.send(Code.DELETE, location),
    }
    before = await registration(world)
    with monkeypatch.context() as patch:
        patch.setattr(world.store.registrations, how, fails)
        answer = await requests[how]()
        assert (answer.code, answer.max_age) == (Code.SERVICE_UNAVAILABLE, 5)
    assert await registration(world) == before
    assert (await known(world)).registered
    assert await world.store.devices.get("e") is None
    assert (await requests[how]()).code in (Code.CREATED, Code.CHANGED, Code.DELETED)


async def test_one_row_that_fails_alone_harms_no_other(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = world.store.registrations.register

    async def without_b(registrations: Sequence[Registration]) -> list[Any]:
        results = list(await real([each for each in registrations if each.endpoint != "b"]))
        results.insert([each.endpoint for each in registrations].index("b"), StoreError("no"))
        return results

    monkeypatch.setattr(world.store.registrations, "register", without_b)
    answers = await asyncio.gather(*(client.register(f"ep={name}") for name in "abc"))
    assert [answer.code for answer in answers] == [Code.CREATED, Code.SERVICE_UNAVAILABLE, Code.CREATED]


async def test_signs_of_life_that_the_store_refuses_are_stored_later(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = (await client.register("ep=d", "lt=300")).location_path
    await world.run(200.0, step=50.0)
    with monkeypatch.context() as patch:
        patch.setattr(world.store.registrations, "alive", fails)
        heard = world.network.clock.now()
        assert (await client.update(location)).code == Code.CHANGED
        await world.run(5.0)
    assert (await registration(world)).last_seen < heard
    await world.run(10.0)
    assert (await registration(world)).last_seen == heard


async def test_signs_of_life_of_the_last_moment_outlive_the_end_of_the_server(
    world: World, client: Client
) -> None:
    location = (await client.register("ep=d", "lt=300")).location_path
    await world.run(200.0, step=50.0)
    assert (await client.update(location)).code == Code.CHANGED
    await world.restart()
    assert (await registration(world)).last_seen == world.network.clock.now()


async def test_a_deleted_device_learns_that_it_must_register_again(world: World, client: Client) -> None:
    location = (await client.register("ep=d")).location_path
    await world.settle()
    await world.server.services.directory.delete("d", actor="ann")
    assert (await client.update(location)).code == Code.NOT_FOUND
    assert (await client.register("ep=d")).code == Code.CREATED
