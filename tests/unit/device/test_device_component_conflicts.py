"""Object 33629: what can't be done now, what a restart goes on with, and that nothing unproven reaches a hook."""

import hashlib

import pytest

from lwm2m_device.consent import Accept, Defer
from lwm2m_device.flash import Flash
from lwm2m_device.layout import find_geometry
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.cose import SigningKey
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.transport import Code
from memory.parts import MAIN, image_for, package, part


def images(*names: str, version: str = "2.0.0", size: int = 3000):
    return {name: (version, image_for(name, version, size)) for name in names}


def flash_of(parts) -> tuple[Flash, object]:
    """Open the device's flash file beside it, as rot and wear do."""
    file = parts.world.settings().flash
    layout, _ = find_geometry(file.read_bytes()[: 1 << 17])
    return Flash(file, size=layout.size, page_size=layout.page_size, write_size=layout.write_size), layout


async def test_a_package_for_an_instance_that_is_not_idle_is_result_12(parts):
    await parts.run()
    await parts.offer(images("sensors"), instance=2)
    await parts.offer(images("modem", "sensors", version="3.0.0"), instance=1, sequence_number=3)
    assert await parts.states() == [(0, 0), (0, 12), (2, 0)]
    assert await parts.links(1, 17) == {"2"}
    assert (await parts.refusal())[0] == "conflicting-state"
    await parts.execute(2)
    assert await parts.versions() == ["1.0.0", "1.0.0", "2.0.0"]


async def test_a_second_transfer_waits_for_the_first(parts):
    await parts.run(block_size=16)
    modem = images("modem", size=8000)
    parts.server.publish(modem["modem"][1], parts.world.folder)
    await parts.server.write("/33629/1/0", sign(package(modem), parts.world.key), 42)
    await parts.world.network.advance(0.1)
    assert (await parts.states())[1] == (1, 0)
    assert await parts.server.write("/33629/2/1", b"/fw/x") == Code.METHOD_NOT_ALLOWED
    assert (await parts.states())[2] == (0, 12)
    assert await parts.links(2, 17) == {"1"}
    assert await parts.server.write("/33629/1/1", b"") == Code.CHANGED
    assert (await parts.states())[1] == (0, 0)


async def test_components_that_conflict_never_hold_packages_at_the_same_time(parts):
    await parts.run(part("modem", conflicting=("sensors",)), part("sensors"))
    await parts.offer(images("modem"), instance=1)
    assert await parts.offer(images("sensors"), instance=2) == Code.METHOD_NOT_ALLOWED
    assert await parts.states() == [(0, 0), (2, 0), (0, 12)]
    await parts.server.write("/33629/1/1", b"")
    await parts.offer(images("sensors", "modem"), instance=2)
    assert (await parts.states())[2] == (0, 12)


async def test_a_reset_drops_the_package_in_all_its_instances(parts):
    await parts.run()
    await parts.offer(images(MAIN, "modem", "sensors"))
    assert await parts.server.write("/33629/2/0", b"\0", 42) == Code.CHANGED
    assert await parts.states() == [(0, 0)] * 3
    assert await parts.execute(0) == Code.METHOD_NOT_ALLOWED


async def test_cancel_ends_with_result_10_in_all_instances_of_the_package(parts):
    await parts.run()
    await parts.offer(images("modem", "sensors"), instance=1)
    assert await parts.server.execute("/33629/2/10") == Code.CHANGED
    assert await parts.states() == [(0, 0), (0, 10), (0, 10)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"class_name": "M2"}, "class-mismatch"),
        ({"vendor_domain": "other.example"}, "vendor-mismatch"),
        ({"class_name": "M1-sensors"}, "class-mismatch"),
        ({"component": (b"unknown",)}, "component-mismatch"),
    ],
)
async def test_what_is_for_another_component_is_refused(parts, changes, code):
    await parts.run()
    await parts.offer(images("modem"), instance=1, **changes)
    assert (await parts.refusal())[0] == code
    assert (await parts.states())[1][0] == 0


async def test_a_component_takes_manifests_for_the_device_and_for_its_own_class(parts):
    await parts.run(part("modem", class_name="LTE-7", vendor="radio.example"), part("sensors"))
    await parts.offer(images("modem"), instance=1, class_name="LTE-7", vendor_domain="radio.example")
    assert (await parts.states())[1] == (2, 0)
    await parts.offer(images("sensors"), instance=2, class_name="M1-sensors")
    assert (await parts.states())[2] == (2, 0)


async def test_a_package_that_came_to_an_instance_it_is_not_for_is_refused(parts):
    await parts.run()
    await parts.offer(images("modem"), instance=2)
    assert await parts.states() == [(0, 0), (0, 0), (0, 6)]
    assert (await parts.refusal())[0] == "component-mismatch"


async def test_versions_and_sequence_numbers_of_components_do_not_go_down(parts):
    await parts.run()
    await parts.offer(images("modem"), instance=1, sequence_number=5)
    await parts.execute(1)
    await parts.offer(images("modem", version="1.9.0"), instance=1, sequence_number=6)
    assert (await parts.refusal())[0] == "version-rollback"
    await parts.offer(images("sensors"), instance=2, sequence_number=4)
    assert (await parts.refusal())[0] == "sequence-rollback"
    assert await parts.versions() == ["1.0.0", "2.0.0", "1.0.0"]


async def test_an_image_that_was_changed_in_flash_never_reaches_its_hook(parts):
    await parts.run()
    await parts.offer(images("modem", "sensors"), instance=1)
    await parts.world.kill()
    flash, layout = flash_of(parts)
    flash.rot(1, 5, start=layout.slot(5).image.start, length=1000)
    flash.close()
    await parts.run()
    assert await parts.states() == [(0, 0), (0, 5), (0, 5)]
    assert not parts.hooks["sensors"].log


