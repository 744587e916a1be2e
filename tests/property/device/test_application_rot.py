"""Invariant: whatever rots in an application's flash, it comes up, shows nothing unproven, and takes the next one."""

import os
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwm2m_device.software import Application
from lwm2m_device.software_machine import Stage, Trigger
from lwm2m_device.software_state import SoftwareState, decode
from lwm2m_server.firmware.images import VERSION_LINE
from powercuts import envelope_for
from powercuts.software import SoftwareBench

FACTORY = VERSION_LINE + b"1.0.0\nmeter\n"
NEW = VERSION_LINE + b"2.0.0\n" + bytes(range(256)) * 2
NEXT = VERSION_LINE + b"3.0.0\n" + bytes(range(255, -1, -1)) * 2
CONTENTS = {"1.0.0": FACTORY, "2.0.0": NEW, "3.0.0": NEXT}


def bring(application: Application, content: bytes, version: str, until: Stage = Stage.ACTIVE) -> None:
    """Do what server and hook do for an update, up to a stage."""
    finish = {Stage.INSTALLING: application.installed, Stage.UNINSTALLING: application.removed}
    finish |= {Stage.CLEARING: application.removed, Stage.STARTING: application.started}
    if (ready := finish.get(application.state.stage)) is not None:
        ready()
    application.request(Trigger.FOR_UPDATE)
    for stage, do in (
        (Stage.DOWNLOADING, lambda: application.request(Trigger.PACKAGE)),
        (Stage.DOWNLOADING, lambda: application.accept_envelope(envelope_for(content, version=version))),
        (Stage.DELIVERED, lambda: (application.store(content), application.finish())),
        (Stage.INSTALLING, lambda: application.request(Trigger.INSTALL)),
        (Stage.INACTIVE, application.installed),
        (Stage.STARTING, lambda: application.request(Trigger.ACTIVATE)),
        (Stage.ACTIVE, application.started),
    ):
        do()
        assert application.state.stage is stage
        if stage is until:
            return


@pytest.fixture(scope="module")
def flashes() -> Iterator[tuple[SoftwareBench, list[bytes]]]:
    """A bench, and its flash in every stage of an update."""
    descriptor = os.memfd_create("flash")
    bench = SoftwareBench(Path(f"/proc/self/fd/{descriptor}"))
    bench.start()
    factory = bench.contents()
    found = [factory]
    for stage in (Stage.DELIVERED, Stage.INSTALLING, Stage.INACTIVE, Stage.ACTIVE):
        bench.restore(factory)
        bring(bench.start(), NEW, "2.0.0", stage)
        found.append(bench.contents())
    yield bench, found
    bench.close()
    os.close(descriptor)


@given(data=st.data())
def test_rot_never_shows_anything_unproven_and_never_ends_the_taking_of_updates(flashes, data) -> None:
    bench, stages = flashes
    bench.restore(data.draw(st.sampled_from(stages)))
    start = data.draw(st.sampled_from([bench.layout.update.start, bench.layout.slot(0).header.start, 0]))
    length = data.draw(st.sampled_from([64, 1024, bench.layout.size - start]))
    bench.open().rot(
        data.draw(st.integers(0, 1 << 32)), data.draw(st.integers(1, 40)), start=start, length=length
    )
    application = bench.start()
    software = application.software
    if application.state.stage in (Stage.INACTIVE, Stage.STARTING, Stage.ACTIVE):
        assert software is not None
        assert application.place_slot is not None
        assert application.place_slot.read(0, software.size) == CONTENTS[software.version]
    bring(application, NEXT, "3.0.0")
    again = bench.start()
    assert (again.version, again.state.stage) == ("3.0.0", Stage.ACTIVE)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_record(content: bytes) -> None:
    found = decode(content)
    assert found is None or decode(found.encode()) == found


@given(
    st.dictionaries(st.integers(0, 16), st.none() | st.booleans() | st.integers() | st.text() | st.binary())
)
def test_foreign_values_are_no_record(values: dict[int, object]) -> None:
    record = dict(enumerate(cbor2.loads(SoftwareState().encode()).values())) | values
    found = decode(cbor2.dumps(record))
    assert found is None or isinstance(found, SoftwareState)
