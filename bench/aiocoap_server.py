"""The peer on aiocoap: the same two resources, the same registrations kept in memory, the same push.

With a file of a secret it speaks DTLS by tinydtls. It runs in an environment without this project then, so it derives
the keys of simulated devices by itself.
"""

import asyncio
import hashlib
import hmac
import random
import sys
from pathlib import Path

import aiocoap
from aiocoap import resource

BLOB_SIZE = 300 * 1024

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


class Credentials:
    """What its DTLS asks for keys."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def find_dtls_psk(self, identity: bytes) -> tuple[bytes, str]:
        """Return the key of a device, and who that is."""
        return hmac.digest(self._secret, identity, hashlib.sha256)[:16], identity.decode()


async def main(port: int, secret: bytes | None) -> None:
    """Serve until stdin ends."""
    site = resource.Site()
    blob = random.Random(1).randbytes(BLOB_SIZE)
    site.add_resource(["blob"], Bytes(blob))
    site.add_resource(["small"], Bytes(blob[:1024]))
    site.add_resource(["rd"], Directory())
    context = await aiocoap.Context.create_server_context(
        site,
        bind=("127.0.0.1", port),
        server_credentials=None if secret is None else Credentials(secret),
        transports=None if secret is None else ["tinydtls_server"],
    )
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
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes().strip() if len(sys.argv) > 2 else None))
