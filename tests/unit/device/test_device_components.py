"""Object 33629: packages for one instance or several, what is installed together, in which order, and taken back."""

import hashlib

import pytest

from lwm2m_device.settings import Faults
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.transport import Code
from memory.parts import MAIN, NAMES, image_for, needing, package, part


def images(*names: str, version: str = "2.0.0"):
    return {name: (version, image_for(name, version)) for name in names}


async def test_each_component_is_an_instance_with_name_and_version_and_digest(parts):
    await parts.run()
    assert [await parts.server.text(f"/33629/{i}/14") for i in range(3)] == list(NAMES)
    assert await parts.versions() == ["1.0.0"] * 3
    assert await parts.states() == [(0, 0)] * 3
    registered = parts.server.registers()[0].payload.decode()
    assert "</33629/0>,</33629/1>,</33629/2>" in registered
    digest = await parts.server.ask(Code.GET, f"/{SUIT_AGENT}/0/7/1")
    assert digest.payload == hashlib.sha256(b"firmware-version: 1.0.0\nAcme modem\n").digest()
    assert await parts.server.text(f"/{SUIT_AGENT}/0/8/2") == "8192"


async def test_instances_are_neither_created_nor_deleted(parts):
    await parts.run()
    assert (await parts.server.ask(Code.DELETE, "/33629/1")).code == Code.METHOD_NOT_ALLOWED
    created = await parts.server.ask(Code.POST, "/33629", content_format=ContentFormat.TLV)
    assert created.code == Code.METHOD_NOT_ALLOWED


async def test_a_device_with_one_component_does_not_show_the_object(world):
    await world.run()
    assert (await world.server.ask(Code.GET, "/33629/0")).code == Code.NOT_FOUND


async def test_one_manifest_brings_all_components_their_images_in_its_order(parts):
    await parts.run()
    wanted = images("modem", MAIN, "sensors")
    assert await parts.offer(wanted, instance=1) == Code.CHANGED
    assert await parts.states() == [(2, 0)] * 3
    assert await parts.server.text("/33629/2/7") == "2.0.0"
    assert await parts.links(1, 16) == {"0", "2"}
    assert await parts.execute(1) == Code.CHANGED
    assert await parts.states() == [(0, 1)] * 3
    assert await parts.versions() == ["2.0.0"] * 3
    assert await parts.server.text("/3/0/3") == "2.0.0"
    for name in ("modem", "sensors"):
        assert parts.hooks[name].content == wanted[name][1]
        assert parts.hooks[name].log == [("install", "2.0.0")]
    said = "\n".join(parts.world.log)
    assert (
        said.index("Component modem runs") < said.index("Boot: 2.0.0") < said.index("Component sensors runs")
    )
    digest = await parts.server.ask(Code.GET, f"/{SUIT_AGENT}/0/7/1")
    assert digest.payload == hashlib.sha256(wanted["modem"][1]).digest()
    assert await parts.server.text(f"/{SUIT_AGENT}/0/2") == "2"


async def test_object_5_is_the_main_component(parts):
    await parts.run()
    wanted = images(MAIN)
    parts.server.publish(wanted[MAIN][1], parts.world.folder)
    await parts.server.write("/5/0/0", sign(package(wanted), parts.world.key), 42)
    await parts.world.pass_time(5)
    assert await parts.server.state() == (2, 0)
    assert (await parts.states())[0] == (2, 0)
    await parts.server.execute("/5/0/2")
    await parts.world.pass_time(5)
    assert await parts.versions() == ["2.0.0", "1.0.0", "1.0.0"]
    assert await parts.states() == [(0, 1), (0, 0), (0, 0)]


async def test_all_or_nothing_a_hook_that_fails_takes_everything_back(parts):
    parts.hooks["sensors"].failing["2.0.0"] = "no answer from the bus"
    await parts.run()
    await parts.offer(images("modem", MAIN, "sensors"), instance=1)
    await parts.execute(1)
    assert await parts.versions() == ["1.0.0"] * 3
    assert await parts.states() == [(0, 8)] * 3
    assert parts.hooks["modem"].log == [("install", "2.0.0"), ("restore", "1.0.0")]
    assert parts.hooks["sensors"].log == [("install", "2.0.0"), ("restore", "1.0.0")]
    assert parts.hooks["modem"].content == b"firmware-version: 1.0.0\nAcme modem\n"
    assert await parts.refusal() == ("component-failed", "Component sensors: no answer from the bus.")
    assert await parts.server.text(f"/{SUIT_AGENT}/0/2") == "0"
    assert await parts.server.text("/3/0/3") == "1.0.0"


async def test_all_or_nothing_a_main_image_that_never_reaches_the_server_takes_everything_back(parts):
    await parts.run()
    await parts.offer(images("modem", "sensors", MAIN), instance=1)
    await parts.world.kill()
    await parts.run(faults=Faults(bad_boot=True))
    await parts.execute(1)
    assert await parts.versions() == ["1.0.0"] * 3
    assert await parts.states() == [(0, 8)] * 3
    assert parts.hooks["modem"].log == [("install", "2.0.0"), ("restore", "1.0.0")]
    code, text = await parts.refusal()
    assert code == "component-failed"
    assert "00" in text


