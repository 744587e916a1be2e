"""Campaigns with deltas in place: the whole server, and the reference device with one slot and little beside it."""

import hashlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from harness.releases import CLASS, VENDOR
from lwm2m_device.components import ComponentSettings
from lwm2m_device.flash import Mains, Operation, Tear
from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.report import describe
from lwm2m_server.firmware.deltas.named import make_named
from lwm2m_server.firmware.inplace import NamedDelta
from lwm2m_server.store.records import StoredManifest
from memory import MemoryDevice, World
from memory.world import ADDRESS, chunks

SLOT, STAGING = 64 << 10, 8 << 10
OLD = b"firmware-version: 1.0.0\n" + random.Random(1).randbytes(40_000)
UNNAMED = b"firmware-version: 1.1.0\n" + random.Random(2).randbytes(40_000)
NEW = b"firmware-version: 2.0.0\n" + OLD[24:9000] + random.Random(3).randbytes(500) + OLD[9000:]
DELTA = make_named(OLD, NEW, slot_size=SLOT, segment_size=4096)
LAYOUT = Layout(slot_size=SLOT, kind=LayoutKind.SINGLE, staging_size=STAGING)
ONE_SLOT = {"layout": LayoutKind.SINGLE, "slot_size": SLOT, "staging_size": STAGING}


class Failing(Mains):
    """Fails at the named operations in the image area of a slot, counted over all boots; `on_loss` is told."""

    def __init__(self) -> None:
        self.cuts: dict[int, list[int]] = {}
        self.counts = {0: 0, 1: 0}
        self.on_loss: Callable[[], None] = lambda: None

    def spend(self, operation: Operation, offset: int, size: int) -> Tear | None:
        for slot, cuts in self.cuts.items():
            image = LAYOUT.slot(slot).image
            if image.start <= offset < image.end:
                self.counts[slot] += 1
                return Tear(0.5, offset) if self.counts[slot] in cuts else None
        return None

    def lost(self) -> None:
        self.on_loss()


