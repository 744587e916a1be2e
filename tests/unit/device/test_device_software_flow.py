"""Applications of a whole device: requests of the server, packages, the hook, and what a restart goes on with."""

import asyncio
import hashlib

import pytest

from lwm2m_device.flash import FlashFault
from lwm2m_device.hooks import Action, HookFailed, HookFunction, HookProgram, named_hook
from lwm2m_device.places import Place, read_places, storage_file
from lwm2m_device.report import describe
from lwm2m_device.settings import Delivery
from lwm2m_device.software import Application
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.cose import SigningKey
from lwm2m_server.firmware.description import EncryptedPayload
from lwm2m_server.firmware.encryption import ContentCipher, encryption_info
from lwm2m_server.firmware.images import VERSION_LINE
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.transport import Code
from memory.parts import part

PACKAGE = VERSION_LINE + b"2.0.0\n" + bytes(range(256)) * 40
METER = (b"app", b"meter")
CHANGED, BAD, NOT_FOUND, NOT_ALLOWED, CREATED = 68, 128, 132, 133, 65


class Hook:
    """Notes what it is called for; `wait` holds it, `fail` makes it fail for an action."""

    def __init__(self):
        self.calls = []
        self.wait = None
        self.fail = {}

    async def run(self, order, progress):
        self.calls.append((order.action, order.component, order.version))
        assert hashlib.sha256(order.read(0, order.size)).digest() == order.digest
        if self.wait is not None:
            await self.wait.wait()
        if order.action in self.fail:
            raise HookFailed(self.fail[order.action])
        progress(100)

    def actions(self):
        return [str(action) for action, _, _ in self.calls]


@pytest.fixture
def hook():
    return Hook()


async def run(world, hook=None, places=("meter=1.0.0",), **changes):
    # The fixture makes devices without applications: this one has them.
    from lwm2m_device.device import Device
    from lwm2m_device.device import World as Surroundings
    from memory.reference import NetworkPace

    around = Surroundings(world.transport, world.log.append, world.network.clock, NetworkPace(world.network))
    settings = world.settings(applications=read_places(places), **changes)
    world.device = Device(settings, around, application_hook=hook)
    world.task = asyncio.ensure_future(world.device.run())
    await world.network.advance(1)


async def status(world, instance=0):
    """Return state, result, version and whether it is active."""
    texts = [await world.server.text(f"/9/{instance}/{number}") for number in (7, 9, 1, 12)]
    return int(texts[0]), int(texts[1]), texts[2], texts[3] == "1"


async def execute(world, path, arguments=""):
    options = {"payload": arguments.encode(), "content_format": 0} if arguments else {}
    return (await world.server.ask(Code.POST, path, **options)).code


def manifest(world, **changes):
    world.server.publish(PACKAGE, world.folder)
    return world.envelope(PACKAGE, **({"component": METER} | changes))


async def push(world, package, instance=0):
    return await world.server.write(f"/9/{instance}/2", package, ContentFormat.OPAQUE)


async def delivered(world, **changes):
    assert await execute(world, "/9/0/6", "1") == CHANGED
    assert await push(world, manifest(world, **changes)) == CHANGED
    await world.pass_time(60)


async def test_a_signed_application_is_pushed_verified_installed_and_activated(world, hook):
    await run(world, hook)
    assert await status(world) == (4, 2, "1.0.0", True)
    await delivered(world)
    assert await status(world) == (3, 3, "2.0.0", False)
    assert await execute(world, "/9/0/4") == CHANGED
    await world.pass_time(1)
    assert await status(world) == (4, 2, "2.0.0", False)
    assert await execute(world, "/9/0/10") == CHANGED
    await world.pass_time(1)
    assert await status(world) == (4, 2, "2.0.0", True)
    assert hook.calls == [
        (Action.START, "app/meter", "1.0.0"),
        (Action.INSTALL, "app/meter", "2.0.0"),
        (Action.START, "app/meter", "2.0.0"),
    ]
    assert await execute(world, "/9/0/11") == CHANGED
    await world.pass_time(1)
    assert (await status(world))[3] is False
    assert hook.actions()[-1] == "stop"


async def test_a_manifest_can_be_pulled(world):
    await run(world)
    assert await execute(world, "/9/0/6", "1") == CHANGED
    envelope = manifest(world)
    path = world.server.publish(envelope, world.folder)
    assert await world.server.write("/9/0/3", path.encode()) == CHANGED
    await world.pass_time(60)
    assert (await status(world))[:3] == (3, 3, "2.0.0")


