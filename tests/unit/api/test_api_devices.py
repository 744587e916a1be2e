"""`/devices`, their attributes and history, `/filters`, `/objects`."""

from urllib.parse import quote

import httpx

V1 = "/api/v1"


async def test_a_list_comes_in_pages_by_endpoint(world, http) -> None:
    for number in range(5):
        await world.register(f"pump-{number}")
    first = (await http.get(f"{V1}/devices", params={"limit": 3})).json()
    assert [device["endpoint"] for device in first["items"]] == ["pump-0", "pump-1", "pump-2"]
    rest = (await http.get(f"{V1}/devices", params={"limit": 3, "after": first["next"]})).json()
    assert [device["endpoint"] for device in rest["items"]] == ["pump-3", "pump-4"]
    assert rest["next"] is None


async def test_a_filter_selects_and_versions_compare_semantically(world, http) -> None:
    await world.register("pump-old", version="1.9.0")
    await world.register("pump-new", version="1.10.0")
    found = (await http.get(f"{V1}/devices", params={"filter": "firmware.version < 1.10.0"})).json()
    assert [device["endpoint"] for device in found["items"]] == ["pump-old"]


async def test_a_device_shows_facts_and_registration_with_iso_times(world, http) -> None:
    await world.register("pump-1")
    device = (await http.get(f"{V1}/devices/pump-1")).json()
    assert device["firmware"] == {"version": "1.9.0", "digest": "00" * 32}
    assert device["registration"]["last_seen"] == "2027-01-15T08:00:00Z"
    assert device["registered"] is True


async def test_an_endpoint_with_slashes_and_spaces_is_one_segment(world, http) -> None:
    name = "pump a/b%ü"
    await world.register(name)
    url = httpx.URL(f"http://test{V1}/devices/{quote(name, safe='')}")
    assert (await http.get(url)).json()["endpoint"] == name


async def test_an_unknown_device_is_a_problem_with_field_and_hint(http) -> None:
    answer = await http.get(f"{V1}/devices/nobody")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "not-found"
    assert problem["field"] == "endpoint"
    assert problem["hint"]
    assert problem["type"] == "urn:lwm2m-server:problem:not-found"


async def test_a_filter_with_a_mistake_is_answered_with_its_position(http) -> None:
    for path in ("/devices", "/filters/preview"):
        answer = await http.get(V1 + path, params={"filter": 'model = "pump" und x'})
        assert answer.status_code == 422
        problem = answer.json()
        assert (problem["code"], problem["field"], problem["position"]) == ("invalid-filter", "filter", 15)


async def test_a_preview_counts_and_shows_some(world, http) -> None:
    for number in range(3):
        await world.register(f"pump-{number}")
    answer = await http.get(f"{V1}/filters/preview", params={"filter": 'model = "pump"', "sample": 2})
    assert answer.json() == {"filter": 'model = "pump"', "count": 3, "sample": ["pump-0", "pump-1"]}


async def test_attributes_are_set_and_removed_and_if_match_guards_them(world, http) -> None:
    await world.register("pump-1")
    url = f"{V1}/devices/pump-1/attributes"
    answer = await http.patch(url, json={"attributes": {"region": "eu", "floor": 3}})
    assert answer.json() == {"attributes": {"region": "eu", "floor": 3}}
    etag = answer.headers["etag"]
    assert (await http.get(url)).headers["etag"] == etag
    changed = await http.patch(url, json={"attributes": {"floor": None}}, headers={"If-Match": etag})
    assert changed.json() == {"attributes": {"region": "eu"}}
    stale = await http.patch(url, json={"attributes": {"floor": 4}}, headers={"If-Match": etag})
    assert stale.status_code == 412
    assert stale.json()["field"] == "If-Match"
    assert (await http.get(url)).json() == {"attributes": {"region": "eu"}}


async def test_versions_are_compared_as_such_once_the_attribute_is_defined(world, http) -> None:
    await world.register("pump-1")
    url = f"{V1}/attributes/boot.version"
    assert (await http.put(url, json={"type": "version"})).json() == {
        "name": "boot.version",
        "type": "version",
        "built_in": False,
    }
    await http.patch(f"{V1}/devices/pump-1/attributes", json={"attributes": {"boot.version": "1.9"}})
    preview = {"filter": "boot.version < 1.10"}
    assert (await http.get(f"{V1}/filters/preview", params=preview)).json()["count"] == 1
    taken = await http.put(url, json={"type": "text"})
    assert (taken.status_code, taken.json()["field"]) == (409, "attributes/boot.version")
    for name, body in (("model", {"type": "text"}), ("9x", {"type": "text"}), ("a", {"type": "time"})):
        assert (await http.put(f"{V1}/attributes/{name}", json=body)).status_code == 422
    listed = (await http.get(f"{V1}/attributes")).json()["items"]
    assert {"name": "firmware.version", "type": "version", "built_in": True} in listed
    assert [each["name"] for each in listed if not each["built_in"]] == ["boot.version"]


async def test_bad_attributes_change_nothing_and_name_the_field(world, http) -> None:
    await world.register("pump-1")
    url = f"{V1}/devices/pump-1/attributes"
    for body, field in (
        ({"attributes": {"9x": 1}}, "attributes"),
        ({"attributes": {}}, "attributes"),
        ({"attributes": {"a": [1]}}, "attributes.a"),
        ({}, "attributes"),
        ({"attributes": {"a": 1}, "b": 2}, "b"),
    ):
        answer = await http.patch(url, json=body)
        assert answer.status_code == 422, body
        assert answer.json()["field"].startswith(field), body
    bad_etag = await http.patch(url, json={"attributes": {"a": 1}}, headers={"If-Match": "x"})
    assert (bad_etag.status_code, bad_etag.json()["field"]) == (422, "If-Match")
    assert (await http.get(url)).json() == {"attributes": {}}


async def test_a_deleted_device_is_gone_but_its_history_stays(world, http) -> None:
    await world.register("pump-1")
    assert (await http.delete(f"{V1}/devices/pump-1")).status_code == 204
    assert (await http.get(f"{V1}/devices/pump-1")).status_code == 404
    events = (await http.get(f"{V1}/devices/pump-1/events")).json()["items"]
    assert [event["kind"] for event in events] == ["device.deleted", "device.registered"]
    assert events[0]["data"]["by"] == "admin"


async def test_history_pages_go_back_in_time(world, http) -> None:
    for _ in range(3):
        await world.register("pump-1")
    page = (await http.get(f"{V1}/devices/pump-1/events", params={"limit": 2})).json()
    older = (await http.get(f"{V1}/devices/pump-1/events", params={"limit": 2, "after": page["next"]})).json()
    numbers = [event["id"] for event in page["items"] + older["items"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 3
    bad = await http.get(f"{V1}/devices/pump-1/events", params={"after": "x"})
    assert (bad.status_code, bad.json()["field"]) == (422, "after")


async def test_object_definitions_are_shown_with_their_resources(http) -> None:
    assert [item["id"] for item in (await http.get(f"{V1}/objects")).json()["items"]] == [3]
    device = (await http.get(f"{V1}/objects/3")).json()
    assert device["resources"][0]["name"] == "Battery Level"
    for missing in ("/objects/4", "/objects/3?version=9.9"):
        assert (await http.get(V1 + missing)).status_code == 404
