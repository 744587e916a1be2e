"""Devices of three processors, with real processes over coaps: one signed manifest updates all, or none."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Pki, ReferenceDevice, Server, Signer, image_of
from harness.process import BIN, Process
from harness.releases import BYTES, ENVELOPE, PEM, VENDOR
from harness.server import FAST

MODEM, SENSORS = (random.Random(seed).randbytes(20_000) for seed in (1, 2))
DESCRIPTION = f"""
vendor: {VENDOR}
class: gateway
sequence: 1
components:
  - {{id: modem, class: gateway-modem, image: modem.bin, version: "2.0.0"}}
  - {{id: sensors, class: gateway-sensors, image: sensors.bin, version: "2.0.0"}}
  - {{id: "00", image: main.bin}}
"""
HOOK = """#!/bin/sh
image=$(mktemp)
cat >"$image"
echo '{"progress": 50}'
{refusal}
mv "$image" "$0.flashed"
echo "$1 $2 $3 $4" >>"$0.log"
echo '{"result": "installed"}'
"""
FAILS = """if [ "$1" = install ]; then echo '{"result": "failed", "text": "the probe is not plugged in"}'; exit; fi"""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pki: Pki, signer: Signer) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), settings=FAST, keys=pki.server) as running:
        running.call("POST", "/keys", params={"name": "release"}, content=signer.public, headers=PEM)
        yield running


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, server: Server, signer: Signer) -> str:
    """The update, as an operator brings it in; return the manifest's id."""
    folder = tmp_path_factory.mktemp("release")
    for name, image in (("main", image_of("2.0.0", 20_000)), ("modem", MODEM), ("sensors", SENSORS)):
        (folder / f"{name}.bin").write_bytes(image)
        server.call("POST", "/firmware", params={"name": name}, content=image, headers=BYTES)
    (folder / "update.yaml").write_text(DESCRIPTION)
    (folder / "key.pem").write_bytes(signer.key.pem())
    for arguments in (
        ("create", "--from", "update.yaml", "--output", "update.suit"),
        ("sign", "update.suit", "--key", "key.pem"),
    ):
        command = Process("lwm2m", [str(BIN / "lwm2m"), "manifest", *arguments], cwd=folder)
        assert command.wait() == 0, command.tail()
    envelope = (folder / "update.suit").read_bytes()
    return str(server.call("POST", "/manifests", content=envelope, headers=ENVELOPE)["id"])


def gateway(
    folder: Path, server: Server, pki: Pki, signer: Signer, endpoint: str, **refusals: str
) -> ReferenceDevice:
    """Return a device with a modem and sensors behind hooks; `refusals` are what a hook does in place of its work."""
    parts = []
    for name in ("modem", "sensors"):
        hook = folder / f"{name}-hook"
        hook.write_text(HOOK.replace("{refusal}", refusals.get(name, "")))
        hook.chmod(0o700)
        parts.append(
            f'[[component]]\nname = "{name}"\nversion = "1.0.0"\nslot_size = 65536\nprogram = "{hook}"\n'
            f'class = "gateway-{name}"\n'
        )
    (folder / "components.toml").write_text("\n".join(parts))
    keys = pki.device(endpoint)
    server.credential(endpoint, "psk", **keys.material("psk"))
    return ReferenceDevice(
        folder,
        endpoint,
        server.secure_uri,
        trust=signer.public_file(folder),
        class_name="gateway",
        options=("--components", str(folder / "components.toml"), "--block-size", "64"),
        keys=keys,
    )


def versions(server: Server, endpoint: str) -> dict[str, str]:
    shown = server.call("GET", f"/devices/{endpoint}")
    return {each["name"]: each["version"] for each in shown["components"]}


def test_one_manifest_updates_three_processors_though_the_server_is_killed_in_the_middle(
    tmp_path: Path, server: Server, pki: Pki, signer: Signer, manifest: str
) -> None:
    with gateway(tmp_path, server, pki, signer, "gateway-1") as device:
        server.wait_registered("gateway-1")
        chosen = {"filter": "component.modem.version < 2.0.0 and component.sensors.version = 1.0.0"}
        assert server.call("GET", "/filters/preview", params=chosen)["sample"] == ["gateway-1"]
        campaign = server.campaign("three", manifest, filter='endpoint = "gateway-1"')
        device.process.wait_line("Stored ")
        server.kill()
        server.start()
        server.wait_campaign(campaign)
        deployment = server.deployment(campaign, "gateway-1")
        assert (deployment["state"], deployment["reason"]) == ("succeeded", "confirmed-digest"), deployment
    assert set(versions(server, "gateway-1").values()) == {"2.0.0"}
    for name, image in (("modem", MODEM), ("sensors", SENSORS)):
        assert (tmp_path / f"{name}-hook.flashed").read_bytes() == image
        order = f"install {name} 2.0.0 {hashlib.sha256(image).hexdigest()}"
        assert (tmp_path / f"{name}-hook.log").read_text().splitlines() == [order]


def test_a_component_that_fails_takes_the_others_back(
    tmp_path: Path, server: Server, pki: Pki, signer: Signer, manifest: str
) -> None:
    with gateway(tmp_path, server, pki, signer, "gateway-2", sensors=FAILS):
        server.wait_registered("gateway-2")
        campaign = server.campaign("fails", manifest, filter='endpoint = "gateway-2"', retries=0)
        server.wait_campaign(campaign)
        deployment = server.deployment(campaign, "gateway-2")
        assert deployment["state"] == "failed", deployment
        assert "sensors" in deployment["text"]
        assert "the probe is not plugged in" in deployment["text"]
    assert set(versions(server, "gateway-2").values()) == {"1.0.0"}
    ways = [line.split()[:3] for line in (tmp_path / "modem-hook.log").read_text().splitlines()]
    assert ways == [["install", "modem", "2.0.0"], ["restore", "modem", "1.0.0"]]
