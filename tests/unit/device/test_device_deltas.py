"""The reference device takes deltas: streamed into its slot, resumed after a kill, refused when they don't serve."""

import hashlib
import random

import pytest

from lwm2m_device.settings import DELTA_METHODS
from lwm2m_server.firmware.deltas import Method, create
from lwm2m_server.firmware.deltas.negotiation import Description, read_report, read_wish
from lwm2m_server.transport import Code

OLD = b"firmware-version: 1.0.0\n" + bytes(random.Random(1).choices(range(12), k=20_000))
NEW = (
    b"firmware-version: 2.0.0\n"
    + OLD[24:9_000]
    + bytes(random.Random(2).choices(range(12), k=3_000))
    + OLD[9_000:]
)


def delta(
    world, patch: bytes, *, method: str = "thumb", size: int | None = None, digest: bytes | None = None
):
    """Serve a patch and return the answer that describes it."""
    path = tuple(world.server.publish(patch, world.folder)[1:].split("/"))
    described = Description(
        method, path, len(patch) if size is None else size, digest or hashlib.sha256(patch).digest()
    )
    return (Code.CONTENT, {"payload": described.encode(), "content_format": 60})


def asked(world):
    return [each for each in world.server.seen if each.path[-1:] == ("delta",) and each.code == Code.GET]


def reported(world):
    return [each for each in world.server.seen if each.path[-1:] == ("delta",) and each.code == Code.POST]


async def offer(world, answer, *, image: bytes = NEW, **changes) -> None:
    world.server.publish(image, world.folder)
    world.server.answers = [answer]
    envelope = world.envelope(image, **changes)
    assert await world.server.write("/5/0/0", envelope, 42) == Code.CHANGED
    await world.pass_time(5)


@pytest.mark.parametrize("method", DELTA_METHODS)
async def test_the_image_is_made_from_the_running_one_by_every_method(world, method):
    await world.run(initial_image=OLD)
    patch = create(Method(method), OLD, NEW)
    await offer(world, delta(world, patch, method=method))
    assert await world.server.state() == (2, 0)
    wish = read_wish(asked(world)[0].query)
    assert (wish.base, wish.methods) == (hashlib.sha256(OLD).digest(), DELTA_METHODS)
    assert asked(world)[0].path == ("fw", hashlib.sha256(NEW).hexdigest(), "delta")
    assert not any("Fetching image" in line for line in world.log)
    await world.server.execute("/5/0/2")
    await world.pass_time(5)
    assert await world.server.text("/3/0/3") == "2.0.0"


async def test_the_next_update_takes_a_delta_to_the_image_that_runs_then(world):
    await world.run(initial_image=OLD)
    await offer(world, delta(world, create(Method.THUMB, OLD, NEW)))
    await world.server.execute("/5/0/2")
    await world.pass_time(5)
    third = NEW.replace(b"2.0.0", b"3.0.0", 1)
    patch = create(Method.THUMB, NEW, third)
    await offer(world, delta(world, patch), image=third, version="3.0.0", sequence_number=3)
    assert await world.server.state() == (2, 0)
    assert read_wish(asked(world)[-1].query).base == hashlib.sha256(NEW).digest()
    assert not any("Fetching image" in line for line in world.log)


async def whole_image_after(world, answer, reason: str | None) -> None:
    await world.run(initial_image=OLD)
    await offer(world, answer(world))
    await world.pass_time(10)
    assert await world.server.state() == (2, 0)
    assert any("Fetching image" in line for line in world.log)
    assert [read_report(each.query).reason for each in reported(world)] == (
        [] if reason is None else [reason]
    )


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.FORBIDDEN, Code.BAD_REQUEST, Code.METHOD_NOT_ALLOWED])
async def test_without_a_delta_the_whole_image_is_fetched(world, code):
    await whole_image_after(world, lambda _: (code, {}), None)


@pytest.mark.protection("device", "delta-result")
async def test_a_patch_that_makes_another_image_is_refused_told_and_replaced_by_the_image(world):
    other = bytes(NEW[:-1]) + b"x"
    await whole_image_after(world, lambda w: delta(w, create(Method.THUMB, OLD, other)), "digest-mismatch")


