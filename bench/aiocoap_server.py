"""The peer on aiocoap: the same two resources, the same registrations kept in memory, the same push."""

import asyncio
import random
import sys

import aiocoap
from aiocoap import resource

from bench.children import BLOB_SIZE

devices: list[str] = []


class Bytes(resource.Resource):
    """A resource of constant bytes."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content

    async def render_get(self, _: aiocoap.Message) -> aiocoap.Message:
        """Answer with the bytes; aiocoap cuts them into blocks."""
        return aiocoap.Message(payload=self._content)


class Directory(resource.Resource):
    """Remembers who registered."""

    async def render_post(self, request: aiocoap.Message) -> aiocoap.Message:
        """Answer 2.01 with a location."""
        devices.append(request.remote.uri)
        answer = aiocoap.Message(code=aiocoap.CREATED)
        answer.opt.location_path = ("rd", str(len(devices)))
        return answer


async def main(port: int) -> None:
    """Serve until stdin ends."""
    site = resource.Site()
    blob = random.Random(1).randbytes(BLOB_SIZE)
    site.add_resource(["blob"], Bytes(blob))
    site.add_resource(["small"], Bytes(blob[:1024]))
    site.add_resource(["rd"], Directory())
    context = await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port))
    print("listening", flush=True)

    async def push(uri: str) -> None:
        message = aiocoap.Message(code=aiocoap.PUT, uri=f"{uri}/5/0/0", payload=blob)
        await context.request(message).response

    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line.strip() == "push":
            await asyncio.gather(*(push(uri) for uri in devices))
        print(len(devices), flush=True)
    await context.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