async def test_requests_at_the_wrong_time_are_4_05_and_bad_arguments_4_00(world):
    await run(world)
    for path in ("/9/0/4",):
        assert await execute(world, path) == NOT_ALLOWED
    assert await push(world, b"x") == NOT_ALLOWED
    assert await world.server.write("/9/0/3", b"/fw/x") == NOT_ALLOWED
    for arguments in ("2", "1='x'", "0,1"):
        assert await execute(world, "/9/0/6", arguments) == BAD
    assert await execute(world, "/9/0/10", "0") == BAD
    assert await execute(world, "/9/0/6", "1") == CHANGED
    for path in ("/9/0/4", "/9/0/10", "/9/0/11"):
        assert await execute(world, path) == NOT_ALLOWED
    assert await world.server.write("/9/0/3", b"ftp://x/y") == BAD
    assert (await status(world))[:2] == (0, 56)
    assert (await world.server.ask(Code.POST, "/9", content_format=11542, payload=b"")).code == NOT_ALLOWED
    assert (await world.server.ask(Code.GET, "/9/0/3")).code == NOT_ALLOWED


@pytest.mark.parametrize(
    ("changes", "result", "code"),
    [
        ({"class_name": "M2"}, 54, "class-mismatch"),
        ({"component": (b"app", b"pump")}, 54, "component-mismatch"),
        ({"component": (b"\0",)}, 54, "component-mismatch"),
        ({"version": "0.9.0"}, 57, "version-rollback"),
        ({"key": SigningKey.generate()}, 53, "unknown-key"),
    ],
)
async def test_a_foreign_or_older_application_is_refused_with_its_reason(world, changes, result, code):
    await run(world)
    await delivered(world, **changes)
    assert (await status(world))[:3] == (0, result, "1.0.0")
    assert (await world.server.text("/9/0/16")).startswith(f"{code}: ")


@pytest.mark.parametrize(("plain", "limit"), [(True, 65536), (False, 8192)])
async def test_a_package_without_room_is_refused_and_says_so(world, plain, limit):
    await run(world, plain=plain)
    assert await execute(world, "/9/0/6", "1") == CHANGED
    assert await push(world, bytes(limit + 1)) == Code.REQUEST_ENTITY_TOO_LARGE
    assert (await status(world))[:2] == (0, 50)
    expected = f"storage-full: The package has {limit + 1} bytes; at most {limit} fit."
    assert await world.server.text("/9/0/16") == expected


async def test_a_flash_that_fails_at_the_last_byte_of_a_pull_ends_the_download(world, monkeypatch):
    def fail(self):
        raise FlashFault("The cells are not erased.")

    await run(world)
    monkeypatch.setattr(Application, "finish", fail)
    await delivered(world)
    assert (await status(world))[:2] == (0, 50)
    assert await world.server.text("/9/0/16") == "storage-full: The cells are not erased."


async def test_a_sequence_number_that_was_passed_is_refused_even_after_a_removal(world):
    await run(world)
    await delivered(world, sequence_number=7)
    await execute(world, "/9/0/4")
    await world.pass_time(1)
    assert await execute(world, "/9/0/6") == CHANGED
    await world.pass_time(1)
    assert await status(world) == (0, 0, "", False)
    assert await push(world, manifest(world, version="3.0.0", sequence_number=6)) == CHANGED
    await world.pass_time(60)
    assert (await status(world))[:2] == (0, 57)
    assert (await world.server.text("/9/0/16")).startswith("sequence-rollback")


async def test_a_failed_installation_leaves_the_package_and_can_be_ordered_again(world, hook):
    hook.fail[Action.INSTALL] = "no room in the enclave"
    await run(world, hook)
    await delivered(world)
    await execute(world, "/9/0/4")
    await world.pass_time(1)
    assert (await status(world))[:2] == (3, 58)
    assert await world.server.text("/9/0/16") == "no room in the enclave"
    hook.fail.clear()
    await execute(world, "/9/0/4")
    await world.pass_time(1)
    assert (await status(world))[:3] == (4, 2, "2.0.0")


async def test_an_installation_under_way_shows_delivered_and_refuses_everything(world, hook):
    await run(world, hook)
    await delivered(world)
    hook.wait = asyncio.Event()
    await execute(world, "/9/0/4")
    await world.pass_time(1)
    assert (await status(world))[:2] == (3, 3)
    for path in ("/9/0/4", "/9/0/6", "/9/0/10"):
        assert await execute(world, path) == NOT_ALLOWED
    hook.wait.set()
    await world.pass_time(1)
    assert (await status(world))[:2] == (4, 2)


