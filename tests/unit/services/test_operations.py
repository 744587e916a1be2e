"""Operations on a device: formats and their fall-back, turns, queue mode, errors, observations."""

import asyncio

import pytest

from harness.releases import VENDOR
from lwm2m_server.errors import DeviceError, InvalidInput, NotFound, Unavailable
from lwm2m_server.firmware.suit import vendor_id
from lwm2m_server.services.exchange import PATIENCE
from lwm2m_server.services.inventory import CONCURRENCY
from memory import World
from memory.device import paths


async def test_an_instance_is_read_with_names(world: World) -> None:
    await world.device()
    result = await world.answer(world.server.services.operations.read("dev-1", "/3/0"))
    values = {value.path: (value.value, value.name) for value in result.values}
    assert values["/3/0/0"] == ("Acme", "Manufacturer")
    assert values["/3/0/3"] == ("1.0.0", "Firmware Version")
    assert [value.path for value in result.values] == sorted(value.path for value in result.values)


async def test_a_refused_format_is_not_asked_for_again(world: World) -> None:
    device = await world.device(booted=False, refused_formats=frozenset({112, 110}))
    await world.answer(device.boot())
    operations = world.server.services.operations
    result = await world.answer(operations.read("dev-1", "/3/0"))
    assert result.content_format == 11542
    device.requests.clear()
    await world.answer(operations.read("dev-1", "/3/0"))
    assert paths(device.requests) == ["GET /3/0"], "the first try is the one that works"
    await world.restart()
    device.requests.clear()
    await world.answer(world.server.services.operations.read("dev-1", "/3/0"))
    assert paths(device.requests) == ["GET /3/0"], "also after a restart"


async def test_an_error_of_the_device_has_its_code(world: World) -> None:
    await world.device()
    with pytest.raises(DeviceError) as caught:
        await world.answer(world.server.services.operations.read("dev-1", "/4/0"))
    assert caught.value.code == "4.04"
    assert caught.value.field == "/4/0"


async def test_unknown_unregistered_and_silent_devices(world: World) -> None:
    device = await world.device()
    operations = world.server.services.operations
    with pytest.raises(NotFound):
        await operations.read("nobody", "/3/0")
    device.silent = True
    with pytest.raises(Unavailable) as caught:
        await world.answer(operations.read("dev-1", "/3/0"))
    assert caught.value.code == "timeout"
    device.silent = False
    await world.answer(device.deregister())
    with pytest.raises(Unavailable) as caught:
        await operations.read("dev-1", "/3/0")
    assert caught.value.code == "not-registered"


async def test_a_device_in_queue_mode_is_asked_only_while_it_is_awake(world: World) -> None:
    device = await world.device()
    await world.answer(device.register("Q"))
    operations = world.server.services.operations
    await world.answer(operations.read("dev-1", "/3/0/0"))
    await world.run(120.0)
    with pytest.raises(Unavailable) as caught:
        await operations.read("dev-1", "/3/0/0")
    assert caught.value.code == "asleep"
    await world.answer(device.update())
    await world.settle()
    await world.answer(operations.read("dev-1", "/3/0/0"))


async def test_writes_take_names_and_types_of_the_definition(world: World) -> None:
    device = await world.device()
    operations = world.server.services.operations
    await world.answer(operations.write("dev-1", "/3/0/14", "+02:00", actor="ann"))
    assert device.values["/3/0/14"] == "+02:00"
    for path, value in (("/3/0/0", "Other"), ("/3/0/14", 5), ("/1/0/1", "soon"), ("/1/0/6", 3)):
        device.requests.clear()
        with pytest.raises(InvalidInput):
            await world.answer(operations.write("dev-1", path, value, actor="ann"))
        assert device.requests == [], "nothing was sent"
    (event,) = await world.events("device.written")
    assert (event.endpoint, event.data) == ("dev-1", {"path": "/3/0/14", "by": "ann"})


async def test_execute_discover_create_delete_attributes(world: World) -> None:
    device = await world.device()
    operations = world.server.services.operations
    await world.answer(operations.execute("dev-1", "/1/0/8", actor="ann"))
    with pytest.raises(InvalidInput):
        await world.answer(operations.execute("dev-1", "/3/0/0", actor="ann"))
    with pytest.raises(InvalidInput):
        await world.answer(operations.execute("dev-1", "/1/0/8", "no arguments these", actor="ann"))
    links = await world.answer(operations.discover("dev-1", "/3"))
    assert "/3/0/3" in {link.path for link in links}
    created = await world.answer(
        operations.create("dev-1", "/9", {"3": "coap://x/y"}, instance=7, actor="ann")
    )
    assert created == "/9/7"
    await world.answer(operations.delete("dev-1", "/9/7", actor="ann"))
    await world.answer(operations.write_attributes("dev-1", "/3/0/9", {"pmin": 5, "gt": 20.0}, actor="ann"))
    with pytest.raises(InvalidInput):
        await world.answer(operations.write_attributes("dev-1", "/3/0/9", {"pmin": -5}, actor="ann"))
    assert paths(device.requests)[-5:] == ["POST /1/0/8", "GET /3", "POST /9", "DELETE /9/7", "PUT /3/0/9"]


