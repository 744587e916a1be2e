"""The reference device as a process of its own over the real engine, killed and started again."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.cose import SigningKey
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.transport import Code, Download, EngineTransport, Peer, Request

IMAGE = b"firmware-version: 2.0.0\n" + os.urandom(200_000)
BLOCK = 1024
LIMIT = 60.0  # seconds that a step may take on a busy machine; none waits that long when all is well


class Server:
    """A small LwM2M server on the real engine: registrations as a queue, and requests to the device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.transport = EngineTransport()
        self.registrations: asyncio.Queue[Request] = asyncio.Queue()
        self.farewells: asyncio.Queue[Request] = asyncio.Queue()
        self.downloads: list[Download] = []
        self.device: Peer | None = None
        self.address = ""

    async def start(self) -> None:
        await self.transport.start()
        self.transport.set_handlers(on_requests=self._requests, on_download=self.downloads.append)
        self.address = await self.transport.listen("127.0.0.1", 0)

    def _requests(self, requests: list[Request]) -> None:
        for request in requests:
            if request.path == ("rd",):
                self.device = request.peer
                self.transport.respond(request.exchange, Code.CREATED, location_path=("rd", "1"))
                self.registrations.put_nowait(request)
            elif request.code == Code.DELETE:
                self.transport.respond(request.exchange, Code.DELETED)
                self.farewells.put_nowait(request)
            else:
                self.transport.respond(request.exchange, Code.CHANGED)

    async def registered(self) -> Request:
        return await asyncio.wait_for(self.registrations.get(), LIMIT)

    async def text(self, path: str) -> str:
        assert self.device is not None
        segments = tuple(path.strip("/").split("/"))
        response = await self.transport.request(self.device, Code.GET, segments, accept=0, timeout=LIMIT)
        assert response.code == Code.CONTENT, response.code
        return response.payload.decode()

    async def ask(
        self, code: Code, path: str, payload: bytes = b"", content_format: int | None = None
    ) -> int:
        assert self.device is not None
        segments = tuple(path.strip("/").split("/"))
        response = await self.transport.request(
            self.device, code, segments, payload=payload, content_format=content_format, timeout=LIMIT
        )
        return response.code

    async def watch_state(self) -> asyncio.Queue[int]:
        """Observe State; its values come in a queue."""
        assert self.device is not None
        values: asyncio.Queue[int] = asyncio.Queue()
        _, first = await self.transport.observe(
            self.device,
            ("5", "0", "3"),
            accept=0,
            on_notify=lambda each: values.put_nowait(int(each.payload)),
            on_end=lambda reason: None,
        )
        values.put_nowait(int(first.payload))
        return values

    def publish(self, image: bytes) -> None:
        digest = hashlib.sha256(image).digest()
        file = self.folder / "image"
        file.write_bytes(image)
        self.transport.add_blob(digest, str(file))
        self.transport.offer(("fw", digest.hex()), digest, Peer("127.0.0.1:1"))


class Process:
    """The device's process."""

    def __init__(self, folder: Path, server: Server, key: SigningKey) -> None:
        self._folder = folder
        self._server = server
        self.flash = folder / "flash"
        self.trust = folder / "trust.pem"
        self.trust.write_bytes(key.public.pem())
        self._log = (folder / "device.log").open("ab")
        self.running: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lwm2m_device", "run", "--server", f"coap://{self._server.address}"]
        command += ["--endpoint", "dev", "--flash", str(self.flash), "--lifetime", "60"]
        command += ["--vendor", "acme.example", "--class", "M1", "--trust", str(self.trust), *options]
        self.running = subprocess.Popen(command, stderr=self._log, stdout=self._log)
        return self.running

    async def ended(self) -> int:
        assert self.running is not None
        return await asyncio.wait_for(asyncio.to_thread(self.running.wait), LIMIT)

    def log(self) -> str:
        return (self._folder / "device.log").read_text()

    def close(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.kill()
            self.running.wait()
        self._log.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path)
    await made.start()
    yield made
    await made.transport.close()


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def process(tmp_path, server, key):
    made = Process(tmp_path, server, key)
    yield made
    made.close()