@pytest.mark.parametrize("action", ["/9/0/4", "/9/0/6"])
async def test_what_a_power_cut_interrupted_is_finished_at_the_next_boot(world, hook, action):
    await run(world, hook)
    if action == "/9/0/4":
        await delivered(world)
    hook.wait = asyncio.Event()
    await execute(world, action)
    await world.pass_time(1)
    await world.kill()
    hook.wait, before = None, len(hook.calls)
    await run(world, hook)
    await world.pass_time(5)
    expected = (4, 2, "2.0.0", False) if action == "/9/0/4" else (0, 0, "", False)
    assert await status(world) == expected
    assert hook.actions()[before:] == ["install" if action == "/9/0/4" else "remove"]


async def test_a_download_goes_on_where_a_power_cut_stopped_it(world):
    await run(world)
    await execute(world, "/9/0/6", "1")
    await push(world, manifest(world))
    while not any("Stored" in line for line in world.log):
        await world.network.settle()
        await world.network.advance(0.01)
    await world.kill()
    await run(world)
    await world.pass_time(60)
    assert (await status(world))[:3] == (3, 3, "2.0.0")
    resumed = [line for line in world.log if "goes on at byte" in line]
    assert resumed
    assert not resumed[0].endswith("byte 0.")


async def test_an_application_that_does_not_start_is_shown_inactive_with_a_result(world, hook):
    await run(world, hook)
    hook.fail[Action.START] = "missing library"
    await execute(world, "/9/0/11")
    await execute(world, "/9/0/10")
    await world.pass_time(1)
    assert await status(world) == (4, 57, "1.0.0", False)
    assert await world.server.text("/9/0/16") == "missing library"


@pytest.mark.protection("device", "foreign-application")
async def test_a_free_place_takes_an_application_that_has_no_other(world):
    await run(world, places=("meter=1.0.0", ""))
    assert await world.server.text("/9/1/0") == ""
    assert await push(world, manifest(world), instance=1) == CHANGED
    await world.pass_time(60)
    assert (await status(world, 1))[:2] == (0, 54)
    assert await execute(world, "/9/1/6", "1") == CHANGED
    assert await push(world, manifest(world, component=(b"app", b"pump")), instance=1) == CHANGED
    await world.pass_time(60)
    assert await execute(world, "/9/1/4") == CHANGED
    await world.pass_time(1)
    assert (await world.server.text("/9/1/0"), await status(world, 1)) == ("pump", (4, 2, "2.0.0", False))
    assert await status(world) == (4, 2, "1.0.0", True)
    assert await execute(world, "/9/1/6") == CHANGED
    await world.pass_time(1)
    assert await world.server.text("/9/1/0") == ""


async def test_plain_devices_take_files_by_push_and_pull(world):
    await run(world, plain=True, trust=())
    await execute(world, "/9/0/6", "1")
    path = world.server.publish(PACKAGE, world.folder)
    assert await world.server.write("/9/0/3", path.encode()) == CHANGED
    await world.pass_time(60)
    assert (await status(world))[:3] == (3, 3, "2.0.0")
    await execute(world, "/9/0/6", "1")
    assert await push(world, PACKAGE) == CHANGED
    assert (await status(world))[:3] == (3, 3, "2.0.0")
    await execute(world, "/9/0/6", "1")
    assert await push(world, VERSION_LINE + b"0.5\n") == CHANGED
    assert (await status(world))[:2] == (0, 57)
    await execute(world, "/9/0/6", "1")
    assert await push(world, bytes(70_000)) in (141, CHANGED)
    assert (await status(world))[:2] == (0, 50)


async def test_an_encrypted_application_is_decrypted_as_it_is_written(world):
    kek, cipher = bytes(range(16)), ContentCipher(bytes(range(16, 32)), bytes(16))
    sent = cipher.apply(0, PACKAGE)
    payload = EncryptedPayload(
        digest=hashlib.sha256(sent).digest(),
        size=len(sent),
        info=encryption_info(cipher.key, [(kek, b"class")]),
    )
    uri = world.server.publish(sent, world.folder)
    await run(world, decryption_keys=(kek,))
    await delivered(world, encrypted=payload, image_uri=uri)
    await execute(world, "/9/0/4")
    await world.pass_time(1)
    assert (await status(world))[:3] == (4, 2, "2.0.0")
    (place,) = world.settings(applications=read_places(["meter"])).applications
    assert PACKAGE in storage_file(world.settings().flash, place).read_bytes()