async def test_one_request_at_a_time_in_their_order(world: World) -> None:
    device = await world.device()
    world.network.delay = 1.0
    operations = world.server.services.operations
    device.requests.clear()
    numbers = (0, 1, 3, 9)
    tasks = [asyncio.create_task(operations.read("dev-1", f"/3/0/{number}")) for number in numbers]
    await world.settle()
    await world.run(1.5)
    assert len(device.requests) == 1
    await world.run(20.0)
    assert paths(device.requests) == [f"GET /3/0/{number}" for number in numbers]
    await asyncio.gather(*tasks)


async def test_who_gives_up_waiting_does_not_block_the_rest(world: World) -> None:
    device = await world.device()
    device.silent = True
    operations = world.server.services.operations
    tasks = [asyncio.create_task(operations.read("dev-1", "/3/0/0")) for _ in range(3)]
    await world.settle()
    tasks[1].cancel()
    await world.run(PATIENCE + 1.0)
    with pytest.raises(Unavailable) as caught:
        await tasks[2]
    assert caught.value.code == "busy"
    device.silent = False
    await world.run(60.0)
    await asyncio.gather(*tasks, return_exceptions=True)
    await world.answer(operations.read("dev-1", "/3/0/0"))


async def test_during_a_push_nothing_else_is_sent(world: World) -> None:
    device = await world.device(delivery=1)
    world.network.delay = 0.3
    campaign = await world.campaign(await world.release())
    await world.reach(campaign, "downloading")
    device.requests.clear()
    with pytest.raises(Unavailable) as caught:
        await world.server.services.operations.read("dev-1", "/3/0")
    assert caught.value.code == "busy"
    await world.run(3.0)
    assert set(paths(device.requests)) == {"PUT /5/0/0"}
    await world.outcome(campaign)


async def test_an_observation_tells_new_values_and_outlives_both_sides_restarts(world: World) -> None:
    device = await world.device()
    operations = world.server.services.operations
    first = await world.answer(operations.observe("dev-1", "/3/0/9", actor="ann"))
    assert [value.value for value in first.values] == [80]
    device.notify(("3", "0", "9"), "79")
    await world.settle()
    await device.boot()
    await world.run(2.0)
    device.notify(("3", "0", "9"), "78")
    await world.settle()
    await world.restart()
    await world.run(2.0)
    device.notify(("3", "0", "9"), "77")
    await world.settle()
    told = [event.data["values"] for event in await world.events("device.notified")]
    assert told == [[{"path": "/3/0/9", "value": number}] for number in (79, 78, 77)]
    operations = world.server.services.operations
    assert [wish.path for wish in await operations.observations("dev-1")] == ["/3/0/9"]
    await operations.cancel("dev-1", "/3/0/9", actor="ann")
    assert await operations.observations("dev-1") == ()
    device.notify(("3", "0", "9"), "76")
    await world.settle()
    assert len(await world.events("device.notified")) == 3
    with pytest.raises(NotFound):
        await operations.cancel("dev-1", "/3/0/9", actor="ann")


async def test_what_cant_be_observed_is_not_kept(world: World) -> None:
    await world.device()
    operations = world.server.services.operations
    with pytest.raises(DeviceError):
        await world.answer(operations.observe("dev-1", "/4/0/0", actor="ann"))
    assert await operations.observations("dev-1") == ()


async def test_a_deleted_device_is_observed_no_more(world: World) -> None:
    device = await world.device()
    await world.answer(world.server.services.operations.observe("dev-1", "/3/0/9", actor="ann"))
    await world.server.services.directory.delete("dev-1", actor="ann")
    device.notify(("3", "0", "9"), "1")
    await world.settle()
    assert await world.events("device.notified") == []


@pytest.mark.parametrize("path", ["", "3/0/x", "/3/0/0/0/0", "/70000"])
async def test_bad_paths_are_named(world: World, path: str) -> None:
    await world.device()
    with pytest.raises(InvalidInput) as caught:
        await world.answer(world.server.services.operations.read("dev-1", path))
    assert caught.value.field == "path"


async def test_inventory_fills_the_facts_and_tells_of_changes(world: World) -> None:
    device = await world.device(agent=True)
    found = await world.server.services.directory.get("dev-1")
    facts = found.facts
    assert (facts.manufacturer, facts.model, facts.firmware_version) == ("Acme", "M1", "1.0.0")
    assert (facts.vendor_id, facts.understands_manifests) == (vendor_id(VENDOR), True)
    assert facts.running_digest == bytes(32)
    device.version = "1.1.0"
    await device.boot()
    await world.run(1.0)
    assert (await world.server.services.directory.get("dev-1")).facts.firmware_version == "1.1.0"
    assert len(await world.events("device.inventory")) == 2
    await device.boot()
    await world.run(1.0)
    assert len(await world.events("device.inventory")) == 2, "nothing new, nothing said"


async def test_of_a_fleet_that_registers_at_once_a_bounded_number_is_asked_at_a_time(world: World) -> None:
    devices = [await world.device(f"d{number}", booted=False, silent=True) for number in range(200)]
    for device in devices:
        await device.boot()
    await world.settle()
    assert sum(bool(device.requests) for device in devices) == CONCURRENCY
    for device in devices:
        device.silent = False
    await world.run(400.0)
    page = await world.server.services.directory.list(filter='manufacturer = "Acme"', limit=1000)
    assert len(page.items) >= 200 - CONCURRENCY
