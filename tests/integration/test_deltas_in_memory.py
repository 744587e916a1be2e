"""The reference device takes deltas from the whole server, in virtual time."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.releases import CLASS, VENDOR
from lwm2m_server.firmware.deltas import Method, create
from lwm2m_server.firmware.deltas.negotiation import Wish
from lwm2m_server.services.delta_builder import Built, DeltaBuilder
from lwm2m_server.store.delta_ports import StoredDelta
from lwm2m_server.transport import Code, Peer
from lwm2m_server.transport.memory import MemoryTransport
from memory import MemoryDevice, World
from memory.world import chunks

OLD = b"firmware-version: 1.0.0\n" + bytes(random.Random(1).choices(range(200), k=30_000))
NEW = b"firmware-version: 2.0.0\n" + OLD[24:9_000] + random.Random(2).randbytes(6_000) + OLD[9_000:]
SERVER = Peer("10.0.0.1:5683")


class Meeting:
    """A server that knows the image that the device runs, and the next one."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder / "server")
        self.device = MemoryDevice(
            self.world.network,
            folder / "dev-1.flash",
            server=SERVER.address,
            vendor=VENDOR,
            class_name=CLASS,
            trust=(self.world.signer.public,),
            initial_image=OLD,
        )

    async def prepare(self, *, base: bytes = OLD) -> Any:
        """Bring the images in, and start the device; return the manifest of the new one."""
        world = self.world
        await world.start()
        releases = world.server.services.releases
        await releases.add_key(world.signer.public, name="release", actor="ann")
        await world.server.services.releases.add_image(chunks(base), name="old", actor="ann")
        release = world.signer.release("2.0.0", NEW)
        await world.server.services.releases.add_image(chunks(NEW), name="new", actor="ann")
        manifest, _ = await releases.add_manifest(release.envelope, actor="ann")
        return manifest

    async def make(self) -> list[StoredDelta]:
        """Make the deltas before anybody asks: files are written in real time, which the device would wait for."""
        base, target = hashlib.sha256(OLD).digest(), hashlib.sha256(NEW).digest()
        return await self.world.server.services.deltas.compare(base, target)

    async def registered(self) -> None:
        async def known() -> bool:
            found = await self.world.server.services.directory.list()
            return bool(found.items) and found.items[0].facts.running_digest is not None

        await self.world.until(known, within=600)

    async def outcome(self, manifest: Any, **options: Any) -> Any:
        """Run a campaign to its end; return the deployment."""
        await self.make()
        self.device.start(**options)
        await self.registered()
        campaign = await self.world.campaign(manifest)
        assert await self.world.outcome(campaign) == ("succeeded", "confirmed-digest"), self.device.log
        return await self.world.deployment(campaign)


@pytest.fixture
async def meeting(tmp_path: Path) -> AsyncIterator[Meeting]:
    made = Meeting(tmp_path)
    yield made
    await made.device.kill()
    await made.world.close()


async def test_a_device_that_runs_a_known_image_gets_a_delta_and_its_bytes_are_counted(
    meeting: Meeting,
) -> None:
    manifest = await meeting.prepare()
    deployment = await meeting.outcome(manifest)
    assert meeting.device.said("The delta made the image")
    assert not meeting.device.said("Fetching image")
    (patch,) = [
        transfer
        for transfer in await meeting.world.store.deltas.transfers(deployment.campaign_id, "dev-1")
        if transfer.method
    ]
    assert patch.applied
    assert patch.sent == patch.size
    deltas = meeting.world.server.services.deltas
    for savings in (
        await deltas.savings(),
        await deltas.savings(campaign_id=deployment.campaign_id),
        await deltas.savings(endpoint="dev-1"),
    ):
        assert (savings.updates, savings.deltas) == (1, 1)
        assert savings.saved_bytes == len(NEW) - patch.size > 0.7 * len(NEW)
    assert (deployment.offset, deployment.size) == (len(NEW), len(NEW))


@pytest.mark.protection("server", "delta-base")
async def test_a_device_whose_image_nobody_knows_gets_the_whole_one(meeting: Meeting) -> None:
    manifest = await meeting.prepare(base=OLD + b"x")
    deployment = await meeting.outcome(manifest)
    assert meeting.device.said("Fetching image")
    savings = await meeting.world.server.services.deltas.savings(campaign_id=deployment.campaign_id)
    assert (savings.updates, savings.deltas, savings.saved_bytes) == (1, 0, 0)


async def test_a_device_that_understands_no_method_gets_the_whole_image(meeting: Meeting) -> None:
    manifest = await meeting.prepare()
    await meeting.outcome(manifest, delta_methods=())
    assert meeting.device.said("Fetching image")


async def test_a_delta_that_would_take_too_long_is_told_and_the_whole_image_sent(meeting: Meeting) -> None:
    manifest = await meeting.prepare()
    builder = DeltaBuilder(workers=1, memory=64 << 20, seconds=0.001)
    meeting.world.server.services.deltas._build = builder.build
    found = await meeting.make()
    assert {(each.state, each.text) for each in found} == {("failed", "it would take more than 0 seconds")}
    deployment = await meeting.outcome(manifest)
    assert meeting.device.said("Fetching image")
    savings = await meeting.world.server.services.deltas.savings(campaign_id=deployment.campaign_id)
    assert (savings.updates, savings.deltas) == (1, 0)


