"""Programs that know CoAP and nothing of us: libcoap's client, and a device written with aiocoap."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiocoap
import pytest
from aiocoap import resource

from harness import Server, Signer, image_of

pytestmark = pytest.mark.interop

IMAGE_SIZE = 100 * 1024
LINKS = b'</>;rt="oma.lwm2m",</1/0>,</3/0>,</5/0>'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        yield running


class Text(resource.Resource):
    """A resource that is read as text and may be written."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self.value = value
        self.written = asyncio.Event()

    async def render_get(self, request: aiocoap.Message) -> aiocoap.Message:
        return aiocoap.Message(payload=self.value.encode(), content_format=0)

    async def render_put(self, request: aiocoap.Message) -> aiocoap.Message:
        self.value = request.payload.decode()
        self.written.set()
        return aiocoap.Message(code=aiocoap.CHANGED)


class Device:
    """The smallest device with object 5: text resources, pull only."""

    def __init__(self, endpoint: str, server: Server) -> None:
        self.endpoint = endpoint
        self.server = server
        self.uri = Text("")
        self.state, self.result, self.version = Text("0"), Text("0"), Text("1.0.0")
        self.context: aiocoap.Context

    def site(self) -> resource.Site:
        site = resource.Site()
        for path, value in {
            ("3", "0", "0"): Text("Independent"),
            ("3", "0", "1"): Text("Device"),
            ("3", "0", "3"): self.version,
            ("5", "0", "1"): self.uri,
            ("5", "0", "3"): self.state,
            ("5", "0", "5"): self.result,
            ("5", "0", "9"): Text("0"),
        }.items():
            site.add_resource(path, value)
        return site

    async def register(self) -> aiocoap.Message:
        request = aiocoap.Message(
            code=aiocoap.POST,
            uri=f"{self.server.uri}/rd?ep={self.endpoint}&lt=60&lwm2m=1.0&b=U",
            payload=LINKS,
            content_format=40,
        )
        return await self.context.request(request).response


@asynccontextmanager
async def switched_on(device: Device) -> AsyncIterator[Device]:
    device.context = await aiocoap.Context.create_server_context(device.site(), bind=("127.0.0.1", 0))
    try:
        yield device
    finally:
        await device.context.shutdown()


async def test_an_aiocoap_device_registers_answers_and_downloads_what_it_was_offered(server: Server) -> None:
    signer = Signer()
    image = image_of("2.0.0", IMAGE_SIZE)
    release = signer.release("2.0.0", image, manufacturer="Independent", model="Device")
    async with switched_on(Device("aio-1", server)) as device:
        assert (await device.register()).code is aiocoap.CREATED
        await asyncio.to_thread(server.wait_registered, "aio-1")
        read = await asyncio.to_thread(server.call, "GET", "/devices/aio-1/objects/3/0/0")
        assert read["values"][0]["value"] == "Independent"

        manifest = await asyncio.to_thread(signer.publish, server, release)
        await asyncio.to_thread(server.campaign, "aio", manifest)
        while not device.uri.value:
            device.uri.written.clear()
            await asyncio.wait_for(device.uri.written.wait(), 60)
        fetched = await device.context.request(
            aiocoap.Message(code=aiocoap.GET, uri=device.uri.value)
        ).response
        assert fetched.payload == image


async def test_an_image_is_not_given_to_who_was_not_offered_it(server: Server) -> None:
    signer = Signer()
    release = signer.release("2.0.0", image_of("2.0.0", 2000))
    await asyncio.to_thread(signer.publish, server, release)
    context = await aiocoap.Context.create_client_context()
    try:
        uri = f"{server.uri}/fw/{release.digest.hex()}"
        answer = await context.request(aiocoap.Message(code=aiocoap.GET, uri=uri)).response
        assert answer.code in {aiocoap.FORBIDDEN, aiocoap.NOT_FOUND}
    finally:
        await context.shutdown()


@pytest.mark.peer("libcoap")
async def test_coap_client_downloads_what_its_host_was_offered(server: Server, tmp_path: Path) -> None:
    signer = Signer()
    image = image_of("2.0.0", IMAGE_SIZE)
    release = signer.release("2.0.0", image, manufacturer="Independent", model="Device")
    async with switched_on(Device("aio-2", server)) as device:
        await device.register()
        await asyncio.to_thread(server.wait_registered, "aio-2")
        manifest = await asyncio.to_thread(signer.publish, server, release)
        await asyncio.to_thread(server.campaign, "libcoap", manifest)
        while not device.uri.value:
            device.uri.written.clear()
            await asyncio.wait_for(device.uri.written.wait(), 60)
        file = tmp_path / "fetched"
        for block_size in (1024, 64):
            command = [
                "coap-client-notls",
                "-B",
                "30",
                "-b",
                str(block_size),
                "-o",
                str(file),
                device.uri.value,
            ]
            done = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True)
            assert done.returncode == 0, done.stderr
            assert file.read_bytes() == image
            file.unlink()
