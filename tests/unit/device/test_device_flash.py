"""The simulated flash keeps the rules of the real part; state records and storage survive damage."""

import hashlib
from pathlib import Path

import cbor2
import pytest

from lwm2m_device.boot_state import BootState, Outcome
from lwm2m_device.flash import Flash, FlashFault, Mains, PowerCut, Tear
from lwm2m_device.layout import Layout, Region, find_geometry
from lwm2m_device.machine import State, Trigger
from lwm2m_device.records import TwinRecord
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.storage import open_storage, start_up
from lwm2m_device.update_state import UpdateState, decode
from lwm2m_server.errors import Conflict, InvalidInput


class CutAt(Mains):
    def __init__(self, share: float, seed: int = 1) -> None:
        self.tear = Tear(share, seed)

    def spend(self, operation, offset, size):
        return self.tear


@pytest.fixture
def flash(memory_file):
    opened = Flash(memory_file, size=4096, page_size=1024)
    yield opened
    opened.close()


def test_cells_are_programmed_once_between_two_erases(flash):
    flash.write(0, b"\xf0")
    with pytest.raises(FlashFault):
        flash.write(0, b"\x30")
    assert flash.read(0, 1) == b"\xf0"
    flash.erase(0, 1024)
    flash.write(0, b"\x30")
    assert flash.read(0, 1) == b"\x30"


def test_only_whole_units_are_programmed(memory_file):
    flash = Flash(memory_file, size=1024, page_size=1024, write_size=8)
    with pytest.raises(FlashFault):
        flash.write(4, bytes(8))
    flash.write(8, b"abc")
    assert flash.read(8, 8) == b"abc" + b"\xff" * 5
    with pytest.raises(FlashFault):
        flash.write(8, b"\xff\xff\xff\xff\xff\xff\xff\x00")
    flash.close()


def test_an_erase_works_on_whole_pages_and_counts_wear(flash):
    flash.write(1024, bytes(10))
    with pytest.raises(FlashFault):
        flash.erase(1024, 100)
    flash.erase(1024, 2048)
    assert flash.is_erased(1024, 2048)
    assert [flash.wear(page) for page in range(4)] == [0, 1, 1, 0]


@pytest.mark.parametrize("offset", [-1, 4090])
def test_nothing_is_read_or_written_outside(flash, offset):
    with pytest.raises(FlashFault):
        flash.read(offset, 10)
    with pytest.raises(FlashFault):
        flash.write(offset, bytes(10))


def test_a_cut_leaves_a_write_torn(memory_file):
    flash = Flash(memory_file, size=1024, page_size=1024, write_size=8, supply=CutAt(0.5))
    with pytest.raises(PowerCut):
        flash.write(0, bytes(32))
    assert flash.read(0, 16) == bytes(16)
    assert flash.read(16, 8) not in (bytes(8), b"\xff" * 8)
    assert flash.read(24, 8) == b"\xff" * 8
    flash.close()


def test_a_cut_leaves_an_erase_torn(memory_file):
    flash = Flash(memory_file, size=1024, page_size=1024)
    flash.write(0, bytes(1024))
    flash.close()
    flash = Flash(memory_file, size=1024, page_size=1024, supply=CutAt(0.5))
    with pytest.raises(PowerCut):
        flash.erase(0, 1024)
    cells = flash.read(0, 1024)
    assert 300 < cells.count(0xFF) < 700
    assert len(set(cells)) > 3
    flash.close()


def test_a_tear_repeats_by_its_seed(memory_file):
    seen = set()
    for seed in (1, 1, 2):
        flash = Flash(memory_file, size=1024, page_size=1024, supply=CutAt(0.5, seed))
        memory_file.write_bytes(bytes(1024))
        with pytest.raises(PowerCut):
            flash.erase(0, 1024)
        seen.add(flash.read(0, 1024))
        flash.close()
    assert len(seen) == 2


