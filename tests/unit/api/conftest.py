"""The API over the real services and a store in memory; only the devices are made up."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from lwm2m_server.api import create_app
from lwm2m_server.campaigns.records import Deployment, DeploymentState
from lwm2m_server.cli import client
from lwm2m_server.cli.commands import app
from lwm2m_server.clock import ManualClock
from lwm2m_server.config import ApiSettings, Settings
from lwm2m_server.devices.records import Facts, Observation, Registration
from lwm2m_server.errors import DeviceError, NotFound
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.cose import SigningKey
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.firmware.images import inspect_image
from lwm2m_server.lwm2m.model import ObjectDefinition, ObjectRegistry, ResourceDefinition, ResourceType
from lwm2m_server.services import (
    AccessService,
    CampaignService,
    CredentialService,
    DeltaService,
    DirectoryService,
    EventFeed,
    HealthService,
    ReleaseService,
    ServerKeys,
    Services,
    UploadService,
)
from lwm2m_server.services.access import Role
from lwm2m_server.services.background import LoopTimers
from lwm2m_server.services.deltas import DeltaPolicy
from lwm2m_server.services.operations import DiscoveredLink, PathValue, ReadResult
from lwm2m_server.services.sealing import Sealer
from lwm2m_server.store.files import FileStore
from lwm2m_server.store.memory import MemoryStore
from lwm2m_server.store.uploads import UploadFiles
from lwm2m_server.transport import RequestTimeout
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport
from memory.deltas import build_here

NOW = 1_800_000_000.0
IMAGE = b"firmware-version: 2.1.0\n" + bytes(range(256)) * 8


class FakeLive:
    """Stands in for the transport's side of identities: what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def revoke(self, identity: str) -> None:
        self.heard.append(("revoke", identity))

    def rotated(self, identity: str) -> None:
        self.heard.append(("rotated", identity))

    def trust_changed(self) -> None:
        self.heard.append(("trust",))


