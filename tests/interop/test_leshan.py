"""A device on Leshan's client library: registered, managed, updated by push and by pull."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import LeshanDevice, Server, Signer, image_of

pytestmark = [pytest.mark.interop, pytest.mark.peer("leshan")]

IMAGE_SIZE = 300 * 1024


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        yield running


def test_it_registers_and_is_read_written_discovered_observed_executed_and_leaves(
    server: Server, tmp_path: Path
) -> None:
    with LeshanDevice(tmp_path, "leshan-1", server.uri) as device:
        server.wait_registered("leshan-1")
        shown = server.call("GET", "/devices/leshan-1")
        assert (shown["manufacturer"], shown["model"]) == ("Leshan", "Library")
        assert shown["firmware"]["version"] == "1.0.0"

        objects = "/devices/leshan-1/objects"
        read = server.call("GET", f"{objects}/3/0/1")
        assert [value["value"] for value in read["values"]] == ["Library"]
        whole = server.call("GET", f"{objects}/3/0")
        assert {"/3/0/0", "/3/0/3", "/3/0/14"} <= {value["path"] for value in whole["values"]}

        server.call("PUT", f"{objects}/3/0/14", json={"value": "+02:00"})
        assert server.call("GET", f"{objects}/3/0/14")["values"][0]["value"] == "+02:00"

        links = server.call("GET", "/devices/leshan-1/discover/3/0")
        assert "/3/0/3" in str(links)

        server.call("POST", "/devices/leshan-1/observations", json={"path": "/3/0/14"})
        server.call("PUT", f"{objects}/3/0/14", json={"value": "+03:00"})

        def notified() -> bool:
            events = server.call("GET", "/devices/leshan-1/events")["items"]
            return any("+03:00" in str(event["data"]) for event in events)

        server.wait_until(notified, endpoint="leshan-1")

        server.call("POST", f"{objects}/3/0/4", json={})
        device.process.wait_line("reboot requested")

        device.deregister()
        server.wait_until(lambda: not server.call("GET", "/devices/leshan-1")["registered"])


def test_an_error_of_the_device_reaches_the_operator_as_its_code(server: Server, tmp_path: Path) -> None:
    with LeshanDevice(tmp_path, "leshan-2", server.uri):
        server.wait_registered("leshan-2")
        answer = server.try_call("GET", "/devices/leshan-2/objects/3/0/9")
        assert (answer.status_code, answer.json()["coap_code"]) == (502, "4.04")


@pytest.mark.parametrize("delivery", ["push", "pull"])
def test_it_takes_an_image_of_300_kb_and_restarts_into_it(
    server: Server, tmp_path: Path, delivery: str
) -> None:
    signer = Signer()
    image = image_of("2.0.0", IMAGE_SIZE)
    release = signer.release("2.0.0", image, manufacturer="Leshan", model="Library")
    with LeshanDevice(tmp_path, "leshan-3", server.uri, delivery=delivery) as device:
        server.wait_registered("leshan-3")
        manifest = signer.publish(server, release)
        campaign = server.campaign("leshan", manifest, filter='manufacturer = "Leshan"')
        statistics = server.wait_campaign(campaign)
        assert statistics["totals"]["succeeded"] == 1, server.deployment(campaign, "leshan-3")
        assert device.image.read_bytes() == image
        assert server.call("GET", "/devices/leshan-3")["firmware"]["version"] == "2.0.0"


def test_an_image_for_another_model_is_not_offered_to_a_plain_device(server: Server, tmp_path: Path) -> None:
    signer = Signer()
    release = signer.release("2.0.0", image_of("2.0.0", 5000), manufacturer="Leshan", model="Other")
    with LeshanDevice(tmp_path, "leshan-4", server.uri) as device:
        server.wait_registered("leshan-4")
        campaign = server.campaign("foreign", signer.publish(server, release))
        statistics = server.wait_campaign(campaign)
        assert statistics["totals"]["rejected"] == 1
        assert server.deployment(campaign, "leshan-4")["reason"] == "model-mismatch"
        assert not device.image.exists()
