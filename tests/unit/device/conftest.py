"""A flash in memory with a device's firmware parts over it, and a whole device on a network in memory."""

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path as FilePath

import pytest

from lwm2m_device.consent import Consent
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.cose import SigningKey
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.transport import Code, Peer, Request, Response
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport
from memory import MemoryDevice
from memory.parts import Parts
from powercuts import NEW, OLD, Bench, envelope_for


@pytest.fixture
def memory_file() -> Iterator[FilePath]:
    """A file in memory: thousands of flash operations in a test cost no disk."""
    descriptor = os.memfd_create("flash")
    yield FilePath(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


@pytest.fixture
def bench(memory_file: FilePath) -> Iterator[Bench]:
    made = Bench(memory_file)
    made.program_factory()
    yield made
    made.close()


@pytest.fixture
def plain_bench(memory_file: FilePath) -> Iterator[Bench]:
    made = Bench(memory_file, plain=True)
    made.program_factory()
    yield made
    made.close()


@pytest.fixture
def make_envelope() -> Callable[..., bytes]:
    return envelope_for


@pytest.fixture
def images() -> tuple[bytes, bytes]:
    """The factory's image (1.0.0) and the next one (2.0.0)."""
    return OLD, NEW


class ScriptedServer:
    """Takes registrations and lets a test send requests; `answers` are what the next requests get."""

    HOST, PORT = "10.0.0.1", 5683

    def __init__(self, network: MemoryNetwork) -> None:
        self.transport = MemoryTransport(network)
        self.seen: list[Request] = []
        self.answers: list[tuple[int, dict[str, object]]] = []
        self.device: Peer | None = None
        self._count = 0

    async def start(self) -> None:
        self.transport.set_handlers(on_requests=self._requests)
        await self.transport.listen(self.HOST, self.PORT)

    def registers(self) -> list[Request]:
        return [each for each in self.seen if each.path == ("rd",)]

    def updates(self) -> list[Request]:
        return [
            each
            for each in self.seen
            if each.code == Code.POST and each.path[:1] == ("rd",) and each.path[1:]
        ]

    def _requests(self, requests: list[Request]) -> None:
        for request in requests:
            self.seen.append(request)
            if self.answers:
                code, options = self.answers.pop(0)
                self.transport.respond(request.exchange, code, **options)
            elif request.path == ("rd",):
                self._count += 1
                self.device = request.peer
                location = ("rd", f"r{self._count}")
                self.transport.respond(request.exchange, Code.CREATED, location_path=location)
            elif request.code == Code.DELETE:
                self.transport.respond(request.exchange, Code.DELETED)
            else:
                self.transport.respond(request.exchange, Code.CHANGED)

    async def ask(self, code: Code, path: str, **options: object) -> Response:
        assert self.device is not None
        return await self.transport.request(self.device, code, Path.parse(path).segments, **options)

    async def text(self, path: str) -> str:
        response = await self.ask(Code.GET, path, accept=ContentFormat.TEXT)
        assert response.code == Code.CONTENT, (path, response.code, response.payload)
        return response.payload.decode()

    async def execute(self, path: str) -> int:
        return (await self.ask(Code.POST, path)).code

    async def write(self, path: str, payload: bytes, content_format: int = 0) -> int:
        return (await self.ask(Code.PUT, path, payload=payload, content_format=content_format)).code

    async def state(self) -> tuple[int, int]:
        return int(await self.text("/5/0/3")), int(await self.text("/5/0/5"))

    def publish(self, image: bytes, folder: FilePath) -> str:
        """Serve an image to the device's host; return its path."""
        digest = hashlib.sha256(image).digest()
        file = folder / digest.hex()
        file.write_bytes(image)
        self.transport.add_blob(digest, str(file))
        self.transport.offer(("fw", digest.hex()), digest, Peer(f"{World.HOST}:1"))
        return f"/fw/{digest.hex()}"


class World(MemoryDevice):
    """A device, a server and the network between them, in virtual time."""

    HOST = "10.0.1.1"

    def __init__(self, network: MemoryNetwork, folder: FilePath) -> None:
        self.folder = folder
        self.server = ScriptedServer(network)
        self.key = SigningKey.generate()
        super().__init__(
            network,
            folder / "dev-1.flash",
            server=f"{ScriptedServer.HOST}:{ScriptedServer.PORT}",
            vendor="acme.example",
            class_name="M1",
            trust=(self.key.public.pem(),),
        )

    async def run(self, *, consent: Consent | None = None, **changes: object) -> None:
        """Start the device and let it register."""
        self.start(consent=consent, **changes)
        await self.network.advance(1)

    async def pass_time(self, seconds: float) -> None:
        """Move the time on in steps, with enough turns of the loop for a download in between."""
        steps = 20
        for _ in range(steps):
            for _ in range(10):
                await self.network.settle()
            await self.network.advance(seconds / steps)

    async def stop(self) -> None:
        """End the device as SIGTERM does."""
        assert self.device is not None
        assert self.task is not None
        self.device.stop()
        await self.network.advance(10)
        await self.task
        self.task = None

    def envelope(self, image: bytes, *, key: SigningKey | None = None, **changes: object) -> bytes:
        """A signed manifest for an image; `changes` go to the description."""
        given: dict[str, object] = {
            "vendor_domain": "acme.example",
            "class_name": "M1",
            "version": "2.0.0",
            "sequence_number": 2,
            "image_digest": hashlib.sha256(image).digest(),
            "image_size": len(image),
            "image_uri": f"/fw/{hashlib.sha256(image).hexdigest()}",
            **changes,
        }
        return sign(build_manifest(ManifestDescription(**given)), key or self.key)


@pytest.fixture
async def world(tmp_path: FilePath) -> AsyncIterator[World]:
    made = World(MemoryNetwork(), tmp_path)
    await made.server.start()
    yield made
    await made.kill()
    await made.server.transport.close()


@pytest.fixture
def parts(world: World) -> Parts:
    """A device with three components in that world."""
    return Parts(world)
