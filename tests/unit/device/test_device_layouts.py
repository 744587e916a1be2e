"""What differs between the layouts, and what holds for all of them: nothing boots that is not proven first."""

import hashlib
import itertools

import pytest

from lwm2m_device.boot_state import Outcome
from lwm2m_device.flash import Mains, PowerCut, Tear
from lwm2m_device.layout import ComponentArea, Layout, LayoutKind, find_geometry
from lwm2m_device.machine import Result, State, Trigger
from lwm2m_device.report import describe
from lwm2m_device.slots import ImageHeader
from lwm2m_device.storage import open_storage
from lwm2m_server.errors import InvalidInput
from powercuts import Bench, Cut, Life, Recorder, envelope_for
from powercuts.explore import Moment

OLD = b"firmware-version: 1.0.0\n" + b"old " * 50
NEW = b"firmware-version: 2.0.0\n" + bytes(range(256)) * 2
NEXT = b"firmware-version: 3.0.0\n" + bytes(range(255, -1, -1)) * 2
IN_PLACE = [LayoutKind.SWAP, LayoutKind.SINGLE]


@pytest.fixture(params=list(LayoutKind))
def bench(request, memory_file):
    made = Bench(memory_file, layout=Layout(page_size=256, slot_size=768, kind=request.param))
    made.program_factory(OLD)
    yield made
    made.close()


def deliver(bench: Bench, image: bytes, version: str, sequence: int):
    """Download an image and order its installation; return the updater of that boot."""
    updater = bench.start()
    updater.request(Trigger.URI_EMPTY)
    assert updater.request(Trigger.PACKAGE) == 68
    updater.accept_envelope(envelope_for(image, version=version, sequence=sequence))
    updater.expect(b"tag")
    updater.store(image)
    updater.finish()
    updater.request(Trigger.UPDATE)
    updater.install()
    return updater


def running(bench: Bench) -> tuple[str, bool]:
    _, boot = bench.boot()
    return ("" if boot.image is None else boot.image.version), boot.trial


def moments_of(bench: Bench, *, image_boots: bool) -> list[Moment]:
    start = bench.contents()
    recorder = Recorder(Life(bench, image_boots, old=OLD, new=NEW), [])
    recorder.life.run(recorder)
    bench.restore(start)
    return recorder.moments


# what boots


