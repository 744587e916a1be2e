"""The main job in one process over the real engine and SQLite: an image becomes an updated device.

Devices here are scripted; `tests/acceptance` has the same with processes and every fault of the field.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from harness.releases import Release, Signer, image_of
from lwm2m_server.app import Server
from lwm2m_server.campaigns.records import Campaign, CampaignState, Deployment
from lwm2m_server.config import Settings
from lwm2m_server.services.background import LoopTimers
from lwm2m_server.services.campaigns import CampaignDraft
from lwm2m_server.store import FileStore, open_sqlite
from lwm2m_server.store.records import StoredManifest
from lwm2m_server.transport import Code, EngineTransport
from memory import ScriptedDevice
from memory.world import chunks

DEADLINE = 60.0
IMAGE = image_of("2.0.0", 100_000)


def engine() -> EngineTransport:
    return EngineTransport(ack_timeout=0.3, progress_bytes=8192)


class Site:
    """A server over a database file, which can go away and come back, and its devices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.signer = Signer()
        self.devices: list[ScriptedDevice] = []

    async def start(self) -> None:
        settings = Settings(
            data_dir=self.folder,
            coap={"listen": [f"127.0.0.1:{self.port}"]},
            coaps={"listen": []},
            retry={"initial": 0.2, "jitter": 0.0},
            update={"poll_interval": 0.5},
            campaigns={"interval": 0.1},
        )
        self.store = await open_sqlite(settings.database_path)
        files = FileStore(settings.blob_dir)
        await files.open()
        self.server = Server(settings, self.store, files, engine())
        await self.server.start()
        self.port = int(self.server.listening[0].rpartition(":")[2])

    async def stop(self) -> None:
        await self.server.stop()
        await self.store.close()

    async def close(self) -> None:
        for device in self.devices:
            await device.close()
        await self.stop()

    async def device(self, endpoint: str, **options: Any) -> ScriptedDevice:
        device = ScriptedDevice(
            LoopTimers(),
            f"127.0.0.1:{self.port}",
            endpoint,
            host="127.0.0.1",
            make=engine,
            install_time=0.1,
            **options,
        )
        self.devices.append(device)
        assert (await device.boot()).code == Code.CREATED
        return device

    async def publish(self, release: Release) -> StoredManifest:
        releases = self.server.services.releases
        await releases.add_key(self.signer.public, name="release", actor="ann")
        await releases.add_image(chunks(release.image), name="image", actor="ann")
        return (await releases.add_manifest(release.envelope, actor="ann"))[0]

    async def campaign(self, manifest: StoredManifest, **options: Any) -> Campaign:
        campaigns = self.server.services.campaigns
        draft = CampaignDraft(name="c", manifest_id=manifest.id, stop="never", **options)
        created = await campaigns.create(draft, actor="ann")
        return await campaigns.start(created.id, actor="ann")

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait until something holds; it is asked again at each event."""
        feed = self.server.services.events.stream(after=0)
        async with asyncio.timeout(DEADLINE):
            while not await holds():
                await anext(feed)

    async def ended(self, campaign: Campaign) -> dict[str, Deployment]:
        """Wait for the campaign's end; return its deployments by endpoint."""
        campaigns = self.server.services.campaigns

        async def over() -> bool:
            return (await campaigns.get(campaign.id)).state is CampaignState.COMPLETED

        await self.until(over)
        page = await campaigns.deployments(campaign.id)
        return {deployment.endpoint: deployment for deployment in page.items}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path / "data")
    site.folder.mkdir()
    await site.start()
    yield site
    await site.close()


async def test_every_kind_of_device_in_one_campaign(site: Site) -> None:
    manifest = await site.publish(site.signer.release("2.0.0", IMAGE))
    image_path = ("fw", manifest.image_digest.hex())
    pulls = await site.device("pulls", delivery=0)
    pushed = await site.device("pushed", delivery=1)
    agent = await site.device("agent", agent=True, image_path=image_path, digest=manifest.image_digest)
    await site.device("current", version="2.0.0")
    await site.device("stranger", manufacturer="Other")
    await site.device("refuses", agent=True, refusal="class-mismatch", judge=lambda _: 6)
    campaign = await site.campaign(manifest, limit=3)
    found = await site.ended(campaign)
    assert {name: (each.state.value, each.reason) for name, each in found.items()} == {
        "agent": ("succeeded", "confirmed-digest"),
        "current": ("skipped", "already-current"),
        "pulls": ("succeeded", "confirmed-version"),
        "pushed": ("succeeded", "confirmed-version"),
        "refuses": ("rejected", "class-mismatch"),
        "stranger": ("rejected", "manufacturer-mismatch"),
    }
    assert pulls.package == pushed.package == IMAGE
    assert agent.package == manifest.envelope
    statistics = await site.server.services.campaigns.statistics(campaign.id)
    assert statistics.totals.targets == statistics.totals.done == 6


@pytest.mark.parametrize("delivery", [0, 1], ids=["pull", "push"])
async def test_the_server_goes_away_in_the_middle_and_comes_back(site: Site, delivery: int) -> None:
    device = await site.device("dev-1", delivery=delivery)
    manifest = await site.publish(site.signer.release("2.0.0", image_of("2.0.0", 600_000)))
    campaign = await site.campaign(manifest)

    async def begun() -> bool:
        page = await site.server.services.campaigns.deployments(campaign.id)
        return [deployment.state for deployment in page.items] == ["downloading"]

    await site.until(begun)
    await site.stop()
    await site.start()
    found = await site.ended(campaign)
    assert found["dev-1"].state == "succeeded"
    assert device.executed == 1
    assert len(device.package) == 600_000
    repeated = len(device.blocks_taken) - len(set(device.blocks_taken))
    assert repeated <= 16


async def test_a_server_that_stops_refuses_no_block_while_it_still_answers(site: Site) -> None:
    device = await site.device("dev-1", delivery=0, stop_fetching_at=2048)
    manifest = await site.publish(site.signer.release("2.0.0", IMAGE))
    campaign = await site.campaign(manifest)

    async def begun() -> bool:
        page = await site.server.services.campaigns.deployments(campaign.id)
        return [deployment.state for deployment in page.items] == ["downloading"]

    await site.until(begun)
    transport, answers = site.server.transport, []
    last_step = transport.close

    async def close() -> None:
        answers.append(await device.send(Code.GET, ("fw", manifest.image_digest.hex()), block2=(2, 1024)))
        await last_step()

    transport.close = close  # type: ignore[method-assign]
    await site.stop()
    await site.start()
    assert [answer.code for answer in answers] == [Code.CONTENT]


async def test_an_image_that_vanished_fails_the_device_and_says_so(site: Site) -> None:
    await site.device("dev-1")
    manifest = await site.publish(site.signer.release("2.0.0", IMAGE))
    shutil.rmtree(site.folder / "blobs" / "images")
    found = await site.ended(await site.campaign(manifest))
    assert (found["dev-1"].state, found["dev-1"].reason) == ("failed", "artefact-missing")
