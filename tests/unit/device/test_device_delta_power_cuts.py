"""Power is cut at every flash operation of a delta: its download, its application, and the sealing of the image."""

import hashlib
import random

import pytest

from lwm2m_device.delta import DeltaTaker
from lwm2m_device.fetcher import Fetcher
from lwm2m_device.flash import Mains, PowerCut, Tear
from lwm2m_device.layout import Layout, LayoutKind
from lwm2m_device.machine import State, Trigger
from lwm2m_device.uri import CoapUri
from lwm2m_server.firmware.deltas import Method, create
from lwm2m_server.firmware.deltas.negotiation import Description
from lwm2m_server.transport import Code, Peer, Response
from powercuts import Bench, Cut, envelope_for

CHANCE = random.Random(5)
OLD = b"firmware-version: 1.0.0\n" + CHANCE.randbytes(3000)
NEW = b"firmware-version: 2.0.0\n" + OLD[24:900] + CHANCE.randbytes(1200) + OLD[900:]
PATCH = create(Method.THUMB, OLD, NEW)
PAGE = 512
IMAGE = CoapUri("server", 5683, ("fw", "image"))


class PatchServer:
    """Answers what a device asks for a delta, and remembers which bytes of the patch it sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.asked = 0
        self.reports = 0

    async def request(self, peer, code, path, *, query=(), block2=None, **_):
        if path[-1] == "delta":
            return self._negotiate(peer, code)
        number, size = block2
        start = number * size
        self.sent.append(start)
        block = PATCH[start : start + size]
        more = start + size < len(PATCH)
        return Response(
            handle=1,
            peer=peer,
            code=Code.CONTENT,
            payload=block,
            etag=b"patch",
            block2=(number, more, size),
            size2=len(PATCH),
        )

    def _negotiate(self, peer, code):
        if code == Code.POST:
            self.reports += 1
            return Response(handle=1, peer=peer, code=Code.CHANGED)
        self.asked += 1
        described = Description("thumb", ("fw", "patch"), len(PATCH), hashlib.sha256(PATCH).digest())
        return Response(handle=1, peer=peer, code=Code.CONTENT, payload=described.encode(), content_format=60)


class Still:
    def now(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing has to be waited for")


async def find(*_: object) -> Peer:
    return Peer("192.0.2.1:5683")


@pytest.fixture(params=[LayoutKind.AB, LayoutKind.SWAP], ids=str)
def bench(memory_file, request):
    made = Bench(memory_file, layout=Layout(page_size=PAGE, slot_size=24 * PAGE, kind=request.param))
    made.program_factory(OLD)
    updater = made.start()
    updater.request(Trigger.URI, uri="/m", source="coap://server/m")
    updater.accept_envelope(envelope_for(NEW))
    yield made
    made.close()


async def update(bench: Bench, server: PatchServer, supply=None):
    """Boot, take the delta, and seal the image; return the updater."""
    updater = bench.start(supply)
    if updater.state.state is not State.DOWNLOADING:
        return updater
    fetcher = Fetcher(server, updater, Still(), find, lambda _: None, block_size=256)
    taker = DeltaTaker(updater, fetcher, ("thumb",), lambda *_: None, lambda _: None)
    assert await taker.take(IMAGE), "the delta was not taken"
    updater.finish()
    return updater


def check(bench: Bench, updater) -> None:
    assert updater.state.state is State.DOWNLOADED
    assert updater.slot.read(0, len(NEW)) == NEW
    running = updater.loader.slots[updater.boot.slot]
    assert running.read(0, len(OLD)) == OLD


class Counter(Mains):
    def __init__(self) -> None:
        self.count = 0

    def spend(self, operation, offset, size):
        self.count += 1


@pytest.mark.protection("device", "power-cut")
async def test_power_may_be_cut_at_every_operation_of_a_delta(bench):
    before, counter = bench.contents(), Counter()
    check(bench, await update(bench, PatchServer(), counter))
    assert counter.count > 40
    for after in range(counter.count):
        for share in (0.0, 0.5, 1.0):
            bench.restore(before)
            server = PatchServer()
            with pytest.raises(PowerCut):
                await update(bench, server, Cut(after, Tear(share, after)))
            first, server.sent = server.sent, []
            check(bench, await update(bench, server))
            # What was stored is not fetched again, but for the page under way and the block that it begins in.
            again = [start for start in server.sent if start in first]
            assert len(again) * 256 <= PAGE + 256, (after, share)
            assert server.reports == 0
            assert server.asked <= 2


async def test_power_may_be_cut_again_while_the_cut_is_mended(bench):
    before, counter = bench.contents(), Counter()
    await update(bench, PatchServer(), counter)
    chance = random.Random(11)
    for _ in range(60):
        bench.restore(before)
        server = PatchServer()
        for _ in range(3):
            supply = Cut(chance.randrange(counter.count), Tear(chance.random(), chance.randrange(1 << 30)))
            try:
                await update(bench, server, supply)
            except PowerCut:
                continue
        check(bench, await update(bench, server))
