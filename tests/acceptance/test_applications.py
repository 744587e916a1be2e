"""Applications with real processes over coaps: installed and updated by campaigns, through kills of both sides."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Pki, ReferenceDevice, Server, Signer, image_of
from harness.releases import BYTES, ENVELOPE, PEM
from harness.server import FAST

METER, PUMP = (b"app", b"meter"), (b"app", b"pump")
HOOK = """#!/bin/sh
cat >"$0.$1"
echo "$1 $2 $3" >>"$0.log"
echo '{"result": "done"}'
"""


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


@pytest.fixture
def device(tmp_path: Path, server: Server, pki: Pki, signer: Signer) -> Iterator[ReferenceDevice]:
    keys = pki.device("hub-1")
    server.credential("hub-1", "psk", **keys.material("psk"))
    hook = tmp_path / "hook"
    hook.write_text(HOOK)
    hook.chmod(0o700)
    options = ("--application", "meter=1.0.0", "--application", "", "--application-hook", str(hook))
    with ReferenceDevice(
        tmp_path,
        "hub-1",
        server.secure_uri,
        trust=signer.public_file(tmp_path),
        options=(*options, "--block-size", "64"),
        keys=keys,
    ) as made:
        server.wait_registered("hub-1")
        yield made


def bring_in(
    server: Server, signer: Signer, version: str, component: tuple[bytes, ...], sequence: int
) -> str:
    """Upload an application and its manifest; return the manifest's id."""
    release = signer.release(
        version, image_of(version, 60_000, seed=sequence), component=component, sequence=sequence
    )
    server.call("POST", "/firmware", params={"name": version}, content=release.image, headers=BYTES)
    return str(server.call("POST", "/manifests", content=release.envelope, headers=ENVELOPE)["id"])


def ended(server: Server, campaign: str) -> tuple[str, str]:
    server.wait_campaign(campaign)
    deployment = server.deployment(campaign, "hub-1")
    return deployment["state"], deployment["reason"]


def test_applications_are_installed_updated_and_refused_while_both_sides_are_killed(
    tmp_path: Path, server: Server, signer: Signer, device: ReferenceDevice
) -> None:
    pump = bring_in(server, signer, "1.0.0", PUMP, 1)
    assert ended(server, server.campaign("pump", pump)) == ("succeeded", "confirmed-version")
    device.process.wait_line("Application pump 1.0.0 is installed")

    meter = bring_in(server, signer, "2.0.0", METER, 2)
    campaign = server.campaign("meter", meter, filter="software.meter.version < 2.0")
    device.process.wait_line("(10 %)")
    server.kill()
    device.kill()
    server.start()
    device.start()
    resumed = device.process.wait_line("goes on at byte")
    assert not resumed.endswith("byte 0.")
    assert ended(server, campaign) == ("succeeded", "confirmed-version")

    old = bring_in(server, signer, "1.5.0", METER, 3)
    assert ended(server, server.campaign("old", old)) == ("rejected", "version-rollback")

    found = server.call("GET", "/devices/hub-1")["applications"]
    assert [(each["name"], each["version"], each["active"]) for each in found] == [
        ("meter", "2.0.0", True),
        ("pump", "1.0.0", True),
    ]
    assert (tmp_path / "hook.install").read_bytes() == image_of("2.0.0", 60_000, seed=2)
    installs = [line for line in (tmp_path / "hook.log").read_text().splitlines() if "install" in line]
    assert installs == ["install app/pump 1.0.0", "install app/meter 2.0.0"]
