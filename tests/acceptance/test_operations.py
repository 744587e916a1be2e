"""Every operation of the device management interface, from the REST API down to a real device and back."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import ReferenceDevice, Server, Signer

OBJECTS = "/devices/dev-1/objects"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with (
        Server(folder) as running,
        ReferenceDevice(folder, "dev-1", running.uri, trust=Signer().public_file(folder)),
    ):
        running.wait_registered("dev-1")
        yield running


def value(server: Server, path: str) -> object:
    return server.call("GET", f"{OBJECTS}{path}")["values"][0]["value"]


def test_read_of_an_object_an_instance_and_a_resource(server: Server) -> None:
    assert value(server, "/3/0/0") == "Acme"
    instance = {each["path"] for each in server.call("GET", f"{OBJECTS}/3/0")["values"]}
    whole = {each["path"] for each in server.call("GET", f"{OBJECTS}/3")["values"]}
    assert "/3/0/3" in instance
    assert instance == whole


def test_write_replaces_and_partial_write_keeps_the_rest(server: Server) -> None:
    server.call("PUT", f"{OBJECTS}/1/0/1", json={"value": 120})
    assert value(server, "/1/0/1") == 120
    server.call("PATCH", f"{OBJECTS}/1/0", json={"value": {"1": 240}})
    assert value(server, "/1/0/1") == 240
    assert isinstance(value(server, "/1/0/0"), int)


def test_a_value_of_the_wrong_type_never_reaches_the_device(server: Server) -> None:
    before = value(server, "/1/0/1")
    answer = server.try_call("PUT", f"{OBJECTS}/1/0/1", json={"value": "soon"})
    assert answer.status_code == 422
    assert "/1/0/1" in answer.text
    assert value(server, "/1/0/1") == before


def test_create_and_delete_an_instance(server: Server) -> None:
    created = server.call("POST", f"{OBJECTS}/3303", json={"value": {"5750": "cellar"}})
    path = created["path"]
    assert path.startswith("/3303/")
    assert value(server, f"{path}/5750") == "cellar"
    server.call("DELETE", f"{OBJECTS}{path}")
    assert server.try_call("GET", f"{OBJECTS}{path}").status_code == 502


def test_discover_and_notification_attributes(server: Server) -> None:
    server.call(
        "PATCH",
        "/devices/dev-1/notification-attributes/3303/0/5700",
        json={"attributes": {"pmin": 1, "pmax": 60}},
    )
    assert '"pmin"' in str(server.call("GET", "/devices/dev-1/discover/3303/0")).replace("'", '"')


def test_execute(server: Server) -> None:
    server.call("POST", f"{OBJECTS}/1/0/8", json={})


def test_what_the_device_refuses_is_named_by_its_code(server: Server) -> None:
    answer = server.try_call("GET", f"{OBJECTS}/3/0/99")
    assert (answer.status_code, answer.json()["coap_code"]) == (502, "4.04")


def test_an_observation_outlives_a_restart_of_the_device(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        device = ReferenceDevice(tmp_path, "dev-2", server.uri, trust=Signer().public_file(tmp_path))
        with device:
            server.wait_registered("dev-2")
            server.call("POST", "/devices/dev-2/observations", json={"path": "/1/0/1"})
            device.kill()
            before = max(event["id"] for event in server.call("GET", "/devices/dev-2/events")["items"])
            device.start()
            lifetimes = itertools.count(301)

            def told() -> bool:
                """Change the value, which is an event too, until the device tells of a change."""
                answer = server.try_call(
                    "PUT", "/devices/dev-2/objects/1/0/1", json={"value": next(lifetimes)}
                )
                events = server.call("GET", "/devices/dev-2/events")["items"]
                return answer.is_success and any(
                    event["kind"] == "device.notified" and event["id"] > before for event in events
                )

            server.wait_until(told, endpoint="dev-2")
