"""The reference device with three components in a campaign: one signed manifest, hooks that install."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.releases import CLASS, VENDOR, image_of
from lwm2m_device.components import ComponentSettings
from lwm2m_device.hooks import Action, HookFailed, HookOrder, Progress
from lwm2m_server.campaigns.records import Campaign
from lwm2m_server.devices.records import ComponentFacts
from lwm2m_server.firmware.build import ComponentDescription, ManifestDescription, build_manifest
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.store.records import StoredManifest
from memory import MemoryDevice, World
from memory.world import ADDRESS, chunks

SLOT = 65_536
OLD = {name: image_of("1.0.0", 30_000, seed=number) for number, name in enumerate(("00", "modem", "sensor"))}
VERSIONS = {"00": "2.0.0", "modem": "5.0.0", "sensor": "3.0.0"}


def changed(name: str) -> bytes:
    """The next image of a component: the old one, a little changed, as deltas want it."""
    image = bytearray(OLD[name])
    head = f"firmware-version: {VERSIONS[name]}\n".encode()
    image[: len(head)] = head
    for at in range(500, len(image), 3_000):
        image[at] ^= 0xFF
    return bytes(image)


NEW = {name: changed(name) for name in OLD}
DIGESTS = {name: hashlib.sha256(image).digest() for name, image in NEW.items()}


class Hook:
    """Another processor: keeps the image that it is given, unless it is told to fail."""

    def __init__(self) -> None:
        self.image = b""
        self.actions: list[tuple[str, str]] = []
        self.fails = ""

    async def run(self, order: HookOrder, progress: Progress) -> None:
        self.actions.append((order.action.value, order.version))
        if self.fails and order.action is Action.INSTALL:
            raise HookFailed(self.fails)
        progress(50)
        self.image = order.read(0, order.size)


class Meter:
    """A server, and a device whose modem and sensor are processors of their own."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder / "server")
        self.hooks = {"modem": Hook(), "sensor": Hook()}
        self.device = MemoryDevice(
            self.world.network,
            folder / "dev-1.flash",
            server=ADDRESS,
            vendor=VENDOR,
            class_name=CLASS,
            trust=(self.world.signer.public,),
            initial_image=OLD["00"],
            components=tuple(
                ComponentSettings(
                    name=name,
                    identifier=(name.encode(),),
                    version="1.0.0",
                    slot_size=SLOT,
                    vendor=VENDOR,
                    class_name=CLASS,
                    entry_point="builtins:print",
                    image=OLD[name],
                )
                for name in self.hooks
            ),
        )
        self.device.hooks |= self.hooks

    async def begin(self) -> None:
        """Start server and device, and wait until the server knows the components."""
        await self.world.start()
        self.device.start()

        async def known() -> bool:
            found = await self.world.server.services.directory.list()
            return bool(found.items) and bool(found.items[0].facts.components)

        await self.world.until(known, within=600)

    async def release(self, *names: str, images: dict[str, bytes] = NEW, **update: Any) -> StoredManifest:
        """Sign one manifest for these components, and bring it in with its images."""
        releases = self.world.server.services.releases
        await releases.add_key(self.world.signer.public, name="release", actor="ann")
        described = []
        for name in names:
            content, version = images[name], VERSIONS[name]
            await releases.add_image(chunks(content), name=name, version=version, actor="ann")
            digest = hashlib.sha256(content).digest()
            described.append(
                ComponentDescription(
                    component=(b"\0",) if name == "00" else (name.encode(),),
                    digest=digest,
                    size=len(content),
                    uri=f"/fw/{digest.hex()}",
                    version=version,
                    manufacturer="Acme",
                    model="M1",
                )
            )
        first = described[0]
        description = ManifestDescription(
            vendor_domain=VENDOR,
            class_name=CLASS,
            version=first.version,
            sequence_number=update.pop("sequence", 1),
            image_digest=first.digest,
            image_size=first.size,
            image_uri=first.uri,
            component=first.component,
            manufacturer="Acme",
            model="M1",
            further=tuple(described[1:]),
            **update,
        )
        envelope = sign(build_manifest(description), self.world.signer.key)
        manifest, _ = await releases.add_manifest(envelope, actor="ann")
        return manifest

    async def campaign(self, manifest: StoredManifest, **options: Any) -> Campaign:
        return await self.world.campaign(
            manifest, **{"filter": "component.modem.version < 2.0", "retries": 0} | options
        )

    async def components(self) -> dict[str, ComponentFacts]:
        device = await self.world.server.services.directory.get("dev-1")
        return {each.name: each for each in device.facts.components or ()}

    async def versions(self) -> list[str | None]:
        return [each.version for each in (await self.components()).values()]