async def test_a_patch_that_is_none_is_refused_told_and_replaced_by_the_image(world):
    await whole_image_after(world, lambda w: delta(w, b"no patch at all" * 20), "delta-unusable")


@pytest.mark.protection("device", "delta-result")
async def test_a_patch_with_another_digest_than_announced_is_refused_before_it_is_applied(world):
    patch = create(Method.THUMB, OLD, NEW)
    await whole_image_after(world, lambda w: delta(w, patch, digest=b"\x01" * 32), "digest-mismatch")


async def test_a_patch_of_another_size_than_announced_is_refused(world):
    patch = create(Method.THUMB, OLD, NEW)
    await whole_image_after(world, lambda w: delta(w, patch, size=len(patch) - 1), "delta-unusable")


async def test_a_method_that_the_device_did_not_name_is_not_taken(world):
    patch = create(Method.HDIFFPATCH, OLD, NEW)
    await whole_image_after(world, lambda w: delta(w, patch, method="hdiffpatch"), None)


async def test_an_answer_that_is_no_description_leads_to_the_whole_image(world):
    await whole_image_after(world, lambda _: (Code.CONTENT, {"payload": b"\xff", "content_format": 60}), None)


async def test_a_patch_that_is_not_there_leads_to_the_whole_image(world):
    def answer(_):
        described = Description("thumb", ("fw", "00"), 100, b"\x01" * 32)
        return (Code.CONTENT, {"payload": described.encode(), "content_format": 60})

    await world.run(initial_image=OLD)
    await offer(world, answer(world))
    world.server.answers = [(Code.NOT_FOUND, {})]
    await world.pass_time(60)
    assert await world.server.state() == (2, 0)


async def test_a_device_waits_for_a_server_that_is_making_the_delta(world):
    await world.run(initial_image=OLD)
    patch = create(Method.THUMB, OLD, NEW)
    world.server.publish(NEW, world.folder)
    world.server.answers = [(Code.SERVICE_UNAVAILABLE, {"max_age": 10}), delta(world, patch)]
    await world.server.write("/5/0/0", world.envelope(NEW), 42)
    await world.pass_time(30)
    assert await world.server.state() == (2, 0)
    assert len(asked(world)) == 2
    assert not any("Fetching image" in line for line in world.log)


async def test_a_server_that_takes_too_long_is_asked_for_the_whole_image(world):
    await world.run(initial_image=OLD)
    world.server.publish(NEW, world.folder)
    world.server.answers = [(Code.SERVICE_UNAVAILABLE, {"max_age": 25})] * 3
    await world.server.write("/5/0/0", world.envelope(NEW), 42)
    await world.pass_time(200)
    assert await world.server.state() == (2, 0)
    assert any("Fetching image" in line for line in world.log)


async def test_without_room_for_both_the_whole_image_is_fetched(world):
    size = -(-len(NEW) // 4096) * 4096
    await world.run(initial_image=OLD, slot_size=size)
    await offer(world, delta(world, create(Method.THUMB, OLD, NEW)))
    assert await world.server.state() == (2, 0)
    assert any("no room" in line for line in world.log)


async def test_a_device_told_to_take_no_deltas_does_not_ask(world):
    await world.run(initial_image=OLD, delta_methods=())
    world.server.publish(NEW, world.folder)
    await world.server.write("/5/0/0", world.envelope(NEW), 42)
    await world.pass_time(5)
    assert await world.server.state() == (2, 0)
    assert not asked(world)


async def test_a_killed_device_goes_on_with_its_patch_where_it_was(world):
    patch = create(Method.LZMA, OLD, NEW)
    await world.run(initial_image=OLD)
    world.server.publish(NEW, world.folder)
    world.server.answers = [delta(world, patch, method="lzma")]
    await world.server.write("/5/0/0", world.envelope(NEW), 42)
    while not any("Stored" in line for line in world.log):
        await world.network.advance(0.01)
    await world.kill()
    world.log.clear()
    await world.run(initial_image=OLD)
    await world.pass_time(10)
    assert await world.server.state() == (2, 0)
    (line,) = [line for line in world.log if "Fetching the delta" in line]
    assert int(line.rsplit(" ", 1)[1]) > 0
    assert len(asked(world)) == 1
