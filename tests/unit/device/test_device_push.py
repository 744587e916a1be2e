"""Packages that come by push, block by block (Block1 on /5/0/0)."""

import hashlib
import signal

import pytest

from lwm2m_device.settings import Delivery
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.transport import Code

PATH = ("5", "0", "0")
IMAGE = b"firmware-version: 2.0.0\n" + bytes(range(256)) * 60


class Blocks:
    """Sends single blocks as an engine would."""

    def __init__(self, world) -> None:
        self.world = world

    def request(self, number: int, payload: bytes, *, more: bool, size: int = 1024, size1: int | None = None):
        from lwm2m_server.transport import Peer, Request

        return Request(
            exchange=1000 + number,
            peer=Peer("10.0.0.1:5683"),
            code=Code.PUT,
            path=PATH,
            query=(),
            content_format=42,
            accept=None,
            observe=None,
            etags=(),
            payload=payload,
            block1=(number, more, size),
            size1=size1,
        )

    def send(self, number: int, payload: bytes, **options) -> int:
        agent = self.world.device.stack.agent
        answer, block1 = agent.package_block(self.request(number, payload, **options))
        assert block1 is not None
        return answer.code


@pytest.fixture
async def blocks(world):
    await world.run(plain=True)
    return Blocks(world)


def block(number: int) -> bytes:
    return IMAGE[number * 1024 : (number + 1) * 1024]


async def state(blocks) -> tuple[int, int]:
    return await blocks.world.server.state()