async def test_an_envelope_that_was_exchanged_in_flash_brings_nothing_to_a_hook(parts):
    """Whoever can write to the flash, but not sign, gets nothing installed."""
    await parts.run()
    await parts.offer(images("modem", "sensors"), instance=1)
    updater = parts.world.device.stack.updater
    forged = sign(package(images("modem", "sensors")), SigningKey.generate())
    updater.banks.download(2).envelope.store(forged)
    await parts.execute(1)
    assert parts.hooks["sensors"].log == []
    assert await parts.versions() == ["1.0.0"] * 3
    assert await parts.states() == [(0, 0), (0, 8), (0, 8)]


async def test_a_download_goes_on_in_the_image_where_it_stopped(parts):
    await parts.run(block_size=64)
    wanted = images("modem", "sensors", size=8000)
    for _, image in wanted.values():
        parts.server.publish(image, parts.world.folder)
    await parts.server.write("/33629/1/0", sign(package(wanted), parts.world.key), 42)
    while sum("Fetching image" in line for line in parts.world.log) < 2:
        await parts.world.network.advance(0.05)
    for _ in range(40):
        await parts.world.network.settle()
    await parts.world.kill()
    await parts.run()
    await parts.world.pass_time(20)
    assert parts.world.said("The download goes on at byte")
    assert await parts.states() == [(0, 0), (2, 0), (2, 0)]


async def test_a_hook_that_was_cut_off_is_called_again(parts):
    parts.hooks["sensors"].hanging.add("2.0.0")
    await parts.run()
    await parts.offer(images("modem", "sensors"), instance=1)
    await parts.execute(1)
    assert await parts.states() == [(0, 0), (3, 0), (3, 0)]
    await parts.world.kill()
    parts.hooks["sensors"].hanging.clear()
    await parts.run()
    await parts.world.pass_time(5)
    assert await parts.versions() == ["1.0.0", "2.0.0", "2.0.0"]
    assert parts.hooks["modem"].log == [("install", "2.0.0")]
    assert parts.hooks["sensors"].log == [("install", "2.0.0")] * 2


async def test_a_component_that_can_not_be_restored_has_no_version_and_takes_a_new_image(parts):
    parts.hooks["modem"].failing |= {"2.0.0": "no power", "1.0.0": "no power"}
    await parts.run()
    await parts.offer(images("modem"), instance=1)
    await parts.execute(1)
    assert parts.hooks["modem"].log == [("install", "2.0.0")] + [("restore", "1.0.0")] * 3
    assert await parts.versions() == ["1.0.0", "", "1.0.0"]
    assert "lost" in (await parts.refusal())[1]
    parts.hooks["modem"].failing.clear()
    await parts.offer(images("modem"), instance=1)
    await parts.execute(1)
    assert await parts.versions() == ["1.0.0", "2.0.0", "1.0.0"]


async def test_a_damaged_record_takes_back_what_may_have_been_under_way(parts):
    parts.hooks["modem"].hanging.add("2.0.0")
    await parts.run()
    await parts.offer(images("modem", "sensors"), instance=1)
    await parts.execute(1)
    await parts.world.kill()
    parts.hooks["modem"].hanging.clear()
    flash, layout = flash_of(parts)
    flash.erase(layout.update.start, layout.update.length)
    flash.write(layout.update.start, b"rot rot ")
    flash.close()
    await parts.run()
    await parts.world.pass_time(5)
    assert await parts.versions() == ["1.0.0"] * 3
    assert ("restore", "1.0.0") in parts.hooks["modem"].log
    assert {state for state, _ in await parts.states()} == {0}
    await parts.offer(images("modem", "sensors"), instance=1)
    await parts.execute(1)
    assert await parts.versions() == ["1.0.0", "2.0.0", "2.0.0"]


class LaterConsent:
    """Accepts downloads, and puts the first question about an installation off."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ask(self, question):
        self.asked.append(question.phase.value)
        return (
            Defer(60) if self.asked.count("install") == 1 and question.phase.value == "install" else Accept()
        )


async def test_the_application_is_asked_once_for_a_package_and_may_put_it_off(parts):
    consent = LaterConsent()
    await parts.run(consent=consent)
    await parts.server.write("/33629/1/13", b"600")
    await parts.offer(images("modem", "sensors"), instance=1)
    await parts.execute(1)
    assert await parts.states() == [(0, 0), (2, 11), (2, 0)]
    assert await parts.server.write("/33629/0/1", b"/fw/x") == Code.METHOD_NOT_ALLOWED
    await parts.world.pass_time(80)
    assert await parts.versions() == ["1.0.0", "2.0.0", "2.0.0"]
    assert consent.asked == ["download", "install", "install"]


async def test_a_flash_file_belongs_to_the_components_that_it_was_made_with(parts):
    await parts.run()
    await parts.world.kill()
    for others in (
        (part("modem"),),
        (part("sensors"), part("modem")),
        (part("modem", slot_size=9), part("sensors")),
    ):
        with pytest.raises(InvalidInput, match="other components") as caught:
            await start_alone(parts, others)
        assert caught.value.field == "components"
    with pytest.raises(InvalidInput, match="2 components beside"):
        await start_alone(parts, ())


async def start_alone(parts, components) -> None:
    parts.world.start(components=components)
    await parts.world.task


async def test_images_have_the_digest_that_the_hook_is_told(parts):
    await parts.run()
    await parts.offer(images("modem"), instance=1)
    await parts.execute(1)
    assert (
        hashlib.sha256(parts.hooks["modem"].content).digest() == parts.world.device.stack.updater.digests()[1]
    )