def test_nothing_works_without_power(memory_file):
    flash = Flash(memory_file, size=1024, page_size=1024, supply=CutAt(0))
    for _ in range(2):
        with pytest.raises(PowerCut):
            flash.write(0, bytes(8))
    flash.close()


def test_rot_changes_bits_by_its_seed_and_nothing_else(flash):
    before = flash.read(0, 4096)
    places = flash.rot(7, 3, start=1024, length=100)
    assert places == Flash.rot(flash, 7, 3, start=1024, length=100)  # the same bits change back
    assert flash.read(0, 4096) == before
    assert all(1024 <= place < 1124 for place in places)


def test_two_devices_can_not_share_a_file(tmp_path):
    first = Flash(tmp_path / "flash", size=1024, page_size=1024)
    with pytest.raises(Conflict):
        Flash(tmp_path / "flash", size=1024, page_size=1024)
    first.close()


def test_reading_only_leaves_a_short_file_as_it_is(tmp_path):
    file = tmp_path / "flash"
    file.write_bytes(b"abc")
    flash = Flash(file, size=1024, page_size=1024, read_only=True)
    assert flash.read(0, 5) == b"abc\xff\xff"
    flash.close()
    assert file.read_bytes() == b"abc"


# state records


def test_a_record_alternates_between_its_copies_and_the_newest_counts(flash):
    record = TwinRecord(flash, Region(0, 2048), version=1)
    assert record.load() is None
    for number in range(5):
        record.store(b"state %d" % number)
        fresh = TwinRecord(flash, Region(0, 2048), version=1)
        assert fresh.load() == b"state %d" % number
    assert flash.wear(0) == 3
    assert flash.wear(1) == 2


@pytest.mark.parametrize("page", [0, 1])
def test_a_record_with_one_damaged_copy_gives_the_other(flash, page):
    record = TwinRecord(flash, Region(0, 2048), version=1)
    record.load()
    record.store(b"older")
    record.store(b"newer")
    flash.rot(1, 1, start=page * 1024 + 20, length=5)
    fresh = TwinRecord(flash, Region(0, 2048), version=1)
    assert fresh.load() in (b"older", b"newer")
    assert not fresh.damaged


def test_a_record_without_a_valid_copy_says_that_it_is_damaged(flash):
    flash.write(10, b"rubbish")
    record = TwinRecord(flash, Region(0, 2048), version=1)
    assert record.load() is None
    assert record.damaged
    record.store(b"fresh")
    assert TwinRecord(flash, Region(0, 2048), version=1).load() == b"fresh"


def test_the_update_state_survives_its_encoding_and_rejects_everything_else():
    state = UpdateState(State.DOWNLOADED, uri="/fw/ü", digest=bytes(32), size=7, changed=1.5)
    assert decode(state.encode()) == state
    for broken in (b"", b"\xff", b"\x80", b"\xa0", state.encode() + b"\x00", state.encode()[:-1]):
        assert decode(broken) is None


def test_an_update_state_of_the_first_builds_is_still_read():
    state = UpdateState(State.DOWNLOADED, uri="/fw/x", digest=bytes(32), size=7, changed=1.5, defer=60)
    first = cbor2.dumps({key: value for key, value in cbor2.loads(state.encode()).items() if key < 14})
    assert decode(first) == state
    assert (
        decode(cbor2.dumps({key: value for key, value in cbor2.loads(state.encode()).items() if key < 15}))
        is None
    )


# the file


def settings_for(file: Path, **changes) -> DeviceSettings:
    return DeviceSettings("dev", "coap://server", file, **{"page_size": 1024, "slot_size": 4096, **changes})


def boot(settings: DeviceSettings, log: list[str]):
    storage = open_storage(
        settings.flash, page_size=settings.page_size, slot_size=settings.slot_size, log=log.append
    )
    loader, booted = start_up(settings, storage, log.append)
    return storage, loader, booted