async def test_the_first_block_starts_downloading_and_the_last_completes(blocks):
    count = -(-len(IMAGE) // 1024)
    for number in range(count):
        more = number < count - 1
        expected = Code.CONTINUE if more else Code.CHANGED
        assert blocks.send(number, block(number), more=more, size1=len(IMAGE)) == expected
        assert await state(blocks) == ((1, 0) if more else (2, 0))


async def test_a_repeated_block_is_answered_again_and_stored_once(blocks):
    assert blocks.send(0, block(0), more=True) == Code.CONTINUE
    assert blocks.send(0, block(0), more=True) == Code.CONTINUE
    assert blocks.send(1, block(1), more=True) == Code.CONTINUE
    assert blocks.send(0, block(0), more=True) == Code.CONTINUE
    assert blocks.world.device.stack.updater.offset == 2048


async def test_a_skipped_block_is_incomplete_and_changes_nothing(blocks):
    blocks.send(0, block(0), more=True)
    assert blocks.send(2, block(2), more=True) == Code.REQUEST_ENTITY_INCOMPLETE
    assert blocks.send(1, block(1), more=True) == Code.CONTINUE


async def test_a_block_out_of_nowhere_is_incomplete(blocks):
    assert blocks.send(5, block(5), more=True) == Code.REQUEST_ENTITY_INCOMPLETE
    assert await state(blocks) == (0, 0)


async def test_a_second_package_needs_a_reset_first(blocks):
    blocks.send(0, block(0), more=True)
    assert blocks.send(0, b"something else", more=True) == Code.BAD_REQUEST
    assert blocks.send(0, b"\0", more=False) == Code.CHANGED
    assert await state(blocks) == (0, 0)
    assert blocks.send(0, b"something else", more=True) == Code.CONTINUE


async def test_a_smaller_block_goes_on_at_the_same_byte(blocks):
    blocks.send(0, block(0), more=True)
    assert blocks.send(2, IMAGE[1024:1536], more=True, size=512) == Code.CONTINUE
    assert blocks.send(3, IMAGE[1536:2048], more=True, size=512) == Code.CONTINUE
    assert blocks.world.device.stack.updater.offset == 2048


async def test_an_announced_size_above_the_slot_is_refused_at_the_first_block(blocks):
    assert blocks.send(0, block(0), more=True, size1=65537) == Code.REQUEST_ENTITY_TOO_LARGE
    assert await state(blocks) == (0, 2)


@pytest.mark.protection("device", "too-big")
async def test_a_package_that_grows_above_the_slot_is_refused_when_it_does(blocks):
    for number in range(64):
        assert blocks.send(number, bytes([number]) * 1024, more=True) == Code.CONTINUE
    assert blocks.send(64, b"x", more=True) == Code.REQUEST_ENTITY_TOO_LARGE
    assert await state(blocks) == (0, 2)


async def test_a_push_goes_on_after_a_kill_at_the_block_that_follows_the_last_stored(blocks):
    for number in range(5):
        blocks.send(number, block(number), more=True)
    await blocks.world.kill()
    await blocks.world.run(plain=True)
    assert await state(blocks) == (1, 0)
    count = -(-len(IMAGE) // 1024)
    for number in range(5, count):
        assert blocks.send(number, block(number), more=number < count - 1) < 128
    assert await state(blocks) == (2, 0)


async def test_a_device_that_is_to_die_at_a_percentage_does_so_once(blocks, monkeypatch):
    deaths = []
    monkeypatch.setattr("os.kill", lambda process, number: deaths.append(number))
    agent = blocks.world.device.stack.agent
    agent._death._percent = 50
    count = -(-len(IMAGE) // 1024)
    for number in range(count // 2 - 1):
        blocks.send(number, block(number), more=True, size1=len(IMAGE))
    assert deaths == []
    for number in range(count // 2 - 1, count // 2 + 2):
        blocks.send(number, block(number), more=True, size1=len(IMAGE))
    assert set(deaths) == {signal.SIGKILL}


async def test_packages_in_other_formats_than_opaque_are_refused(blocks):
    server = blocks.world.server
    response = await server.ask(Code.PUT, "/5/0/0", payload=b"[]", content_format=9999)
    assert response.code == Code.UNSUPPORTED_CONTENT_FORMAT


async def test_a_package_within_tlv_counts_as_well(blocks):
    server = blocks.world.server
    assert await server.write("/5/0/0", bytes([0xC1, 0x00, 0x00]), 11542) == Code.CHANGED
    assert await state(blocks) == (0, 0)


async def test_a_pull_only_device_takes_no_package_but_the_reset(world):
    await world.run(delivery=Delivery.PULL)
    assert await world.server.text("/5/0/9") == "0"
    assert await world.server.write("/5/0/0", b"package", 42) == Code.METHOD_NOT_ALLOWED
    assert await world.server.write("/5/0/0", b"\0", 42) == Code.CHANGED


async def test_a_push_only_device_takes_no_uri_but_the_reset(world):
    await world.run(delivery=Delivery.PUSH)
    assert await world.server.write("/5/0/1", b"coap://10.0.0.1/fw") == Code.METHOD_NOT_ALLOWED
    assert await world.server.write("/5/0/1", b"") == Code.CHANGED


@pytest.mark.parametrize(
    ("uri", "result"),
    [(b"ftp://10.0.0.1/fw", 9), (b"https://10.0.0.1/fw", 9), (b"nonsense", 7), (b"coap://", 7), (b"a b", 7)],
)
async def test_an_unusable_uri_gets_4_00_and_a_result(world, uri, result):
    await world.run()
    assert await world.server.write("/5/0/1", uri) == Code.BAD_REQUEST
    assert await world.server.state() == (0, result)


async def test_an_envelope_in_blocks_is_assembled_and_verified(world):
    await world.run()
    envelope = world.envelope(IMAGE)
    world.server.publish(IMAGE, world.folder)
    world.server.publish(envelope, world.folder)
    response = await world.server.transport.push(
        world.server.device, PATH, hashlib.sha256(envelope).digest(), block_size=64
    )
    assert response.code == Code.CHANGED
    await world.pass_time(2)
    assert await world.server.state() == (2, 0)


async def test_an_envelope_above_the_limit_is_refused(world):
    await world.run()
    response = await world.server.ask(Code.PUT, "/5/0/0", payload=bytes(8193), content_format=42)
    assert response.code == Code.REQUEST_ENTITY_TOO_LARGE
    assert await world.server.state() == (0, 2)
    assert await world.server.text(f"/{SUIT_AGENT}/0/4") == "storage-full"


async def test_cancel_stops_a_download(world):
    await world.run()
    world.server.answers = [(Code.SERVICE_UNAVAILABLE, {"max_age": 60})]
    await world.server.write("/5/0/0", world.envelope(IMAGE), 42)
    await world.pass_time(1)
    assert await world.server.state() == (1, 0)
    assert await world.server.execute("/5/0/10") == Code.CHANGED
    assert await world.server.state() == (0, 10)
    world.server.publish(IMAGE, world.folder)
    await world.pass_time(200)
    assert await world.server.state() == (0, 10)
