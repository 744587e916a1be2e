"""Whole updates of the reference device against a scripted server, in memory and in virtual time."""

import hashlib

import pytest

from lwm2m_device.layout import Layout
from lwm2m_device.settings import Delivery, Faults
from lwm2m_server.firmware.cose import KeyType, SigningKey
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.transport import Code

IMAGE = b"firmware-version: 2.0.0\n" + bytes(range(256)) * 120
BUSY = 3600


async def offer(world, envelope: bytes) -> int:
    return await world.server.write("/5/0/0", envelope, 42)


async def deliver(world, image: bytes = IMAGE, **changes) -> None:
    world.server.publish(image, world.folder)
    assert await offer(world, world.envelope(image, **changes)) == Code.CHANGED
    await world.pass_time(2)


async def refusal_of(world) -> str:
    return await world.server.text(f"/{SUIT_AGENT}/0/4")


async def test_a_signed_manifest_becomes_a_new_version_that_is_confirmed(world):
    await world.run()
    server = world.server
    assert await server.text("/3/0/3") == "1.0.0"
    await deliver(world)
    assert await server.state() == (2, 0)
    assert await server.text("/5/0/7") == "2.0.0"
    old_port = server.device.port
    assert await server.execute("/5/0/2") == Code.CHANGED
    await world.pass_time(5)
    assert server.device.port != old_port
    assert len(server.registers()) == 2
    assert await server.state() == (0, 1)
    assert await server.text("/3/0/3") == "2.0.0"
    assert await server.text(f"/{SUIT_AGENT}/0/2") == "2"
    running = await server.ask(Code.GET, f"/{SUIT_AGENT}/0/3")
    assert running.payload == hashlib.sha256(IMAGE).digest()


async def test_the_package_may_be_the_uri_of_the_envelope(world):
    await world.run(delivery=Delivery.PULL)
    envelope = world.envelope(IMAGE)
    path = world.server.publish(envelope, world.folder)
    world.server.publish(IMAGE, world.folder)
    assert await world.server.write("/5/0/1", path.encode()) == Code.CHANGED
    await world.pass_time(2)
    assert await world.server.state() == (2, 0)
    assert await world.server.text("/5/0/1") == path


async def test_a_plain_device_takes_a_pushed_image_and_reboots_into_it(world):
    await world.run(plain=True)
    digest = hashlib.sha256(IMAGE).digest()
    world.server.publish(IMAGE, world.folder)
    response = await world.server.transport.push(world.server.device, ("5", "0", "0"), digest)
    assert response.code == Code.CHANGED
    assert await world.server.state() == (2, 0)
    assert await world.server.execute("/5/0/2") == Code.CHANGED
    await world.pass_time(5)
    assert await world.server.state() == (0, 1)
    assert await world.server.text("/3/0/3") == "2.0.0"


async def test_a_plain_device_pulls_an_image(world):
    await world.run(plain=True)
    path = world.server.publish(IMAGE, world.folder)
    assert await world.server.write("/5/0/1", f"coap://10.0.0.1:5683{path}".encode()) == Code.CHANGED
    await world.pass_time(2)
    assert await world.server.state() == (2, 0)


async def test_a_plain_device_has_no_suit_agent(world):
    await world.run(plain=True)
    assert f"</{SUIT_AGENT}" not in world.server.registers()[0].payload.decode()
    await world.kill()
    await world.run()
    assert f"</{SUIT_AGENT}/0>" in world.server.registers()[-1].payload.decode()


@pytest.mark.protection(
    "device", "foreign-vendor", "foreign-class", "wrong-component", "older-version", "too-big"
)
@pytest.mark.parametrize(
    ("changes", "code", "result"),
    [
        ({"vendor_domain": "other.example"}, "vendor-mismatch", 6),
        ({"class_name": "M2"}, "class-mismatch", 6),
        ({"component": (b"\x07",)}, "component-mismatch", 6),
        ({"sequence_number": 0, "version": "0.9.0"}, "version-rollback", 8),
        ({"version": "1.0.0"}, "version-rollback", 8),
        ({"version": "0.9.9"}, "version-rollback", 8),
        ({"image_size": 65537}, "storage-full", 2),
        ({"image_uri": "https://10.0.0.1/fw"}, "unsupported", 6),
    ],
)
async def test_a_manifest_that_is_not_for_this_device_is_refused_before_a_byte_is_fetched(
    world, changes, code, result
):
    await world.run()
    await deliver(world, **changes)
    assert await world.server.state() == (0, result)
    assert await refusal_of(world) == code
    assert await world.server.text(f"/{SUIT_AGENT}/0/5")


@pytest.mark.protection("device", "unknown-signer")
async def test_a_manifest_of_an_unknown_key_is_refused(world):
    await world.run()
    await deliver(world, key=SigningKey.generate(KeyType.ED25519))
    assert await world.server.state() == (0, 5)
    assert await refusal_of(world) == "unknown-key"