def test_a_new_file_gets_the_factory_image_and_keeps_its_geometry(tmp_path):
    log: list[str] = []
    storage, _, booted = boot(settings_for(tmp_path / "flash"), log)
    assert booted.image.version == "1.0.0"
    storage.flash.close()
    storage, _, booted = boot(
        settings_for(tmp_path / "flash", page_size=None, slot_size=None, initial_version="9.0.0"), log
    )
    assert storage.layout == Layout(1024, 4096)
    assert booted.image.version == "1.0.0"
    storage.flash.close()


def test_other_sizes_than_those_of_the_file_are_refused(tmp_path):
    storage, _, _ = boot(settings_for(tmp_path / "flash"), [])
    storage.flash.close()
    with pytest.raises(InvalidInput, match="slot-size") as caught:
        open_storage(tmp_path / "flash", page_size=None, slot_size=8192, log=print)
    assert caught.value.field == "slot-size"
    assert caught.value.hint


def test_a_foreign_file_is_kept_aside(tmp_path):
    file = tmp_path / "flash"
    file.write_bytes(b"my precious notes\n" * 5000)
    log: list[str] = []
    storage, _, booted = boot(settings_for(file), log)
    assert booted.image.version == "1.0.0"
    assert (tmp_path / "flash.unusable-1").read_bytes() == b"my precious notes\n" * 5000
    assert storage.damaged
    assert any("kept as" in line for line in log)
    storage.flash.close()


@pytest.mark.parametrize("kept", [0, 1, 100, 1024, 5000, 20000])
def test_a_truncated_file_comes_up(tmp_path, kept):
    file = tmp_path / "flash"
    storage, _, _ = boot(settings_for(file), [])
    storage.flash.close()
    file.write_bytes(file.read_bytes()[:kept])
    storage, _, booted = boot(settings_for(file), [])
    assert booted.image.version == "1.0.0"
    storage.flash.close()


def test_damage_anywhere_outside_the_image_leaves_a_device_that_boots_the_same_image(tmp_path):
    file = tmp_path / "flash"
    storage, _, _ = boot(settings_for(file), [])
    layout = storage.layout
    storage.flash.close()
    intact = file.read_bytes()
    for start in range(0, layout.slot(0).header.start, 512):
        damaged = bytearray(intact)
        damaged[start : start + 512] = bytes(512)
        file.write_bytes(damaged)
        storage, _, booted = boot(settings_for(file), [])
        assert booted.image.version == "1.0.0"
        assert booted.slot == 0
        storage.flash.close()


def test_a_damaged_geometry_page_is_rewritten_and_the_image_kept(tmp_path):
    file = tmp_path / "flash"
    storage, _, _ = boot(settings_for(file, initial_version="4.5.6"), [])
    storage.flash.close()
    contents = bytearray(file.read_bytes())
    contents[0:64] = bytes(64)
    file.write_bytes(contents)
    log: list[str] = []
    storage, _, booted = boot(settings_for(file), log)
    assert booted.image.version == "4.5.6"
    assert storage.damaged
    assert find_geometry(file.read_bytes()) == (storage.layout, True)
    storage.flash.close()


# the boot loader


def install(bench, image: bytes, version: str, sequence: int, make_envelope, *, confirm: bool = True):
    updater = bench.start()
    updater.request(Trigger.PACKAGE)
    updater.accept_envelope(make_envelope(image, version=version, sequence=sequence))
    updater.expect(b"tag")
    updater.store(image)
    updater.finish()
    updater.request(Trigger.UPDATE)
    updater.install()
    if confirm:
        bench.start().confirm()


def test_a_confirmed_image_bars_the_way_back(bench, images, make_envelope):
    install(bench, images[1], "2.0.0", 5, make_envelope)
    loader, booted = bench.boot()
    assert booted.image.version == "2.0.0"
    assert loader.floor == 5
    loader.slots[booted.slot].drop()
    _, booted = bench.boot()
    assert booted.slot is None
    assert any("recovery" in note for note in booted.notes)


