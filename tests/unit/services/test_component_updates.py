"""Devices with several components in a campaign, over the real services in virtual time."""

import hashlib
from typing import Any

import pytest

from harness.releases import CLASS, VENDOR, image_of
from lwm2m_server.devices.records import ComponentFacts
from lwm2m_server.firmware.build import ComponentDescription, ManifestDescription, build_manifest
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.store.records import StoredManifest
from lwm2m_server.transport import Code
from memory import World
from memory.device import paths
from memory.scripted_parts import DeviceOfParts, Part
from memory.world import ADDRESS, chunks

IMAGES = {
    "00": image_of("2.0.0", 30_000, seed=1),
    "modem": image_of("5.0.0", 20_000, seed=2),
    "sensor": image_of("3.0.0", 10_000, seed=3),
}
DIGESTS = {name: hashlib.sha256(image).digest() for name, image in IMAGES.items()}
NEW = {
    0: ("2.0.0", DIGESTS["00"]),
    1: ("5.0.0", DIGESTS["modem"]),
    2: ("3.0.0", DIGESTS["sensor"]),
}


def described(name: str) -> dict[str, Any]:
    return {
        "component": (b"\0",) if name == "00" else (name.encode(),),
        "version": IMAGES[name].split(b"\n")[0].split()[1].decode(),
        "manufacturer": "Acme",
        "model": "M1",
    }


async def release(world: World, *names: str, sequence: int = 1) -> StoredManifest:
    """Sign one manifest for these components and bring it in with its images."""
    first, *others = names
    description = ManifestDescription(
        vendor_domain=VENDOR,
        class_name=CLASS,
        sequence_number=sequence,
        image_digest=DIGESTS[first],
        image_size=len(IMAGES[first]),
        image_uri=f"/fw/{DIGESTS[first].hex()}",
        further=tuple(
            ComponentDescription(
                digest=DIGESTS[name],
                size=len(IMAGES[name]),
                uri=f"/fw/{DIGESTS[name].hex()}",
                **described(name),
            )
            for name in others
        ),
        **described(first),
    )
    releases = world.server.services.releases
    await releases.add_key(world.signer.public, name="release", actor="ann")
    for name in names:
        await releases.add_image(
            chunks(IMAGES[name]), name=name, version=str(described(name)["version"]), actor="ann"
        )
    manifest, _ = await releases.add_manifest(
        sign(build_manifest(description), world.signer.key), actor="ann"
    )
    return manifest


async def of_parts(world: World, **options: Any) -> DeviceOfParts:
    """A device with main, modem and sensor, of the versions before those of `IMAGES`."""
    device = DeviceOfParts(
        world.network,
        ADDRESS,
        host="10.0.9.1",
        **{
            "agent": True,
            "parts": {
                0: Part("00", "1.0.0", bytes([1]) * 32, 65_536, linked=(1, 2)),
                1: Part("modem", "4.9.0", bytes([2]) * 32),
                2: Part("sensor", "2.9.0"),
            },
            "becomes": dict(NEW),
            "image_paths": tuple(("fw", digest.hex()) for digest in DIGESTS.values()),
            **options,
        },
    )
    world.devices.append(device)
    await world.answer(device.boot())
    await world.run(5.0)
    return device


async def endpoints(world: World, wanted: str) -> list[str]:
    found = await world.server.services.directory.list(filter=wanted)
    return [device.endpoint for device in found.items]


async def test_the_directory_knows_the_components(world: World) -> None:
    await of_parts(world)
    device = await world.server.services.directory.get("dev-1")
    assert device.facts.components == (
        ComponentFacts(
            instance=0, name="00", version="1.0.0", digest=bytes([1]) * 32, capacity=65_536, linked=(1, 2)
        ),
        ComponentFacts(instance=1, name="modem", version="4.9.0", digest=bytes([2]) * 32),
        ComponentFacts(instance=2, name="sensor", version="2.9.0"),
    )
    assert (device.facts.capacity, device.facts.sequence) == (65_536, 0)
    assert await endpoints(world, "component.modem.version < 5.0") == ["dev-1"]
    assert await endpoints(world, "firmware.sequence < 1") == ["dev-1"]
    assert await endpoints(world, "component.radio.version < 5.0") == []


