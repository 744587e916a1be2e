"""A `Transport` in memory, for tests of all above the engine: it fakes exchanges, transfers and sessions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from lwm2m_server.transport.api import (
    Download,
    Notification,
    Peer,
    PeerGone,
    Progress,
    Request,
    Response,
    SecurityEvent,
)
from lwm2m_server.transport.codes import Code, dotted, is_success
from lwm2m_server.transport.dispatch import Handlers
from lwm2m_server.transport.memory_client import Exchanges, Transfer, send_blocks, send_whole
from lwm2m_server.transport.memory_links import Hello, Links
from lwm2m_server.transport.memory_network import MemoryNetwork
from lwm2m_server.transport.memory_server import Answer, MemoryServer, Message, slice_block
from lwm2m_server.transport.memory_sessions import Sessions
from lwm2m_server.transport.security import Security

__all__ = ["MemoryNetwork", "MemoryTransport"]


@dataclass
class _Observation:
    peer: Peer
    message: Message
    on_notify: Callable[[Notification], None]
    on_end: Callable[[str], None]


class MemoryTransport:
    """One endpoint on a `MemoryNetwork`; see `Transport` for what each method promises."""

    def __init__(
        self,
        network: MemoryNetwork,
        *,
        max_body: int = 1 << 20,
        progress_bytes: int = 65536,
        block_size: int = 1024,
    ) -> None:
        self._network = network
        self._handlers = Handlers()
        self._server = MemoryServer(network, self._handlers, progress_bytes=progress_bytes)
        self._max_body = max_body
        self._progress_bytes = progress_bytes
        self._block_size = block_size
        self._sessions = Sessions(network, self._handlers, self._session_over)
        self._links = Links(network)
        self._address: str | None = None
        self._secure_addresses: set[str] = set()
        self._handles = count(1)
        self._exchanges = Exchanges(network)
        self._observations: dict[int, _Observation] = {}
        self._closed = False
        self._received = 0

    # the protocol

    async def start(self) -> None:
        """Do nothing: a fake needs no thread."""

    async def close(self) -> None:
        """Give the addresses back, suspend the sessions of devices and fail what waits."""
        if self._closed:
            return
        self._closed = True
        self._sessions.suspend()
        for server, _ in self._links.numbers():
            self._drop_link(server)
        self._network.unbind(self)
        self._exchanges.fail_all()
        observations, self._observations = self._observations, {}
        for observation in observations.values():
            self._handlers.call(observation.on_end, "peer-gone")

    async def listen(self, host: str, port: int, *, secure: bool = False) -> str:
        """Take an address; the first one is where our own requests come from."""
        if secure:
            self._sessions.check_ready()
        address = self._network.bind(self, host, port)
        if secure:
            self._secure_addresses.add(address)
        self._address = self._address or address
        return address

    async def bind(self, host: str, port: int, *, secure: bool = False) -> str:
        """Take an address. Nothing arrives in the middle of a turn of the fake, so there is nothing to hold."""
        return await self.listen(host, port, secure=secure)

    def serve(self) -> None:
        """Take what arrives; it does already."""

    def set_handlers(
        self,
        *,
        on_requests: Callable[[list[Request]], None],
        on_alive: Callable[[list[tuple[str, float]]], None] | None = None,
        on_download: Callable[[Download], None] | None = None,
        on_cancelled: Callable[[int], None] | None = None,
        on_security: Callable[[list[SecurityEvent]], None] | None = None,
    ) -> None:
        """Name the receivers."""
        self._handlers.on_requests = on_requests
        self._handlers.on_alive = on_alive
        self._handlers.on_download = on_download
        self._handlers.on_cancelled = on_cancelled
        self._handlers.on_security = on_security

    async def request(
        self,
        peer: Peer,
        code: int,
        path: tuple[str, ...],
        *,
        query: tuple[str, ...] = (),
        payload: bytes = b"",
        content_format: int | None = None,
        accept: int | None = None,
        etag: bytes | None = None,
        block2: tuple[int, int] | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send a request and wait for its answer."""
        message = await self._message(
            peer,
            code=code,
            path=path,
            query=query,
            payload=payload,
            content_format=content_format,
            accept=accept,
            etag=etag,
            block2=block2,
        )
        if len(payload) > self._block_size and self._peer_streams(message):
            answer = await send_blocks(
                self._exchanges, self._transfer(peer, message, payload, block_size=self._block_size)
            )
        else:
            answer = await self._exchanges.send(peer, message, timeout)
        if block2 is not None and answer.block2 is None and is_success(answer.code):
            answer = slice_block(answer, block2)
        return _response(message.token, peer, answer)

    async def observe(
        self,
        peer: Peer,
        path: tuple[str, ...],
        *,
        accept: int | None = None,
        on_notify: Callable[[Notification], None],
        on_end: Callable[[str], None],
    ) -> tuple[int, Response]:
        """Register an observation."""
        message = await self._message(peer, code=Code.GET, path=path, accept=accept, observe=0)
        handle = message.token
        self._observations[handle] = _Observation(peer, message, on_notify, on_end)
        message = replace(message, notify=lambda answer: self._notified(handle, answer))
        try:
            answer = await self._exchanges.send(peer, message)
        except BaseException:
            self._observations.pop(handle, None)
            raise
        if answer.observe is None:
            self._observations.pop(handle, None)
        return handle, _response(handle, peer, answer)

    def cancel(self, handle: int) -> None:
        """Cancel an observation: the peer gets a GET with Observe 1."""
        observation = self._observations.pop(handle, None)
        if observation is None:
            return
        message = replace(observation.message, observe=1)
        self._network.send(lambda: self._exchanges.arrive(Peer(message.destination), message))

    async def push(
        self,
        peer: Peer,
        path: tuple[str, ...],
        digest: bytes,
        *,
        offset: int = 0,
        block_size: int = 1024,
        content_format: int = 42,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Response:
        """PUT a blob block by block, or in one piece where the peer takes whole bodies."""
        message = await self._message(peer, code=Code.PUT, path=path, content_format=content_format)
        body = self._server.blob(digest)
        transfer = self._transfer(
            peer, message, body, offset=offset, block_size=block_size, on_progress=on_progress
        )
        send = send_blocks if self._peer_streams(message) else send_whole
        return _response(message.token, peer, await send(self._exchanges, transfer))

    def respond(
        self,
        exchange: int,
        code: int,
        *,
        payload: bytes = b"",
        content_format: int | None = None,
        location_path: tuple[str, ...] = (),
        etag: bytes | None = None,
        max_age: int | None = None,
        block1: tuple[int, bool, int] | None = None,
        observe: bool = False,
    ) -> None:
        """Answer a request."""
        if self._closed:
            return
        answer = Answer(code, payload, content_format, location_path, etag, max_age, block1)
        self._server.respond(exchange, answer, observe=observe)

    def notify(
        self,
        exchange: int,
        code: int,
        *,
        payload: bytes = b"",
        content_format: int | None = None,
        confirmable: bool = False,
    ) -> None:
        """Send a notification."""
        if self._closed:
            return
        self._server.notify(exchange, Answer(code, payload, content_format), confirmable=confirmable)

    def stream(self, path: tuple[str, ...]) -> None:
        """Give blocks of this path one by one."""
        self._server.stream(path)

    def add_blob(self, digest: bytes, file: str) -> int:
        """Make a file known."""
        return self._server.add_blob(digest, file)

    def remove_blob(self, digest: bytes) -> None:
        """Forget a file."""
        self._server.remove_blob(digest)

    def offer(self, path: tuple[str, ...], digest: bytes, to: Peer) -> None:
        """Open a path to a peer."""
        self._server.offer(path, digest, to)

    def withdraw(self, path: tuple[str, ...], to: Peer) -> None:
        """Take one offer back."""
        self._server.withdraw(path, to)

    def keep(self, location: str, peer: Peer) -> None:
        """Answer bare Updates of this location from this peer."""
        self._server.keep(location, peer)

    def welcome(self, registrations: Sequence[tuple[int, str, Peer]]) -> None:
        """Answer Registers, and keep the registrations."""
        for exchange, location, peer in registrations:
            self.keep(location, peer)
            self.respond(exchange, Code.CREATED, location_path=("rd", location))

    def keep_all(self, registrations: Sequence[tuple[str, str, str | None]]) -> None:
        """Do so for many."""
        for location, address, identity in registrations:
            self.keep(location, Peer(address, identity=identity))

    def drop(self, location: str) -> None:
        """Stop doing so."""
        self._server.drop(location)

    def forget(self, peer: Peer) -> None:
        """End all that is under way with a peer that is no longer there."""
        self._forget(lambda other, _: other == peer)
        if peer.scheme == "coaps" and peer.identity is None:
            self._drop_link(peer.address)

    def statistics(self) -> dict[str, int]:
        """Return counters and depths, a part of what the engine counts."""
        counters = {"requests_received": self._received, "requests_sent": self._exchanges.sent}
        sessions = {"dtls_sessions": len(self._sessions)}
        return {**counters, "calls": len(self._exchanges), **self._server.depths(), **sessions}

    # security

    def secure(self, security: Security) -> None:
        """Set credentials and trust."""
        self._sessions.secure(security)
        self._links.secure(security)

    def provide_psks(self, answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
        """Give the keys of identities."""
        for handshake, keys in answers:
            self._sessions.provide_psk(handshake, keys)

    def provide_verdict(self, handshake: int, *, accepted: bool) -> None:
        """Take a peer, or don't."""
        self._sessions.provide_verdict(handshake, accepted=accepted)

    def forget_key(self, identity: str) -> None:
        """Ask again next time."""
        self._sessions.forget_key(identity)

    def revoke(self, identity: str) -> None:
        """End all that this identity has."""
        self._sessions.revoke(identity)

    def restore(self, sessions: Sequence[tuple[int, int, bytes]]) -> dict[str, int]:
        """Go on with stored sessions."""
        return self._sessions.restore(sessions, self._secure_addresses)

    def confirm_sessions(self, marks: Sequence[tuple[int, int]]) -> None:
        """Do nothing: the fake has no record numbers to run out of."""

    # inside

    def receive(self, message: Message) -> None:
        """Take a message that arrives; called by the network's other end."""
        self._received += 1
        if message.session is not None or message.destination in self._secure_addresses:
            source = self._heard(message)
            if source is None:
                return
            message = replace(message, source=source)
        if len(message.payload) > self._max_body:
            message.reply(Answer(Code.REQUEST_ENTITY_TOO_LARGE))
        else:
            self._server.receive(message)

    def shake(self, hello: Hello) -> None:
        """Take a handshake that arrives."""
        if hello.server in self._secure_addresses:
            self._sessions.shake(hello)

    def session_ended(self, server: str, number: int) -> None:
        """Hear from a server that our session with it is over, or from a client that it has left."""
        if self._links.knows(server, number):
            self._links.drop(server)
            self._forget(lambda _, session: session == number)
        self._sessions.end(number, "closed-by-peer")

    def streams(self, path: tuple[str, ...]) -> bool:
        """Say whether bodies for this path are wanted block by block."""
        return self._server.streams(path)

    async def _message(
        self,
        peer: Peer,
        *,
        code: int,
        path: tuple[str, ...],
        query: tuple[str, ...] = (),
        payload: bytes = b"",
        content_format: int | None = None,
        accept: int | None = None,
        etag: bytes | None = None,
        block2: tuple[int, int] | None = None,
        observe: int | None = None,
    ) -> Message:
        """Make a request to a peer, by its session where it has one; raise as `Transport.request`."""
        source, destination, session = self._source(), peer.address, None
        if peer.identity is not None:
            current = self._sessions.current(peer.identity)
            if current is None:
                raise PeerGone(f"{peer.identity}: the peer's state was dropped (it has no association)")
            source, destination, session = Peer(current.server), current.address, current.number
        elif peer.scheme == "coaps":
            session = await self._links.number(peer, source.address)
        return Message(
            source=source,
            token=next(self._handles),
            code=code,
            path=path,
            destination=destination,
            session=session,
            query=query,
            payload=payload,
            content_format=content_format,
            accept=accept,
            observe=observe,
            etag=etag,
            block2=block2,
        )

    def _heard(self, message: Message) -> Peer | None:
        """Return who sent a message by a session; None when there is no such session."""
        if message.session is None:
            return None
        if self._links.knows(message.source.address, message.session):
            return Peer(message.source.address, scheme="coaps")
        registers = message.code == Code.POST and message.path[:1] == ("rd",)
        return self._sessions.hear(message.session, registers=registers)

    def _session_over(self, number: int) -> None:
        self._server.session_ended(number)
        self._forget(lambda _, session: session == number)

    def _drop_link(self, server: str) -> None:
        number, target = self._links.drop(server), self._network.find(server)
        if number is not None:
            self._forget(lambda _, session: session == number)
            if target is not None:
                self._network.send(lambda: target.session_ended(server, number))

    def _forget(self, is_gone: Callable[[Peer, int | None], bool]) -> None:
        self._exchanges.forget(is_gone)
        for handle, observation in list(self._observations.items()):
            if is_gone(observation.peer, observation.message.session):
                del self._observations[handle]
                self._handlers.call(observation.on_end, "peer-gone")

    def _source(self) -> Peer:
        if self._closed:
            raise PeerGone("the transport was closed")
        if self._address is None:
            self._address = self._network.bind(self, "10.255.255.1", 0)
        return Peer(self._address)

    def _peer_streams(self, message: Message) -> bool:
        target = self._network.find(message.destination)
        return target is not None and target.streams(message.path)

    def _transfer(
        self,
        peer: Peer,
        message: Message,
        body: bytes,
        *,
        offset: int = 0,
        block_size: int,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Transfer:
        def report(done: int) -> None:
            progress = Progress(handle=message.token, offset=done, size=len(body))
            self._handlers.call(on_progress, progress)

        return Transfer(peer, message, body, offset, block_size, self._progress_bytes, report)

    def _notified(self, handle: int, answer: Answer) -> bool:
        observation = self._observations.get(handle)
        if observation is None:
            return False
        notification = Notification(
            handle=handle,
            peer=observation.peer,
            code=answer.code,
            content_format=answer.content_format,
            payload=answer.payload,
        )
        self._handlers.call(observation.on_notify, notification)
        if not is_success(answer.code):
            del self._observations[handle]
            self._handlers.call(observation.on_end, dotted(answer.code))
        return True


def _response(handle: int, peer: Peer, answer: Answer) -> Response:
    return Response(
        handle=handle,
        peer=peer,
        code=answer.code,
        content_format=answer.content_format,
        payload=answer.payload,
        location_path=answer.location_path,
        etag=answer.etag,
        max_age=answer.max_age,
        block2=answer.block2,
        size2=answer.size2,
        observe=answer.observe,
    )