async def test_best_effort_the_rest_is_installed_and_the_result_tells(parts):
    parts.hooks["modem"].failing["2.0.0"] = "locked"
    await parts.run()
    wanted = images(MAIN, "modem", "sensors")
    await parts.offer(wanted, best_effort=True)
    await parts.execute()
    assert await parts.versions() == ["2.0.0", "1.0.0", "2.0.0"]
    assert await parts.states() == [(0, 1), (0, 8), (0, 1)]
    assert parts.hooks["modem"].log == [("install", "2.0.0"), ("restore", "1.0.0")]
    assert await parts.refusal() == ("component-failed", "Component modem: locked.")
    # The same manifest again installs what is missing, and nothing else.
    parts.hooks["modem"].failing.clear()
    await parts.offer(wanted, best_effort=True)
    assert await parts.states() == [(2, 0), (2, 0), (0, 1)]
    await parts.execute()
    assert await parts.versions() == ["2.0.0"] * 3
    assert parts.hooks["sensors"].log == [("install", "2.0.0")]


async def test_packages_in_instances_of_their_own_wait_and_are_installed_together(parts):
    await parts.run(part("modem", linked=("sensors",)), part("sensors"))
    await parts.offer(images("modem"), instance=1)
    assert await parts.states() == [(0, 0), (2, 0), (0, 0)]
    assert await parts.links(1, 16) == set()
    await parts.offer(images("sensors"), instance=2)
    assert await parts.states() == [(0, 0), (2, 0), (2, 0)]
    assert await parts.links(2, 16) == {"1"}
    await parts.execute(2)
    assert await parts.versions() == ["1.0.0", "2.0.0", "2.0.0"]
    assert await parts.states() == [(0, 0), (0, 1), (0, 1)]


async def test_execute_with_argument_0_installs_this_instance_alone(parts):
    await parts.run(part("modem", linked=("sensors",)), part("sensors"))
    await parts.offer(images("modem"), instance=1)
    await parts.offer(images("sensors"), instance=2)
    await parts.execute(1, "0")
    assert await parts.states() == [(0, 0), (0, 1), (2, 0)]
    await parts.execute(2, "0='</33629/1>'")
    assert await parts.states() == [(0, 0), (0, 1), (2, 13)]
    assert await parts.links(2, 17) == {"1"}
    await parts.execute(2)
    assert await parts.versions() == ["1.0.0", "2.0.0", "2.0.0"]


async def test_execute_with_a_list_installs_exactly_those(parts):
    await parts.run()
    await parts.offer(images("modem"), instance=1)
    await parts.offer(images("sensors"), instance=2)
    await parts.offer(images(MAIN), instance=0)
    assert await parts.execute(0, "0='</33629/2>'") == Code.CHANGED
    assert await parts.states() == [(0, 1), (2, 0), (0, 1)]


@pytest.mark.parametrize(
    "arguments", ["1", "0='</33629/7>'", "0='</5/0>'", "0='</33629/1>,'", "0='</33629/1>',1", "x"]
)
async def test_execute_with_arguments_that_make_no_sense_is_a_bad_request(parts, arguments):
    await parts.run()
    await parts.offer(images("modem"), instance=1)
    assert await parts.execute(1, arguments) == Code.BAD_REQUEST
    assert (await parts.states())[1] == (2, 0)


async def test_a_part_of_a_package_is_not_installed_without_the_rest(parts):
    await parts.run()
    await parts.offer(images("modem", "sensors"), instance=1)
    await parts.execute(1, "0")
    assert await parts.states() == [(0, 0), (2, 13), (2, 0)]
    assert await parts.links(1, 17) == {"2"}


async def test_a_package_that_needs_what_waits_elsewhere_is_installed_after_it(parts):
    """The manifest for the modem asks for a version of the main image that is only downloaded yet."""
    await parts.run()
    modem = image_for("modem", "2.0.0")
    parts.server.publish(modem, parts.world.folder)
    envelope = sign(needing("modem", "2.0.0", modem, requires=">= 1.5"), parts.world.key)
    await parts.server.write("/33629/1/0", envelope, 42)
    await parts.world.pass_time(5)
    assert await parts.states() == [(0, 0), (0, 13), (0, 0)]
    assert await parts.links(1, 17) == {"0"}
    assert (await parts.refusal())[0] == "dependency-missing"
    await parts.offer(images(MAIN), instance=0)
    await parts.server.write("/33629/1/0", envelope, 42)
    await parts.world.pass_time(5)
    assert await parts.states() == [(2, 0), (2, 0), (0, 0)]
    # Alone it still lacks the main image; with it the main image goes first, though it is asked for last.
    await parts.execute(1, "0")
    assert (await parts.states())[1] == (2, 13)
    await parts.execute(1, "0='</33629/0>'")
    assert await parts.versions() == ["2.0.0", "2.0.0", "1.0.0"]
    said = "\n".join(parts.world.log)
    assert said.index("Boot: 2.0.0") < said.index("Component modem runs")