async def test_a_package_that_is_no_manifest_is_refused(world):
    await world.run()
    assert await offer(world, b"not a manifest") == Code.CHANGED
    assert await world.server.state() == (0, 5)
    assert await refusal_of(world) == "malformed"


@pytest.mark.protection("device", "sequence")
async def test_a_manifest_with_a_lower_sequence_number_is_refused_after_an_update(world):
    await world.run()
    await deliver(world, sequence_number=7)
    await world.server.execute("/5/0/2")
    await world.pass_time(5)
    assert await world.server.write("/5/0/1", b"") == Code.CHANGED
    await deliver(world, IMAGE + b"x", sequence_number=6, version="3.0.0")
    assert await world.server.state() == (0, 8)
    assert await refusal_of(world) == "sequence-rollback"


@pytest.mark.protection("device", "changed-image")
async def test_an_image_with_other_bytes_than_the_manifest_names_is_refused(world):
    await world.run()
    altered = bytearray(IMAGE)
    altered[5000] ^= 1
    path = world.server.publish(bytes(altered), world.folder)
    await offer(world, world.envelope(IMAGE, image_uri=path))
    await world.pass_time(2)
    assert await world.server.state() == (0, 5)
    assert await refusal_of(world) == "digest-mismatch"


@pytest.mark.protection("device", "half-image")
@pytest.mark.parametrize("length", [len(IMAGE) - 1, len(IMAGE) + 1, len(IMAGE) + 4096])
async def test_an_image_of_another_size_than_the_manifest_names_is_refused(world, length):
    await world.run()
    path = world.server.publish((IMAGE + bytes(4096))[:length], world.folder)
    await offer(world, world.envelope(IMAGE, image_uri=path))
    await world.pass_time(2)
    assert await world.server.state() == (0, 5)
    assert await refusal_of(world) in {"size-mismatch", "digest-mismatch"}


async def test_an_image_that_is_not_there_is_an_invalid_uri(world):
    await world.run()
    world.server.answers = [(Code.NOT_FOUND, {})] * 2
    await offer(world, world.envelope(IMAGE, image_uri="/fw/none"))
    await world.pass_time(2)
    assert await world.server.state() == (0, 7)
    assert await refusal_of(world) == "fetch-failed"


async def test_a_download_survives_a_server_that_is_busy_and_one_that_is_away(world):
    await world.run()
    world.server.answers = [(Code.SERVICE_UNAVAILABLE, {"max_age": 20})]
    await offer(world, world.envelope(IMAGE))
    await world.pass_time(10)
    assert await world.server.state() == (1, 0)
    world.server.publish(IMAGE, world.folder)
    world.network.cut(world.HOST)
    await world.pass_time(200)
    world.network.mend(world.HOST)
    await world.pass_time(100)
    assert await world.server.state() == (2, 0)


async def test_a_server_that_stays_away_ends_the_download_with_connection_lost(world):
    await world.run(fetch_patience=100.0)
    await offer(world, world.envelope(IMAGE))
    world.server.answers = [(Code.SERVICE_UNAVAILABLE, {})] * 40
    await world.pass_time(300)
    world.server.answers = []
    await world.pass_time(300)
    assert await world.server.state() == (0, 4)
    assert await refusal_of(world) == "fetch-failed"


async def test_an_image_that_never_confirms_is_reverted_with_update_failed(world):
    await world.run(faults=Faults(bad_boot=True))
    await deliver(world)
    await world.server.execute("/5/0/2")
    await world.pass_time(60)
    assert await world.server.state() == (0, 8)
    assert await world.server.text("/3/0/3") == "1.0.0"
    assert sum("crashes" in line for line in world.log) == 3
    assert await world.server.text(f"/{SUIT_AGENT}/0/2") == "0"


@pytest.mark.protection("device", "trial")
async def test_a_new_image_that_can_not_reach_the_server_is_reverted(world):
    await world.run(confirm_timeout=60.0)
    await deliver(world)
    await world.server.execute("/5/0/2")
    world.server.answers = [(Code.FORBIDDEN, {})] * 1000
    await world.pass_time(400)
    world.server.answers = []
    await world.pass_time(100)
    assert await world.server.state() == (0, 8)
    assert await world.server.text("/3/0/3") == "1.0.0"


async def test_a_silent_device_answers_nothing_after_execute(world):
    from lwm2m_server.transport import RequestTimeout

    await world.run(faults=Faults(silent=True))
    await deliver(world)
    assert await world.server.execute("/5/0/2") == Code.CHANGED
    await world.pass_time(1)
    before = len(world.server.seen)
    import asyncio

    asked = asyncio.ensure_future(world.server.text("/5/0/3"))
    await world.pass_time(BUSY)
    with pytest.raises(RequestTimeout):
        await asked
    assert len(world.server.seen) == before