async def test_one_manifest_updates_all_components_through_the_first(world: World) -> None:
    device = await of_parts(world)
    manifest = await release(world, *IMAGES)
    campaign = await world.campaign(manifest, filter="component.modem.version < 5.0")
    assert await world.outcome(campaign) == ("succeeded", "confirmed-digest")
    assert device.package == manifest.envelope
    assert device.executed == 1
    written = [text for text in paths(device.requests) if not text.startswith("GET")]
    assert {text.rsplit("/", 1)[0] for text in written} == {"PUT /33629/0", "POST /33629/0"}
    done = await world.deployment(campaign)
    assert done.offset == done.size == 60_000
    assert await endpoints(world, "component.modem.version = 5.0 and component.sensor.version = 3.0") == [
        "dev-1"
    ]


async def test_a_manifest_of_one_component_goes_to_its_instance(world: World) -> None:
    device = await of_parts(world, becomes={1: NEW[1]}, image_paths=(("fw", DIGESTS["modem"].hex()),))
    campaign = await world.campaign(await release(world, "modem"))
    assert await world.outcome(campaign) == ("succeeded", "confirmed-digest")
    assert "POST /33629/1/2" in paths(device.requests)
    done = await world.deployment(campaign)
    assert (done.from_version, done.to_version, done.size) == ("4.9.0", "5.0.0", 20_000)


async def test_a_plain_device_gets_the_image_of_the_component(world: World) -> None:
    device = await of_parts(world, agent=False, becomes={1: NEW[1]})
    campaign = await world.campaign(await release(world, "modem"))
    assert await world.outcome(campaign) == ("succeeded", "confirmed-version")
    assert device.package == IMAGES["modem"]


@pytest.mark.parametrize("restarted_in", ["downloading", "installing"])
async def test_it_goes_on_after_a_restart_of_the_server(world: World, restarted_in: str) -> None:
    device = await of_parts(world, install_time=60.0)
    campaign = await world.campaign(await release(world, *IMAGES))
    await world.reach(campaign, restarted_in)
    await world.restart()
    await world.answer(device.boot()) if restarted_in == "downloading" else None
    assert await world.outcome(campaign) == ("succeeded", "confirmed-digest")


async def test_one_component_that_stays_old_is_no_success(world: World) -> None:
    await of_parts(world, becomes={0: NEW[0], 1: NEW[1]})
    campaign = await world.campaign(await release(world, *IMAGES))
    assert await world.outcome(campaign) == ("failed", "partly-installed")
    assert "sensor 2.9.0" in (await world.deployment(campaign)).text
    assert await endpoints(world, "component.modem.version = 5.0 and component.sensor.version < 3.0") == [
        "dev-1"
    ]


async def test_all_or_nothing_that_failed_shows_the_old_versions(world: World) -> None:
    device = await of_parts(world, becomes={}, ends=8)
    device.refusal = "component-failed"
    campaign = await world.campaign(await release(world, *IMAGES))
    assert await world.outcome(campaign) == ("failed", "component-failed")
    assert (await world.deployment(campaign)).text == "refused: component-failed"


async def test_components_in_the_way_are_reset(world: World) -> None:
    device = await of_parts(world, held={1, 2})
    campaign = await world.campaign(await release(world, *IMAGES))
    assert await world.outcome(campaign) == ("succeeded", "confirmed-digest")
    assert device.resets[:3] == ["1", "2", "0"]
    assert (await world.deployment(campaign)).attempt == 1


async def test_what_the_device_does_not_have_or_can_not_hold_is_not_offered(world: World) -> None:
    device = await of_parts(world)
    del device.parts[2]
    device.parts[0].capacity = 29_999
    await world.answer(device.boot())
    await world.run(5.0)
    campaign = await world.campaign(await release(world, *IMAGES))
    assert await world.outcome(campaign) == ("rejected", "component-missing")
    campaign = await world.campaign(await release(world, "00", "modem", sequence=2), name="second")
    assert await world.outcome(campaign) == ("rejected", "storage-full")
    assert not device.package


async def test_images_of_all_components_are_open_to_the_device_and_to_nobody_else(world: World) -> None:
    device = await of_parts(world)
    other = await world.device("dev-2")
    campaign = await world.campaign(await release(world, *IMAGES), filter='endpoint = "dev-1"')
    await world.reach(campaign, "installing")
    for digest in DIGESTS.values():
        path = ("fw", digest.hex())
        assert (await world.answer(device.send(Code.GET, path))).code == Code.CONTENT
        assert (await world.answer(other.send(Code.GET, path))).code != Code.CONTENT