def envelope(key: SigningKey) -> bytes:
    digest = hashlib.sha256(IMAGE)
    description = ManifestDescription(
        vendor_domain="acme.example",
        class_name="M1",
        version="2.0.0",
        sequence_number=2,
        image_digest=digest.digest(),
        image_size=len(IMAGE),
        image_uri=f"/fw/{digest.hexdigest()}",
    )
    return sign(build_manifest(description), key)


async def until(values: asyncio.Queue[int], wanted: int) -> None:
    async with asyncio.timeout(LIMIT):
        while await values.get() != wanted:
            pass


def repeated_blocks(server: Server) -> int:
    return max(each.repeated for each in server.downloads)


async def test_a_device_that_loses_power_in_the_middle_goes_on_and_updates(server, process, key):
    process.start("--die-at-percent", "50")
    await server.registered()
    server.publish(IMAGE)
    assert await server.ask(Code.PUT, "/5/0/0", envelope(key), 42) == Code.CHANGED
    assert await process.ended() == -signal.SIGKILL
    process.start("--die-at-percent", "50")
    await server.registered()
    values = await server.watch_state()
    await until(values, 2)
    assert server.downloads[-1].offset == len(IMAGE)
    assert repeated_blocks(server) <= 16
    assert "The download goes on at byte" in process.log()
    assert await server.ask(Code.POST, "/5/0/2") == Code.CHANGED
    await server.registered()
    assert await server.text("/3/0/3") == "2.0.0"
    assert (await server.text("/5/0/3"), await server.text("/5/0/5")) == ("0", "1")


async def test_kill_9_at_any_time_of_a_download_loses_at_most_a_page(server, process, key):
    process.start()
    await server.registered()
    server.publish(IMAGE)
    await server.ask(Code.PUT, "/5/0/0", envelope(key), 42)
    kills = 0
    while kills < 4:
        before = len(server.downloads)
        process.running.send_signal(signal.SIGKILL)
        await process.ended()
        kills += 1
        process.start()
        await server.registered()
        if await server.text("/5/0/3") == "2":
            break
        async with asyncio.timeout(LIMIT):
            while len(server.downloads) == before and await server.text("/5/0/3") == "1":
                pass
    values = await server.watch_state()
    await until(values, 2)
    assert repeated_blocks(server) <= 5 * kills
    shown = subprocess.run(
        [sys.executable, "-m", "lwm2m_device", "show", str(process.flash), "--json"],
        check=True,
        capture_output=True,
        timeout=LIMIT,
    )
    found = json.loads(shown.stdout)
    assert found["update"]["state"] == "downloaded"
    assert found["slots"]["B"]["digest"] == hashlib.sha256(IMAGE).hexdigest()
    assert found["slots"]["B"]["intact"]


async def test_sigterm_says_good_bye(server, process):
    running = process.start()
    await server.registered()
    running.send_signal(signal.SIGTERM)
    await asyncio.wait_for(server.farewells.get(), LIMIT)
    assert await process.ended() == 0


async def test_a_plain_device_takes_a_push_over_the_engine(server, process):
    process.start("--plain")
    await server.registered()
    server.publish(IMAGE)
    response = await server.transport.push(server.device, ("5", "0", "0"), hashlib.sha256(IMAGE).digest())
    assert response.code == Code.CHANGED
    assert await server.text("/5/0/3") == "2"
    assert await server.text("/5/0/7") == "2.0.0"


async def test_a_fleet_registers_and_tells_what_happened(server):
    command = [sys.executable, "-m", "lwm2m_device", "fleet", "--server", f"coap://{server.address}"]
    command += ["--count", "20", "--spread", "0.1", "--seconds", "2", "--prefix", "light-", "--json"]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=LIMIT)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["devices"] == 20
    assert server.registrations.qsize() >= 20
