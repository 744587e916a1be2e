"""Real firmware: two releases of a hub's firmware go to the reference device one after the other."""

import zipfile
from pathlib import Path

import pytest

from harness import ReferenceDevice, Server, Signer
from harness.process import ROOT

pytestmark = [pytest.mark.interop, pytest.mark.peer("pybricks")]


def image(version: str) -> bytes:
    archive = ROOT / f".cache/pybricks/{version}/package/build/technichub.zip"
    with zipfile.ZipFile(archive) as package:
        return package.read("firmware-base.bin")


def test_two_real_releases_are_installed_in_turn(tmp_path: Path) -> None:
    signer = Signer()
    trust = signer.public_file(tmp_path)
    with (
        Server(tmp_path) as server,
        ReferenceDevice(tmp_path, "hub-1", server.uri, trust=trust, version="1.0.0"),
    ):
        server.wait_registered("hub-1")
        for sequence, version in enumerate(("7.27.0", "7.28.0"), start=1):
            release = signer.release(version, image(version), sequence=sequence)
            campaign = server.campaign(f"to {version}", signer.publish(server, release))
            statistics = server.wait_campaign(campaign)
            assert statistics["totals"]["succeeded"] == 1, server.deployment(campaign, "hub-1")
            shown = server.call("GET", "/devices/hub-1")["firmware"]
            assert (shown["version"], shown["digest"]) == (version, release.digest.hex())
