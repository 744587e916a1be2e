"""Power is cut at every flash operation of an update, then at every operation of the recovery from that.

Invariants: there is always one bootable image, and it is one of the two that were authorised; version
and sequence floor never go down; the update ends, updated or reverted with a result; at most one page is
fetched again.
"""

import hashlib
from dataclasses import dataclass, field

import pytest

from lwm2m_device.flash import Operation, PowerCut
from lwm2m_device.machine import Result, State, Trigger

BLOCK = 512
TEARS = (0.0, 0.5, 1.0)  # nothing done but damage, half done, all done: then the power is gone
MAX_BOOTS = 40
EXPECTED_RESULTS = {Result.INITIAL, Result.UPDATED, Result.UPDATE_FAILED, Result.CONNECTION_LOST}


@dataclass
class Cut:
    """Lets `after` operations finish and cuts the next one at `tear` of its size."""

    after: int
    tear: float
    count: int = 0

    def spend(self, operation: Operation, offset: int, size: int) -> int | None:
        self.count += 1
        return int(size * self.tear) if self.count == self.after + 1 else None


@dataclass
class Counter:
    """Never cuts."""

    count: int = 0

    def spend(self, operation: Operation, offset: int, size: int) -> int | None:
        self.count += 1
        return None


@dataclass
class Life:
    """A device with a server that wants it on 2.0.0, from any state of the flash to the end of the update."""

    bench: object
    images: tuple[bytes, bytes]
    envelope: bytes
    image_boots: bool = True
    fetched: int = 0
    versions: list[str] = field(default_factory=list)
    floors: list[int] = field(default_factory=list)

    def run(self, supply) -> str:
        """Live until the update has ended; return `updated`, `reverted` or `cut`."""
        try:
            for _ in range(MAX_BOOTS):
                ended = self.one_boot(supply)
                if ended:
                    return ended
        except PowerCut:
            return "cut"
        raise AssertionError(f"no end after {MAX_BOOTS} boots")

    def one_boot(self, supply) -> str | None:
        loader, boot = self.bench.boot(supply)
        self.check(loader, boot)
        updater = self.bench.updater(loader, boot)
        _, install = updater.reconcile()
        # A cut alone is never taken for a damaged image, and only a manifest in RAM is lost by it.
        assert updater.state.result in EXPECTED_RESULTS
        if install:
            return None
        if boot.trial:
            assert updater.state.state is State.UPDATING
            if not self.image_boots:
                return None
            updater.confirm()
        if boot.image.version == "2.0.0":
            assert (updater.state.state, updater.state.result) == (State.IDLE, Result.UPDATED)
            return "updated"
        if updater.state.result is Result.UPDATE_FAILED:
            assert updater.state.state is State.IDLE
            assert not self.image_boots
            return "reverted"
        self.serve(updater)
        return None

    def serve(self, updater) -> None:
        """What server and network do: offer, deliver from where the device is, order the installation."""
        new = self.images[1]
        if updater.state.state is State.IDLE:
            assert updater.request(Trigger.PACKAGE) == 68
            updater.accept_envelope(self.envelope)
        if updater.state.state is State.DOWNLOADING:
            updater.expect(b"etag")
            while updater.offset < len(new):
                block = new[updater.offset : updater.offset - updater.offset % BLOCK + BLOCK]
                updater.store(block)
                self.fetched += len(block)
            updater.finish()
        assert updater.request(Trigger.UPDATE) == 68
        updater.install()

    def check(self, loader, boot) -> None:
        assert boot.slot is not None
        content = loader.slots[boot.slot].read(0, boot.image.size)
        known = {"1.0.0": self.images[0], "2.0.0": self.images[1]}
        assert content == known[boot.image.version]
        assert hashlib.sha256(content).digest() == boot.image.digest
        if self.versions and not boot.trial:
            # An unconfirmed image may be given up; a confirmed one never gives way to an older.
            assert boot.image.version >= self.versions[-1]
        if not boot.trial:
            self.versions.append(boot.image.version)
        assert not self.floors or loader.floor >= self.floors[-1]
        self.floors.append(loader.floor)


@pytest.fixture
def life(bench, images, make_envelope):
    def make(**options) -> Life:
        return Life(bench, images, make_envelope(images[1]), **options)

    return make


@pytest.fixture
def start(bench, images, make_envelope) -> bytes:
    """A flash with a past: another image of the same length was downloaded, and taken back."""
    other = images[1][::-1]
    updater = bench.start()
    updater.request(Trigger.PACKAGE)
    updater.accept_envelope(make_envelope(other))
    updater.expect(b"another")
    for offset in range(0, len(other), BLOCK):
        updater.store(other[offset : offset + BLOCK])
    updater.finish()
    updater.request(Trigger.PACKAGE_NUL)
    return bench.contents()


def operations_of(life: Life, bench, contents: bytes) -> int:
    bench.restore(contents)
    counter = Counter()
    life.run(counter)
    return counter.count


@pytest.mark.parametrize("image_boots", [True, False], ids=["confirmed", "reverted"])
def test_an_update_survives_a_power_cut_at_every_flash_operation_and_a_second_one_in_recovery(
    life, bench, start, image_boots
):
    expected = "updated" if image_boots else "reverted"
    total = operations_of(life(image_boots=image_boots), bench, start)
    assert total > 30
    cut_again: set[bytes] = set()  # contents of the flash whose recovery was cut everywhere
    proven: set[bytes] = set()  # contents from which the update comes to its end without another cut
    for after in range(total):
        for tear in TEARS:
            first = life(image_boots=image_boots)
            bench.restore(start)
            assert first.run(Cut(after, tear)) == "cut"
            cut, cells = bench.contents(), bench.cells()
            if cells in cut_again:
                continue
            cut_again.add(cells)
            counter = Counter()
            recovering = life(image_boots=image_boots, versions=first.versions[:], floors=first.floors[:])
            assert recovering.run(counter) == expected
            proven.add(cells)
            second_cuts(life, bench, cut, counter.count, first, expected, proven)


def second_cuts(life, bench, cut: bytes, total: int, first: Life, expected: str, proven: set[bytes]) -> None:
    for after in range(total):
        for tear in TEARS:
            bench.restore(cut)
            again = life(image_boots=first.image_boots, versions=first.versions[:], floors=first.floors[:])
            assert again.run(Cut(after, tear)) == "cut"
            cells = bench.cells()
            if cells not in proven:
                assert again.run(Counter()) == expected
                proven.add(cells)


def test_a_cut_in_the_middle_of_an_image_costs_at_most_one_page(life, bench, images, start):
    page = bench.layout.page_size
    resumed = 0
    for after in range(operations_of(life(), bench, start)):
        for tear in TEARS:
            bench.restore(start)
            one = life()
            one.run(Cut(after, tear))
            before = one.fetched
            one.run(Counter())
            if 0 < before < len(images[1]):
                assert one.fetched <= len(images[1]) + page
                resumed += 1
    assert resumed > 20