@pytest.mark.protection("device", "unauthorised-boot")
@pytest.mark.parametrize("envelope", [None, b"rubbish", envelope_for(NEXT), envelope_for(NEW, sequence=9)])
def test_an_image_without_an_envelope_that_names_it_is_never_started(bench, envelope):
    bench.start()
    loader = bench.loader()
    slot = loader.slots[1]
    slot.drop()
    for page in range(-(-len(NEW) // 256)):
        slot.erase_page(page)
        slot.write(page * 256, NEW[page * 256 : page * 256 + 256])
    if envelope is not None:
        slot.envelope.store(envelope)
    slot.seal(ImageHeader("2.0.0", hashlib.sha256(NEW).digest(), len(NEW), 2))
    loader.request(1)
    assert running(bench) == ("1.0.0", False)
    assert bench.loader().state.outcome is Outcome.UNAUTHORISED


def test_an_image_of_the_factory_is_known_by_its_digest_alone(bench):
    other = OLD + b"x"
    loader = bench.loader()
    slot = loader.slots[0]
    slot.drop()
    slot.erase_page(0)
    slot.write(0, other[:256])
    slot.seal(ImageHeader("1.0.0", hashlib.sha256(other[:256]).digest(), 256, 1))
    slot.mark_confirmed()
    assert running(bench) == ("", False)


@pytest.mark.protection("device", "counter")
def test_an_image_below_the_counter_is_not_started_even_if_it_is_signed(bench):
    deliver(bench, NEW, "2.0.0", 5)
    bench.start().confirm()
    loader, boot = bench.boot()
    assert loader.floor == 5
    slot = loader.download_slot(boot)
    slot.drop()
    slot.envelope.store(envelope_for(NEXT, version="3.0.0", sequence=4))
    for page in range(-(-len(NEXT) // 256)):
        slot.erase_page(page)
        slot.write(page * 256, NEXT[page * 256 : page * 256 + 256])
    slot.seal(ImageHeader("3.0.0", hashlib.sha256(NEXT).digest(), len(NEXT), 4))
    loader.request(slot.index)
    assert running(bench) == ("2.0.0", False)
    assert bench.loader().state.outcome is Outcome.BELOW_FLOOR


def test_an_image_runs_on_trial_until_it_is_confirmed(bench):
    deliver(bench, NEW, "2.0.0", 2)
    assert running(bench) == ("2.0.0", True)
    updater = bench.start()
    assert (updater.state.state, updater.loader.floor) == (State.UPDATING, 1)
    updater.confirm()
    assert (updater.state.state, updater.state.result) == (State.IDLE, Result.UPDATED)
    assert running(bench) == ("2.0.0", False)
    assert (bench.loader().floor, bench.loader().state.floor) == (2, 2)


def test_an_image_that_is_never_confirmed_is_given_up_and_the_device_takes_the_next(bench):
    deliver(bench, NEW, "2.0.0", 2)
    assert [running(bench) for _ in range(3)] == [("2.0.0", True)] * 3
    left = "" if bench.layout.kind is LayoutKind.SINGLE else "1.0.0"
    assert running(bench) == (left, False)
    updater = bench.start()
    assert (updater.state.state, updater.state.result) == (State.IDLE, Result.UPDATE_FAILED)
    assert updater.loader.floor == 1
    deliver(bench, NEXT, "3.0.0", 3)
    bench.start().confirm()
    assert running(bench) == ("3.0.0", False)


# what is lost


@pytest.mark.parametrize("image_boots", [True, False], ids=["confirmed", "reverted"])
def test_the_boot_state_may_be_lost_at_any_moment(bench, image_boots):
    region = bench.layout.boot
    for moment in moments_of(bench, image_boots=image_boots):
        damaged = bytearray(moment.contents)
        damaged[region.start : region.end] = b"\x5a" * region.length
        bench.restore(bytes(damaged))
        life = Life(bench, image_boots, moment.seen, old=OLD, new=NEW)
        assert life.run(Mains()) == ("updated" if image_boots else "reverted")


@pytest.mark.protection("device", "damaged-state")
def test_the_update_state_may_be_lost_at_any_moment_and_the_device_says_so(bench):
    region = bench.layout.update
    for moment in moments_of(bench, image_boots=True):
        damaged = bytearray(moment.contents)
        damaged[region.start : region.end] = b"\x5a" * region.length
        bench.restore(bytes(damaged))
        loader, boot = bench.boot()
        updater = bench.updater(loader, boot)
        assert updater.damaged
        updater.reconcile()
        if not boot.trial:
            assert updater.state.state is State.IDLE
            assert (updater.state.result, updater.state.code) == (Result.UPDATE_FAILED, "state-damaged")
        bench.restore(bytes(damaged))
        assert Life(bench, seen=moment.seen, old=OLD, new=NEW).run(Mains()) == "updated"


def test_an_older_copy_of_the_boot_state_does_no_harm(bench):
    """The newest copy rots away: what counts then is one step old."""
    region = bench.layout.boot
    for moment in moments_of(bench, image_boots=True):
        for half in (0, region.length // 2):
            damaged = bytearray(moment.contents)
            start = region.start + half
            damaged[start : start + 64] = b"\x5a" * 64
            bench.restore(bytes(damaged))
            assert Life(bench, seen=moment.seen, old=OLD, new=NEW).run(Mains()) == "updated"


@pytest.mark.protection("device", "half-image")
@pytest.mark.parametrize("page", [0, 1])
def test_bytes_that_rot_while_a_download_waits_are_fetched_again(bench, page):
    updater = bench.start()
    updater.request(Trigger.PACKAGE)
    updater.accept_envelope(envelope_for(NEW))
    updater.expect(b"tag")
    updater.store(NEW[:512])
    slot = bench.layout.slot(updater.slot.index).image
    bench.flash.rot(1, 1, start=slot.start + page * 256, length=256)
    updater = bench.start()
    assert updater.offset == page * 256
    updater.store(NEW[updater.offset :])
    updater.finish()
    assert updater.state.state is State.DOWNLOADED


# one layout and the others


@pytest.mark.parametrize("bench", IN_PLACE, indirect=True)
def test_images_run_in_the_first_slot_only(bench):
    deliver(bench, NEW, "2.0.0", 2)
    _, boot = bench.boot()
    assert boot.slot == 0
    kept = bench.loader().slots[1].header().version
    assert kept == ("1.0.0" if bench.layout.kind is LayoutKind.SWAP else "2.0.0")


@pytest.mark.parametrize("bench", [LayoutKind.SINGLE], indirect=True)
def test_a_staged_copy_mends_the_confirmed_image(bench):
    deliver(bench, NEW, "2.0.0", 2)
    bench.start().confirm()
    flash = bench.open()
    image = bench.layout.slot(0).image
    flash.rot(3, 5, start=image.start, length=len(NEW))
    assert running(bench) == ("2.0.0", False)
    assert bench.loader().slots[0].read(0, len(NEW)) == NEW


@pytest.mark.parametrize("kind", list(LayoutKind))
def test_a_file_keeps_its_layout(tmp_path, kind):
    file = tmp_path / "flash"
    open_storage(file, page_size=512, slot_size=2048, kind=kind, log=print).flash.close()
    storage = open_storage(file, page_size=None, slot_size=None, log=print)
    assert storage.layout == Layout(512, 2048, kind)
    storage.flash.close()
    other = next(each for each in LayoutKind if each is not kind)
    with pytest.raises(InvalidInput) as caught:
        open_storage(file, page_size=None, slot_size=None, kind=other, log=print)
    assert caught.value.field == "layout"


@pytest.mark.parametrize("damaged_page", [0, 1])
def test_one_copy_of_the_geometry_is_enough(tmp_path, damaged_page):
    file = tmp_path / "flash"
    open_storage(file, page_size=512, slot_size=2048, kind=LayoutKind.SWAP, log=print).flash.close()
    contents = bytearray(file.read_bytes())
    contents[damaged_page * 512 : damaged_page * 512 + 32] = bytes(32)
    file.write_bytes(contents)
    storage = open_storage(file, page_size=None, slot_size=None, log=print)
    assert storage.layout == Layout(512, 2048, LayoutKind.SWAP)
    storage.flash.close()
    assert find_geometry(file.read_bytes())[1]


@pytest.mark.parametrize(
    "sizes", [{"page_size": 128}, {"page_size": 300}, {"slot_size": 0}, {"write_size": 3}, {"write_size": 32}]
)
def test_sizes_that_no_flash_has_are_refused(sizes):
    with pytest.raises(ValueError, match="byte"):
        Layout(**sizes)


def test_a_swap_spreads_its_wear_over_the_scratch_pages(memory_file):
    bench = Bench(memory_file, layout=Layout(page_size=256, slot_size=4096, kind=LayoutKind.SWAP))
    bench.program_factory(OLD)
    deliver(bench, b"firmware-version: 2.0.0\n" + bytes(range(250)) * 16, "2.0.0", 2)
    bench.boot()
    scratch = bench.layout.scratch
    wear = [bench.flash.wear(page) for page in range(scratch.start // 256, scratch.end // 256)]
    assert max(wear) - min(wear) <= 1
    assert min(wear) > 3
    bench.close()


def test_show_tells_slots_versions_trial_and_wear(bench):
    deliver(bench, NEW, "2.0.0", 2)
    before = describe(bench.file)
    bench.boot()
    after = describe(bench.file)
    names = [bench.layout.slot_name(index) for index in (0, 1)]
    assert after["flash"]["layout"] == bench.layout.kind.value
    assert list(after["slots"]) == names
    here = 1 if bench.layout.kind is LayoutKind.AB else 0
    assert (after["boot"]["phase"], after["boot"]["trial"]) == ("trial", names[here])
    assert (after["boot"]["attempts"], after["boot"]["half_done"]) == (1, False)
    assert after["slots"][names[here]]["version"] == "2.0.0"
    assert not after["slots"][names[here]]["confirmed"]
    assert (after["update"]["state"], after["update"]["version"]) == ("updating", "2.0.0")
    assert after["wear"]["erase_cycles"] > before["wear"]["erase_cycles"]
    assert after["wear"]["most_worn_page"] >= after["wear"]["boot_state"] > 0


def test_show_tells_of_an_installation_that_is_half_done(memory_file):
    bench = Bench(memory_file, layout=Layout(page_size=256, slot_size=768, kind=LayoutKind.SWAP))
    bench.program_factory(OLD)
    deliver(bench, NEW, "2.0.0", 2)
    with pytest.raises(PowerCut):
        bench.boot(Cut(12, Tear(0.5)))
    shown = describe(bench.file)
    assert shown["boot"]["half_done"]
    assert running(bench) == ("2.0.0", True)
    assert not describe(bench.file)["boot"]["half_done"]
    bench.close()


def test_the_geometry_of_a_device_with_components_is_found_again_in_either_copy():
    areas = (ComponentArea.of("modem", 4096), ComponentArea.of("sensors/2", 100))
    for kind in LayoutKind:
        layout = Layout(256, 768, kind, 8, None, areas)
        encoded = layout.encode_geometry()
        copies = encoded.ljust(256, b"\xff") + encoded
        assert find_geometry(copies) == (layout, True)
        assert find_geometry(b"\0" + copies[1:]) == (layout, False)
        assert find_geometry(encoded[:-1]) == (None, False)


def test_a_small_staging_area_has_no_room_for_the_images_of_several_components():
    with pytest.raises(ValueError, match="several components"):
        Layout(256, 768, LayoutKind.SINGLE, 8, 300, (ComponentArea.of("modem", 4096),))


def test_no_two_parts_of_a_flash_with_components_share_a_page():
    layout = Layout(256, 768, LayoutKind.SWAP, 8, None, (ComponentArea(700, 1), ComponentArea(3000, 2)))
    slots = [layout.slot(index) for index in range(6)]
    regions = [
        layout.geometry, layout.factory, layout.boot, layout.update, layout.progress, layout.journal, layout.scratch,
        *(part for slot in slots[:2] for part in (slot.header, slot.manifest, slot.image)),
        layout.component_factory,
        *(part for slot in slots[2:] for part in (slot.header, slot.manifest, slot.image)),
    ]  # fmt: skip
    assert all(before.end == after.start for before, after in itertools.pairwise(regions))
    assert regions[-1].end == layout.size
    assert [slot.image.length for slot in slots] == [768, 768, 768, 768, 3072, 3072]
    assert Layout(256, 768, LayoutKind.SWAP).encode_geometry()[8] == 2, (
        "files of earlier builds are read as they were"
    )


def test_a_device_has_at_most_fifteen_components_beside_the_main_one():
    areas = (ComponentArea(1, 1),) * 15
    assert len(Layout(256, 768, components=areas).encode_geometry()) <= 256
    with pytest.raises(ValueError, match="at most 15"):
        Layout(256, 768, components=(*areas, ComponentArea(1, 1)))
