"""What the rest of the server and the reference device know of the network.

The value types are the engine's own frozen classes. `EngineTransport` is the real thing, `MemoryTransport` a
fake in memory; the same contract tests hold both. All callbacks run on the event loop's thread and must not
block.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from lwm2m_server._engine import (
    Alive,
    Cancelled,
    Download,
    Ended,
    Established,
    Failure,
    HandshakeFailed,
    KeyLog,
    LookUp,
    Notification,
    Peer,
    Progress,
    Request,
    Response,
    SecurityEvent,
    SessionExports,
    SessionGone,
    Suspicious,
)
from lwm2m_server.errors import Unavailable
from lwm2m_server.transport.security import Security

__all__ = [
    "Alive",
    "Cancelled",
    "Download",
    "Ended",
    "Established",
    "Failure",
    "HandshakeError",
    "HandshakeFailed",
    "KeyLog",
    "LookUp",
    "Notification",
    "Peer",
    "PeerGone",
    "Progress",
    "Request",
    "RequestReset",
    "RequestTimeout",
    "Response",
    "Security",
    "SecurityEvent",
    "SessionExports",
    "SessionGone",
    "Suspicious",
    "TransferFailed",
    "Transport",
    "TransportBusy",
    "TransportError",
]


class TransportError(Unavailable):
    """A request ended without an answer, or the transport itself refused. `code` is the engine's reason."""

    code = "transport"


class RequestTimeout(TransportError):
    """No acknowledgement after all retransmissions, or no answer within the time that was given."""

    code = "timeout"


class RequestReset(TransportError):
    """The peer answered with a Reset: it does not want the message (RFC 7252 4.2); repeating won't help."""

    code = "reset"


class PeerGone(TransportError):
    """The peer's state was dropped (session ended, address unreachable, or this transport was closed)."""

    code = "peer-gone"


class HandshakeError(TransportError):
    """The association that a request needs did not come about; the text names the reason, as a kebab-case word."""

    code = "handshake"


class TransportBusy(TransportError):
    """Too many actions wait inside the engine; nothing was sent. Try again a little later."""

    code = "busy"


class TransferFailed(TransportError):
    """A push stopped without a final answer; `offset` bytes were acknowledged, a new push may go on there.

    `reason` is `timeout`, `reset`, `peer-gone`, `cancelled`, `too-large`, `protocol`, `busy`, `invalid` or
    `handshake`.
    """

    code = "transfer"

    def __init__(self, message: str, *, offset: int, reason: str) -> None:
        super().__init__(message, code=reason)
        self.offset = offset
        self.reason = reason