def test_the_floor_survives_the_loss_of_the_boot_state(bench, images, make_envelope):
    install(bench, images[1], "2.0.0", 5, make_envelope)
    flash = bench.open()
    flash.erase(bench.layout.boot.start, bench.layout.boot.length)
    loader, booted = bench.boot()
    assert booted.image.version == "2.0.0"
    assert loader.floor == 5


def test_a_trial_whose_boot_state_is_lost_falls_back_to_the_confirmed_image(bench, images, make_envelope):
    install(bench, images[1], "2.0.0", 5, make_envelope, confirm=False)
    flash = bench.open()
    flash.erase(bench.layout.boot.start, bench.layout.boot.length)
    _, booted = bench.boot()
    assert booted.image.version == "1.0.0"


@pytest.mark.protection("device", "counter")
def test_a_stale_boot_state_does_not_start_an_image_below_the_floor(bench, images, make_envelope):
    install(bench, images[1], "2.0.0", 5, make_envelope)
    flash = bench.open()
    record = TwinRecord(flash, bench.layout.boot, version=2)
    record.load()
    record.store(BootState(active=0, floor=1).encode())
    _, booted = bench.boot()
    assert booted.image.version == "2.0.0"


def test_a_confirmation_that_was_cut_short_is_completed_at_the_next_boot(bench, images, make_envelope):
    install(bench, images[1], "2.0.0", 5, make_envelope, confirm=False)
    loader, booted = bench.boot()
    loader.slots[booted.slot].mark_confirmed()
    for _ in range(4):
        loader, booted = bench.boot()
    assert (booted.image.version, booted.trial, loader.floor) == ("2.0.0", False, 5)


def test_an_image_on_trial_is_given_up_after_the_last_attempt(bench, images, make_envelope):
    install(bench, images[1], "2.0.0", 5, make_envelope, confirm=False)
    versions = [bench.boot()[1].image.version for _ in range(5)]
    assert versions == ["2.0.0", "2.0.0", "2.0.0", "1.0.0", "1.0.0"]
    assert bench.boot()[0].state.outcome is Outcome.BOOT_FAILED


@pytest.mark.protection("device", "damaged-at-boot")
def test_one_bit_changed_in_an_image_never_boots(bench, images, make_envelope):
    install(bench, images[1], "2.0.0", 5, make_envelope, confirm=False)
    sealed = bench.contents()
    start = bench.layout.slot(1).image.start
    for position in range(0, len(images[1]), 31):
        contents = bytearray(sealed)
        contents[start + position] ^= 1 << position % 8
        bench.restore(bytes(contents))
        loader, booted = bench.boot()
        assert booted.image.version == "1.0.0"
        assert loader.state.outcome is Outcome.IMAGE_DAMAGED
        updater = bench.start()
        assert (updater.state.state, int(updater.state.result)) == (State.IDLE, 5)


def test_one_bit_changed_in_a_slot_header_never_boots_something_else(bench, images, make_envelope):
    install(bench, images[1], "2.0.0", 5, make_envelope, confirm=False)
    sealed = bench.contents()
    start = bench.layout.slot(1).header.start
    for position in range(128):
        contents = bytearray(sealed)
        contents[start + position] ^= 1 << position % 8
        bench.restore(bytes(contents))
        _, booted = bench.boot()
        content = images[1] if booted.slot == 1 else images[0]
        assert booted.image.version in {"1.0.0", "2.0.0"}
        assert booted.image.digest == hashlib.sha256(content).digest()


def test_a_damaged_boot_state_is_reported_and_mended(bench):
    flash = bench.open()
    region = bench.layout.boot
    flash.erase(region.start, region.length)
    flash.write(region.start, b"rubbish")
    loader = bench.loader()
    assert loader.damaged
    assert any("damaged" in note for note in loader.boot().notes)
