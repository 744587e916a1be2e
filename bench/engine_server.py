"""The engine without a server above it: serves and pushes a blob, answers registrations without storing them.

What it costs is the engine's share: datagrams, CoAP, blocks. The line "push" on stdin writes the blob to
/5/0/0 of every registered device; the answer comes when all are through.
"""

import asyncio
import hashlib
import random
import sys
import tempfile
from pathlib import Path

from bench.children import BLOB_SIZE
from lwm2m_server.transport import EngineTransport, Peer, Request
from lwm2m_server.transport.codes import Code


async def main(port: int) -> None:
    """Serve until stdin ends."""
    transport = EngineTransport()
    devices: dict[str, Peer] = {}
    with tempfile.TemporaryDirectory() as folder:
        blob = Path(folder) / "blob"
        small = Path(folder) / "small"
        blob.write_bytes(random.Random(1).randbytes(BLOB_SIZE))
        small.write_bytes(random.Random(1).randbytes(1024))
        for name, file in (("blob", blob), ("small", small)):
            digest = hashlib.sha256(file.read_bytes()).digest()
            transport.add_blob(digest, str(file))
            transport.offer((name,), digest, Peer("127.0.0.1:1"))
        digest = hashlib.sha256(blob.read_bytes()).digest()

        def on_requests(batch: list[Request]) -> None:
            for request in batch:
                if request.path == ("rd",):
                    location = f"{len(devices):x}"
                    devices[location] = request.peer
                    transport.keep(location, request.peer)
                    transport.respond(request.exchange, Code.CREATED, location_path=("rd", location))
                else:
                    transport.respond(request.exchange, Code.NOT_FOUND)

        transport.set_handlers(on_requests=on_requests)
        await transport.start()
        await transport.listen("127.0.0.1", port)
        print("listening", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "push":
                await asyncio.gather(
                    *(transport.push(peer, ("5", "0", "0"), digest) for peer in devices.values())
                )
            print(len(devices), flush=True)
        await transport.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
