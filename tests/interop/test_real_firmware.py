"""Real firmware: told for what it is, alone and within real formats, and two releases installed one after the other."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from firmware_files import elf, intel_hex, mcuboot, public_pem, uf2
from harness import ReferenceDevice, Server, Signer
from harness.process import ROOT
from harness.releases import BYTES
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.formats.refused import ImageRefused
from lwm2m_server.firmware.images import ImageFormat, convert, inspect_image

pytestmark = [pytest.mark.interop, pytest.mark.peer("pybricks")]

HUBS = ("cityhub", "essentialhub", "ev3", "movehub", "nxt", "primehub", "technichub")
FLASH = 0x0800_8000  # where the hubs' boot loader leaves off


def image(version: str, hub: str = "technichub") -> bytes:
    archive = ROOT / f".cache/pybricks/{version}/package/build/{hub}.zip"
    with zipfile.ZipFile(archive) as package:
        return package.read("firmware-base.bin")


@pytest.mark.parametrize("hub", HUBS)
def test_real_code_is_taken_for_no_format_that_it_is_not(hub: str) -> None:
    real = image("7.28.0", hub)
    info = inspect_image(real)
    assert (info.format, info.size, info.version) == (ImageFormat.RAW, len(real), None)
    assert info.digest == hashlib.sha256(real).digest()


@pytest.mark.parametrize("hub", ["movehub", "primehub"])
def test_real_code_comes_back_out_of_every_container(hub: str) -> None:
    real = image("7.28.0", hub)
    for file, kind in (
        (uf2(real, FLASH), ImageFormat.UF2),
        (intel_hex((FLASH, real)), ImageFormat.INTEL_HEX),
        (elf([(FLASH, real)]), ImageFormat.ELF),
    ):
        assert inspect_image(file).format is kind
        assert convert(file) == (FLASH, real)


def test_real_code_in_a_signed_mcuboot_image_is_verified_and_one_changed_bit_found() -> None:
    keys = [ImageKey.from_pem(public_pem("ecdsa-p256"))]
    signed = mcuboot("-s", "7", "-S", "0x80000", key="ecdsa-p256", version="7.28.0", payload=image("7.28.0"))
    info = inspect_image(signed, keys)
    assert (info.format, info.version, info.facts.security_counter) == (ImageFormat.MCUBOOT, "7.28.0", 7)
    assert [each.state.value for each in info.facts.signatures] == ["verified"]
    changed = bytearray(signed)
    changed[len(signed) // 2] ^= 1
    with pytest.raises(ImageRefused) as caught:
        inspect_image(bytes(changed), keys)
    assert caught.value.code == "image-digest"


def test_uploads_of_real_code_are_told_for_what_they_are(tmp_path: Path) -> None:
    real = image("7.28.0", "primehub")
    signed = mcuboot("-S", "0x80000", key="ecdsa-p256", version="7.28.0", payload=real)
    with Server(tmp_path) as server:

        def upload(content: bytes, **said: str) -> dict[str, object]:
            answer = server.try_call(
                "POST", "/firmware", params={"name": "hub", **said}, content=content, headers=BYTES
            )
            return dict(answer.json())

        assert upload(signed)["version"] == "7.28.0"
        assert upload(signed, version="7.27.0")["code"] == "version-mismatch"
        assert upload(real, version="7.28.0")["size"] == len(real)
        assert upload(real, format="mcuboot")["code"] == "format-mismatch"
        assert upload(uf2(real, FLASH))["code"] == "image-container"
        assert len(server.call("GET", "/firmware")["items"]) == 2


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