def spoil(meeting: Meeting) -> None:
    """Let the server believe in patches that make another image."""
    deltas = meeting.world.server.services.deltas
    other = NEW[:-1] + b"x"

    async def build(_: Path | None, __: Path, methods: Sequence[str], folder: Path) -> list[Built]:
        built = []
        for method in methods:
            patch = create(Method(method), OLD, other)
            (folder / method).write_bytes(patch)
            built.append(Built(method, folder / method, hashlib.sha256(patch).digest(), len(patch)))
        return built

    deltas._build = build


async def test_a_patch_that_fails_on_the_device_is_remembered_and_the_whole_image_sent(
    meeting: Meeting,
) -> None:
    manifest = await meeting.prepare()
    spoil(meeting)
    deployment = await meeting.outcome(manifest)
    assert meeting.device.said("The delta does not serve")
    assert meeting.device.said("Fetching image")
    (event,) = await meeting.world.events("delta.failed")
    assert event.endpoint == "dev-1"
    assert event.data["reason"] == "digest-mismatch"
    assert await meeting.world.store.deltas.failed("dev-1") == {bytes.fromhex(str(event.data["patch"]))}
    savings = await meeting.world.server.services.deltas.savings(campaign_id=deployment.campaign_id)
    assert savings.deltas == 0
    assert savings.saved_bytes < 0, "the patch was sent for nothing"


async def ask(meeting: Meeting, host: str, code: int, query: tuple[str, ...], *path: str) -> Any:
    transport = MemoryTransport(meeting.world.network)
    await transport.start()
    await transport.listen(host, 0)
    response = await meeting.world.answer(transport.request(SERVER, code, path, query=query))
    await transport.close()
    return response


@pytest.mark.protection("server", "stranger")
async def test_only_the_device_that_is_offered_the_image_is_told_of_deltas(meeting: Meeting) -> None:
    manifest = await meeting.prepare()
    wish = Wish(hashlib.sha256(OLD).digest(), ("thumb",))
    path = ("fw", manifest.image_digest.hex(), "delta")
    meeting.device.start(fetch_patience=86_400.0)
    await meeting.registered()
    meeting.world.network.cut("10.0.1.1")
    await meeting.world.campaign(manifest)
    await meeting.world.run(5)
    stranger = await ask(meeting, "10.0.9.9", Code.GET, wish.query(), *path)
    assert stranger.code == Code.FORBIDDEN
    report = ("patch=" + "00" * 32, "reason=digest-mismatch")
    assert (await ask(meeting, "10.0.9.9", Code.POST, report, *path)).code == Code.FORBIDDEN
    meeting.world.network.mend("10.0.1.1")


@pytest.mark.parametrize(
    ("code", "query", "answer"),
    [
        (Code.GET, ("from=00", "accept=thumb"), Code.BAD_REQUEST),
        (Code.GET, ("from=" + "00" * 32,), Code.BAD_REQUEST),
        (Code.POST, ("patch=zz",), Code.BAD_REQUEST),
        (Code.PUT, (), Code.METHOD_NOT_ALLOWED),
    ],
)
async def test_what_is_no_question_for_a_delta_is_refused(
    meeting: Meeting, code: int, query: tuple[str, ...], answer: int
) -> None:
    manifest = await meeting.prepare()
    device = await meeting.world.device(agent=True)
    await meeting.world.run(5)
    device.silent = True
    await meeting.world.campaign(manifest)
    await meeting.world.run(5)
    path = ("fw", manifest.image_digest.hex(), "delta")
    assert (await ask(meeting, "10.0.1.1", code, query, *path)).code == answer


async def test_a_patch_goes_on_after_a_restart_of_the_server_and_of_the_device(meeting: Meeting) -> None:
    manifest = await meeting.prepare()
    await meeting.make()
    meeting.device.start(block_size=64)
    await meeting.registered()
    campaign = await meeting.world.campaign(manifest)

    async def halfway() -> bool:
        return sum("Stored" in line for line in meeting.device.log) >= 5

    await meeting.world.until(halfway, within=600, step=0.01)
    await meeting.device.kill()
    await meeting.world.restart()
    meeting.device.log.clear()
    meeting.device.start(block_size=64)
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
    (line,) = [line for line in meeting.device.log if "Fetching the delta" in line]
    assert int(line.rsplit(" ", 1)[1]) > 0
    savings = await meeting.world.server.services.deltas.savings(campaign_id=campaign.id)
    assert savings.deltas == 1


async def test_a_patch_is_stored_as_offered_before_the_device_hears_of_it(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = await meeting.prepare()
    store = meeting.world.store.deltas
    record, heard = store.record, []

    async def slow(rows: Any) -> None:
        passed = asyncio.get_running_loop().create_future()
        meeting.world.network.later(1.0, lambda: passed.set_result(None))
        await passed
        heard.append(meeting.device.said("Delta by"))
        await record(rows)

    monkeypatch.setattr(store, "record", slow)
    await meeting.outcome(manifest)
    assert meeting.device.said("Delta by")
    assert heard[0] is False


async def test_methods_are_compared_with_the_smallest_first(meeting: Meeting) -> None:
    await meeting.prepare()
    found = await meeting.make()
    assert {delta.method for delta in found} == {method.value for method in Method}
    assert [delta.size for delta in found] == sorted(delta.size for delta in found)
    assert all(delta.state == "ready" and delta.digest for delta in found)
