"""Invariant: whatever bits rot at whatever stage of a delta in place, nothing unproven runs, and updates go on."""

import contextlib
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwm2m_device.flash import PowerCut, Tear
from lwm2m_device.judges import Delta, Offer
from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.machine import Result, State, Trigger
from lwm2m_server.firmware.deltas.detools_patches import create_in_place
from powercuts import Bench, Cut, envelope_for, judge_envelope

PAGE = 256
LAYOUT = Layout(PAGE, 6 * PAGE, LayoutKind.SINGLE, staging_size=2 * PAGE)
OLD = b"firmware-version: 1.0.0\n" + random.Random(1).randbytes(900)
NEW = b"firmware-version: 2.0.0\n" + OLD[24:500] + random.Random(2).randbytes(300) + OLD[500:]
NEXT = b"firmware-version: 3.0.0\n" + NEW[24:1000]
IMAGES = {"1.0.0": OLD, "2.0.0": NEW, "3.0.0": NEXT}


def delta(base: bytes, image: bytes) -> bytes:
    return create_in_place(base, image, memory_size=LAYOUT.slot_size, segment_size=PAGE)


DELTAS = {
    (old, new): delta(IMAGES[old], IMAGES[new])
    for old, new in (("1.0.0", "2.0.0"), ("1.0.0", "3.0.0"), ("2.0.0", "3.0.0"))
}


def bring(bench: Bench, version: str, sequence: int, *, until: State = State.IDLE) -> None:
    """Update by the delta of what runs, or in the recovery by the whole image, up to a state; IDLE: to its end."""
    _, boot = bench.boot()
    base = None if boot.image is None else boot.image.version
    sent = IMAGES[version] if base is None else DELTAS[base, version]

    def judge(envelope: bytes) -> Offer:
        offer = judge_envelope(envelope)
        named = None if base is None else Delta(hashlib.sha256(sent).digest(), len(sent))
        return Offer(offer.source, offer.digest, offer.size, offer.version, offer.sequence, delta=named)

    bench.judge = judge
    updater = bench.start()
    updater.request(Trigger.URI_EMPTY)
    assert updater.request(Trigger.PACKAGE) == 68
    updater.accept_envelope(envelope_for(IMAGES[version], version=version, sequence=sequence))
    updater.expect(b"tag")
    if until is State.DOWNLOADING:
        updater.store(sent[:256])
        return
    updater.store(sent)
    updater.finish()
    if until is State.DOWNLOADED:
        return
    assert updater.request(Trigger.UPDATE) == 68
    updater.install()
    if until is State.UPDATING:
        return
    bench.start().confirm()


@pytest.fixture(scope="module")
def flashes() -> Iterator[tuple[Bench, list[bytes]]]:
    """A bench, and its flash in every stage of an update, also with the slot half rewritten."""
    descriptor = os.memfd_create("flash")
    bench = Bench(Path(f"/proc/self/fd/{descriptor}"), layout=LAYOUT)
    bench.program_factory(OLD)
    factory = bench.contents()
    found = [factory]
    for stage in (State.DOWNLOADING, State.DOWNLOADED, State.UPDATING, State.IDLE):
        bench.restore(factory)
        bring(bench, "2.0.0", 2, until=stage)
        found.append(bench.contents())
    for operations in (8, 16, 24, 32):
        bench.restore(found[3])
        with contextlib.suppress(PowerCut):
            bench.boot(Cut(operations, Tear(0.5, operations)))
        bench.open()
        assert bench.loader().installing
        found.append(bench.contents())
    yield bench, found
    bench.close()
    os.close(descriptor)


@given(data=st.data())
def test_rot_at_any_stage_of_a_delta_in_place_boots_nothing_unproven_and_ends_nothing(
    flashes: tuple[Bench, list[bytes]], data: st.DataObject
) -> None:
    bench, stages = flashes
    bench.restore(data.draw(st.sampled_from(stages)))
    flash = bench.open()
    places = [(0, LAYOUT.size), (LAYOUT.journal.start, LAYOUT.journal.length)]
    places += [(LAYOUT.slot(index).header.start, 10_000) for index in (0, 1)]
    start, length = data.draw(st.sampled_from(places))
    length = min(length, LAYOUT.size - start)
    flash.rot(data.draw(st.integers(0, 1 << 32)), data.draw(st.integers(1, 40)), start=start, length=length)
    for _ in range(6):
        loader, boot = bench.boot()
        if boot.image is not None and boot.slot is not None:
            content = loader.slots[boot.slot].read(0, boot.image.size)
            assert content == IMAGES[boot.image.version]
        updater = bench.updater(loader, boot)
        updater.reconcile()
        if boot.trial:
            updater.confirm()
        if updater.state.state is State.IDLE:
            break
        updater.request(Trigger.URI_EMPTY)
    bring(bench, "3.0.0", 3)
    updater = bench.start()
    assert updater.boot.image is not None
    assert updater.boot.image.version == "3.0.0"
    assert (updater.state.state, updater.state.result) == (State.IDLE, Result.UPDATED)
