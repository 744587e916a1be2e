"""The server itself (`lwm2m_server.app.Server`) over memory: store, network and time are the tests' own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from harness.releases import Signer, image_of
from lwm2m_server.app import Server, load_objects
from lwm2m_server.campaigns.records import Campaign, CampaignState, Deployment
from lwm2m_server.config import Settings
from lwm2m_server.lwm2m.model import ObjectRegistry
from lwm2m_server.services.campaigns import CampaignDraft
from lwm2m_server.store import FileStore
from lwm2m_server.store.memory import MemoryStore
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import Event, StoredManifest
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport
from memory.deltas import build_here
from memory.device import ScriptedDevice

ADDRESS = "10.0.0.1:5683"
_TURNS = 100
_OBJECTS: list[ObjectRegistry] = []

T = TypeVar("T")


class World:
    """A server that can be stopped and started over the same store, and its devices."""

    def __init__(
        self,
        folder: Path,
        *,
        store: Store | None = None,
        network: MemoryNetwork | None = None,
        **settings: Any,
    ) -> None:
        self.network = network or MemoryNetwork()
        self.store = store or MemoryStore()
        self.files = FileStore(folder / "blobs")
        self.settings = Settings(
            data_dir=folder,
            coap={"listen": [ADDRESS], "public_uri": f"coap://{ADDRESS}"},
            coaps={"listen": []},
            retry={"initial": 10.0, "jitter": 0.0},
            **settings,
        )
        self.signer = Signer()
        self.devices: list[ScriptedDevice] = []
        self.server = self._server()

    def _server(self) -> Server:
        if not _OBJECTS:
            _OBJECTS.append(load_objects(self.settings))
        return Server(
            self.settings,
            self.store,
            self.files,
            MemoryTransport(self.network, progress_bytes=4096),
            clock=self.network.clock,
            timers=self.network,
            build_deltas=build_here,
            objects=_OBJECTS[0],
        )

    async def start(self) -> None:
        await self.files.open()
        await self.server.start()

    async def restart(self) -> None:
        """Stop the server and start another one over the same store: all that was in memory is lost."""
        await self.kill()
        self.server = self._server()
        await self.server.start()

    async def kill(self) -> None:
        await self.server.stop()
        await self.settle()

    async def close(self) -> None:
        for device in self.devices:
            await device.close()
        await self.server.stop()

    # time

    async def settle(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def run(self, seconds: float, *, step: float = 1.0) -> None:
        """Let this much virtual time pass."""
        end = self.network.clock.now() + seconds
        while (left := end - self.network.clock.now()) > 0:
            await self.settle()
            await self.network.advance(min(step, left))
        await self.settle()

    async def until(
        self, holds: Callable[[], Coroutine[Any, Any, bool]], *, within: float = 3600.0, step: float = 1.0
    ) -> None:
        """Let time pass until something holds, looking every `step`; virtual seconds bound it."""
        end = self.network.clock.now() + within
        while not await holds():
            assert self.network.clock.now() < end, "it did not come true in time"
            await self.run(step)

    async def answer(self, work: Coroutine[Any, Any, T], *, within: float = 600.0) -> T:
        """Await something that needs time to pass."""
        task = asyncio.get_running_loop().create_task(work)
        end = self.network.clock.now() + within
        await self.settle()
        while not task.done():
            assert self.network.clock.now() < end, "no answer in time"
            await self.run(1.0)
        return await task

    # parts

    async def device(self, endpoint: str = "dev-1", *, booted: bool = True, **options: Any) -> ScriptedDevice:
        number = len(self.devices) + 1
        device = ScriptedDevice(
            self.network, ADDRESS, endpoint, host=f"10.0.{1 + number // 250}.{number % 250}", **options
        )
        self.devices.append(device)
        if booted:
            await self.answer(device.boot())
        return device

    async def release(self, version: str = "2.0.0", size: int = 40_000, **options: Any) -> StoredManifest:
        """Make an image and its signed manifest and bring both in, as an operator does."""
        release = self.signer.release(version, image_of(version, size), **options)
        releases = self.server.services.releases
        await releases.add_key(self.signer.public, name="release", actor="ann")
        await releases.add_image(chunks(release.image), name="image", version=version, actor="ann")
        manifest, _ = await releases.add_manifest(release.envelope, actor="ann")
        return manifest

    async def campaign(self, manifest: StoredManifest, name: str = "c", **options: Any) -> Campaign:
        """Create a campaign and start it."""
        campaigns = self.server.services.campaigns
        draft = CampaignDraft(name=name, manifest_id=manifest.id, **{"stop": "never", **options})
        created = await campaigns.create(draft, actor="ann")
        started = await campaigns.start(created.id, actor="ann")
        await self.settle()
        return started

    async def deployment(self, campaign: Campaign, endpoint: str = "dev-1") -> Deployment:
        return await self.server.services.campaigns.deployment(campaign.id, endpoint)

    async def outcome(
        self, campaign: Campaign, endpoint: str = "dev-1", *, within: float = 86_400.0
    ) -> tuple[str, str]:
        """Wait for the device's end in the campaign; return state and reason."""

        async def ended() -> bool:
            return (await self.deployment(campaign, endpoint)).final

        await self.until(ended, within=within)
        deployment = await self.deployment(campaign, endpoint)
        return deployment.state.value, deployment.reason

    async def reach(self, campaign: Campaign, state: str, endpoint: str = "dev-1") -> Deployment:
        """Wait until the device is in this state."""

        async def there() -> bool:
            return (await self.deployment(campaign, endpoint)).state == state

        await self.until(there, within=600.0, step=0.05)
        return await self.deployment(campaign, endpoint)

    async def ended(self, campaign: Campaign, *, within: float = 86_400.0) -> Campaign:
        """Wait for the end of the campaign."""
        alive = (CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.SCHEDULED)

        async def over() -> bool:
            return (await self.server.services.campaigns.get(campaign.id)).state not in alive

        await self.until(over, within=within)
        return await self.server.services.campaigns.get(campaign.id)

    async def states(self, campaign: Campaign, endpoint: str = "dev-1") -> list[str]:
        """Return the states that the device went through, from its history."""
        history = await self.server.services.campaigns.history(campaign.id, endpoint)
        return [str(event.data["state"]) for event in history]

    async def events(self, kind: str) -> list[Event]:
        return [event for event in await self.store.events.after(0, limit=10_000) if event.kind == kind]


async def chunks(content: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    """Give bytes in pieces, as an upload does."""
    for start in range(0, len(content), size):
        yield content[start : start + size]