class FakeDevices:
    """Stands in for OperationService: one device's values, and what it was asked to do."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"/3/0/0": "Acme", "/3/0/9": 87, "/3/0/17": b"\x01\xff", "/3/0/18": 1.5}
        self.asked: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def _ask(self, *what: Any) -> None:
        if self.error is not None:
            raise self.error
        if what[1] == "silent":
            raise RequestTimeout("the device did not answer", field="endpoint")
        if not what[1].startswith("pump"):
            raise NotFound(f"There is no device '{what[1]}'.", field="endpoint")
        self.asked.append(what)

    async def read(self, endpoint: str, path: str, *, timeout: float | None = None) -> ReadResult:
        self._ask("read", endpoint, path, timeout)
        found = tuple(
            PathValue(at, value, "Manufacturer" if at == "/3/0/0" else None)
            for at, value in self.values.items()
            if (at + "/").startswith(path.rstrip("/") + "/")
        )
        if not found:
            raise DeviceError(f"the device answered 4.04 to {path}", code="4.04", field="path")
        return ReadResult(path, found, 11543, b"")

    async def write(self, endpoint: str, path: str, value: Any, *, partial: bool = False, actor: str) -> None:
        self._ask("write", endpoint, path, value, partial, actor)

    async def execute(self, endpoint: str, path: str, arguments: str = "", *, actor: str) -> None:
        self._ask("execute", endpoint, path, arguments, actor)

    async def discover(self, endpoint: str, path: str) -> tuple[DiscoveredLink, ...]:
        self._ask("discover", endpoint, path)
        return (DiscoveredLink("/3/0", {"ver": "1.1", "obs": None}), DiscoveredLink("/3/0/9", {"pmin": "10"}))

    async def create(
        self,
        endpoint: str,
        path: str,
        value: Mapping[str, Any],
        *,
        instance: int | None = None,
        actor: str,
    ) -> str:
        self._ask("create", endpoint, path, dict(value), instance, actor)
        return f"{path}/{instance or 0}"

    async def delete(self, endpoint: str, path: str, *, actor: str) -> None:
        self._ask("delete", endpoint, path, actor)

    async def write_attributes(
        self, endpoint: str, path: str, attributes: Mapping[str, float | None], *, actor: str
    ) -> None:
        self._ask("write_attributes", endpoint, path, dict(attributes), actor)

    async def observe(self, endpoint: str, path: str, *, actor: str) -> ReadResult:
        self._ask("observe", endpoint, path, actor)
        return ReadResult(path, (PathValue(path, 21.5),), 112, b"")

    async def cancel(self, endpoint: str, path: str, *, actor: str) -> None:
        self._ask("cancel", endpoint, path, actor)

    async def observations(self, endpoint: str) -> tuple[Observation, ...]:
        self._ask("observations", endpoint)
        return (Observation(endpoint=endpoint, path="/3/0/9", owner="operator", created_at=NOW),)


@dataclass
class World:
    """A server without a network."""

    app: FastAPI
    store: MemoryStore
    clock: ManualClock
    devices: FakeDevices
    services: Services
    tokens: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    live: FakeLive = field(default_factory=FakeLive)

    def client(self, role: str | None = "admin") -> httpx.AsyncClient:
        """Return a client with a token of this role."""
        headers = {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)

    async def register(self, endpoint: str, *, version: str = "1.9.0", manufacturer: str = "Acme") -> None:
        """Make a device known."""
        registration = Registration(
            registration_id=endpoint[-16:],
            endpoint=endpoint,
            address="192.0.2.1:5683",
            registered_at=NOW,
            last_seen=NOW,
            expires_at=NOW + 300,
            lifetime=300,
            lwm2m_version="1.1",
            links="</3/0>,</5/0>",
            objects=("/3/0", "/5/0"),
        )
        (result,) = await self.store.registrations.register([registration])
        assert not isinstance(result, Exception)
        facts = Facts(
            manufacturer=manufacturer, model="pump", firmware_version=version, running_digest=bytes(32)
        )
        await self.store.devices.set_facts(endpoint, facts)

    async def deploy(self, campaign_id: str, endpoint: str, state: str, reason: str = "") -> None:
        """Make a device part of a campaign."""
        await self.store.deployments.add(
            [
                Deployment(
                    campaign_id=campaign_id,
                    endpoint=endpoint,
                    created_at=NOW,
                    updated_at=NOW,
                    state=DeploymentState(state),
                    reason=reason,
                    offset=1024,
                    size=2048,
                )
            ]
        )


def registry() -> ObjectRegistry:
    """Return one definition."""
    resource = ResourceDefinition(9, "Battery Level", "R", False, False, ResourceType.INTEGER, "0..100", "%")
    return ObjectRegistry(
        [ObjectDefinition(3, "1.1", "Device", "urn:oma:lwm2m:oma:3:1.1", True, False, {9: resource})]
    )


async def make_world(folder: Path) -> World:
    """Put a server together."""
    clock = ManualClock(NOW)
    store = MemoryStore()
    files = FileStore(folder / "files", max_file=1 << 20)
    await files.open()
    devices = FakeDevices()
    broken: list[str] = []
    live = FakeLive()

    async def check() -> None:
        if broken:
            raise NotFound(broken[0])

    settings = Settings(data_dir=folder, max_image_size=1 << 20, api=ApiSettings(max_body=65536))
    releases = ReleaseService(store, files, clock)
    uploads = UploadService(releases, UploadFiles(files), clock, LoopTimers())
    await uploads.open()
    transport = MemoryTransport(MemoryNetwork())
    patches = FileStore(folder / "deltas")
    deltas = DeltaService(store, files, patches, transport, clock, build=build_here, policy=DeltaPolicy())
    await deltas.start()
    services = Services(
        directory=DirectoryService(store, clock),
        operations=devices,  # type: ignore[arg-type]
        releases=releases,
        deltas=deltas,
        uploads=uploads,
        campaigns=CampaignService(store, clock, wake=lambda: None),
        credentials=CredentialService(store, clock, Sealer(bytes(32)), live),
        server_keys=ServerKeys.temporary(settings),
        access=AccessService(store, clock),
        events=EventFeed(store.events),
        health=HealthService(CollectorRegistry(), {"store": check}),
    )
    app = create_app(services, settings, registry(), clock=clock)
    world = World(app, store, clock, devices, services, broken=broken, live=live)
    for role in Role:
        _, text = await services.access.create(role.value, role, actor="test")
        world.tokens[role.value] = text
    return world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(tmp_path)
    yield made
    await made.services.uploads.close()
    await made.store.close()


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client() as client:
        yield client


class Release:
    """A key pair, an image and its signed manifest."""

    def __init__(self, *, sequence: int = 1, image: bytes = IMAGE) -> None:
        self.key = SigningKey.generate()
        self.image = image
        info = inspect_image(image)
        self.digest = info.digest.hex()
        unsigned = build_manifest(
            ManifestDescription(
                vendor_domain="acme.example",
                class_name="pump",
                version="2.1.0",
                sequence_number=sequence,
                image_digest=info.digest,
                image_size=info.size,
                image_uri=f"/fw/{info.digest.hex()}",
                manufacturer="Acme",
                model="pump",
            )
        )
        self.unsigned = unsigned
        self.envelope = sign(unsigned, self.key)

    async def publish(self, http: httpx.AsyncClient) -> str:
        """Upload all and return the manifest's id."""
        for path, content in (
            ("/keys?name=release", self.key.public.pem()),
            ("/firmware?name=pump.bin", self.image),
            ("/manifests", self.envelope),
        ):
            answer = await http.post("/api/v1" + path, content=content)
            assert answer.status_code in {200, 201}, answer.text
        return str(answer.json()["id"])


@pytest.fixture
def release() -> Release:
    return Release()


class Bridge(httpx.BaseTransport):
    """Lets the CLI, which is not asynchronous, talk to the API in a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.world: World = self.run(make_world(folder))

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        return self.run(self._handle(request, content))

    async def _handle(self, request: httpx.Request, content: bytes) -> httpx.Response:
        inner = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        transport = httpx.ASGITransport(self.world.app, raise_app_exceptions=False)
        response = await transport.handle_async_request(inner)
        body = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=body)

    def shut(self) -> None:
        self.run(self.world.services.uploads.close())
        self.run(self.world.store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    made = Bridge(tmp_path)
    yield made
    made.shut()


@pytest.fixture
def lwm2m(bridge, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("LWM2M_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LWM2M_URL", "http://test")
    monkeypatch.setenv("LWM2M_TOKEN", bridge.world.tokens["admin"])
    monkeypatch.setattr(
        client, "make_http", lambda target: httpx.Client(base_url=target.url, transport=bridge)
    )

    def run(*arguments: str, code: int = 0, typed: str | None = None):
        result = CliRunner().invoke(app, list(arguments), input=typed)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in arguments and code == 0 and result.stdout else result

    return run
