"""Deltas in place on the device: what is proven before the first page is rewritten, and what is left when it rots."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwm2m_device.boot_state import Outcome, Phase
from lwm2m_device.flash import Mains, PowerCut, Tear
from lwm2m_device.judges import Delta, Offer
from lwm2m_device.layout import Layout, LayoutKind, find_geometry
from lwm2m_device.machine import Result, State, Trigger
from lwm2m_device.report import describe
from lwm2m_device.slots import StagedDelta
from lwm2m_device.storage import open_storage
from lwm2m_device.updater import Updater
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.deltas.detools_patches import create_in_place
from lwm2m_server.firmware.refusals import Refusal
from powercuts import Bench, Cut, envelope_for, judge_envelope

PAGE = 256
SLOT = 8 * PAGE
LAYOUT = Layout(PAGE, SLOT, LayoutKind.SINGLE, staging_size=2 * PAGE)
OLD = b"firmware-version: 1.0.0\n" + bytes((7 * index) & 0xFF for index in range(1400))
NEW = b"firmware-version: 2.0.0\n" + OLD[24:700] + random.Random(4).randbytes(300) + OLD[700:]
DELTA = create_in_place(OLD, NEW, memory_size=SLOT, segment_size=PAGE)
ENVELOPE = envelope_for(NEW)


class InPlaceBench(Bench):
    """Its manifests name `delta`."""

    delta = DELTA

    def offer(self, envelope: bytes) -> Offer:
        offer = judge_envelope(envelope)
        delta = Delta(hashlib.sha256(self.delta).digest(), len(self.delta))
        return Offer(offer.source, offer.digest, offer.size, offer.version, offer.sequence, delta=delta)


@pytest.fixture
def bench(memory_file: Path) -> Iterator[InPlaceBench]:
    made = InPlaceBench(memory_file, layout=LAYOUT)
    made.program_factory(OLD)
    made.judge = made.offer
    yield made
    made.close()


def deliver(bench: InPlaceBench, sent: bytes | None = None) -> Updater:
    """Bring a delta to the device, up to Downloaded; raises Refusal."""
    updater = bench.start()
    assert updater.request(Trigger.PACKAGE) == 68
    updater.accept_envelope(ENVELOPE)
    updater.expect(b"tag")
    updater.store(bench.delta if sent is None else sent)
    updater.finish()
    return updater


def order(bench: InPlaceBench) -> None:
    updater = deliver(bench)
    updater.request(Trigger.UPDATE)
    updater.install()


def slot_content(bench: InPlaceBench) -> bytes:
    region = LAYOUT.slot(0).image
    return bench.contents()[region.start : region.end]


def slot_and_header(bench: InPlaceBench) -> bytes:
    slot = LAYOUT.slot(0)
    return bench.contents()[slot.header.start : slot.image.end]


def rot(bench: InPlaceBench, at: int) -> None:
    """Change a bit of the delta in the staging area."""
    bench.open().rot(1, 1, start=LAYOUT.slot(1).image.start + at, length=1)


def test_the_delta_makes_the_new_image_in_half_of_the_flash(bench: InPlaceBench) -> None:
    assert LAYOUT.capacity(1) * 4 == LAYOUT.slot_size
    assert len(DELTA) < len(NEW) / 3
    order(bench)
    updater = bench.start()
    assert (updater.boot.trial, updater.state.state) == (True, State.UPDATING)
    assert slot_content(bench)[: len(NEW)] == NEW
    updater.confirm()
    assert (updater.state.state, updater.state.result) == (State.IDLE, Result.UPDATED)
    assert not updater.loader.slots[1].is_confirmed(), "a delta is no copy of the image"
    again = bench.start()
    assert again.boot.image is not None
    assert (again.boot.image.version, again.boot.trial, again.loader.floor) == ("2.0.0", False, 2)


def test_the_image_is_known_before_anything_of_the_running_one_is_touched(bench: InPlaceBench) -> None:
    before = slot_and_header(bench)
    updater = deliver(bench)
    assert updater.state.size == len(NEW)
    assert updater.slot.delta() == StagedDelta(hashlib.sha256(DELTA).digest(), len(DELTA))
    assert slot_and_header(bench) == before


def damaged(change: str) -> bytes:
    return {
        "no delta": b"x" * 100,
        "for another memory": create_in_place(OLD, NEW, memory_size=2 * SLOT, segment_size=PAGE),
        "for other pages": create_in_place(OLD, NEW, memory_size=SLOT, segment_size=PAGE // 2),
        "for another base": create_in_place(OLD[:-1], NEW, memory_size=SLOT, segment_size=PAGE),
        "of another image": create_in_place(OLD, NEW[:-1] + b"!", memory_size=SLOT, segment_size=PAGE),
        "cut": DELTA[:-9],
    }[change]


@pytest.mark.protection("device", "delta-result")
@pytest.mark.protection("device", "delta-base", "delta-result")
@pytest.mark.protection("device", "too-big")
@pytest.mark.parametrize(
    "change",
    ["no delta", "for another memory", "for other pages", "for another base", "of another image", "cut"],
)
def test_a_signed_delta_that_does_not_make_the_image_is_refused_and_the_base_runs_on(
    bench: InPlaceBench, change: str
) -> None:
    before = slot_and_header(bench)
    bench.delta = damaged(change)
    with pytest.raises(Refusal) as caught:
        deliver(bench)
    assert caught.value.code == "digest-mismatch"
    assert slot_and_header(bench) == before
    updater = bench.start()
    updater.refused(caught.value)
    assert (updater.state.state, updater.state.result) == (State.IDLE, Result.INTEGRITY)
    bench.delta = DELTA
    order(bench)
    assert bench.start().boot.trial


def test_other_bytes_than_the_signed_ones_are_refused(bench: InPlaceBench) -> None:
    sent = DELTA[:50] + bytes([DELTA[50] ^ 1]) + DELTA[51:]
    with pytest.raises(Refusal, match="digest") as caught:
        deliver(bench, sent)
    assert caught.value.code == "digest-mismatch"


def test_a_delta_that_rots_before_the_installation_is_not_begun(bench: InPlaceBench) -> None:
    order(bench)
    before = slot_and_header(bench)
    rot(bench, 20)
    updater = bench.start()
    assert updater.boot.image is not None
    assert updater.boot.image.version == "1.0.0"
    assert slot_and_header(bench) == before
    assert (updater.state.state, updater.state.result) == (State.IDLE, Result.INTEGRITY)


def test_a_staged_delta_is_never_started_as_an_image(bench: InPlaceBench) -> None:
    updater = deliver(bench)
    loader = updater.loader
    loader.slots[1].mark_confirmed()
    loader.slots[0].drop()
    _, boot = bench.boot()
    assert (boot.slot, boot.image) == (None, None)
    # Not even when the boot loader has lost its record, and works out from the slots what there is.
    region = LAYOUT.boot
    bench.open().erase(region.start, region.length)
    bench.flash.write(region.start, bytes(16))
    loader, boot = bench.boot()
    assert loader.damaged
    assert (boot.slot, boot.image, loader.state.phase) == (None, None, Phase.NONE)
    assert loader.state.outcome is Outcome.NONE, "an installation was tried"


def half_rewritten(bench: InPlaceBench) -> None:
    order(bench)
    bench.open()
    steps = bench.loader()
    assert not steps.installing
    with pytest.raises(PowerCut):
        bench.boot(Cut(30, Tear(0.5, 1)))
    bench.open()
    assert bench.loader().installing
    bench.close()


@pytest.mark.parametrize("at", [0, 5, 60, len(DELTA) // 2])
def test_a_delta_that_rots_while_the_slot_is_rewritten_leaves_the_recovery_that_takes_a_whole_image(
    bench: InPlaceBench, at: int
) -> None:
    half_rewritten(bench)
    rot(bench, at)
    updater = bench.start()
    assert updater.boot.image is None, "a wrong image runs"
    assert (updater.state.state, updater.state.result) == (State.IDLE, Result.INTEGRITY)
    assert updater.loader.floor == 1
    assert not updater.loader.installing
    assert updater.slot.index == 0, "there is no image beside which it would have to go"
    bench.judge = judge_envelope
    updater = bench.start()
    updater.request(Trigger.PACKAGE)
    updater.accept_envelope(ENVELOPE)
    updater.expect(b"whole")
    updater.store(NEW)
    updater.finish()
    updater.request(Trigger.UPDATE)
    updater.install()
    trial = bench.start()
    assert trial.boot.trial
    assert trial.boot.image is not None
    assert trial.boot.image.version == "2.0.0"
    trial.confirm()
    assert not bench.start().boot.trial


def test_an_image_that_is_never_confirmed_leaves_the_recovery(bench: InPlaceBench) -> None:
    order(bench)
    for _ in range(3):
        assert bench.start().boot.trial
    updater = bench.start()
    assert updater.boot.image is None
    assert updater.state.result is Result.UPDATE_FAILED
    assert updater.loader.state.outcome is Outcome.NONE


def test_a_whole_image_that_fits_into_the_staging_area_is_taken_as_ever(bench: InPlaceBench) -> None:
    small = b"firmware-version: 2.0.0\n" + b"small" * 60
    bench.judge = judge_envelope
    updater = bench.start()
    updater.request(Trigger.PACKAGE)
    updater.accept_envelope(envelope_for(small))
    updater.expect(b"tag")
    updater.store(small)
    updater.finish()
    assert updater.slot.delta() is None
    updater.request(Trigger.UPDATE)
    updater.install()
    bench.start().confirm()
    assert slot_content(bench)[: len(small)] == small


def test_a_larger_whole_image_is_refused(bench: InPlaceBench) -> None:
    bench.judge = judge_envelope
    updater = bench.start()
    updater.request(Trigger.PACKAGE)
    with pytest.raises(Refusal) as caught:
        updater.accept_envelope(ENVELOPE)
    assert caught.value.code == "storage-full"


def test_the_download_of_a_delta_goes_on_after_a_restart(bench: InPlaceBench) -> None:
    updater = bench.start()
    updater.request(Trigger.URI, uri="/m", source="coap://server/m")
    updater.accept_envelope(ENVELOPE)
    updater.expect(b"tag")
    half = 300
    updater.store(DELTA[:half])
    again = bench.start()
    assert again.takes_delta
    assert 0 < again.offset <= half
    again.store(DELTA[again.offset :])
    again.finish()
    assert again.state.state is State.DOWNLOADED


def test_flash_that_can_not_be_is_told(tmp_path: Path) -> None:
    for wrong in (
        {"kind": LayoutKind.AB, "staging_size": 512},
        {"kind": LayoutKind.SINGLE, "staging_size": 0},
        {"kind": LayoutKind.SINGLE, "staging_size": SLOT + 1},
    ):
        with pytest.raises(ValueError, match="staging"):
            Layout(PAGE, SLOT, **wrong)
    file = tmp_path / "flash"
    with pytest.raises(InvalidInput, match="staging"):
        open_storage(file, page_size=PAGE, slot_size=SLOT, staging_size=512, log=print)
    assert not file.exists()


def test_the_geometry_keeps_the_staging_area(tmp_path: Path) -> None:
    file = tmp_path / "flash"
    kind = LayoutKind.SINGLE
    storage = open_storage(file, page_size=PAGE, slot_size=SLOT, kind=kind, staging_size=512, log=print)
    storage.flash.close()
    assert storage.layout == LAYOUT
    assert find_geometry(file.read_bytes()) == (LAYOUT, True)
    assert describe(file)["flash"]["staging_size"] == 512
    second = b"\xff" * PAGE + file.read_bytes()[PAGE:]
    assert find_geometry(second) == (LAYOUT, False)
    with pytest.raises(InvalidInput, match="staging-size of 512"):
        open_storage(file, page_size=None, slot_size=None, staging_size=256, log=print)
    plain = tmp_path / "plain"
    storage = open_storage(plain, page_size=PAGE, slot_size=SLOT, kind=kind, log=print)
    storage.flash.close()
    assert storage.layout.size - LAYOUT.size > SLOT // 2


def test_no_power_is_needed_beyond_the_flash_to_finish(bench: InPlaceBench) -> None:
    """Nothing of the journal's way asks a judge or a network: the boot loader alone brings the image in place."""
    half_rewritten(bench)
    bench.open(Mains())
    loader = bench.loader()
    boot = loader.boot()
    assert boot.trial
    assert slot_content(bench)[: len(NEW)] == NEW


def test_a_mark_of_the_journal_that_rots_stops_no_start(bench: InPlaceBench) -> None:
    half_rewritten(bench)
    contents, first = bench.contents(), LAYOUT.journal.start + PAGE
    images = set()
    for place in range(first, first + LAYOUT.most_steps * LAYOUT.write_size, LAYOUT.write_size):
        bench.restore(contents)
        bench.open().rot(1, 1, start=place, length=1)
        _, boot = bench.boot()
        images.add(None if boot.image is None else slot_content(bench)[: boot.image.size])
    assert images == {None, NEW}
