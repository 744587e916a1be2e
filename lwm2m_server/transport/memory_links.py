"""The client's sessions of `MemoryTransport`, and what a handshake shows."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from lwm2m_server.transport.api import HandshakeError, Peer, TransportError
from lwm2m_server.transport.memory_network import EXCHANGE_LIFETIME, MemoryNetwork
from lwm2m_server.transport.security import Security, psk_identity


@dataclass(frozen=True)
class Credentials:
    """What one side shows: an identity, and what proves it."""

    identity: str
    names: tuple[str, ...] = ()
    key: bytes = b""  # pre-shared
    der: bytes = b""  # certificate or SubjectPublicKeyInfo


@dataclass(frozen=True)
class Hello:
    """A handshake as it arrives; `done` takes the number of the session, or the reason why there is none."""

    address: str
    server: str
    shown: Credentials
    pinned: bytes | None
    suites: tuple[str, ...]
    done: Callable[[int | str], None]


class Links:
    """The client side: our sessions with servers, by their address."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._security: Security | None = None
        self._links: dict[str, asyncio.Future[int]] = {}

    def secure(self, security: Security) -> None:
        """Take credentials and settings."""
        self._security = security

    def numbers(self) -> list[tuple[str, int]]:
        """The sessions that exist."""
        return [(server, link.result()) for server, link in self._links.items() if _is_made(link)]

    def knows(self, server: str, number: int) -> bool:
        """Say whether this is our session with that server."""
        link = self._links.get(server)
        return link is not None and _is_made(link) and link.result() == number

    async def number(self, server: Peer, source: str) -> int:
        """Return the session with a server; shake hands first when there is none."""
        link = self._links.get(server.address)
        if link is None:
            link = asyncio.get_running_loop().create_future()
            self._links[server.address] = link
            self._shake(server, source, link)
        return await asyncio.shield(link)

    def drop(self, server: str) -> int | None:
        """Forget a session; return its number."""
        link = self._links.pop(server, None)
        if link is None:
            return None
        if not link.done():
            link.set_exception(HandshakeError("the handshake was given up"))
            link.exception()
            return None
        return link.result() if _is_made(link) else None

    def _shake(self, server: Peer, source: str, link: asyncio.Future[int]) -> None:
        def done(outcome: int | str) -> None:
            if link.done():
                return
            if isinstance(outcome, int):
                link.set_result(outcome)
                return
            self._links.pop(server.address, None)
            link.set_exception(HandshakeError(f"{server.address}: the handshake failed ({outcome})"))
            link.exception()

        if self._security is None:
            self._links.pop(server.address, None)
            raise TransportError("secure: call it before the first secure request", field="secure")
        shown = credentials(self._security)
        security = self._security
        hello = Hello(source, server.address, shown, security.server_public_key, security.suites, done)
        network = self._network
        target = network.find(server.address)
        linked = network.reachable(server.host, Peer(source).host) and target is not None
        if not linked or network.chance(network.loss):
            network.silence(lambda: done("timeout"))
            return
        network.later(EXCHANGE_LIFETIME, lambda: done("timeout"))
        network.send(lambda: _arrive(network, hello))


def _arrive(network: MemoryNetwork, hello: Hello) -> None:
    target = network.find(hello.server)
    if target is not None:
        target.shake(hello)


def _is_made(link: asyncio.Future[int]) -> bool:
    return link.done() and link.exception() is None


def public_key(security: Security) -> bytes | None:
    """Return the public half of the private key (DER); raise `TransportError` when it can't be read."""
    if security.private_key is None:
        return None
    try:
        key = load_pem_private_key(security.private_key, None)
    except (ValueError, TypeError) as error:
        raise TransportError(f"private_key: {error}", field="private_key") from error
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def credentials(security: Security) -> Credentials:
    """Return what a client with this shows."""
    if security.psk is not None:
        identity, key = security.psk
        return Credentials(psk_identity(identity), key=key)
    if security.certificate is not None:
        certificate = x509.load_pem_x509_certificate(security.certificate)
        der = certificate.public_bytes(Encoding.DER)
        return Credentials(f"x509:{hashlib.sha256(der).hexdigest()}", _names(certificate), der=der)
    spki = public_key(security)
    if spki is None:
        raise TransportError("secure: there is no credential for our client role", field="secure")
    return Credentials(f"rpk:{hashlib.sha256(spki).hexdigest()}", der=spki)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    names = [str(common[0].value) if common else ""]
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return tuple(names)
    names += san.get_values_for_type(x509.DNSName)
    names += san.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(names)
