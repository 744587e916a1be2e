# ruff: noqa: PYI021  the docstrings stand here because this is where Python's side reads
"""The engine: one thread that owns sockets, DTLS, CoAP exchanges, block-wise transfers, blobs and liveness.

Python submits actions (the methods below queue them; `flush` hands the batch over) and drains events. The
engine never calls Python: `fileno()` becomes readable when events wait. All methods may be called from any
thread; after `close`, in a forked child, and when the engine's thread has ended they raise EngineError.
"""

from collections.abc import Sequence
from typing import TypeAlias, final

from lwm2m_server.transport.simulator import DeviceSecurity

__all__ = [
    "Alive",
    "Cancelled",
    "Download",
    "Ended",
    "Engine",
    "EngineError",
    "Established",
    "Event",
    "Failure",
    "Fleet",
    "HandshakeFailed",
    "KeyLog",
    "Load",
    "LookUp",
    "Notification",
    "Peer",
    "Progress",
    "QueueFull",
    "Request",
    "Response",
    "SecurityEvent",
    "SessionExports",
    "SessionGone",
    "Suspicious",
]

class EngineError(Exception):
    """The engine refused an action or a setting; the message says why."""

class QueueFull(EngineError):
    """Too many actions wait; try again after the next drain."""

@final
class Peer:
    """The other side: address, and the identity that its security session proved (None on plain CoAP).

    An identity is `psk:<identity>` (bytes that are not printable ASCII, and `%`, percent-encoded),
    `rpk:<SHA-256 of the SubjectPublicKeyInfo>` or `x509:<SHA-256 of the certificate>`, in lower-case hexadecimal.
    Peers with one are equal when their identities are, because addresses move; others when scheme and address
    are. A peer of scheme coaps without identity is a server as its client sees it.
    """

    # address: "192.0.2.1:5683", "[2001:db8::1]:5683"; scheme: "coap", or "coaps" (the default with an identity)
    def __new__(
        cls,
        address: str,
        *,
        scheme: str | None = None,
        identity: str | None = None,
        names: Sequence[str] = (),
    ) -> Peer: ...
    @property
    def address(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def scheme(self) -> str: ...
    @property
    def identity(self) -> str | None: ...
    # of its certificate: the common name (empty without one), then DNS and URI names; otherwise empty
    @property
    def names(self) -> tuple[str, ...]: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Request:
    """A request from a peer that Python must answer with `Engine.respond(exchange, ...)`."""

    def __new__(
        cls,
        *,
        exchange: int,
        peer: Peer,
        code: int,
        path: tuple[str, ...],
        query: tuple[str, ...] = (),
        content_format: int | None = None,
        accept: int | None = None,
        observe: int | None = None,
        etags: tuple[bytes, ...] = (),
        payload: bytes = b"",
        block1: tuple[int, bool, int] | None = None,
        size1: int | None = None,
    ) -> Request: ...
    @property
    def exchange(self) -> int: ...
    @property
    def peer(self) -> Peer: ...
    @property
    def code(self) -> int: ...  # 1 GET, 2 POST, 3 PUT, 4 DELETE, 5 FETCH, 6 PATCH, 7 iPATCH
    @property
    def path(self) -> tuple[str, ...]: ...
    @property
    def query(self) -> tuple[str, ...]: ...
    @property
    def content_format(self) -> int | None: ...
    @property
    def accept(self) -> int | None: ...
    @property
    def observe(self) -> int | None: ...  # 0 register, 1 deregister (RFC 7641 2)
    @property
    def etags(self) -> tuple[bytes, ...]: ...
    @property
    def payload(self) -> bytes: ...  # the whole body, unless the path is streamed (see Engine.stream)
    @property
    def block1(
        self,
    ) -> tuple[int, bool, int] | None: ...  # (number, more, size in bytes), on streamed paths only
    @property
    def size1(self) -> int | None: ...

@final
class Response:
    """The answer to `Engine.request` or the end of `Engine.push`; also error codes are answers."""

    def __new__(
        cls,
        *,
        handle: int,
        peer: Peer,
        code: int,
        content_format: int | None = None,
        payload: bytes = b"",
        location_path: tuple[str, ...] = (),
        location_query: tuple[str, ...] = (),
        etag: bytes | None = None,
        max_age: int | None = None,
        block2: tuple[int, bool, int] | None = None,
        size2: int | None = None,
        observe: int | None = None,
    ) -> Response: ...
    @property
    def handle(self) -> int: ...
    @property
    def peer(self) -> Peer: ...
    @property
    def code(self) -> int: ...  # class * 32 + detail: 69 is 2.05
    @property
    def content_format(self) -> int | None: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def location_path(self) -> tuple[str, ...]: ...
    @property
    def location_query(self) -> tuple[str, ...]: ...
    @property
    def etag(self) -> bytes | None: ...
    @property
    def max_age(self) -> int | None: ...
    @property
    def block2(self) -> tuple[int, bool, int] | None: ...  # when the request asked for one block by `block2`
    @property
    def size2(self) -> int | None: ...
    @property
    def observe(self) -> int | None: ...  # present when the observation was accepted

@final
class Failure:
    """A request, observation or push ended without an answer."""

    def __new__(
        cls, *, handle: int, peer: Peer, reason: str, detail: str = "", offset: int = 0
    ) -> Failure: ...
    @property
    def handle(self) -> int: ...
    @property
    def peer(self) -> Peer: ...
    @property
    def reason(
        self,
    ) -> (
        str
    ): ...  # timeout | reset | peer-gone | cancelled | too-large | protocol | busy | invalid | handshake
    @property
    def detail(self) -> str: ...
    @property
    def offset(self) -> int: ...  # of a push: bytes that were acknowledged

@final
class Notification:
    """A fresh notification (stale ones are dropped, RFC 7641 3.4); an error code ends the observation.

    When Python has fallen behind, only the latest of each observation waits.
    """

    def __new__(
        cls, *, handle: int, peer: Peer, code: int, content_format: int | None = None, payload: bytes = b""
    ) -> Notification: ...
    @property
    def handle(self) -> int: ...
    @property
    def peer(self) -> Peer: ...
    @property
    def code(self) -> int: ...
    @property
    def content_format(self) -> int | None: ...
    @property
    def payload(self) -> bytes: ...

@final
class Progress:
    """Coarse progress of a push: bytes acknowledged of the total, blocks sent again so far."""

    def __new__(cls, *, handle: int, offset: int, size: int, repeated: int = 0) -> Progress: ...
    @property
    def handle(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def repeated(self) -> int: ...

@final
class Download:
    """Coarse progress of a served blob: how far this peer has come under this path."""

    def __new__(
        cls, *, peer: Peer, path: tuple[str, ...], digest: bytes, offset: int, size: int, repeated: int = 0
    ) -> Download: ...
    @property
    def peer(self) -> Peer: ...
    @property
    def path(self) -> tuple[str, ...]: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def offset(self) -> int: ...  # bytes up to the end of the furthest block served
    @property
    def size(self) -> int: ...
    @property
    def repeated(self) -> int: ...  # blocks served more than once in this download, retransmissions apart

@final
class Cancelled:
    """The peer's interest in an exchange that we observe-answer has ended (Observe 1, RST, or silence)."""

    def __new__(cls, *, exchange: int) -> Cancelled: ...
    @property
    def exchange(self) -> int: ...

@final
class Alive:
    """Registrations refreshed by an Update that changed nothing: (location id, seconds since the epoch)."""

    def __new__(cls, *, updates: list[tuple[str, float]]) -> Alive: ...
    @property
    def updates(self) -> list[tuple[str, float]]: ...

@final
class LookUp:
    """A handshake that waits: for `Engine.provide_psks` when the identity begins with `psk:`, else for
    `Engine.provide_verdict`.

    The identity is what the peer claims; of a certificate the dates and the use have been checked. `der` is the
    certificate or SubjectPublicKeyInfo; empty for a pre-shared key, and where a session is resumed. Not `verified`
    is a certificate from which no path leads to an authority of `trust`: nothing that it says is vouched for, so
    only who knows this very certificate may take it.
    """

    def __new__(
        cls,
        *,
        handshake: int,
        address: str,
        identity: str,
        names: Sequence[str] = (),
        der: bytes = b"",
        verified: bool = True,
    ) -> LookUp: ...
    @property
    def handshake(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def identity(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def der(self) -> bytes: ...
    @property
    def verified(self) -> bool: ...
    def __eq__(self, value: object, /) -> bool: ...

@final
class Established:
    """A device has an association."""

    def __new__(cls, *, identity: str, names: Sequence[str] = (), address: str) -> Established: ...
    @property
    def identity(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def address(self) -> str: ...
    def __eq__(self, value: object, /) -> bool: ...

@final
class Ended:
    """An association is over."""

    def __new__(cls, *, identity: str, reason: str) -> Ended: ...
    @property
    def identity(self) -> str: ...
    @property
    def reason(self) -> str: ...  # closed | closed-by-peer | replaced | exhausted | record-overflow
    def __eq__(self, value: object, /) -> bool: ...

@final
class HandshakeFailed:
    """A handshake came to nothing; `identity` is what the peer claimed to be, without proof."""

    def __new__(cls, *, address: str, reason: str, identity: str | None = None) -> HandshakeFailed: ...
    @property
    def address(self) -> str: ...
    @property
    def reason(
        self,
    ) -> str: ...  # unknown-identity | wrong-key | timeout | certificate-expired | … : a kebab-case word
    @property
    def identity(self) -> str | None: ...
    def __eq__(self, value: object, /) -> bool: ...

@final
class Suspicious:
    """Many forged records came for an association, the latest from this address."""

    def __new__(cls, *, identity: str, address: str) -> Suspicious: ...
    @property
    def identity(self) -> str: ...
    @property
    def address(self) -> str: ...
    def __eq__(self, value: object, /) -> bool: ...

@final
class SessionExports:
    """Associations that are to be stored; `Engine.confirm_sessions` when they are durable."""

    def __new__(cls, *, rows: Sequence[tuple[int, int, int, bytes]]) -> SessionExports: ...
    # each: record (64 bits), generation, mark, what is sealed
    @property
    def rows(self) -> list[tuple[int, int, int, bytes]]: ...
    def __eq__(self, value: object, /) -> bool: ...

@final
class SessionGone:
    """What is stored of an association has no use any more."""

    def __new__(cls, *, record: int) -> SessionGone: ...
    @property
    def record(self) -> int: ...
    def __eq__(self, value: object, /) -> bool: ...

@final
class KeyLog:
    """A line for a file in the format of SSLKEYLOGFILE: who has it reads the traffic."""

    def __new__(cls, *, line: str) -> KeyLog: ...
    @property
    def line(self) -> str: ...
    def __eq__(self, value: object, /) -> bool: ...

SecurityEvent: TypeAlias = (
    LookUp | Established | Ended | HandshakeFailed | Suspicious | SessionExports | SessionGone | KeyLog
)
Event: TypeAlias = (
    Request
    | Response
    | Failure
    | Notification
    | Progress
    | Download
    | Cancelled
    | Alive
    | LookUp
    | Established
    | Ended
    | HandshakeFailed
    | Suspicious
    | SessionExports
    | SessionGone
    | KeyLog
)

@final
class Engine:
    """One CoAP endpoint, client and server at once."""

    def __new__(
        cls,
        *,
        ack_timeout: float = 2.0,
        ack_random_factor: float = 1.5,
        max_retransmit: int = 4,
        nstart: int = 1,
        processing_delay: float = 0.5,  # seconds until an unanswered CON gets an empty ACK
        transfer_timeout: float = 300.0,  # seconds without progress after which a push fails
        max_body: int = 1048576,  # bytes assembled of one incoming body
        max_assemblies: int = 1024,
        max_peers: int = 1048576,  # peers with exchange or deduplication state
        max_queued: int = 64,  # requests waiting for one peer
        max_events: int = 8192,  # requests waiting for Python; above it new ones get 5.03
        max_actions: int = 65536,
        busy_max_age: int = 5,  # Max-Age of that 5.03, seconds
        progress_bytes: int = 65536,  # coarseness of Progress and Download events
        block_size: int = 1024,
        max_half_open: int = 32768,  # handshakes under way with devices, on each secure listener
        max_half_open_per_prefix: int = 16,  # the same from one IPv4 /24 or IPv6 /64
        key_operations_per_second: int = 2000,  # handshakes with public keys; more are shed
        key_operations_per_second_per_prefix: int = 200,
        seed: int | None = None,  # of message ids and tokens, for tests; None takes the system's entropy
    ) -> Engine: ...
    # returns the bound address; a secure listener speaks DTLS
    def listen(self, host: str, port: int, *, secure: bool = False) -> str: ...
    # binds without taking datagrams from it, so that registrations, offers and sessions can be handed over first
    def bind(self, host: str, port: int, *, secure: bool = False) -> str: ...
    # takes datagrams from all that are bound
    def serve(self) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def drain(self, limit: int = 4096) -> list[Event]: ...
    def flush(self) -> None: ...
    def statistics(self) -> dict[str, int]: ...
    # requests as client
    def request(
        self,
        peer: Peer,
        code: int,
        path: tuple[str, ...],
        *,
        query: tuple[str, ...] = (),
        payload: bytes = b"",
        content_format: int | None = None,
        accept: int | None = None,
        observe: int | None = None,
        etag: bytes | None = None,
        block2: tuple[int, int] | None = None,  # (number, size): fetch this block alone, not the whole body
        confirmable: bool = True,
        timeout: float | None = None,  # seconds until the answer, when the acknowledgement has come; None: 93
    ) -> int: ...
    # ends a request or push; an observation is cancelled actively (GET, Observe 1); Failure "cancelled"
    # follows
    def cancel(self, handle: int) -> None: ...
    def push(
        self,
        peer: Peer,
        path: tuple[str, ...],
        digest: bytes,
        *,
        offset: int = 0,
        block_size: int = 1024,
        code: int = 3,
        content_format: int = 42,
    ) -> int: ...
    # answers as server
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
        observe: bool = False,  # accept the observation: later `notify(exchange, ...)` may follow
    ) -> None: ...
    def notify(
        self,
        exchange: int,
        code: int,
        *,
        payload: bytes = b"",
        content_format: int | None = None,
        confirmable: bool = False,
    ) -> None: ...
    # gives Block1 blocks of this path to Python one by one
    def stream(self, path: tuple[str, ...]) -> None: ...
    # memory-maps the file; returns its size in bytes
    def add_blob(self, digest: bytes, file: str) -> int: ...
    def remove_blob(self, digest: bytes) -> None: ...
    # the identity of this peer, or without one its host, may GET this path; counted
    def offer(self, path: tuple[str, ...], digest: bytes, to: Peer) -> None: ...
    def withdraw(self, path: tuple[str, ...], to: Peer) -> None: ...
    # answers bare Updates of /rd/<location> from this peer
    def keep(self, location: str, peer: Peer) -> None: ...
    # that, and 2.01 with /rd/<location> to the Registers: exchange, location, peer
    def welcome(self, registrations: Sequence[tuple[int, str, Peer]]) -> None: ...
    # keeps many: location, address, identity
    def keep_all(self, registrations: Sequence[tuple[str, str, str | None]]) -> None: ...
    def drop(self, location: str) -> None: ...
    # the device is no longer at this address: requests, pushes and observations there fail as peer-gone
    def forget(self, peer: Peer) -> None: ...
    # security; see lwm2m_server.transport.security.Security for the parameters
    def secure(
        self,
        *,
        certificate: bytes | None = None,
        private_key: bytes | None = None,
        offer_raw_public_key: bool = True,
        accept_raw_public_keys: bool = True,
        accept_pinned_certificates: bool = True,
        trust: Sequence[bytes] = (),
        psk: tuple[bytes, bytes] | None = None,
        server_public_key: bytes | None = None,
        server_name: str | None = None,
        certificate_usage: int = 3,
        server_certificate: bytes | None = None,
        suites: Sequence[str] = (
            "TLS_PSK_WITH_AES_128_CCM_8",
            "TLS_PSK_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ),
        connection_id_length: int | None = 8,
        node: int | None = None,
        handshake_timeout: float = 9.0,
        sealing_key: bytes | None = None,
        key_log: bool = False,
    ) -> None: ...
    # the current key, then at most one former that is still valid; none: the identity is unknown
    def provide_psks(self, answers: Sequence[tuple[int, Sequence[bytes]]]) -> None: ...
    def provide_verdict(self, handshake: int, accepted: bool) -> None: ...
    def forget_key(self, identity: str) -> None: ...
    def revoke(self, identity: str) -> None: ...
    # (record, generation after the claim, sealed); counts by `restored` or the reason
    def restore(self, sessions: Sequence[tuple[int, int, bytes]]) -> dict[str, int]: ...
    def confirm_sessions(self, marks: Sequence[tuple[int, int]]) -> None: ...

@final
class Fleet:
    """Light devices that live while `run` runs; EngineError names a bad argument or what the system lacks."""

    def __new__(
        cls,
        server: str,
        count: int,
        *,
        prefix: str = "sim-",
        # seconds
        lifetime: int = 300,
        version: str = "1.0.0",
        # share of devices that fail to install, and that never come back from it
        failing: float = 0.0,
        vanishing: float = 0.0,
        # seconds over which first registrations are spread
        spread: float = 1.0,
        seed: int = 0,
        # None: plain CoAP
        security: DeviceSecurity | None = None,
    ) -> Fleet: ...
    # what happened since the start: devices, registered, registrations, updates, failures, requests, bytes,
    # downloads, installed, handshakes, refused (handshakes that failed)
    def run(self, seconds: float) -> dict[str, int]: ...

@final
class Load:
    """Closed-loop load: each source sends its next request when the answer to the last one is there.

    A source is an address; towards 127.0.0.0/8 a thousand share a socket, else each is a socket. `handshake` and
    `register` make new devices; secured ones shake hands first. With as many sources as devices all of them begin
    at once. A secured `get` asks as the devices of the sources' numbers. The reports have answered, errors,
    repeated, bytes, seconds, and p50, p99, max in microseconds.
    """

    def __new__(cls, server: str, sources: int, *, security: DeviceSecurity | None = None) -> Load: ...
    # why a handshake failed last
    @property
    def failure(self) -> str | None: ...
    def handshake(self, count: int, *, prefix: str = "load-") -> dict[str, float]: ...
    def register(self, count: int, *, prefix: str = "load-", lifetime: int = 86400) -> dict[str, float]: ...
    def update(self, rounds: int = 1) -> dict[str, float]: ...
    def get(self, path: list[str], count: int, *, blocks: int = 0) -> dict[str, float]: ...
