"""The operations of LwM2M on the device's objects, asked for by a server: formats, errors, observation."""

import pytest

from lwm2m_server.lwm2m.formats import ContentFormat, decode
from lwm2m_server.lwm2m.links import parse_links
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.transport import Code, Peer
from lwm2m_server.transport.memory import MemoryTransport

TLV, SENML_JSON, SENML_CBOR = ContentFormat.TLV, ContentFormat.SENML_JSON, ContentFormat.SENML_CBOR


@pytest.fixture
async def server(world):
    await world.run()
    return world.server


def values(response, path: str, world) -> dict[str, object]:
    tree = world.device.stack.tree
    nodes = decode(response.content_format, response.payload, Path.parse(path), tree)
    return {str(node.path): node.value for node in nodes}


@pytest.mark.parametrize("accept", [None, TLV, SENML_JSON, SENML_CBOR])
async def test_an_instance_is_read_in_every_format_that_holds_several_values(server, world, accept):
    response = await server.ask(Code.GET, "/3/0", accept=accept)
    assert response.code == Code.CONTENT
    assert response.content_format == (TLV if accept is None else accept)
    found = values(response, "/3/0", world)
    assert found["/3/0/0"] == "Acme"
    assert found["/3/0/3"] == "1.0.0"
    assert found["/3/0/6/1"] == 6
    assert found["/3/0/11/0"] == 0
    assert "/3/0/4" not in found


@pytest.mark.parametrize(
    ("path", "accept", "expected", "payload"),
    [
        ("/3/0/3", None, ContentFormat.TEXT, b"1.0.0"),
        ("/3/0/9", ContentFormat.TEXT, ContentFormat.TEXT, b"100"),
        ("/3/0/9", ContentFormat.CBOR, ContentFormat.CBOR, b"\x18\x64"),
        ("/5/0/8/0", None, ContentFormat.TEXT, b"0"),
        ("/42800/0/0", None, ContentFormat.OPAQUE, None),
    ],
)
async def test_a_single_value_is_read_in_its_natural_format_or_the_one_asked_for(
    server, path, accept, expected, payload
):
    response = await server.ask(Code.GET, path, accept=accept)
    assert (response.code, response.content_format) == (Code.CONTENT, expected)
    assert payload is None or response.payload == payload


@pytest.mark.parametrize(
    ("code", "path", "options", "expected"),
    [
        (Code.GET, "/3/0", {"accept": ContentFormat.TEXT}, Code.NOT_ACCEPTABLE),
        (Code.GET, "/3/0/0", {"accept": ContentFormat.OPAQUE}, Code.NOT_ACCEPTABLE),
        (Code.GET, "/3/0/0", {"accept": 11543}, Code.NOT_ACCEPTABLE),
        (Code.GET, "/3/0/0", {"accept": 9999}, Code.NOT_ACCEPTABLE),
        (Code.GET, "/99", {}, Code.NOT_FOUND),
        (Code.GET, "/3/1", {}, Code.NOT_FOUND),
        (Code.GET, "/3/0/99", {}, Code.NOT_FOUND),
        (Code.GET, "/3/0/6/7", {}, Code.NOT_FOUND),
        (Code.GET, "/0/0", {}, Code.UNAUTHORIZED),
        (Code.GET, "/0/0/0", {}, Code.UNAUTHORIZED),
        (Code.GET, "/", {}, Code.METHOD_NOT_ALLOWED),
        (Code.GET, "/3/0/4", {}, Code.METHOD_NOT_ALLOWED),
        (Code.GET, "/5/0/0", {}, Code.METHOD_NOT_ALLOWED),
        (Code.PUT, "/3/0/3", {"payload": b"9", "content_format": 0}, Code.METHOD_NOT_ALLOWED),
        (Code.PUT, "/3", {"payload": b"", "content_format": TLV}, Code.METHOD_NOT_ALLOWED),
        (Code.PUT, "/1/0/1", {"payload": b"x", "content_format": 0}, Code.BAD_REQUEST),
        (Code.PUT, "/1/0/1", {"payload": b"-5", "content_format": 0}, Code.BAD_REQUEST),
        (Code.PUT, "/1/0/1", {"payload": b"60", "content_format": 9999}, Code.UNSUPPORTED_CONTENT_FORMAT),
        (Code.PUT, "/1/0/7", {"payload": b"UQS", "content_format": 0}, Code.BAD_REQUEST),
        (Code.PUT, "/5/0/11", {"payload": b"3", "content_format": 0}, Code.BAD_REQUEST),
        (Code.PUT, "/1/0", {"payload": b"\xff", "content_format": TLV}, Code.BAD_REQUEST),
        (Code.PUT, "/1/0", {"payload": b"60", "content_format": 0}, Code.BAD_REQUEST),
        (Code.POST, "/3/0/3", {}, Code.METHOD_NOT_ALLOWED),
        (Code.POST, "/5/0/2", {}, Code.METHOD_NOT_ALLOWED),
        (Code.POST, "/5/0/10", {}, Code.METHOD_NOT_ALLOWED),
        (Code.POST, "/5/0/2", {"payload": b"1", "content_format": 0}, Code.BAD_REQUEST),
        (Code.POST, "/3", {"payload": b"", "content_format": TLV}, Code.METHOD_NOT_ALLOWED),
        (Code.DELETE, "/3/0", {}, Code.METHOD_NOT_ALLOWED),
        (Code.DELETE, "/3303/7", {}, Code.NOT_FOUND),
        (Code.DELETE, "/3303", {}, Code.METHOD_NOT_ALLOWED),
        (Code.FETCH, "/", {"payload": b"\x80", "content_format": SENML_CBOR}, Code.METHOD_NOT_ALLOWED),
        (Code.PUT, "/3/0/9", {"query": ("pmin=x",)}, Code.BAD_REQUEST),
        (Code.PUT, "/3/0/9", {"query": ("pmin=9", "pmax=5")}, Code.BAD_REQUEST),
        (Code.PUT, "/3/0/9", {"query": ("speed=9",)}, Code.BAD_REQUEST),
        (Code.PUT, "/3/0/99", {"query": ("pmin=9",)}, Code.NOT_FOUND),
    ],
)
async def test_what_can_not_be_done_gets_its_code(server, code, path, options, expected):
    response = await server.ask(code, path, **options)
    assert response.code == expected, response.payload


