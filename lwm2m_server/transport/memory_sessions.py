"""The server's sessions of `MemoryTransport`: its handshake asks and decides as the engine's does.

Nothing is encrypted; what a session promises is who the other side is, and that it ends when it is told to.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from lwm2m_server.transport.api import (
    Ended,
    Established,
    HandshakeFailed,
    KeyLog,
    LookUp,
    Peer,
    SecurityEvent,
    SessionExports,
    SessionGone,
    TransportError,
)
from lwm2m_server.transport.dispatch import Handlers
from lwm2m_server.transport.memory_links import Credentials, Hello, public_key
from lwm2m_server.transport.memory_network import MemoryNetwork
from lwm2m_server.transport.security import Security

_PER_IDENTITY = 2  # sessions of one identity, as in the engine
_RESERVED = 1 << 16  # record numbers that an export reserves there


@dataclass
class Session:
    """A session as the server side has it."""

    number: int
    identity: str
    names: tuple[str, ...]
    address: str
    server: str
    record: int | None = None
    generation: int = 0

    @property
    def peer(self) -> Peer:
        """The device."""
        return Peer(self.address, identity=self.identity, names=self.names)


class Sessions:
    """The server side: who has a session, and handshakes that wait for an answer."""

    def __init__(self, network: MemoryNetwork, handlers: Handlers, on_end: Callable[[int], None]) -> None:
        self._network = network
        self._handlers = handlers
        self._on_end = on_end
        self._security: Security | None = None
        self._public_key: bytes | None = None
        self._waiting: dict[int, Hello] = {}
        self._keys: dict[str, tuple[bytes, ...]] = {}
        self._sessions: dict[int, Session] = {}
        self._by_identity: dict[str, list[Session]] = {}
        self._restored: dict[int, int] = {}
        self._events: list[SecurityEvent] = []

    def __len__(self) -> int:
        return len(self._sessions)

    def secure(self, security: Security) -> None:
        """Take credentials and settings."""
        self._security = security
        self._public_key = public_key(security)

    def check_ready(self) -> None:
        """Raise `TransportError` when there are no credentials for a listener yet."""
        if self._security is None:
            raise TransportError("secure: call it before the first secure listener", field="secure")

    def current(self, identity: str) -> Session | None:
        """The session of this identity to send to."""
        sessions = self._by_identity.get(identity)
        return sessions[-1] if sessions else None

    def hear(self, number: int, *, registers: bool) -> Peer | None:
        """Return who sent a message by a session; the one that registers by it is reached by it."""
        session = self._sessions.get(number)
        if session is None:
            return None
        if registers:
            self._prefer(session)
        return session.peer

    def shake(self, hello: Hello) -> None:
        """Take a handshake."""
        if self._security is None:
            return
        if hello.pinned is not None and hello.pinned != self._public_key:
            hello.done("certificate-unknown")
            return
        shown = hello.shown
        if not self._offers(hello):
            self._fail(hello, "no-common-suite", told="handshake-failure")
        elif not (self._security.accept_pinned_certificates or self._vouches(shown)):
            self._fail(hello, "unknown-authority", told="unknown-ca")
        elif shown.key and shown.identity in self._keys:
            self._with_keys(hello, self._keys[shown.identity])
        elif self._handlers.on_security is None:
            self._with_keys(hello, ())
        else:
            handshake = self._network.number()
            self._waiting[handshake] = hello
            self._emit(
                LookUp(
                    handshake=handshake,
                    address=hello.address,
                    identity=shown.identity,
                    names=shown.names,
                    der=shown.der,
                    verified=self._vouches(shown),
                )
            )

    def provide_psk(self, handshake: int, keys: Sequence[bytes]) -> None:
        """See `Transport.provide_psks`."""
        hello = self._waiting.get(handshake)
        if hello is None or hello.shown.der:
            return
        del self._waiting[handshake]
        if keys:
            self._keys[hello.shown.identity] = tuple(keys[:2])
        self._with_keys(hello, tuple(keys[:2]))

    def provide_verdict(self, handshake: int, *, accepted: bool) -> None:
        """See `Transport.provide_verdict`."""
        hello = self._waiting.get(handshake)
        if hello is None or not hello.shown.der:
            return
        del self._waiting[handshake]
        if accepted:
            self._establish(hello)
        elif not self._vouches(hello.shown):
            self._fail(hello, "unknown-authority", told="unknown-ca")
        else:
            self._fail(hello, "unknown-peer", told="certificate-unknown")

    def forget_key(self, identity: str) -> None:
        """See `Transport.forget_key`."""
        self._keys.pop(identity, None)

    def revoke(self, identity: str) -> None:
        """See `Transport.revoke`."""
        self.forget_key(identity)
        for handshake, hello in list(self._waiting.items()):
            if hello.shown.identity == identity:
                del self._waiting[handshake]
        for session in list(self._by_identity.get(identity, ())):
            self.end(session.number, "closed")

    def end(self, number: int, reason: str) -> None:
        """End a session; the device hears of it when it was closed on purpose."""
        session = self._sessions.pop(number, None)
        if session is None:
            return
        sessions = self._by_identity[session.identity]
        sessions.remove(session)
        if not sessions:
            del self._by_identity[session.identity]
        self._emit(Ended(identity=session.identity, reason=reason))
        if session.record is not None:
            self._emit(SessionGone(record=session.record))
        self._on_end(number)
        device = self._network.find(session.address)
        if device is not None and reason == "closed":
            self._network.send(lambda: device.session_ended(session.server, number))

    def suspend(self) -> None:
        """Report every session as it is to be stored, and forget them."""
        for session in self._sessions.values():
            self._export(session)
        self._deliver()
        self._sessions.clear()
        self._by_identity.clear()
        self._waiting.clear()

    def restore(self, sessions: Sequence[tuple[int, int, bytes]], addresses: set[str]) -> dict[str, int]:
        """See `Transport.restore`."""
        counts: dict[str, int] = {}
        for record, generation, sealed in sessions:
            outcome = self._restore(record, generation, sealed, addresses)
            counts[outcome] = counts.get(outcome, 0) + 1
        return counts

    def _restore(self, record: int, generation: int, sealed: bytes, addresses: set[str]) -> str:
        try:
            stored = json.loads(sealed)
            session = Session(
                stored["number"],
                stored["identity"],
                tuple(stored["names"]),
                stored["address"],
                stored["server"],
                record,
                generation,
            )
            readable = stored["seal"] == self._seal(record)
            claimed = generation > stored["generation"]
        except (ValueError, KeyError, TypeError):
            return "unreadable"
        if not readable:
            return "unreadable"
        if not claimed:
            return "unclaimed"
        if self._restored.get(record, -1) >= generation or session.number in self._sessions:
            return "duplicate"
        if session.server not in addresses:
            return "no-listener"
        self._restored[record] = generation
        self._insert(session)
        return "restored"

    def _seal(self, record: int) -> str:
        key = self._security.sealing_key if self._security is not None else None
        return hashlib.sha256((key or b"") + record.to_bytes(8, "big")).hexdigest()

    def _offers(self, hello: Hello) -> bool:
        """Say whether this side has what the other side's kind of credentials needs, and a suite for it."""
        security, shown = self._security, hello.shown
        if security is None:
            return False
        kind = "_PSK_WITH_" if shown.key else "_ECDSA_WITH_"
        if not any(kind in suite for suite in hello.suites if suite in security.suites):
            return False
        if shown.key:
            return True
        if self._public_key is None:
            return False
        if shown.identity.startswith("rpk:"):
            return security.accept_raw_public_keys
        return bool(security.trust) or security.accept_pinned_certificates

    def _with_keys(self, hello: Hello, keys: tuple[bytes, ...]) -> None:
        if hello.shown.key in keys:
            self._establish(hello)
        else:
            self._fail(hello, "wrong-key" if keys else "unknown-identity", told="decrypt-error")

    def _fail(self, hello: Hello, reason: str, *, told: str) -> None:
        """Report a handshake that came to nothing, and tell the device by an alert."""
        self._emit(HandshakeFailed(address=hello.address, reason=reason, identity=hello.shown.identity))
        self._network.send(lambda: hello.done(told))

    def _establish(self, hello: Hello) -> None:
        shown = hello.shown
        number = self._network.number()
        session = Session(number, shown.identity, shown.names, hello.address, hello.server)
        self._insert(session)
        self._emit(Established(identity=session.identity, names=session.names, address=session.address))
        if self._security is not None and self._security.key_log:
            self._emit(KeyLog(line=f"CLIENT_RANDOM {number:064x} {0:096x}"))
        self._export(session)
        self._network.send(lambda: hello.done(number))

    def _insert(self, session: Session) -> None:
        sessions = self._by_identity.setdefault(session.identity, [])
        if len(sessions) == _PER_IDENTITY:
            self.end(sessions[0].number, "replaced")
            sessions = self._by_identity.setdefault(session.identity, [])
        sessions.append(session)
        self._sessions[session.number] = session

    def _prefer(self, session: Session) -> None:
        sessions = self._by_identity[session.identity]
        sessions.remove(session)
        sessions.append(session)

    def _vouches(self, shown: Credentials) -> bool:
        """Say whether an authority of ours has issued this certificate, if it is one."""
        if not shown.identity.startswith("x509:"):
            return True
        certificate = x509.load_der_x509_certificate(shown.der)
        for authority in self._security.trust if self._security is not None else ():
            try:
                certificate.verify_directly_issued_by(x509.load_der_x509_certificate(authority))
            except (ValueError, TypeError, InvalidSignature):
                continue
            return True
        return False

    def _export(self, session: Session) -> None:
        if self._security is None or self._security.sealing_key is None:
            return
        if session.record is None:
            session.record = (1 << 63) + session.number
        stored = {
            "number": session.number,
            "identity": session.identity,
            "names": session.names,
            "address": session.address,
            "server": session.server,
            "generation": session.generation,
            "seal": self._seal(session.record),
        }
        export = (session.record, session.generation, _RESERVED, json.dumps(stored).encode())
        self._emit(SessionExports(rows=[export]))

    def _emit(self, event: SecurityEvent) -> None:
        if not self._events:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._events.append(event)

    def _deliver(self) -> None:
        events, self._events = self._events, []
        if events and not self._handlers.call(self._handlers.on_security, events):
            for event in events:
                if isinstance(event, LookUp):
                    self.provide_psk(event.handshake, ())
                    self.provide_verdict(event.handshake, accepted=False)
