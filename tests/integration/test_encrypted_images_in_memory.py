"""The reference device takes an encrypted image from the whole server, which never sees the plain one."""

import hashlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.releases import CLASS, VENDOR
from lwm2m_server.errors import Lwm2mError
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.description import EncryptedPayload
from lwm2m_server.firmware.encryption import ContentCipher, encryption_info
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.store.records import StoredManifest
from memory import MemoryDevice, World
from memory.world import ADDRESS, chunks

OLD = b"firmware-version: 1.0.0\n" + random.Random(1).randbytes(20_000)
NEW = b"firmware-version: 2.0.0\n" + OLD[24:] + b"and more"
KEK = os.urandom(16)
CIPHER = ContentCipher(os.urandom(16), bytes(16))
SENT = CIPHER.apply(0, NEW)


class Meeting:
    """A server with the old image and the encrypted new one, and a device that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder / "server")
        self.device = MemoryDevice(
            self.world.network,
            folder / "dev-1.flash",
            server=ADDRESS,
            vendor=VENDOR,
            class_name=CLASS,
            trust=(self.world.signer.public,),
            initial_image=OLD,
            block_size=64,
        )

    async def prepare(self, *, served: bytes = SENT) -> StoredManifest:
        """Bring in what an operator uploads: the plain new image is not among it."""
        await self.world.start()
        releases = self.world.server.services.releases
        await releases.add_key(self.world.signer.public, name="release", actor="ann")
        for image in (OLD, served):
            await releases.add_image(chunks(image), name="image", actor="ann")
        manifest, _ = await releases.add_manifest(self.envelope(), actor="ann")
        return manifest

    def envelope(self) -> bytes:
        digest = hashlib.sha256(SENT).digest()
        description = ManifestDescription(
            vendor_domain=VENDOR,
            class_name=CLASS,
            version="2.0.0",
            sequence_number=1,
            image_digest=hashlib.sha256(NEW).digest(),
            image_size=len(NEW),
            image_uri=f"/fw/{digest.hex()}",
            manufacturer="Acme",
            model="M1",
            encrypted=EncryptedPayload(
                digest=digest, size=len(SENT), info=encryption_info(CIPHER.key, [(KEK, b"meters")])
            ),
        )
        return sign(build_manifest(description), self.world.signer.key)

    async def registered(self) -> None:
        async def known() -> bool:
            found = await self.world.server.services.directory.list()
            return bool(found.items) and found.items[0].facts.running_digest is not None

        await self.world.until(known, within=600)


@pytest.fixture
async def meeting(tmp_path: Path) -> AsyncIterator[Meeting]:
    made = Meeting(tmp_path)
    yield made
    await made.device.kill()
    await made.world.close()


async def test_an_encrypted_image_is_installed_though_power_is_lost_and_the_digest_of_the_plain_one_is_evidence(
    meeting: Meeting,
) -> None:
    manifest = await meeting.prepare()
    assert manifest.image_digest == hashlib.sha256(SENT).digest()
    assert manifest.installed_digest == hashlib.sha256(NEW).digest()
    meeting.device.start(decryption_keys=(KEK,))
    await meeting.registered()
    campaign = await meeting.world.campaign(manifest)

    async def halfway() -> bool:
        return sum("Stored" in line for line in meeting.device.log) >= 5

    await meeting.world.until(halfway, within=600, step=0.01)
    await meeting.device.kill()
    meeting.device.log.clear()
    meeting.device.start(decryption_keys=(KEK,))
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
    assert meeting.device.said("The download goes on at byte")
    assert meeting.device.said("encrypted: no delta applies")
    device = (await meeting.world.server.services.directory.list()).items[0]
    assert device.facts.running_digest == manifest.installed_digest
    stored = b"".join(file.read_bytes() for file in (meeting.folder / "server").rglob("*") if file.is_file())
    assert NEW[24:2000] in OLD
    assert NEW not in stored
    assert KEK not in stored
    again = await meeting.world.campaign(manifest, name="again")
    assert await meeting.world.outcome(again) == ("skipped", "already-current")


@pytest.mark.parametrize(
    ("keys", "reason"), [((), "no-decryption-key"), ((b"x" * 16,), "decryption-key")], ids=["none", "other"]
)
async def test_a_device_without_the_key_is_rejected_with_the_reason(
    meeting: Meeting, keys: tuple[bytes, ...], reason: str
) -> None:
    manifest = await meeting.prepare()
    meeting.device.start(decryption_keys=keys)
    await meeting.registered()
    campaign = await meeting.world.campaign(manifest)
    assert await meeting.world.outcome(campaign) == ("rejected", reason), meeting.device.log
    assert not meeting.device.said("Fetching")


@pytest.mark.protection("server", "encrypted-key")
async def test_a_device_without_manifests_is_never_given_the_encrypted_bytes(meeting: Meeting) -> None:
    manifest = await meeting.prepare()
    device = await meeting.world.device("plain-1")
    campaign = await meeting.world.campaign(manifest)
    assert await meeting.world.outcome(campaign, "plain-1") == ("rejected", "no-decryption-key")
    assert not device.package


@pytest.mark.protection("server", "encrypted-bytes")
async def test_the_server_takes_no_manifest_whose_payload_is_not_there(meeting: Meeting) -> None:
    with pytest.raises(Lwm2mError) as caught:
        await meeting.prepare(served=NEW)
    assert caught.value.code == "digest-mismatch"