async def test_a_device_of_several_components_has_applications_too(world):
    await run(world, components=(part("modem"),))
    await delivered(world)
    await execute(world, "/9/0/4")
    await world.pass_time(1)
    assert (await status(world))[:3] == (4, 2, "2.0.0")
    assert await world.server.text("/33629/1/15") == "1.0.0"


@pytest.mark.parametrize("delivery", [Delivery.PUSH, Delivery.PULL])
async def test_a_way_that_the_device_does_not_take_is_4_05(world, delivery):
    await run(world, delivery=delivery)
    await execute(world, "/9/0/6", "1")
    codes = await push(world, manifest(world)), await world.server.write("/9/0/3", b"/fw/x")
    assert codes == ((CHANGED, NOT_ALLOWED) if delivery is Delivery.PUSH else (NOT_ALLOWED, CHANGED))


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_server_hears_at_once_of_other_objects_if_it_wants_to(world, wanted):
    await run(world)
    assert await world.server.write("/9/0/8", b"1" if wanted else b"0") == CHANGED
    await delivered(world)
    before = len(world.server.updates())
    await execute(world, "/9/0/4")
    await world.pass_time(5)
    assert len(world.server.updates()) == before  # no object has come or gone
    world.device.stack.tree.objects[3303].instances.pop(0)
    await execute(world, "/9/0/6")
    await world.pass_time(5)
    assert len(world.server.updates()) == before + wanted


async def test_state_and_result_are_notified_as_they_change(world):
    await run(world)
    seen = []
    await world.server.transport.observe(
        world.server.device,
        ("9", "0", "7"),
        on_notify=lambda each: seen.append(int(each.payload)),
        on_end=lambda _: None,
    )
    await delivered(world)
    await execute(world, "/9/0/4")
    await world.pass_time(5)
    assert seen[-1] == 4
    assert {0, 3} <= set(seen)


async def test_show_tells_what_an_application_s_flash_holds(world):
    await run(world)
    await delivered(world)
    await world.kill()
    told = describe(storage_file(world.settings().flash, Place(0)))
    assert told["application"]["stage"] == "delivered"
    assert told["application"]["package_version"] == "2.0.0"
    assert {slot["version"] for slot in told["slots"].values()} == {"1.0.0", "2.0.0"}
    assert told["application"]["in_place"] in told["slots"]


def test_a_hook_is_a_program_or_a_python_function(tmp_path):
    program = tmp_path / "hook"
    program.write_text("#!/bin/sh\n")
    assert isinstance(named_hook(str(program), 1.0), HookProgram)
    assert isinstance(named_hook("builtins:print", 1.0), HookFunction)
    for name in (str(tmp_path / "missing"), "no.such.module:function", "builtins:nothing"):
        with pytest.raises(InvalidInput):
            named_hook(name, 1.0)


async def test_a_program_is_told_what_to_do_and_may_fail(world, tmp_path):
    program = tmp_path / "hook"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$1 $2 $3" >>{tmp_path}/calls\n'
        "cat >/dev/null\n"
        """if [ "$1" = install ]; then echo '{"result": "failed", "text": "disk full"}'; """
        """else echo '{"result": "done"}'; fi\n"""
    )
    program.chmod(0o755)
    await run(world, application_hook=str(program), application_timeout=10.0)
    await delivered(world)
    await execute(world, "/9/0/4")
    while "installation of application meter failed" not in world.log[-1]:
        await asyncio.sleep(0)
    assert (await status(world))[:2] == (3, 58)
    assert await world.server.text("/9/0/16") == "disk full"
    assert (tmp_path / "calls").read_text() == "start app/meter 1.0.0\ninstall app/meter 2.0.0\n"


def test_places_are_named_once_and_as_components_are():
    assert read_places(["meter=1.0", "pump", "", ""]) == (
        Place(0, "meter", "1.0"),
        Place(1, "pump"),
        Place(2),
        Place(3),
    )
    for texts in (["a", "a"], ["a/b"], ["=1.0"], ["meter=new"], ["x" * 65]):
        with pytest.raises(InvalidInput):
            read_places(texts)


async def test_each_application_has_a_flash_file_beside_the_device_s(world):
    await run(world, places=("meter", "pump"))
    files = [storage_file(world.settings().flash, place) for place in read_places(["meter", "pump"])]
    assert [file.exists() for file in files] == [True, True]
    assert await world.server.text("/9/1/0") == "pump"
    assert await status(world, 1) == (0, 0, "", False)
