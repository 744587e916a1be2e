"""The engine without a server above it: serves and pushes a blob, answers registrations without storing them.

What it costs is the engine's share: datagrams, DTLS, CoAP, blocks. The line "push" on stdin writes the blob to
/5/0/0 of every registered device; the answer comes when all are through. With a file of a secret it speaks DTLS:
pre-shared keys are derived from names as simulated devices do it, every raw public key is taken.
"""

import asyncio
import hashlib
import random
import sys
import tempfile
from pathlib import Path

from bench.children import BLOB_SIZE
from bench.keys import Keys
from lwm2m_server.transport import (
    EngineTransport,
    Established,
    LookUp,
    Peer,
    Request,
    Security,
    SecurityEvent,
)
from lwm2m_server.transport.codes import Code

# The simulator's sockets send from 127.1.0.1, 127.1.1.1 and so on.
_HOSTS = tuple(f"127.1.{number}.1" for number in range(256))
_UNBOUNDED = (
    1_000_000  # handshakes a second; the bound is for attackers, and here it would be what is measured
)


class Bench:
    """The transport and what is served over it."""

    def __init__(self, folder: Path, keys: Keys | None) -> None:
        self._keys = keys
        self.devices: dict[str, Peer] = {}
        self.transport = EngineTransport(
            key_operations_per_second=_UNBOUNDED, key_operations_per_second_per_prefix=_UNBOUNDED
        )
        self._digests: dict[str, bytes] = {}
        for name, size in (("blob", BLOB_SIZE), ("small", 1024)):
            file = folder / name
            file.write_bytes(random.Random(1).randbytes(size))
            digest = hashlib.sha256(file.read_bytes()).digest()
            self.transport.add_blob(digest, str(file))
            self._digests[name] = digest
        for host in _HOSTS:
            self._offer(Peer(f"{host}:1"))
        self.transport.set_handlers(on_requests=self._on_requests, on_security=self._on_security)

    async def listen(self, port: int) -> None:
        """Begin to answer."""
        await self.transport.start()
        if self._keys is not None:
            self.transport.secure(Security(private_key=self._keys.server_pem))
        await self.transport.listen("127.0.0.1", port, secure=self._keys is not None)

    async def push(self) -> None:
        """Write the blob to every device that has registered."""
        digest = self._digests["blob"]
        pushes = (self.transport.push(peer, ("5", "0", "0"), digest) for peer in self.devices.values())
        await asyncio.gather(*pushes)

    def _offer(self, peer: Peer) -> None:
        for name, digest in self._digests.items():
            self.transport.offer((name,), digest, peer)

    def _on_requests(self, batch: list[Request]) -> None:
        for request in batch:
            if request.path == ("rd",):
                location = f"{len(self.devices):x}"
                self.devices[location] = request.peer
                self.transport.keep(location, request.peer)
                self.transport.respond(request.exchange, Code.CREATED, location_path=("rd", location))
            else:
                self.transport.respond(request.exchange, Code.NOT_FOUND)

    def _on_security(self, batch: list[SecurityEvent]) -> None:
        for event in batch:
            match event:
                case LookUp(identity=identity) if identity.startswith("psk:") and self._keys is not None:
                    key = self._keys.psk(identity.removeprefix("psk:"))
                    self.transport.provide_psks([(event.handshake, (key,))])
                case LookUp():
                    self.transport.provide_verdict(event.handshake, accepted=True)
                case Established(identity=identity) if identity.startswith("psk:get-"):
                    self._offer(Peer(event.address, identity=identity))


async def main(port: int, keys: Keys | None) -> None:
    """Serve until stdin ends."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), keys)
        await bench.listen(port)
        print("listening", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "push":
                await bench.push()
            print(len(bench.devices), flush=True)
        await bench.transport.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Keys(Path(sys.argv[2])) if len(sys.argv) > 2 else None))
