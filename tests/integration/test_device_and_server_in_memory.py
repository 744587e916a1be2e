"""The reference device and the whole server in virtual time: every message of an update is lost, doubled or
delayed in turn, and the power is cut at flash operations while the server looks on.

At the end server and device agree: the device runs the new version and says so, and the server's record of
it, its directory and its campaign say the same. `POWER_CUTS=all` takes every message in every way and every
operation; without it every message is doubled, and lost in one of the two ways, chosen by its number.
"""

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.releases import CLASS, VENDOR
from lwm2m_device.flash import Mains, Operation, Tear
from lwm2m_device.layout import LayoutKind
from lwm2m_device.machine import Result, State
from lwm2m_device.settings import Delivery
from memory import MemoryDevice, World
from memory.world import ADDRESS
from powercuts.network import Fault, FaultyNetwork, Kind

ALL = os.environ.get("POWER_CUTS") == "all"
pytestmark = pytest.mark.timeout(7200 if ALL else 300)
SIZE = 5000


class Meeting:
    """One server, one device, one campaign."""

    def __init__(
        self, folder: Path, flash: Path, fault: Fault | None = None, supply: Mains | None = None
    ) -> None:
        self.network = FaultyNetwork(fault)
        self.world = World(folder, network=self.network)
        self.device = MemoryDevice(
            self.network,
            flash,
            server=ADDRESS,
            supply=supply,
            vendor=VENDOR,
            class_name=CLASS,
            trust=(self.world.signer.public,),
            page_size=1024,
            slot_size=8192,
        )
        self._start = self.device.start
        if isinstance(supply, Failing):
            supply.on_loss = self._power_lost

    async def run(self, **options: Any) -> None:
        """Update the device from 1.0.0 to 2.0.0; raises AssertionError when the end is another."""
        await self.world.start()
        try:
            self._start = partial(self.device.start, **options)
            self._start()
            manifest = await self.world.release(size=SIZE)
            await self.world.until(self._registered, within=600)
            campaign = await self.world.campaign(manifest)

            async def ended() -> bool:
                return (await self.world.deployment(campaign)).final

            await self.world.until(ended, within=7 * 86_400, step=10.0)
            deployment = await self.world.deployment(campaign)
            assert (deployment.state, deployment.reason) == ("succeeded", "confirmed-digest"), self.device.log
            await self._agree(manifest.image_digest)
        finally:
            await self.close()

    def _power_lost(self) -> None:
        """Kill what runs, whatever it is doing, and switch on again after a while."""
        self.device.cut()
        self.device.log.append("power lost")
        self.network.later(5.0, self._start)

    async def close(self) -> None:
        await self.device.kill()
        await self.world.close()

    async def _registered(self) -> bool:
        found = await self.world.server.services.directory.list()
        return bool(found.items)

    async def _agree(self, digest: bytes) -> None:
        """The device's view and the server's are the same."""
        assert self.device.device is not None
        assert self.device.device.stack is not None
        updater = self.device.device.stack.updater
        assert (updater.state.state, updater.state.result) == (State.IDLE, Result.UPDATED)
        assert updater.boot.image is not None
        assert (updater.boot.image.version, updater.boot.image.digest) == ("2.0.0", digest)
        assert not updater.loader.on_trial
        found = await self.world.server.services.directory.list(filter="firmware.version = 2.0.0")
        assert [device.endpoint for device in found.items] == ["dev-1"]


class Failing(Mains):
    """Fails at chosen flash operations, counted over all boots; `on_loss` is told."""

    def __init__(self, cuts: dict[int, Tear]) -> None:
        self._cuts = cuts
        self.count = 0
        self.on_loss: Callable[[], None] = lambda: None

    def spend(self, operation: Operation, offset: int, size: int) -> Tear | None:
        self.count += 1
        return self._cuts.get(self.count - 1)

    def lost(self) -> None:
        self.on_loss()


@pytest.fixture
def flash() -> Iterator[Path]:
    """A file in memory: a flash that is synchronised hundreds of times costs no disk."""
    descriptor = os.memfd_create("flash")
    yield Path(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


@pytest.fixture
def meet(tmp_path: Path, flash: Path) -> Callable[..., Meeting]:
    """Make a meeting of a new device with a new server."""

    def make(fault: Fault | None = None, supply: Mains | None = None) -> Meeting:
        flash.write_bytes(b"")
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return Meeting(folder, flash, fault, supply)

    return make


@pytest.mark.protection("device", "lost-messages")
@pytest.mark.protection("server", "lost-messages")
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("delivery", list(Delivery) if ALL else [Delivery.BOTH])
async def test_an_update_ends_well_whichever_message_is_lost_doubled_or_delayed(meet, kind, delivery):
    untroubled = meet()
    await untroubled.run(delivery=delivery)
    if kind is Kind.DELAYED:
        faults = [Fault(kind, n, (20.0, 100.0, 300.0)[n % 3]) for n in range(untroubled.network.ways)]
        faults = faults if ALL else faults[::2]
    else:
        faults = [Fault(kind, n) for n in range(untroubled.network.exchanges)]
        if not ALL and kind is not Kind.DUPLICATED:
            faults = faults[kind is Kind.ANSWER_LOST :: 2]
    assert len(faults) > 15
    for fault in faults:
        try:
            await meet(fault).run(delivery=delivery)
        except AssertionError as error:
            raise AssertionError(f"{fault}: {error}") from error


@pytest.mark.parametrize("layout", list(LayoutKind))
async def test_an_update_ends_well_when_the_power_fails_while_the_server_looks_on(meet, layout):
    supply = Failing({})
    await meet(None, supply).run(layout=layout)
    assert supply.count > 30
    chance = random.Random(layout.value)
    places = range(supply.count) if ALL else sorted(chance.sample(range(supply.count), 10))
    for place in places:
        # A second cut soon after the first: in the repair.
        cuts = {each: Tear(chance.random(), each) for each in (place, place + 1 + chance.randrange(12))}
        try:
            await meet(None, Failing(cuts)).run(layout=layout)
        except AssertionError as error:
            raise AssertionError(f"power cut at {sorted(cuts)}: {error}") from error