class Meeting:
    """A server with both images and the delta between them, and a device."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder / "server")
        self.flash = folder / "dev-1.flash"
        self.supply = Failing()
        self.supply.on_loss = self._power_lost
        self._options: dict[str, Any] = {}
        self.device = MemoryDevice(
            self.world.network,
            self.flash,
            server=ADDRESS,
            supply=self.supply,
            vendor=VENDOR,
            class_name=CLASS,
            trust=(self.world.signer.public,),
        )

    async def prepare(self, *, new: bytes = NEW, delta: NamedDelta = DELTA, **device: Any) -> StoredManifest:
        """Bring in what an operator uploads, and switch the device on."""
        await self.world.start()
        releases = self.world.server.services.releases
        await releases.add_key(self.world.signer.public, name="release", actor="ann")
        for image in (OLD, new, delta.content):
            await releases.add_image(chunks(image), name="image", actor="ann")
        envelope = self.world.signer.release("2.0.0", new, deltas=(delta,)).envelope
        manifest, _ = await releases.add_manifest(envelope, actor="ann")
        self._options = device
        self.device.start(**device)

        async def known() -> bool:
            found = await self.world.server.services.directory.list()
            return bool(found.items) and found.items[0].facts.running_digest is not None

        await self.world.until(known, within=600)
        return manifest

    def _power_lost(self) -> None:
        """Kill what runs, whatever it is doing, and switch on again after a while."""
        self.device.cut()
        self.device.log.append("power lost")
        self.world.network.later(5.0, lambda: self.device.start(**self._options))

    async def runs(self) -> bytes | None:
        found = await self.world.server.services.directory.list()
        return found.items[0].facts.running_digest


@pytest.fixture
async def meeting(tmp_path: Path) -> AsyncIterator[Meeting]:
    made = Meeting(tmp_path)
    yield made
    await made.device.kill()
    await made.world.close()


async def test_a_device_with_one_slot_and_half_of_the_flash_is_updated_by_the_delta_of_its_image(
    meeting: Meeting,
) -> None:
    manifest = await meeting.prepare(initial_image=OLD, **ONE_SLOT)
    campaign = await meeting.world.campaign(manifest)
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
    assert await meeting.runs() == hashlib.sha256(NEW).digest()
    assert meeting.device.said(f"{DELTA.size} bytes")
    savings = await meeting.world.server.services.deltas.savings(campaign_id=campaign.id)
    assert (savings.deltas, savings.image_bytes, savings.sent_bytes) == (1, len(NEW), DELTA.size)
    assert DELTA.size < len(NEW) / 10
    assert describe(meeting.flash)["flash"]["staging_size"] == STAGING
    again = await meeting.world.campaign(manifest, name="again")
    assert await meeting.world.outcome(again) == ("skipped", "already-current")


async def test_power_fails_during_the_download_of_the_delta_and_while_the_slot_is_rewritten(
    meeting: Meeting,
) -> None:
    manifest = await meeting.prepare(initial_image=OLD, block_size=256, **ONE_SLOT)
    meeting.supply.cuts = {1: [4], 0: [4, 15, 31]}
    campaign = await meeting.world.campaign(manifest)
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
    assert meeting.device.log.count("power lost") == 4
    assert meeting.device.said("The download goes on at byte")
    assert meeting.device.said("A half-done installation is finished.")
    assert await meeting.runs() == hashlib.sha256(NEW).digest()


async def test_an_image_that_the_manifest_does_not_name_takes_the_whole_image_and_says_so_when_that_has_no_room(
    meeting: Meeting,
) -> None:
    manifest = await meeting.prepare(initial_image=UNNAMED, initial_version="1.1.0", **ONE_SLOT)
    campaign = await meeting.world.campaign(manifest)
    assert await meeting.world.outcome(campaign) == ("failed", "storage-full"), meeting.device.log
    deployment = await meeting.world.deployment(campaign)
    assert "no delta for the image that runs" in deployment.text
    assert hashlib.sha256(UNNAMED).hexdigest() in deployment.text
    assert await meeting.runs() == hashlib.sha256(UNNAMED).digest()


async def test_an_image_that_the_manifest_does_not_name_takes_the_whole_one_where_that_has_room(
    meeting: Meeting,
) -> None:
    small = NEW[:6000]
    delta = make_named(OLD, small, slot_size=SLOT, segment_size=4096)
    unnamed = {"initial_image": UNNAMED, "initial_version": "1.1.0", "delta_methods": (), **ONE_SLOT}
    manifest = await meeting.prepare(new=small, delta=delta, **unnamed)
    campaign = await meeting.world.campaign(manifest)
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
    assert meeting.device.said("6000 bytes")
    assert await meeting.runs() == hashlib.sha256(small).digest()


async def test_a_delta_that_has_no_room_in_the_staging_area_is_refused(meeting: Meeting) -> None:
    manifest = await meeting.prepare(initial_image=OLD, **(ONE_SLOT | {"staging_size": 1024}))
    campaign = await meeting.world.campaign(manifest)
    assert await meeting.world.outcome(campaign) == ("failed", "storage-full"), meeting.device.log
    deployment = await meeting.world.deployment(campaign)
    assert f"The delta has {DELTA.size} bytes, the staging area 1024" in deployment.text


@pytest.mark.parametrize("layout", list(LayoutKind))
@pytest.mark.parametrize("image", [OLD, UNNAMED], ids=["named", "unnamed"])
async def test_devices_of_the_class_with_room_for_two_images_take_the_whole_one(
    meeting: Meeting, layout: LayoutKind, image: bytes
) -> None:
    manifest = await meeting.prepare(initial_image=image, layout=layout, slot_size=SLOT, delta_methods=())
    campaign = await meeting.world.campaign(manifest)
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
    assert meeting.device.said(f"{len(NEW)} bytes")


async def test_a_device_with_several_components_takes_the_whole_image(meeting: Meeting) -> None:
    modem = ComponentSettings(
        name="modem", identifier=(b"modem",), version="1.0.0", slot_size=4096, entry_point="builtins:print"
    )
    manifest = await meeting.prepare(initial_image=OLD, slot_size=SLOT, components=(modem,), delta_methods=())
    campaign = await meeting.world.campaign(manifest)
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