class Transport(Protocol):
    """A CoAP endpoint, client and server at once.

    `path` and `query` are the decoded Uri-Path segments and Uri-Query parameters. Codes are ints as in
    `Code`.
    """

    async def start(self) -> None:
        """Begin to deliver events on the running event loop. Call once, before anything else."""
        ...

    async def close(self) -> None:
        """Stop; everything that still waits fails with `PeerGone`. Closing twice is fine.

        Refreshes not reported yet still reach `on_alive`, and the sessions of devices, sealed, `on_security`: a
        later engine goes on with them. Afterwards there is nobody to answer or to serve:
        respond, notify, withdraw, drop, remove_blob and cancel do nothing, other calls raise
        `TransportError`.
        """
        ...

    async def listen(self, host: str, port: int, *, secure: bool = False) -> str:
        """Bind a socket (port 0: any) and return its address, `192.0.2.1:5683` or `[2001:db8::1]:5683`.

        A secure one speaks DTLS as `secure` said. Requests of our own leave from the first listener of the
        peer's scheme and address family; without one, the engine binds a socket to any port.
        """
        ...

    async def bind(self, host: str, port: int, *, secure: bool = False) -> str:
        """Bind a socket as `listen` does, but leave what arrives waiting until `serve`.

        A server that starts again hands over registrations, offers and sessions in between: no device can ask
        before they are there.
        """
        ...

    def serve(self) -> None:
        """Take what arrives at all bound sockets."""
        ...

    def set_handlers(
        self,
        *,
        on_requests: Callable[[list[Request]], None],
        on_alive: Callable[[list[tuple[str, float]]], None] | None = None,
        on_download: Callable[[Download], None] | None = None,
        on_cancelled: Callable[[int], None] | None = None,
        on_security: Callable[[list[SecurityEvent]], None] | None = None,
    ) -> None:
        """Name the receivers. Requests come in batches, as drained; each must get a `respond`.

        Security events come in batches too, in their order; each `LookUp` must get a `provide_psks` or
        `provide_verdict`. Without a receiver every identity is unknown.
        """
        ...

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
        """Send a request and return its answer, bodies assembled both ways; error codes are answers too.

        `block2` (number, size in bytes) asks for that block alone. `timeout` is in seconds from the
        acknowledgement; None takes the engine's. Cancelling the awaiting task cancels the exchange. Raises
        `RequestTimeout`, `RequestReset`, `PeerGone`, `TransportBusy` or a plain `TransportError` whose code
        is the reason. A peer with an identity is reached by its association; without one that is `PeerGone` at
        once. A request to a peer of scheme coaps without identity shakes hands first, as its client, and raises
        `HandshakeError` when that comes to nothing.
        """
        ...

    async def observe(
        self,
        peer: Peer,
        path: tuple[str, ...],
        *,
        accept: int | None = None,
        on_notify: Callable[[Notification], None],
        on_end: Callable[[str], None],
    ) -> tuple[int, Response]:
        """Register an observation (RFC 7641); return its handle and the first answer.

        When the answer's `observe` is None the peer did not accept, and nothing more comes. `on_end` gets the
        reason once, when the observation ends otherwise than by `cancel`: a Failure's reason, or the code
        such as `4.04`. Raises as `request`.
        """
        ...

    def cancel(self, handle: int) -> None:
        """Cancel an observation actively (GET with Observe 1); unknown handles are ignored."""
        ...

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
        """PUT a blob by Block1 from `offset` bytes (a multiple of `block_size`) on; return the final answer.

        An answer with an error code ends the push and is returned; the last Progress before it tells how far
        it came, and so does it when the awaiting task is cancelled. Raises `TransferFailed` when it stops
        without an answer, and `TransportBusy`.
        """
        ...

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
        """Answer a request; each exchange once. `observe` accepts an observation: `notify` may follow.

        `block1` (number, more, size) is for streamed paths. An exchange that has ended meanwhile is ignored.
        """
        ...

    def notify(
        self,
        exchange: int,
        code: int,
        *,
        payload: bytes = b"",
        content_format: int | None = None,
        confirmable: bool = False,
    ) -> None:
        """Send a notification in an observation that was accepted; an error code ends it."""
        ...

    def stream(self, path: tuple[str, ...]) -> None:
        """Give the Block1 blocks of requests to this path to `on_requests` one by one, not whole bodies.

        Each block must be answered: 2.31 with `block1` repeated while more follow.
        """
        ...

    def add_blob(self, digest: bytes, file: str) -> int:
        """Make a file known under its SHA-256 digest (32 bytes); return its size in bytes.

        The file must not change afterwards. Raises `TransportError` when it is missing or not a regular file.
        """
        ...

    def remove_blob(self, digest: bytes) -> None:
        """Forget a blob; transfers under way keep it until they end."""
        ...

    def offer(self, path: tuple[str, ...], digest: bytes, to: Peer) -> None:
        """Let the identity of this peer, or without one its host, GET the blob under this path; counted."""
        ...

    def withdraw(self, path: tuple[str, ...], to: Peer) -> None:
        """Take one offer back; who has none left gets 4.03."""
        ...

    def keep(self, location: str, peer: Peer) -> None:
        """Answer Updates of /rd/<location> that change nothing and come from this peer; see `on_alive`."""
        ...

    def welcome(self, registrations: Sequence[tuple[int, str, Peer]]) -> None:
        """Answer Registers with 2.01 and /rd/<location>, and `keep` the registrations: exchange, location, peer."""
        ...

    def keep_all(self, registrations: Sequence[tuple[str, str, str | None]]) -> None:
        """Do so for many, as a start finds them: location, address and identity (None on plain CoAP) of each."""
        ...

    def drop(self, location: str) -> None:
        """Stop doing so: Updates of this location come as requests again."""
        ...

    def forget(self, peer: Peer) -> None:
        """The device is no longer at this address: end all that is under way there with `PeerGone`.

        Without it a request to a device that came back elsewhere would only end after all retransmissions. Of a
        server that we are a client of, the association ends too: the next request shakes hands anew.
        """
        ...

    def secure(self, security: Security) -> None:
        """Set what secure listeners present and accept, and our client role with them.

        Call it before the first of them. Called again it reloads credentials and trust, and sessions go on; only
        the length of connection ids must stay. Raises `TransportError` whose field cannot be used.
        """
        ...

    def provide_psks(self, answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
        """Answer `LookUp`s of `psk:` identities, each with the current key, then at most one former; none: unknown.

        Found keys are remembered, so that a later handshake of the identity does not ask again.
        """
        ...

    def provide_verdict(self, handshake: int, *, accepted: bool) -> None:
        """Answer a `LookUp` of another identity."""
        ...

    def forget_key(self, identity: str) -> None:
        """Ask again at the next handshake of this identity."""
        ...

    def revoke(self, identity: str) -> None:
        """End the sessions and handshakes of this identity at once, and forget its keys."""
        ...

    def restore(self, sessions: Sequence[tuple[int, int, bytes]]) -> dict[str, int]:
        """Go on with stored sessions, between `bind` and `serve`: (record, generation after the claim, sealed).

        Return how many were `restored`, and how many were refused by reason: `unreadable`, `unclaimed`,
        `duplicate`, `exhausted`, `full`, `no-listener`.
        """
        ...

    def confirm_sessions(self, marks: Sequence[tuple[int, int]]) -> None:
        """Say which exports are durable: their records, with their marks."""
        ...

    def statistics(self) -> dict[str, int]:
        """Return counters and queue depths for /metrics."""
        ...
