"""Encrypted images, consent and deltas with real processes over coaps: one server, devices for each story."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from harness import Pki, ReferenceDevice, Server, Signer, image_of
from harness.process import BIN, Process
from harness.releases import BYTES, ENVELOPE, PEM, VENDOR
from harness.server import FAST

OLD = b"firmware-version: 1.0.0\n" + bytes(random.Random(1).choices(range(200), k=120_000))
NEW = b"firmware-version: 2.0.0\n" + OLD[24:50_000] + random.Random(2).randbytes(24_000) + OLD[50_000:]
BLOCK = 64  # bytes; small, so that there is a middle to restart the server in
SETTINGS = FAST.replace("[engine]", "[engine]\nprogress_bytes = 1024")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pki: Pki, signer: Signer) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), settings=SETTINGS, keys=pki.server) as running:
        running.call("POST", "/keys", params={"name": "release"}, content=signer.public, headers=PEM)
        yield running


class Stage:
    """The server with what each story needs of it."""

    def __init__(self, folder: Path, server: Server, pki: Pki, signer: Signer) -> None:
        self.folder = folder
        self.server = server
        self._pki = pki
        self._signer = signer

    def device(self, endpoint: str, class_name: str, *options: str) -> ReferenceDevice:
        """Return a device with credentials of its own."""
        keys = self._pki.device(endpoint)
        self.server.credential(endpoint, "psk", **keys.material("psk"))
        return ReferenceDevice(
            self.folder,
            endpoint,
            self.server.secure_uri,
            trust=self._signer.public_file(self.folder),
            class_name=class_name,
            options=options,
            keys=keys,
        )

    def upload(self, *images: bytes) -> None:
        for image in images:
            self.server.call("POST", "/firmware", params={"name": "image"}, content=image, headers=BYTES)

    def manifest(self, envelope: bytes) -> str:
        return str(self.server.call("POST", "/manifests", content=envelope, headers=ENVELOPE)["id"])

    def release(self, class_name: str, image: bytes) -> str:
        """Bring in an image with its manifest, and return the manifest's id."""
        self.upload(image)
        return self.manifest(self._signer.release("2.0.0", image, class_name=class_name).envelope)

    def campaign(self, name: str, manifest: str, *endpoints: str, **options: object) -> str:
        chosen = " or ".join(f'endpoint = "{endpoint}"' for endpoint in endpoints)
        return self.server.campaign(name, manifest, filter=chosen, **options)

    def outcome(self, campaign: str, endpoint: str) -> tuple[str, str]:
        self.server.wait_campaign(campaign)
        deployment = self.server.deployment(campaign, endpoint)
        return deployment["state"], deployment["reason"]

    def offline(self, *arguments: str) -> None:
        """Run a command of the operator's that needs no server."""
        command = Process("lwm2m", [str(BIN / "lwm2m"), *arguments], cwd=self.folder)
        assert command.wait() == 0, command.tail()

    def key_file(self, name: str) -> Path:
        file = self.folder / name
        file.write_bytes(self._signer.key.pem())
        return file

    def application(self, name: str, text: str) -> Path:
        """Write the program that a device asks; `$question` holds what it is asked."""
        file = self.folder / name
        file.write_text(f'#!/bin/sh\nread -r question\necho "$question" >>{self.folder}/asked\n{text}\n')
        file.chmod(0o700)
        return file

    def asked(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / "asked").read_text().splitlines()]


@pytest.fixture
def stage(tmp_path: Path, server: Server, pki: Pki, signer: Signer) -> Stage:
    return Stage(tmp_path, server, pki, signer)


@pytest.mark.protection("server", "secrecy")
def test_an_encrypted_image_is_installed_by_who_has_the_key_and_lies_nowhere_else(stage: Stage) -> None:
    image = image_of("2.0.0", 30_000)
    private = ec.generate_private_key(ec.SECP256R1())
    own, shown = stage.folder / "class.pem", stage.folder / "class.pub.pem"
    own.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    shown.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (stage.folder / "main.bin").write_bytes(image)
    stage.offline("firmware", "encrypt", "main.bin", "--key", str(shown), "--kid", "sealed-2026")
    about = ("--vendor", VENDOR, "--class", "sealed", "--sequence", "1")
    stage.offline("manifest", "create", "main.bin", "--encrypted", "main.bin.enc", *about)
    stage.offline("manifest", "sign", "main.bin.suit", "--key", str(stage.key_file("release.pem")))
    stage.upload((stage.folder / "main.bin.enc").read_bytes())
    manifest = stage.manifest((stage.folder / "main.bin.suit").read_bytes())
    with (
        stage.device("sealed-1", "sealed", "--decryption-key", str(own)),
        stage.device("sealed-2", "sealed") as keyless,
    ):
        stage.server.wait_registered("sealed-1", "sealed-2")
        campaign = stage.campaign("sealed", manifest, "sealed-1", "sealed-2")
        assert stage.outcome(campaign, "sealed-1") == ("succeeded", "confirmed-digest")
        assert stage.outcome(campaign, "sealed-2") == ("rejected", "no-decryption-key")
        keyless.process.wait_line("sealed-2026")
    stored = [file.read_bytes() for file in (stage.server.folder / "data").rglob("*") if file.is_file()]
    assert not any(image[1000:1100] in content for content in stored)


