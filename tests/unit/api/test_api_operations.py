"""`/devices/{endpoint}/…`: how HTTP becomes LwM2M operations."""

import pytest

from lwm2m_server.errors import DeviceError, Unavailable
from lwm2m_server.transport import RequestTimeout, TransportBusy

D = "/api/v1/devices/pump-1"


async def test_get_reads_and_every_type_has_its_json(world, http) -> None:
    answer = (await http.get(f"{D}/objects/3/0", params={"timeout": 5})).json()
    assert world.devices.asked == [("read", "pump-1", "/3/0", 5.0)]
    assert answer["path"] == "/3/0"
    assert answer["values"] == [
        {"path": "/3/0/0", "name": "Manufacturer", "type": "string", "value": "Acme"},
        {"path": "/3/0/9", "name": None, "type": "integer", "value": 87},
        {"path": "/3/0/17", "name": None, "type": "opaque", "value": "01ff"},
        {"path": "/3/0/18", "name": None, "type": "float", "value": 1.5},
    ]


async def test_put_replaces_and_patch_keeps_the_rest(world, http) -> None:
    assert (await http.put(f"{D}/objects/1/0/1", json={"value": 60})).status_code == 204
    assert (await http.patch(f"{D}/objects/1/0", json={"value": {"1": 60}})).status_code == 204
    assert world.devices.asked == [
        ("write", "pump-1", "/1/0/1", 60, False, "admin"),
        ("write", "pump-1", "/1/0", {"1": 60}, True, "admin"),
    ]


async def test_post_on_a_resource_executes(world, http) -> None:
    assert (await http.post(f"{D}/objects/3/0/4", json={"arguments": "0='now'"})).status_code == 204
    assert (await http.post(f"{D}/objects/3/0/4")).status_code == 204
    assert [asked[3] for asked in world.devices.asked] == ["0='now'", ""]


async def test_post_on_an_object_creates_an_instance(world, http) -> None:
    answer = await http.post(f"{D}/objects/3303", json={"instance": 2, "value": {"5700": 1}})
    assert (answer.status_code, answer.json()) == (201, {"path": "/3303/2"})
    assert world.devices.asked == [("create", "pump-1", "/3303", {"5700": 1}, 2, "admin")]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("3/0", {}, "path"),
        ("3/0/4", {"value": {"1": 1}}, "value"),
        ("3303", {"arguments": "0"}, "arguments"),
        ("3303", {"instance": 70000}, "instance"),
        ("3303", {"nonsense": 1}, "nonsense"),
    ],
)
async def test_a_post_that_means_nothing_is_refused(world, http, path, body, field) -> None:
    answer = await http.post(f"{D}/objects/{path}", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert world.devices.asked == []


async def test_delete_discover_and_write_attributes(world, http) -> None:
    assert (await http.delete(f"{D}/objects/3303/1")).status_code == 204
    links = (await http.get(f"{D}/discover/3/0")).json()["items"]
    assert links[0] == {"path": "/3/0", "attributes": {"ver": "1.1", "obs": None}}
    answer = await http.patch(
        f"{D}/notification-attributes/3/0/9", json={"attributes": {"pmin": 10, "gt": None}}
    )
    assert answer.status_code == 204
    assert world.devices.asked[-1] == (
        "write_attributes",
        "pump-1",
        "/3/0/9",
        {"pmin": 10.0, "gt": None},
        "admin",
    )
    unknown = await http.patch(f"{D}/notification-attributes/3/0/9", json={"attributes": {"pmn": 1}})
    assert unknown.status_code == 422


async def test_observations_are_made_listed_and_ended(world, http) -> None:
    answer = await http.post(f"{D}/observations", json={"path": "/3303/0/5700"})
    assert answer.status_code == 201
    assert answer.json()["values"][0]["value"] == 21.5
    assert (await http.get(f"{D}/observations")).json()["items"][0]["path"] == "/3/0/9"
    assert (await http.delete(f"{D}/observations/3/0/9")).status_code == 204
    assert world.devices.asked[-1] == ("cancel", "pump-1", "/3/0/9", "admin")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DeviceError("it answered 4.05", code="4.05"), 502, "device-error"),
        (RequestTimeout("no answer"), 504, "timeout"),
        (TransportBusy("too much to do"), 503, "busy"),
        (Unavailable("asleep", code="asleep"), 503, "asleep"),
    ],
)
async def test_what_goes_wrong_with_a_device_has_its_own_status(world, http, error, status, code) -> None:
    world.devices.error = error
    answer = await http.get(f"{D}/objects/3/0")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json().get("coap_code") == ("4.05" if status == 502 else None)
    assert ("retry-after" in answer.headers) == (status == 503)