async def test_paths_that_are_no_ids_are_not_found(server, world):
    response = await server.transport.request(server.device, Code.GET, ("well-known", "core"))
    assert response.code == Code.NOT_FOUND


async def test_a_stranger_is_refused(server, world):
    stranger = MemoryTransport(world.network)
    await stranger.listen("10.9.9.9", 5683)
    response = await stranger.request(Peer(server.device.address), Code.GET, ("3", "0", "3"))
    assert response.code == Code.UNAUTHORIZED
    await stranger.close()


async def test_a_write_to_several_resources_is_all_or_nothing(server, world):
    good = b'[{"bn":"/1/0/","n":"2","v":7},{"n":"3","v":70}]'
    bad = b'[{"bn":"/1/0/","n":"2","v":8},{"n":"3","vs":"x"}]'
    assert (
        await server.ask(Code.POST, "/1/0", payload=bad, content_format=SENML_JSON)
    ).code == Code.BAD_REQUEST
    assert await server.text("/1/0/2") == "0"
    assert (await server.ask(Code.POST, "/1/0", payload=good, content_format=SENML_JSON)).code == Code.CHANGED
    assert await server.text("/1/0/2") == "7"
    assert await server.text("/1/0/3") == "70"


async def test_discover_lists_instances_resources_dimensions_and_attributes(server):
    await server.ask(Code.PUT, "/3/0/9", query=("pmin=10", "pmax=60"))
    response = await server.ask(Code.GET, "/3", accept=ContentFormat.LINK_FORMAT)
    assert response.content_format == ContentFormat.LINK_FORMAT
    links = {link.target: dict(link.attributes) for link in parse_links(response.payload)}
    assert links["/3"] == {"ver": "1.2"}
    assert links["/3/0"] == {}
    assert links["/3/0/6"] == {"dim": "2"}
    assert links["/3/0/9"] == {"pmin": "10", "pmax": "60"}
    assert "/3/0/4" in links
    one = await server.ask(Code.GET, "/3/0/9", accept=ContentFormat.LINK_FORMAT)
    assert one.payload == b"</3/0/9>;pmin=10;pmax=60"


async def test_sensors_are_created_and_deleted(server):
    created = await server.ask(Code.POST, "/3303", payload=b"", content_format=TLV)
    assert (created.code, created.location_path) == (Code.CREATED, ("3303", "1"))
    named = await server.ask(
        Code.POST, "/3303", payload=b'[{"bn":"/3303/7/","n":"5750","vs":"attic"}]', content_format=SENML_JSON
    )
    assert named.location_path == ("3303", "7")
    assert await server.text("/3303/7/5750") == "attic"
    again = await server.ask(
        Code.POST, "/3303", payload=b'[{"bn":"/3303/7/","n":"5750","vs":"attic"}]', content_format=SENML_JSON
    )
    assert again.code == Code.BAD_REQUEST
    assert (await server.ask(Code.DELETE, "/3303/7")).code == Code.DELETED
    assert (await server.ask(Code.GET, "/3303/7")).code == Code.NOT_FOUND