@pytest.fixture
async def meter(tmp_path: Path) -> AsyncIterator[Meter]:
    made = Meter(tmp_path)
    await made.begin()
    yield made
    await made.device.kill()
    await made.world.close()


async def test_the_directory_shows_what_is_installed_in_each_component(meter: Meter) -> None:
    found = await meter.components()
    assert [(each.instance, name, each.version) for name, each in found.items()] == [
        (0, "00", "1.0.0"),
        (1, "modem", "1.0.0"),
        (2, "sensor", "1.0.0"),
    ]
    assert [each.digest for each in found.values()] == [hashlib.sha256(old).digest() for old in OLD.values()]
    assert [each.capacity for each in found.values()] == [SLOT] * 3


async def test_one_manifest_brings_all_three_to_their_new_versions(meter: Meter) -> None:
    campaign = await meter.campaign(await meter.release("00", "modem", "sensor"))
    assert await meter.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meter.device.log
    assert await meter.versions() == list(VERSIONS.values())
    assert {name: each.digest for name, each in (await meter.components()).items()} == DIGESTS
    assert {name: hook.image for name, hook in meter.hooks.items()} == {
        name: NEW[name] for name in ("modem", "sensor")
    }
    done = await meter.world.deployment(campaign)
    assert done.offset == done.size == 90_000


async def test_all_or_nothing_leaves_the_old_versions_when_one_hook_fails(meter: Meter) -> None:
    meter.hooks["sensor"].fails = "the sensor does not answer"
    campaign = await meter.campaign(await meter.release("00", "modem", "sensor"))
    assert await meter.world.outcome(campaign) == ("failed", "component-failed"), meter.device.log
    assert "sensor" in (await meter.world.deployment(campaign)).text
    assert await meter.versions() == ["1.0.0"] * 3
    assert meter.hooks["modem"].actions == [("install", "5.0.0"), ("restore", "1.0.0")]
    assert meter.hooks["modem"].image == OLD["modem"]


async def test_best_effort_keeps_what_could_be_installed(meter: Meter) -> None:
    meter.hooks["modem"].fails = "no network"
    campaign = await meter.campaign(await meter.release("00", "modem", "sensor", best_effort=True))
    state, reason = await meter.world.outcome(campaign)
    assert (state, reason) == ("failed", "partly-installed"), meter.device.log
    assert "modem 1.0.0" in (await meter.world.deployment(campaign)).text
    assert await meter.versions() == ["2.0.0", "1.0.0", "3.0.0"]


async def test_best_effort_is_tried_again_for_what_is_left(meter: Meter) -> None:
    meter.hooks["modem"].fails = "no network"
    campaign = await meter.campaign(await meter.release("00", "modem", "sensor", best_effort=True), retries=1)

    async def again() -> bool:
        return (await meter.world.deployment(campaign)).attempt == 1 and await meter.versions() == [
            "2.0.0",
            "1.0.0",
            "3.0.0",
        ]

    await meter.world.until(again, within=3600)
    meter.hooks["modem"].fails = ""
    assert await meter.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meter.device.log
    assert await meter.versions() == list(VERSIONS.values())


async def test_one_component_is_updated_alone(meter: Meter) -> None:
    campaign = await meter.campaign(await meter.release("modem"))
    assert await meter.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meter.device.log
    assert await meter.versions() == ["1.0.0", "5.0.0", "1.0.0"]


async def test_each_component_comes_as_a_delta_from_what_is_installed_there(meter: Meter) -> None:
    releases = meter.world.server.services.releases
    for name, image in OLD.items():
        await releases.add_image(chunks(image), name=f"old {name}", version="1.0.0", actor="ann")
    campaign = await meter.campaign(await meter.release("00", "modem", "sensor"))
    assert await meter.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meter.device.log
    savings = await meter.world.server.services.deltas.savings(campaign_id=campaign.id)
    assert (savings.updates, savings.deltas, savings.image_bytes) == (1, 1, 90_000)
    assert savings.sent_bytes < 9_000


async def test_what_is_too_big_for_a_component_is_not_offered(meter: Meter) -> None:
    big = NEW["modem"] + bytes(SLOT)
    campaign = await meter.campaign(await meter.release("00", "modem", images=NEW | {"modem": big}))
    assert await meter.world.outcome(campaign) == ("rejected", "storage-full")
    assert not meter.device.said("Stored")
