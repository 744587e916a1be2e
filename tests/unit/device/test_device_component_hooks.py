"""What a file of components may say, and what hooks may do: programs and Python functions."""

import asyncio
import hashlib
import stat

import pytest

from lwm2m_device.components import Relations, read_components
from lwm2m_device.hooks import Action, HookFailed, HookFunction, HookOrder, HookProgram, hook_of
from lwm2m_server.errors import InvalidInput
from memory.parts import part

IMAGE = b"firmware-version: 2.0.0\n" + bytes(200_000)
DIGEST = hashlib.sha256(IMAGE).digest()
ORDER = HookOrder("modem", Action.INSTALL, "2.0.0", DIGEST, len(IMAGE), lambda at, n: IMAGE[at : at + n])
MAIN = (b"\x00",)
GOOD = """
[[component]]
name = "modem"
version = "1.0.0"
slot_size = 262144
program = "./modem-hook"
linked = ["sensors/02"]

[[component]]
name = "sensors/02"
version = "1.4.0"
slot_size = 1000
entry_point = "lwm2m_device.uri:parse"
class = "probe"
vendor = "probes.example"
hook_timeout = 2.5
conflicting = ["00"]
"""


def read(tmp_path, text: str):
    file = tmp_path / "components.toml"
    file.write_text(text)
    return read_components(file, MAIN)


def test_a_file_describes_components_in_the_order_of_their_instances(tmp_path):
    modem, probe = read(tmp_path, GOOD)
    assert (modem.name, modem.identifier, modem.program) == ("modem", (b"modem",), tmp_path / "modem-hook")
    assert (probe.identifier, probe.class_name, probe.hook_timeout) == ((b"sensors", b"\x02"), "probe", 2.5)
    relations = Relations.of(MAIN, (modem, probe))
    assert relations.names == ("00", "modem", "sensors/02")
    assert relations.linked == (frozenset(), {2}, {1})
    assert relations.conflicting == ({2}, frozenset(), {0})


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('name = "modem"\n', "", "components/0/name"),
        ('name = "modem"', 'name = "a b"', "components/a b/name"),
        ('name = "modem"', 'name = "00"', "components/00/name"),
        ('name = "modem"', 'name = "sensors/02"', "components/sensors/02/name"),
        ('version = "1.0.0"', 'version = "new"', "components/modem/version"),
        ("slot_size = 262144", "slot_size = 0", "components/modem/slot_size"),
        ("slot_size = 262144", "slot_size = 1.5", "components/modem/slot_size"),
        ("slot_size = 262144\n", "", "components/modem/slot_size"),
        ('program = "./modem-hook"\n', "", "components/modem/program"),
        ('class = "probe"', 'program = "x"', "components/sensors/02/program"),
        ('"lwm2m_device.uri:parse"', '"lwm2m_device.uri"', "components/sensors/02/entry_point"),
        ("hook_timeout = 2.5", "hook_timeout = -1", "components/sensors/02/hook_timeout"),
        ("hook_timeout = 2.5", "colour = 1", "components/sensors/02/colour"),
        ('linked = ["sensors/02"]', 'linked = ["gps"]', "components/modem/linked"),
        ('linked = ["sensors/02"]', 'linked = "sensors/02"', "components/modem/linked"),
        ('linked = ["sensors/02"]', 'linked = ["modem"]', "components/modem/linked"),
        ('conflicting = ["00"]', 'conflicting = ["modem"]\nlinked = ["modem"]', "components/sensors/02/conflicting"),
        ('conflicting = ["00"]', 'image = "absent.bin"', "components/sensors/02/image"),
        ('conflicting = ["00"]', "conflicting = [", "components"),
        ("[[component]]", "[[part]]", "components"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_the_field(tmp_path, old, new, field):
    assert old in GOOD
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "entry_point", ["lwm2m_device.absent:run", "lwm2m_device.uri:absent", "lwm2m_device.uri:Any"]
)
def test_a_hook_that_can_not_be_loaded_is_told_at_the_start(entry_point):
    if entry_point.endswith("Any"):
        entry_point = "lwm2m_device.settings:DELTA_METHODS"
    with pytest.raises(InvalidInput) as caught:
        hook_of(part("modem", entry_point=entry_point))
    assert caught.value.field == "components/modem/entry_point"


def program(tmp_path, script: str, seconds: float = 20.0) -> HookProgram:
    file = tmp_path / "hook"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return HookProgram(file, seconds)


async def test_a_program_gets_the_image_and_tells_progress_and_result(tmp_path):
    hook = program(
        tmp_path,
        f"""echo '{{"progress": 10}}'
cat >{tmp_path}/image; echo "$@" >{tmp_path}/arguments
echo '{{"progress": 100}}'; echo '{{"result": "installed"}}'""",
    )
    told: list[int] = []
    await hook.run(ORDER, told.append)
    assert told == [10, 100]
    assert (tmp_path / "image").read_bytes() == IMAGE
    assert (tmp_path / "arguments").read_text() == f"install modem 2.0.0 {DIGEST.hex()}\n"


async def test_a_program_need_not_read_its_image(tmp_path):
    await program(tmp_path, """exec <&-; echo '{"result": "installed"}'""").run(ORDER, lambda _: None)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("""cat >/dev/null; echo '{"result": "failed", "text": "no answer"}'""", "no answer"),
        ("""cat >/dev/null; echo '{"result": "installed"}'; exit 3""", "ended with code 3"),
        ("cat >/dev/null", "without a result"),
        ("cat >/dev/null; echo done", "neither progress nor result"),
        ("""cat >/dev/null; echo '{"progress": 400}'""", "neither progress nor result"),
        ("cat >/dev/null; head -c 100000 /dev/zero", "too long"),
        ("sleep 60", "did not end within"),
    ],
)
async def test_a_program_that_does_anything_else_has_failed(tmp_path, script, why):
    seconds = 0.2 if "sleep" in script else 20.0
    with pytest.raises(HookFailed, match=why):
        await program(tmp_path, script, seconds).run(ORDER, lambda _: None)


async def test_a_program_that_is_not_there_has_failed(tmp_path):
    with pytest.raises(HookFailed, match="can't be started"):
        await HookProgram(tmp_path / "absent", 1).run(ORDER, lambda _: None)


async def test_a_function_may_be_a_coroutine_or_not():
    seen: list[str] = []

    def plain(order, progress):
        progress(100)
        seen.append(order.component)

    async def later(order, progress):
        await asyncio.sleep(0)
        seen.append(order.version)

    await HookFunction(plain, 1).run(ORDER, lambda _: None)
    await HookFunction(later, 1).run(ORDER, lambda _: None)
    assert seen == ["modem", "2.0.0"]


async def test_a_coroutine_that_never_ends_has_failed():
    async def never(order, progress):
        await asyncio.get_running_loop().create_future()

    with pytest.raises(HookFailed, match="did not end within"):
        await HookFunction(never, 0.05).run(ORDER, lambda _: None)
