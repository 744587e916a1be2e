"""Power is cut at every flash operation of an update, then at every operation of the recovery from that.

Invariants (`powercuts.check_invariants`): there is always one bootable image, and it is one that was
authorised; version and sequence floor never go down; the update ends, updated or reverted with a result; at
most one page is fetched again. `POWER_CUTS=all` takes every second cut in every way, and more seeds on a big
image; without it a part of them, chosen by seed.
"""

import contextlib
import os
import random

import pytest

from lwm2m_device.flash import Mains, PowerCut, Tear
from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.machine import Trigger
from powercuts import NEW, OLD, Bench, Cut, Explorer, Life, Recorder, Seen, envelope_for
from powercuts.explore import SHARES, State

ALL = os.environ.get("POWER_CUTS") == "all"
pytestmark = pytest.mark.timeout(7200 if ALL else 300)
SMALL_OLD = OLD[:300]
SMALL = NEW[:700]
SECOND_CUTS = None if ALL else 400


def small(kind: LayoutKind) -> Layout:
    return Layout(page_size=256, slot_size=768, kind=kind)


@pytest.fixture(params=list(LayoutKind))
def small_bench(request, memory_file):
    made = Bench(memory_file, layout=small(request.param))
    made.program_factory(SMALL_OLD)
    yield made
    made.close()


def past(bench: Bench, image: bytes) -> bytes:
    """Return a flash with a past: another image of the same length was downloaded, and taken back."""
    updater = bench.start()
    updater.request(Trigger.PACKAGE)
    updater.accept_envelope(envelope_for(image[::-1]))
    updater.expect(b"another")
    updater.store(image[::-1])
    updater.finish()
    updater.request(Trigger.PACKAGE_NUL)
    return bench.contents()


def every_tear(number: int) -> list[Tear]:
    return [Tear(share, number) for share in SHARES]


def one_tear(number: int) -> list[Tear]:
    return [Tear(SHARES[number % len(SHARES)], number)]


@pytest.mark.protection("device", "power-cut")
@pytest.mark.parametrize("image_boots", [True, False], ids=["confirmed", "reverted"])
def test_an_update_survives_a_power_cut_at_every_flash_operation_and_a_second_one_in_recovery(
    small_bench, image_boots
):
    def life(seen: Seen) -> Life:
        return Life(small_bench, image_boots, seen, old=SMALL_OLD, new=SMALL)

    start = State(past(small_bench, SMALL), Seen())
    explorer = Explorer(small_bench, life, "updated" if image_boots else "reverted")
    try:
        moments = explorer.live(start)
        assert len(moments) > 30
        second: list[State] = []
        for state in explorer.cuts(moments, every_tear):
            if explorer.is_new(state):
                second += explorer.cuts(explorer.live(state), every_tear if ALL else one_tear)
        if SECOND_CUTS is not None:
            second = random.Random(len(second)).sample(second, SECOND_CUTS)
        for state in second:
            if explorer.is_new(state):
                explorer.prove(state)
    finally:
        explorer.close()


@pytest.fixture(params=list(LayoutKind))
def big_bench(request, memory_file):
    made = Bench(memory_file, layout=Layout(page_size=4096, slot_size=160 * 1024, kind=request.param))
    made.program_factory(OLD)
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(40 if ALL else 4))
@pytest.mark.parametrize("image_boots", [True, False], ids=["confirmed", "reverted"])
def test_an_update_to_a_big_image_survives_power_cuts_by_seed(big_bench, image_boots, seed):
    chance = random.Random(seed)
    image = b"firmware-version: 2.0.0\n" + chance.randbytes(150_000 - chance.randrange(5000))
    life = Life(big_bench, image_boots, new=image, block=1024)
    cuts = 0
    while True:
        supply = Cut(chance.randrange(600), Tear(chance.random(), chance.randrange(1 << 30)))
        ended = life.run(supply)
        if ended != "cut":
            break
        cuts += 1
        assert cuts < 200
    assert ended == ("updated" if image_boots else "reverted")


@pytest.mark.parametrize("tear", [Tear(share, 3) for share in SHARES], ids=["0", "half", "all"])
def test_a_cut_in_the_middle_of_an_image_costs_at_most_one_page(small_bench, tear):
    contents = past(small_bench, SMALL)
    page = small_bench.layout.page_size
    recorder = Recorder(Life(small_bench, old=SMALL_OLD, new=SMALL, block=64), [])
    recorder.life.run(recorder)
    resumed = 0
    for after in range(len(recorder.moments)):
        small_bench.restore(contents)
        one = Life(small_bench, old=SMALL_OLD, new=SMALL, block=64)
        assert one.run(Cut(after, tear)) == "cut"
        before = one.fetched
        assert one.run(Mains()) == "updated"
        if 0 < before < len(SMALL):
            assert one.fetched <= len(SMALL) + page
            resumed += 1
    assert resumed > 4


@pytest.mark.parametrize("kind", [LayoutKind.SWAP, LayoutKind.SINGLE])
def test_an_installation_comes_to_its_end_if_power_lasts_for_one_step_at_a_time(memory_file, kind):
    bench = Bench(memory_file, layout=small(kind))
    bench.program_factory(SMALL_OLD)
    life = Life(bench, old=SMALL_OLD, new=SMALL)
    recorder = Recorder(life, [])
    life.run(recorder)
    journal = bench.layout.journal
    begun = next(each for each in recorder.moments if each.offset == journal.start + bench.layout.page_size)
    bench.restore(begun.contents)
    boots = 0
    while bench.open() and bench.loader().installing:
        # A page is erased, written and marked as done; then the power is gone again.
        with contextlib.suppress(PowerCut):
            bench.boot(Cut(3, Tear(0.5, boots)))
        boots += 1
        assert boots <= bench.layout.most_steps
    assert boots > 4
    assert life.run(Mains()) == "updated"
    bench.close()