async def observe(server, path: str):
    got: list[tuple[int, bytes]] = []
    handle, first = await server.transport.observe(
        server.device,
        Path.parse(path).segments,
        accept=None,
        on_notify=lambda each: got.append((each.code, each.payload)),
        on_end=lambda reason: got.append((0, reason.encode())),
    )
    assert first.observe is not None
    return handle, got


async def test_a_change_is_notified_at_once(server, world):
    _, got = await observe(server, "/1/0/5")
    await server.write("/1/0/5", b"5")
    await world.network.advance(0)
    assert got == [(Code.CONTENT, b"5")]


async def test_no_change_is_not_notified(server, world):
    _, got = await observe(server, "/1/0/2")
    await world.network.advance(100)
    assert got == []


async def test_changes_wait_for_pmin_and_only_the_last_is_notified(server, world):
    await server.ask(Code.PUT, "/1/0/5", query=("pmin=30",))
    _, got = await observe(server, "/1/0/5")
    await world.network.advance(5)
    await server.write("/1/0/5", b"1")
    await world.network.advance(10)
    await server.write("/1/0/5", b"2")
    assert got == []
    await world.network.advance(20)
    assert got == [(Code.CONTENT, b"2")]


async def test_an_unchanged_value_is_notified_at_pmax(server, world):
    await server.ask(Code.PUT, "/3/0", query=("pmax=20",))
    _, got = await observe(server, "/3/0/9")
    await world.network.advance(65)
    assert got == [(Code.CONTENT, b"100")] * 3


async def test_attributes_of_a_lower_level_win_and_can_be_taken_back(server, world):
    await server.ask(Code.PUT, "/3", query=("pmax=20",))
    await server.ask(Code.PUT, "/3/0/9", query=("pmax=50",))
    _, got = await observe(server, "/3/0/9")
    await world.network.advance(45)
    assert got == []
    await server.ask(Code.PUT, "/3/0/9", query=("pmax",))
    await world.network.advance(2)
    assert len(got) == 1


async def test_the_default_periods_of_the_account_hold_without_attributes(server, world):
    await server.write("/1/0/3", b"10")
    _, got = await observe(server, "/3/0/9")
    await world.network.advance(25)
    assert len(got) == 2


async def test_steps_and_thresholds_filter_a_number(server, world):
    await server.ask(Code.PUT, "/1/0/5", query=("st=100",))
    _, got = await observe(server, "/1/0/5")
    await server.write("/1/0/5", b"86450")
    await world.network.advance(1)
    assert got == []
    await server.write("/1/0/5", b"86500")
    await world.network.advance(1)
    assert got == [(Code.CONTENT, b"86500")]


async def test_a_cancelled_observation_gets_no_more(server, world):
    handle, got = await observe(server, "/1/0/5")
    server.transport.cancel(handle)
    await world.network.advance(1)
    await server.write("/1/0/5", b"9")
    await world.network.advance(1)
    assert got == []
    assert len(world.device.stack.observations) == 0


async def test_a_deleted_instance_ends_its_observation(server, world):
    await server.ask(Code.POST, "/3303", payload=b"", content_format=TLV)
    _, got = await observe(server, "/3303/1/5701")
    await server.ask(Code.DELETE, "/3303/1")
    await world.network.advance(1)
    assert (0, b"4.04") in got or got[-1][0] == Code.NOT_FOUND


async def test_current_time_can_be_set(server, world):
    assert await server.write("/3/0/13", b"2000000") == Code.CHANGED
    await world.network.advance(5)
    assert int(await server.text("/3/0/13")) == 2000005


async def test_a_reboot_registers_again_with_all_observations_gone(server, world):
    _, got = await observe(server, "/1/0/5")
    assert await server.execute("/3/0/4") == Code.CHANGED
    await world.network.advance(5)
    assert len(server.registers()) == 2
    await server.write("/1/0/5", b"9")
    await world.network.advance(1)
    assert got == []


async def test_a_lwm2m_1_0_device_speaks_no_senml(world):
    await world.run(lwm2m_version="1.0")
    assert "lwm2m=1.0" in world.server.registers()[0].query
    response = await world.server.ask(Code.GET, "/3/0", accept=SENML_CBOR)
    assert response.code == Code.NOT_ACCEPTABLE
    assert (await world.server.ask(Code.GET, "/3/0")).content_format == TLV
