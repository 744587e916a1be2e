"""The server's half of `MemoryTransport`: offers, kept registrations, exchanges that wait, observations."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

from lwm2m_server.transport.api import Download, Peer, Request, TransportError
from lwm2m_server.transport.codes import Code, is_success
from lwm2m_server.transport.dispatch import Handlers
from lwm2m_server.transport.memory_network import MemoryNetwork

_OCTET_STREAM = 42  # CoAP content format
_WHOLE_BLOCK = 1024


class Answer(NamedTuple):
    """A response or a notification on its way."""

    code: int
    payload: bytes = b""
    content_format: int | None = None
    location_path: tuple[str, ...] = ()
    etag: bytes | None = None
    max_age: int | None = None
    block1: tuple[int, bool, int] | None = None
    block2: tuple[int, bool, int] | None = None
    size2: int | None = None
    observe: int | None = None


@dataclass(frozen=True)
class Message:
    """A request on its way. `reply` takes the answer, `notify` later ones: True if welcome.

    `session` is the number of the session that it goes through; None on plain CoAP.
    """

    source: Peer
    token: int
    code: int
    path: tuple[str, ...]
    destination: str = ""
    session: int | None = None
    reply: Callable[[Answer], None] = lambda _: None
    notify: Callable[[Answer], bool] = lambda _: False
    query: tuple[str, ...] = ()
    payload: bytes = b""
    content_format: int | None = None
    accept: int | None = None
    observe: int | None = None
    etag: bytes | None = None
    block1: tuple[int, bool, int] | None = None
    block2: tuple[int, int] | None = None
    size1: int | None = None


@dataclass
class _Offer:
    digest: bytes
    count: int = 0


@dataclass
class _Serving:
    """How far one peer has come under one path."""

    furthest: int = 0
    reported: int = 0
    repeated: int = 0


class MemoryServer:
    """Receives messages; answers by itself what the engine does, and hands the rest over in batches."""

    def __init__(self, network: MemoryNetwork, handlers: Handlers, *, progress_bytes: int) -> None:
        self._network = network
        self._handlers = handlers
        self._progress_bytes = progress_bytes
        self._exchanges = count(1)
        self._open: dict[int, Message] = {}
        self._observed: dict[int, Message] = {}
        self._inbox: list[Request] = []
        self._alive: list[tuple[str, float]] = []
        self._blobs: dict[bytes, Path] = {}
        self._offers: dict[tuple[str, ...], dict[tuple[str, str], _Offer]] = {}
        self._serving: dict[tuple[Peer, tuple[str, ...], bytes], _Serving] = {}
        self._kept: dict[str, Peer] = {}
        self._streams: set[tuple[str, ...]] = set()

    def receive(self, message: Message) -> None:
        """Take a request that has arrived."""
        if self._is_bare_update(message):
            if not self._alive:
                asyncio.get_running_loop().call_soon(self._report_alive)
            self._alive.append((message.path[1], self._network.clock.now()))
            message.reply(Answer(Code.CHANGED))
        elif message.code == Code.GET and message.observe is None and message.path in self._offers:
            message.reply(self._serve(message, self._offers[message.path].get(_owner(message.source))))
        else:
            self._hand_over(message)

    def streams(self, path: tuple[str, ...]) -> bool:
        """Say whether bodies for this path are given on block by block."""
        return path in self._streams

    def stream(self, path: tuple[str, ...]) -> None:
        """See `Transport.stream`."""
        self._streams.add(path)

    def respond(self, exchange: int, answer: Answer, *, observe: bool) -> None:
        """Answer a waiting exchange; one that has ended is ignored."""
        message = self._open.pop(exchange, None)
        if message is None:
            return
        if observe and message.observe == 0 and is_success(answer.code):
            self._observed[exchange] = message
            answer = answer._replace(observe=0)
        message.reply(answer)

    def notify(self, exchange: int, answer: Answer, *, confirmable: bool) -> None:
        """Send a notification; a lost one is missed, or, when confirmable, ends the observation."""
        message = self._observed.get(exchange)
        if message is None:
            return
        if not is_success(answer.code):
            del self._observed[exchange]
        if self._network.chance(self._network.loss) or not self._network.reachable(message.source.host):
            if confirmable:
                self._network.silence(lambda: self._forget(exchange))
            return
        self._network.send(lambda: None if message.notify(answer) else self._forget(exchange))

    def _hand_over(self, message: Message) -> None:
        if message.observe == 1:
            self._end_observation(message)
        exchange = next(self._exchanges)
        self._open[exchange] = message
        request = Request(
            exchange=exchange,
            peer=message.source,
            code=message.code,
            path=message.path,
            query=message.query,
            content_format=message.content_format,
            accept=message.accept,
            observe=message.observe,
            etags=() if message.etag is None else (message.etag,),
            payload=message.payload,
            block1=message.block1,
            size1=message.size1,
        )
        if not self._inbox:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._inbox.append(request)

    def _deliver(self) -> None:
        batch, self._inbox = self._inbox, []
        self._handlers.requests(
            batch, lambda exchange, code: self.respond(exchange, Answer(code), observe=False)
        )

    def _end_observation(self, message: Message) -> None:
        for exchange, observed in list(self._observed.items()):
            if (observed.source, observed.token) == (message.source, message.token):
                self._forget(exchange)

    def _forget(self, exchange: int) -> None:
        if self._observed.pop(exchange, None) is not None:
            self._handlers.call(self._handlers.on_cancelled, exchange)

    def _is_bare_update(self, message: Message) -> bool:
        return (
            message.code == Code.POST
            and len(message.path) == 2
            and message.path[0] == "rd"
            and not message.query
            and not message.payload
            and self._kept.get(message.path[1]) == message.source
        )

    def session_ended(self, number: int) -> None:
        """Forget what came by a session that is over."""
        for exchange, message in list(self._open.items()):
            if message.session == number:
                del self._open[exchange]
        for exchange, message in list(self._observed.items()):
            if message.session == number:
                self._forget(exchange)

    def _report_alive(self) -> None:
        updates, self._alive = self._alive, []
        self._handlers.call(self._handlers.on_alive, updates)

    # blobs

    def add_blob(self, digest: bytes, file: str) -> int:
        """See `Transport.add_blob`."""
        path = Path(file)
        if not path.is_file():
            raise TransportError(f"{file} is not a regular file", field="file")
        self._blobs[digest] = path
        return path.stat().st_size

    def remove_blob(self, digest: bytes) -> None:
        """See `Transport.remove_blob`."""
        self._blobs.pop(digest, None)

    def blob(self, digest: bytes) -> bytes:
        """Return the content of a blob."""
        if digest not in self._blobs:
            raise TransportError(f"no blob has the digest {digest.hex()}", field="digest")
        return self._blobs[digest].read_bytes()

    def offer(self, path: tuple[str, ...], digest: bytes, to: Peer) -> None:
        """See `Transport.offer`."""
        owners = self._offers.setdefault(path, {})
        offer = owners.setdefault(_owner(to), _Offer(digest))
        offer.digest = digest
        offer.count += 1

    def withdraw(self, path: tuple[str, ...], to: Peer) -> None:
        """See `Transport.withdraw`."""
        owners, owner = self._offers.get(path, {}), _owner(to)
        if owner not in owners:
            return
        owners[owner].count -= 1
        if owners[owner].count == 0:
            del owners[owner]
        if not owners:
            del self._offers[path]

    def keep(self, location: str, peer: Peer) -> None:
        """See `Transport.keep`."""
        self._kept[location] = peer

    def drop(self, location: str) -> None:
        """See `Transport.drop`."""
        self._kept.pop(location, None)

    def depths(self) -> dict[str, int]:
        """Return how much waits, named as in the engine's statistics."""
        return {
            "registrations": len(self._kept),
            "requests_waiting": len(self._inbox),
            "exchanges": len(self._open),
            "observers": len(self._observed),
        }

    def _serve(self, message: Message, offer: _Offer | None) -> Answer:
        if offer is None:
            return Answer(Code.FORBIDDEN)
        if offer.digest not in self._blobs:
            return Answer(Code.NOT_FOUND)
        body = self.blob(offer.digest)
        etag = offer.digest[:8]
        if message.etag == etag:
            return Answer(Code.VALID, etag=etag)
        whole = Answer(Code.CONTENT, body, _OCTET_STREAM, etag=etag, size2=len(body))
        if message.block2 is None:
            for start in range(0, len(body), _WHOLE_BLOCK):
                self._served(message, offer.digest, start, min(start + _WHOLE_BLOCK, len(body)), len(body))
            return whole
        answer = slice_block(whole, message.block2)
        if answer.code == Code.CONTENT:
            start = message.block2[0] * message.block2[1]
            self._served(message, offer.digest, start, start + len(answer.payload), len(body))
        return answer

    def _served(self, message: Message, digest: bytes, start: int, end: int, size: int) -> None:
        serving = self._serving.setdefault((message.source, message.path, digest), _Serving())
        if start == 0 and serving.furthest == size:
            serving.furthest = serving.reported = serving.repeated = 0
        if end <= serving.furthest:
            serving.repeated += 1
            return
        serving.furthest = end
        if end == size or end - serving.reported >= self._progress_bytes:
            serving.reported = end
            event = Download(
                peer=message.source,
                path=message.path,
                digest=digest,
                offset=end,
                size=size,
                repeated=serving.repeated,
            )
            asyncio.get_running_loop().call_soon(self._handlers.call, self._handlers.on_download, event)


def _owner(peer: Peer) -> tuple[str, str]:
    """Whom an offer is for: an identity, or without one a host."""
    return ("", peer.identity) if peer.identity is not None else (peer.scheme, peer.host)


def slice_block(answer: Answer, block2: tuple[int, int]) -> Answer:
    """Cut one block (number, size) out of a whole answer (RFC 7959 2.4); 4.00 when it lies behind the end."""
    number, size = block2
    start = number * size
    if start >= max(1, len(answer.payload)):
        return Answer(Code.BAD_REQUEST)
    more = start + size < len(answer.payload)
    return answer._replace(payload=answer.payload[start : start + size], block2=(number, more, size))


def repeated(message: Message) -> Message:
    """Return the same request as one whose answer nobody waits for."""
    return replace(message, reply=lambda _: None, notify=lambda _: False)
