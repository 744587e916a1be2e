"""The server of a scenario: takes registrations, looks at the device, and sends what the rules say."""

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lwm2m_server.transport import (
    Code,
    Download,
    EngineTransport,
    LookUp,
    Peer,
    Request,
    Security,
    SecurityEvent,
    TransportError,
    dotted,
    psk_identity,
)

_LOOK = 0.3  # seconds between two looks
_PATIENCE = 30.0
_ANYWHERE = "127.0.0.1:1"
_OPAQUE = 42


@dataclass(frozen=True, repr=False)
class Psk:
    """What the client proves itself with over coaps."""

    identity: str
    key: bytes


class Server:
    """Plays the rules of one scenario, with `psk` over coaps. `trace` tells all that was seen and sent, in order.

    `served` is called with the bytes of the image that went to the device, as far as coaps hides them from the link.
    """

    def __init__(self, packages: Path, scenario: dict[str, Any], psk: Psk | None = None) -> None:
        self._packages = packages
        self._psk = psk
        identity = None if psk is None else psk_identity(psk.identity.encode())
        # downloads are open to this identity, or without one to the host
        self._client = Peer(_ANYWHERE, identity=identity)
        self.served: Callable[[int], None] = lambda _: None
        self._rules = scenario["server"]
        self._serves = {path: list(files) for path, files in scenario["serves"].items()}
        self._transport = EngineTransport(ack_timeout=1.0, progress_bytes=1024)
        self._device: Peer | None = None
        self._numbers = itertools.count(1)
        self.front_port = 0  # of the link, for the URIs that the device gets
        self.trace: list[dict[str, Any]] = []
        self.registrations = 0

    @property
    def scheme(self) -> str:
        """Return coap or coaps."""
        return "coap" if self._psk is None else "coaps"

    async def start(self) -> tuple[str, int]:
        """Listen and return the address."""
        await self._transport.start()
        self._transport.set_handlers(
            on_requests=self._requests, on_security=self._security, on_download=self._downloaded
        )
        if self._psk is not None:
            self._transport.secure(Security(handshake_timeout=1.0))
        for path in self._serves:
            self._offer(path)
        address = await self._transport.listen("127.0.0.1", 0, secure=self._psk is not None)
        host, _, port = address.rpartition(":")
        return host, int(port)

    async def close(self) -> None:
        """Stop listening."""
        await self._transport.close()

    def serve_next(self, path: str) -> None:
        """Put other bytes behind a path."""
        old = self._digest(self._serves[path].pop(0))
        self._transport.withdraw(_segments(path), self._client)
        self._offer(path)
        self.trace.append({"served": path, "instead_of": old.hex()})

    async def play(self) -> None:
        """Follow the rules until one of them ends the scenario."""
        while True:
            seen = await self._look()
            if seen is not None:
                rule = next((rule for rule in self._rules if _fits(rule["when"], seen)), None)
                if rule is not None and rule.get("do") == "end":
                    return
                if rule is not None:
                    await self._send(rule["send"])
            await asyncio.sleep(_LOOK)

    async def _look(self) -> dict[str, Any] | None:
        """Read version, State and Update Result; None while the device does not answer."""
        if self._device is None:
            return None
        device, seen = self._device, {}
        for name, path in (("state", "/5/0/3"), ("result", "/5/0/5"), ("version", "/3/0/3")):
            try:
                answer = await self._transport.request(
                    device, Code.GET, _segments(path), accept=0, timeout=_PATIENCE
                )
            except TransportError:
                return None
            if answer.code != Code.CONTENT:
                return None
            text = answer.payload.decode("utf-8", "replace")
            seen[name] = text if name == "version" else int(text)
        if device != self._device:
            return None  # it was started again in between: what was read first may be old
        if not self.trace or self.trace[-1].get("seen") != seen:
            self.trace.append({"seen": seen})
        return seen

    async def _send(self, what: dict[str, Any]) -> None:
        assert self._device is not None
        code, path = (Code.PUT, what["put"]) if "put" in what else (Code.POST, what["post"])
        payload, content_format = b"", None
        if "package" in what:
            payload, content_format = (self._packages / what["package"]).read_bytes(), _OPAQUE
        elif "uri" in what:
            payload, content_format = f"{self.scheme}://127.0.0.1:{self.front_port}{what['uri']}".encode(), 0
        elif "text" in what:
            payload, content_format = what["text"].encode(), 0
        try:
            answer = await self._transport.request(
                self._device,
                code,
                _segments(path),
                payload=payload,
                content_format=content_format,
                timeout=_PATIENCE,
            )
        except TransportError as error:
            self.trace.append({"sent": what, "failed": error.code})
        else:
            self.trace.append({"sent": what, "answer": dotted(answer.code)})

    def _requests(self, requests: list[Request]) -> None:
        for request in requests:
            if request.path == ("rd",):
                former, self._device = self._device, request.peer
                self.registrations += 1
                location = ("rd", str(next(self._numbers)))
                self._transport.respond(request.exchange, Code.CREATED, location_path=location)
                if former is not None and former.address != request.peer.address:
                    # It was started again: nothing that waits for its former life will be answered.
                    self._transport.forget(former)
                self.trace.append({"registered": list(request.query)})
            elif request.path[:1] == ("rd",):
                deleted = request.code == Code.DELETE
                self._transport.respond(request.exchange, Code.DELETED if deleted else Code.CHANGED)
            else:
                self._transport.respond(request.exchange, Code.NOT_FOUND)

    def _security(self, events: list[SecurityEvent]) -> None:
        for event in events:
            if isinstance(event, LookUp) and self._psk is not None:
                known = event.identity == self._client.identity
                self._transport.provide_psks([(event.handshake, [self._psk.key] if known else [])])
                self.trace.append({"handshake": event.identity, "known": known})

    def _downloaded(self, download: Download) -> None:
        if self._psk is not None and download.path == ("image",):
            self.served(download.offset)

    def _offer(self, path: str) -> None:
        file = self._serves[path][0]
        digest = self._digest(file)
        self._transport.add_blob(digest, str(self._packages / file))
        self._transport.offer(_segments(path), digest, self._client)

    def _digest(self, file: str) -> bytes:
        return hashlib.sha256((self._packages / file).read_bytes()).digest()


def _fits(when: dict[str, Any], seen: dict[str, Any]) -> bool:
    return all(
        seen[name] in (wanted if isinstance(wanted, list) else [wanted]) for name, wanted in when.items()
    )


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.strip("/").split("/"))
