"""Invariant: whatever bits rot wherever, the device comes up, runs nothing unproven, and takes an update."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.machine import Result, State, Trigger
from powercuts import Bench, envelope_for

OLD = b"firmware-version: 1.0.0\n" + b"old " * 50
NEW = b"firmware-version: 2.0.0\n" + bytes(range(256)) * 2
NEXT = b"firmware-version: 3.0.0\n" + bytes(range(255, -1, -1)) * 2
AUTHORISED = {"1.0.0": OLD, "2.0.0": NEW, "3.0.0": NEXT}


def bring(bench: Bench, image: bytes, version: str, sequence: int, *, until: State = State.IDLE) -> None:
    """Do what a server does for an update, up to a state; IDLE: to its end."""
    updater = bench.start()
    updater.request(Trigger.URI_EMPTY)
    assert updater.request(Trigger.PACKAGE) == 68
    updater.accept_envelope(envelope_for(image, version=version, sequence=sequence))
    updater.expect(b"tag")
    if until is State.DOWNLOADING:
        updater.store(image[:256])
        return
    updater.store(image)
    updater.finish()
    if until is State.DOWNLOADED:
        return
    assert updater.request(Trigger.UPDATE) == 68
    updater.install()
    if until is State.UPDATING:
        return
    bench.start().confirm()


@pytest.fixture(scope="module", params=list(LayoutKind))
def flashes(request) -> Iterator[tuple[Bench, list[bytes]]]:
    """A bench, and its flash in every stage of an update."""
    descriptor = os.memfd_create("flash")
    bench = Bench(
        Path(f"/proc/self/fd/{descriptor}"), layout=Layout(page_size=256, slot_size=768, kind=request.param)
    )
    bench.program_factory(OLD)
    factory = bench.contents()
    found = [factory]
    for stage in (State.DOWNLOADING, State.DOWNLOADED, State.UPDATING, State.IDLE):
        bench.restore(factory)
        bring(bench, NEW, "2.0.0", 2, until=stage)
        found.append(bench.contents())
    yield bench, found
    bench.close()
    os.close(descriptor)


@given(data=st.data())
def test_rot_never_boots_anything_unproven_and_never_ends_the_taking_of_updates(flashes, data):
    bench, stages = flashes
    bench.restore(data.draw(st.sampled_from(stages)))
    flash = bench.open()
    used = data.draw(st.sampled_from([bench.layout.slot(0).header.start, bench.layout.size]))
    flash.rot(data.draw(st.integers(0, 1 << 32)), data.draw(st.integers(1, 40)), length=used)
    for _ in range(6):
        loader, boot = bench.boot()
        if boot.image is not None:
            content = loader.slots[boot.slot].read(0, boot.image.size)
            assert content == AUTHORISED[boot.image.version]
        updater = bench.updater(loader, boot)
        updater.reconcile()
        if boot.trial:
            updater.confirm()
        if updater.state.state is State.IDLE:
            break
        updater.request(Trigger.URI_EMPTY)
    bring(bench, NEXT, "3.0.0", 3)
    updater = bench.start()
    assert updater.boot.image is not None
    assert updater.boot.image.version == "3.0.0"
    assert (updater.state.state, updater.state.result) == (State.IDLE, Result.UPDATED)


@given(data=st.binary(max_size=600), place=st.integers(0, 5000))
def test_any_bytes_in_the_first_pages_are_read_as_a_flash_or_refused(data, place):
    from lwm2m_device.layout import find_geometry

    layout = Layout(page_size=256, slot_size=768)
    good = layout.encode_geometry().ljust(256, b"\xff") * 2
    found, _ = find_geometry(good[:place] + data + good[place + len(data) :])
    assert found in (None, layout)
