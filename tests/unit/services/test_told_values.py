"""What devices tell by themselves (Notify and Send): acknowledged when it is durable, kept when the store fails."""

import asyncio
import json
from typing import Any

import pytest

from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.store.errors import StoreError
from lwm2m_server.transport import Code, Response
from memory import ScriptedDevice, World

VALUES = [{"bn": "/3303/0/", "n": "5700", "v": 21.5}]


def fails(*_: object, **__: object) -> Any:
    raise StoreError("the disk is full")


async def send(device: ScriptedDevice, payload: bytes | None = None) -> Response:
    return await device.send(
        Code.POST,
        ("dp",),
        payload=json.dumps(VALUES).encode() if payload is None else payload,
        content_format=ContentFormat.SENML_JSON,
    )


async def told(world: World, kind: str) -> list[Any]:
    return [event.data["values"] for event in await world.events(kind)]


async def test_a_send_is_stored_before_it_is_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    device = await world.device()
    real = world.store.events.append
    order: list[str] = []

    async def append(events: Any) -> None:
        await asyncio.sleep(0)
        await real(events)
        order.extend(event.kind for event in events)

    monkeypatch.setattr(world.store.events, "append", append)
    answer = await send(device)
    order.append("answer")
    assert answer.code == Code.CHANGED
    assert order[-2:] == ["device.sent", "answer"]
    assert (await told(world, "device.sent"))[0][0]["value"] == 21.5


async def test_a_send_that_cant_be_stored_is_not_acknowledged_and_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await world.device()
    with monkeypatch.context() as patch:
        patch.setattr(world.store.events, "append", fails)
        answer = await send(device)
        assert (answer.code, answer.max_age) == (Code.SERVICE_UNAVAILABLE, 5)
    await world.run(10.0)
    assert await told(world, "device.sent") == []
    assert (await send(device)).code == Code.CHANGED
    assert len(await told(world, "device.sent")) == 1, "what was refused comes once, when it is sent again"


async def test_a_notification_that_cant_be_stored_at_once_is_stored_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await world.device()
    await world.answer(world.server.services.operations.observe("dev-1", "/3/0/9", actor="ann"))
    with monkeypatch.context() as patch:
        patch.setattr(world.store.events, "append", fails)
        for value in ("70", "60"):
            device.notify(("3", "0", "9"), value)
            await world.settle()
    assert await told(world, "device.notified") == []
    await world.run(10.0)
    assert [values[0]["value"] for values in await told(world, "device.notified")] == [70, 60]


async def test_values_of_the_last_moment_outlive_the_end_of_the_server(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await world.device()
    await world.answer(world.server.services.operations.observe("dev-1", "/3/0/9", actor="ann"))
    with monkeypatch.context() as patch:
        patch.setattr(world.store.events, "append", fails)
        device.notify(("3", "0", "9"), "70")
        await world.settle()
    await world.restart()
    assert [values[0]["value"] for values in await told(world, "device.notified")] == [70]


async def test_a_server_ends_though_its_store_does_not_take_the_last_values(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await world.device()
    await world.answer(world.server.services.operations.observe("dev-1", "/3/0/9", actor="ann"))
    with monkeypatch.context() as patch:
        patch.setattr(world.store.events, "append", fails)
        patch.setattr(world.store.registrations, "alive", fails)
        device.notify(("3", "0", "9"), "70")
        await world.answer(device.update())
        await world.kill()
    await world.restart()


@pytest.mark.parametrize("payload", [b"", b"{", b'[{"v": 1}]', b"\xff", b'[{"n": "/3303/0/5700", "v": []}]'])
async def test_a_send_that_cant_be_read_gets_4_00_and_a_reason(world: World, payload: bytes) -> None:
    device = await world.device()
    answer = await send(device, payload)
    assert answer.code == Code.BAD_REQUEST
    assert answer.payload
    assert await told(world, "device.sent") == []


async def test_after_a_restart_a_silent_device_keeps_no_other_from_being_observed(world: World) -> None:
    silent = await world.device("a-silent")
    device = await world.device("b-lively")
    for endpoint in ("a-silent", "b-lively"):
        await world.answer(world.server.services.operations.observe(endpoint, "/3/0/9", actor="ann"))
    silent.silent = True
    await world.restart()
    await world.run(1.0)
    device.notify(("3", "0", "9"), "55")
    await world.settle()
    assert [event.endpoint for event in await world.events("device.notified")] == ["b-lively"]
    silent.silent = False
    await silent.boot()
    await world.run(100.0)
    silent.notify(("3", "0", "9"), "44")
    await world.settle()
    assert [event.endpoint for event in await world.events("device.notified")][-1] == "a-silent"