def test_a_deferral_is_shown_and_waited_for_and_a_refusal_tells_its_reason(stage: Stage) -> None:
    manifest = stage.release("asking", image_of("2.0.0", 5_000))
    ready = stage.folder / "ready"
    puts_off = stage.application(
        "puts-off",
        f'case "$question" in *\'"install"\'*) if [ ! -e {ready} ]; then\n'
        'echo \'{"answer": "defer", "seconds": 1}\'; exit; fi;; esac\necho \'{"answer": "accept"}\'',
    )
    refuses = stage.application("refuses", 'echo \'{"answer": "refuse", "text": "the pump runs"}\'')
    with (
        stage.device("asking-1", "asking", "--consent", str(puts_off)),
        stage.device("asking-2", "asking", "--consent", str(refuses)),
    ):
        stage.server.wait_registered("asking-1", "asking-2")
        options = {"severity": "critical", "max_defer": 600, "retries": 0}
        campaign = stage.campaign("asking", manifest, "asking-1", "asking-2", **options)

        def deferred() -> dict[str, object] | None:
            found = stage.server.deployment(campaign, "asking-1")
            return found if found["reason"] == "deferred" else None

        found = stage.server.wait_until(deferred, campaign=campaign)
        assert (found["state"], "puts the installation off until" in found["text"]) == ("downloaded", True)
        ready.touch()
        assert stage.outcome(campaign, "asking-1") == ("succeeded", "confirmed-digest")
        assert stage.server.deployment(campaign, "asking-1")["attempt"] == 1
        assert stage.outcome(campaign, "asking-2") == ("rejected", "refused-by-application")
        assert stage.server.deployment(campaign, "asking-2")["text"] == "the pump runs"
    assert {question["severity"] for question in stage.asked()} == {"critical"}
    assert {question["phase"] for question in stage.asked()} == {"download", "install"}


def test_a_delta_brings_fewer_bytes_though_the_server_is_killed_in_the_middle(stage: Stage) -> None:
    (stage.folder / "old.bin").write_bytes(OLD)
    stage.upload(OLD)
    manifest = stage.release("patched", NEW)
    options = ("--initial-image", str(stage.folder / "old.bin"), "--block-size", str(BLOCK))
    with stage.device("patched-1", "patched", *options) as device:
        stage.server.wait_registered("patched-1")
        campaign = stage.campaign("patched", manifest, "patched-1")
        begun = device.process.wait_line("Fetching the delta")
        device.process.wait_line("Stored ")
        stage.server.kill()
        assert "(100 %)" not in device.process.tail()
        stage.server.start()
        assert stage.outcome(campaign, "patched-1") == ("succeeded", "confirmed-digest")
        assert begun.endswith("from byte 0")
        device.process.wait_line("The delta made the image")
        assert not any("Fetching image" in line for line in device.process.lines)
    saved = stage.server.call("GET", "/deltas/savings", params={"campaign": campaign})
    assert (saved["updates"], saved["deltas"], saved["image_bytes"]) == (1, 1, len(NEW))
    assert saved["sent_bytes"] < len(NEW) // 2


def test_a_device_with_one_slot_rewrites_its_image_by_a_delta_though_its_power_fails_in_the_midst(
    stage: Stage,
) -> None:
    for name, image in (("old.bin", OLD), ("new.bin", NEW)):
        (stage.folder / name).write_bytes(image)
        stage.upload(image)
    about = ("--vendor", VENDOR, "--class", "one-slot", "--sequence", "1", "--slot-size", "262144")
    stage.offline("manifest", "create", "new.bin", *about, "--in-place-from", "old.bin")
    stage.offline("manifest", "sign", "new.bin.suit", "--key", str(stage.key_file("release.pem")))
    (delta,) = stage.folder.glob("*.delta")
    stage.upload(delta.read_bytes())
    manifest = stage.manifest((stage.folder / "new.bin.suit").read_bytes())
    flash = ("--layout", "single", "--slot-size", "262144", "--staging-size", "32768")
    options = (*flash, "--initial-image", str(stage.folder / "old.bin"))
    with stage.device("one-slot-1", "one-slot", *options, "--cut-power-at", "200") as device:
        stage.server.wait_registered("one-slot-1")
        campaign = stage.campaign("one-slot", manifest, "one-slot-1")
        device.process.wait_line("Power lost at flash operation")
        device.kill()
        device.start(options=options)
        assert "A half-done installation is finished." in device.process.tail()
        assert stage.outcome(campaign, "one-slot-1") == ("succeeded", "confirmed-digest")
    saved = stage.server.call("GET", "/deltas/savings", params={"campaign": campaign})
    assert (saved["deltas"], saved["image_bytes"], saved["sent_bytes"]) == (1, len(NEW), delta.stat().st_size)
