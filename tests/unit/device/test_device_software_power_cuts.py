"""Power is cut at every flash operation of an application's update and removal, then in the recovery from that."""

import os
import random

import pytest

from lwm2m_device.flash import Mains, Tear
from lwm2m_device.layout import Layout
from lwm2m_server.firmware.images import VERSION_LINE
from powercuts import NEW, Cut, Explorer, Recorder, envelope_for
from powercuts.explore import SHARES, State
from powercuts.software import Known, SoftwareBench, SoftwareLife

ALL = os.environ.get("POWER_CUTS") == "all"
SECOND_CUTS = None if ALL else 300
FACTORY = VERSION_LINE + b"1.0.0\nmeter\n"
PACKAGE = NEW[:700]
CONTENTS = {"1.0.0": FACTORY, "2.0.0": PACKAGE}


@pytest.fixture
def bench(memory_file):
    made = SoftwareBench(memory_file)
    made.start()
    yield made
    made.close()


def life(bench: SoftwareBench, wanted: str | None, seen: Known | None = None, **more) -> SoftwareLife:
    known = seen or Known("1.0.0")
    return SoftwareLife(bench, wanted, CONTENTS, envelope_for(PACKAGE), known, **more)


def every_tear(number: int) -> list[Tear]:
    return [Tear(share, number) for share in SHARES]


def one_tear(number: int) -> list[Tear]:
    return [Tear(SHARES[number % len(SHARES)], number)]


@pytest.mark.protection("device", "lost-application")
@pytest.mark.parametrize(("wanted", "ending"), [("2.0.0", "installed"), (None, "removed")])
def test_a_power_cut_at_every_flash_operation_and_a_second_one_in_recovery_are_made_good(
    bench, wanted, ending
):
    explorer = Explorer(bench, lambda seen: life(bench, wanted, seen), ending)
    try:
        moments = explorer.live(State(bench.contents(), Known("1.0.0")))
        assert len(moments) > (25 if wanted else 4)
        second: list[State] = []
        for state in explorer.cuts(moments, every_tear):
            if explorer.is_new(state):
                second += explorer.cuts(explorer.live(state), every_tear if ALL else one_tear)
        if SECOND_CUTS is not None and len(second) > SECOND_CUTS:
            second = random.Random(len(second)).sample(second, SECOND_CUTS)
        for state in second:
            if explorer.is_new(state):
                explorer.prove(state)
    finally:
        explorer.close()


@pytest.mark.parametrize("seed", range(40 if ALL else 4))
def test_a_big_application_is_installed_and_removed_through_power_cuts_by_seed(memory_file, seed):
    chance = random.Random(seed)
    package = VERSION_LINE + b"2.0.0\n" + chance.randbytes(60_000 - chance.randrange(5000))
    bench = SoftwareBench(memory_file, layout=Layout(page_size=4096, slot_size=64 * 1024))
    bench.start()
    contents = {"1.0.0": FACTORY, "2.0.0": package}
    for wanted, ending in (("2.0.0", "installed"), (None, "removed")):
        known = Known("1.0.0" if wanted else "2.0.0")
        one = SoftwareLife(bench, wanted, contents, envelope_for(package), known, block=1024)
        for _ in range(100):
            ended = one.run(Cut(chance.randrange(200), Tear(chance.random(), chance.randrange(1 << 30))))
            if ended != "cut":
                break
        assert ended == ending
    bench.close()


@pytest.mark.parametrize("tear", [Tear(share, 3) for share in SHARES], ids=["0", "half", "all"])
def test_a_cut_in_the_middle_of_a_package_costs_at_most_one_page(bench, tear):
    contents = bench.contents()
    page = bench.layout.page_size
    recorder = Recorder(life(bench, "2.0.0", block=64), [])
    recorder.life.run(recorder)
    resumed = 0
    for after in range(len(recorder.moments)):
        bench.restore(contents)
        one = life(bench, "2.0.0", block=64)
        assert one.run(Cut(after, tear)) == "cut"
        before = one.fetched
        assert one.run(Mains()) == "installed"
        if 0 < before < len(PACKAGE):
            assert one.fetched <= len(PACKAGE) + page
            resumed += 1
    assert resumed > 4


def test_an_installation_that_power_cut_short_is_finished_at_the_next_boot(bench):
    """Each cut after Install leads to a boot that is still installing, or has installed: never to one that forgot."""
    contents = bench.contents()
    recorder = Recorder(life(bench, "2.0.0"), [])
    recorder.life.run(recorder)
    repeated = 0
    for after in range(len(recorder.moments)):
        bench.restore(contents)
        one = life(bench, "2.0.0")
        assert one.run(Cut(after, Tear(0.5, after))) == "cut"
        begun = list(one.hooks)
        assert one.run(Mains()) == "installed"
        repeated += len(one.hooks) - len(begun) if begun else 0
    assert repeated > 0