async def test_a_device_killed_in_the_middle_goes_on_from_the_last_stored_block(world):
    await world.run()
    world.server.publish(IMAGE, world.folder)
    served = []
    world.server.transport.set_handlers(on_requests=world.server._requests, on_download=served.append)
    updater = world.device.stack.updater
    kept = 0

    class Killed(BaseException):
        pass

    def die() -> None:
        nonlocal kept
        if updater.offset >= len(IMAGE) // 2:
            kept = updater.offset
            raise Killed

    world.device.stack.agent._fetcher.stored = die
    await offer(world, world.envelope(IMAGE))
    for _ in range(60):
        await world.network.settle()
    assert kept
    await world.kill()
    await world.run()
    await world.pass_time(2)
    assert await world.server.state() == (2, 0)
    assert any(f"from byte {kept}" in line for line in world.log)


@pytest.mark.protection("device", "changed-manifest")
async def test_a_manifest_altered_by_one_bit_is_never_taken(world, images):
    from lwm2m_device.bootloader import Boot
    from lwm2m_device.judges import ManifestJudge
    from lwm2m_device.slots import ImageHeader
    from lwm2m_server.firmware.refusals import Refusal

    running = ImageHeader("1.0.0", hashlib.sha256(images[0]).digest(), len(images[0]), 1)
    judge = ManifestJudge(
        world.settings(), Boot(0, running, trial=False, notes=()), lambda: 1, 65536, lambda: 0.0
    )
    envelope = world.envelope(IMAGE)
    assert judge.offer(envelope).version == "2.0.0"
    for position in range(len(envelope)):
        for bit in range(8):
            altered = bytearray(envelope)
            altered[position] ^= 1 << bit
            with pytest.raises(Refusal):
                judge.offer(bytes(altered))


async def test_a_download_over_a_bad_network_is_byte_exact(world):
    await world.run()
    world.server.publish(IMAGE, world.folder)
    assert await offer(world, world.envelope(IMAGE)) == Code.CHANGED
    world.network.loss, world.network.duplicate, world.network.delay = 0.25, 0.1, 0.05
    await world.pass_time(4000)
    world.network.loss = world.network.duplicate = world.network.delay = 0.0
    assert await world.server.state() == (2, 0)
    assert world.device.stack.updater.slot.read(0, len(IMAGE)) == IMAGE


async def damage_image(world) -> None:
    """Flip a bit of the running image while the device is off."""
    layout = Layout(slot_size=65536)
    file = world.settings().flash
    contents = bytearray(file.read_bytes())
    contents[layout.slot(0).image.start + 3] ^= 1
    file.write_bytes(contents)


async def test_a_device_without_an_intact_image_says_so_and_takes_an_update(world):
    await world.run()
    await world.kill()
    await damage_image(world)
    await world.run()
    assert await world.server.text("/3/0/3") == "0.0.0"
    assert await world.server.text("/3/0/11/0") == "17"
    await deliver(world)
    assert await world.server.execute("/5/0/2") == Code.CHANGED
    await world.pass_time(5)
    assert await world.server.state() == (0, 1)
    assert await world.server.text("/3/0/3") == "2.0.0"
    assert await world.server.text("/3/0/11/0") == "0"


@pytest.mark.protection("device", "damaged-state")
async def test_a_device_with_a_damaged_state_comes_up_says_so_and_takes_an_update(world):
    await world.run()
    await world.kill()
    layout = Layout(slot_size=65536)
    file = world.settings().flash
    contents = bytearray(file.read_bytes())
    for region in (layout.boot, layout.update):
        contents[region.start : region.end] = b"\x5a" * region.length
    file.write_bytes(contents)
    await world.run()
    assert await world.server.text("/3/0/3") == "1.0.0"
    assert await world.server.text("/3/0/11/0") == "16"
    assert await world.server.execute("/3/0/12") == Code.CHANGED
    assert await world.server.text("/3/0/11/0") == "0"
    await deliver(world)
    await world.server.execute("/5/0/2")
    await world.pass_time(5)
    assert await world.server.text("/3/0/3") == "2.0.0"


async def test_the_stored_manifest_is_verified_again_before_a_download_goes_on(world):
    await world.run()
    world.server.answers = [(Code.SERVICE_UNAVAILABLE, {"max_age": 60})]
    await offer(world, world.envelope(IMAGE))
    await world.pass_time(1)
    await world.kill()
    await world.run(trust=(SigningKey.generate().public.pem(),))
    assert await world.server.state() == (0, 5)
    assert await refusal_of(world) == "malformed"


async def test_a_task_that_fails_ends_the_device_with_its_error(world):
    await world.run()

    def broken() -> bytes:
        raise RuntimeError("broken")

    world.device.stack.registration.objects = broken
    await world.server.execute("/1/0/8")
    await world.network.advance(1)
    with pytest.raises(RuntimeError, match="broken"):
        await world.task
    world.task = None
