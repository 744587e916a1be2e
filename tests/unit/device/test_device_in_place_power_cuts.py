"""A device with one slot rewrites the image that it runs by a delta, and power may fail at any flash operation.

Invariants as in `test_device_power_cuts`. There is no network while the slot is half rewritten: what finishes it is
the journal, with the delta in the staging area.
"""

import contextlib
import hashlib
import os
import random
from pathlib import Path

import pytest

from lwm2m_device.flash import Mains, PowerCut, Tear
from lwm2m_device.judges import Delta, Offer
from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.machine import Trigger
from lwm2m_server.firmware.deltas.detools_patches import create_in_place
from powercuts import Bench, Cut, Explorer, Life, Recorder, Seen, envelope_for, judge_envelope
from powercuts.explore import SHARES, State

ALL = os.environ.get("POWER_CUTS") == "all"
pytestmark = pytest.mark.timeout(7200 if ALL else 300)
SECOND_CUTS = None if ALL else 300
PAGE = 256


class Release:
    """Two images, the delta between them, and a flash with one slot for them and little more."""

    def __init__(self, slot_size: int, old_size: int, new_size: int, seed: int, segment: int = PAGE) -> None:
        chance = random.Random(seed)
        self.old = b"firmware-version: 1.0.0\n" + chance.randbytes(old_size - 24)
        middle = old_size // 2
        changed = self.old[24:middle] + chance.randbytes(max(8, new_size - old_size)) + self.old[middle:]
        self.new = b"firmware-version: 2.0.0\n" + changed[: new_size - 24]
        self.delta = create_in_place(self.old, self.new, memory_size=slot_size, segment_size=segment)
        staging = -(-len(self.delta) // segment) * segment
        self.layout = Layout(segment, slot_size, LayoutKind.SINGLE, staging_size=staging)

    def bench(self, file: Path) -> Bench:
        made = Bench(file, layout=self.layout)
        made.program_factory(self.old)
        made.judge = self.judge
        return made

    def judge(self, envelope: bytes) -> Offer:
        offer = judge_envelope(envelope)
        delta = Delta(hashlib.sha256(self.delta).digest(), len(self.delta))
        return Offer(offer.source, offer.digest, offer.size, offer.version, offer.sequence, delta=delta)

    def life(self, bench: Bench, image_boots: bool = True, seen: Seen | None = None, block: int = 64) -> Life:
        seen = seen or Seen()
        return Life(bench, image_boots, seen, old=self.old, new=self.new, sent=self.delta, block=block)


SMALL = Release(slot_size=6 * PAGE, old_size=700, new_size=1100, seed=1)
SHRINKING = Release(slot_size=6 * PAGE, old_size=1200, new_size=500, seed=2)
FULL = Release(slot_size=4 * PAGE, old_size=4 * PAGE, new_size=4 * PAGE, seed=3)
RELEASES = {"growing": SMALL, "shrinking": SHRINKING, "a full slot": FULL}


def past(bench: Bench, release: Release) -> bytes:
    """Return a flash with a past: another delta was downloaded, and taken back."""
    updater = bench.start()
    updater.request(Trigger.PACKAGE)
    updater.accept_envelope(envelope_for(release.new))
    updater.expect(b"another")
    updater.store(release.delta[::-1])
    updater.request(Trigger.PACKAGE_NUL)
    return bench.contents()


def every_tear(number: int) -> list[Tear]:
    return [Tear(share, number) for share in SHARES]


def one_tear(number: int) -> list[Tear]:
    return [Tear(SHARES[number % len(SHARES)], number)]


@pytest.mark.protection("device", "power-cut")
@pytest.mark.parametrize("name", list(RELEASES))
@pytest.mark.parametrize("image_boots", [True, False], ids=["confirmed", "given up"])
def test_a_delta_in_place_survives_a_power_cut_at_every_flash_operation_and_a_second_one_in_recovery(
    memory_file: Path, name: str, image_boots: bool
) -> None:
    release = RELEASES[name]
    bench = release.bench(memory_file)
    start = State(past(bench, release), Seen())
    explorer = Explorer(
        bench,
        lambda seen: release.life(bench, image_boots, seen),
        "updated" if image_boots else "reverted",
    )
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
        bench.close()


@pytest.mark.parametrize("seed", range(20 if ALL else 3))
def test_a_big_image_is_rewritten_though_the_power_fails_again_and_again(
    memory_file: Path, seed: int
) -> None:
    chance = random.Random(seed)
    old_size = 100_000 + chance.randrange(5000)
    release = Release(32 * 4096, old_size, old_size + chance.randrange(-20_000, 5000), seed, segment=4096)
    assert release.layout.capacity(1) * 4 < release.layout.slot_size
    bench = release.bench(memory_file)
    life = release.life(bench, block=1024)
    cuts = 0
    while life.run(Cut(chance.randrange(60), Tear(chance.random(), chance.randrange(1 << 30)))) == "cut":
        cuts += 1
        assert cuts < 300
    assert cuts > 3
    bench.close()


def test_the_slot_is_rewritten_if_power_lasts_for_one_step_at_a_time(memory_file: Path) -> None:
    bench = SMALL.bench(memory_file)
    life = SMALL.life(bench)
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
    assert boots > 8
    assert life.run(Mains()) == "updated"
    bench.close()


def test_the_recovery_takes_a_whole_image_into_the_one_slot_and_survives_power_cuts_too(
    memory_file: Path,
) -> None:
    bench = SMALL.bench(memory_file)
    bench.judge = judge_envelope
    bench.start().loader.slots[0].drop()

    def life(seen: Seen) -> Life:
        return Life(bench, seen=seen, old=SMALL.old, new=SMALL.new, recovering=True)

    explorer = Explorer(bench, life, "updated")
    try:
        moments = explorer.live(State(bench.contents(), Seen("1.0.0", 1)))
        for state in explorer.cuts(moments, every_tear):
            if explorer.is_new(state):
                explorer.prove(state)
        assert explorer.runs > 40
    finally:
        explorer.close()
        bench.close()
