"""Power is cut at every flash operation of an update of three components, and at every point of their hooks.

Invariants (`powercuts.parts`): there is always one bootable main image; versions and sequence number never go down;
nothing unauthorised reaches a hook; the update ends, and then all components have their new image or all the one
before, on their processors too. `POWER_CUTS=all` takes every tear, and every second cut; without it a part of them,
chosen by seed.
"""

import os
import random

import pytest

from lwm2m_device.flash import Tear
from lwm2m_device.layout import LayoutKind
from powercuts import Cut, Explorer
from powercuts.explore import SHARES, State
from powercuts.parts import PartsBench, PartsLife, PartsSeen

ALL = os.environ.get("POWER_CUTS") == "all"
pytestmark = pytest.mark.timeout(7200 if ALL else 300)
SECOND_CUTS = None if ALL else 40
MAIN, MODEM, SENSORS = 0, 1, 2
AROUND = (MODEM, MAIN, SENSORS)
MAIN_LAST = (SENSORS, MODEM, MAIN)

CASES = [
    pytest.param(LayoutKind.AB, AROUND, (), (), "updated", id="ab-updated"),
    pytest.param(LayoutKind.AB, AROUND, (SENSORS,), (), "reverted", id="ab-last-hook-fails"),
    pytest.param(LayoutKind.AB, AROUND, (MAIN,), (), "reverted", id="ab-main-never-reaches-the-server"),
    pytest.param(LayoutKind.AB, AROUND, (MODEM,), (MODEM, SENSORS), "partly", id="ab-best-effort"),
    pytest.param(LayoutKind.SWAP, AROUND, (), (), "updated", id="swap-updated"),
    pytest.param(LayoutKind.SWAP, AROUND, (SENSORS,), (), "reverted", id="swap-last-hook-fails"),
    pytest.param(
        LayoutKind.SWAP, MAIN_LAST, (MAIN,), (), "reverted", id="swap-main-never-reaches-the-server"
    ),
    pytest.param(LayoutKind.SINGLE, MAIN_LAST, (), (), "updated", id="single-updated"),
    pytest.param(LayoutKind.SINGLE, MAIN_LAST, (MODEM,), (), "reverted", id="single-hook-fails"),
]


def every_tear(number: int) -> list[Tear]:
    return [Tear(share, number) for share in SHARES]


def one_tear(number: int) -> list[Tear]:
    return [Tear(SHARES[number % len(SHARES)], number)]


@pytest.fixture
def bench(memory_file, request):
    made = PartsBench(memory_file, request.param)
    made.program_all()
    made.give_past()
    yield made
    made.close()


@pytest.mark.protection("device", "half-update")
@pytest.mark.parametrize(("bench", "order", "failing", "soft", "expected"), CASES, indirect=["bench"])
def test_all_or_nothing_survives_a_power_cut_at_every_operation_and_a_second_one_in_recovery(
    bench, order, failing, soft, expected
):
    def life(seen: PartsSeen) -> PartsLife:
        return PartsLife(bench, order, failing, soft, seen)

    explorer = Explorer(bench, life, expected)
    try:
        moments = explorer.live(State(bench.contents(), PartsSeen()))
        assert len(moments) > 60
        first = list(explorer.cuts(moments, every_tear))
        second: list[State] = []
        chosen = set(random.Random(len(first)).sample(range(len(first)), SECOND_CUTS or len(first)))
        for number, state in enumerate(first):
            if not explorer.is_new(state):
                continue
            if number not in chosen:
                explorer.prove(state)
                continue
            further = list(explorer.cuts(explorer.live(state), one_tear))
            second += (
                further
                if SECOND_CUTS is None
                else random.Random(number).sample(further, min(3, len(further)))
            )
        for state in second:
            if explorer.is_new(state):
                explorer.prove(state)
    finally:
        explorer.close()


@pytest.mark.parametrize("seed", range(40 if ALL else 3))
@pytest.mark.parametrize("bench", [LayoutKind.AB, LayoutKind.SWAP], indirect=True)
def test_an_update_that_loses_power_again_and_again_ends_all_or_nothing(bench, seed):
    chance = random.Random(seed)
    life = PartsLife(bench, AROUND)
    for _ in range(200):
        ended = life.run(Cut(chance.randrange(120), Tear(chance.random(), chance.randrange(1 << 30))))
        if ended != "cut":
            break
    # A trial has three boots: who loses power in each of them gets everything back.
    assert ended in ("updated", "reverted")
