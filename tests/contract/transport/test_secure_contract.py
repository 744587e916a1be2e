"""What every `Transport` promises about identities and sessions, held against the engine and the fake in memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from cryptography import x509

from keypairs import Authority, KeyPair, der, pem
from lwm2m_server.transport import (
    DEFAULT_SUITES,
    Code,
    Ended,
    EngineTransport,
    Established,
    HandshakeError,
    HandshakeFailed,
    KeyLog,
    LookUp,
    Peer,
    PeerGone,
    Request,
    Security,
    SecurityEvent,
    SessionExports,
    SessionGone,
    Transport,
    TransportError,
    psk_identity,
)
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport

pytestmark = pytest.mark.timeout(60)

KEY, OTHER = b"0123456789abcdef", b"fedcba9876543210"
SEALED = Security(sealing_key=bytes(range(32)), handshake_timeout=0.01)


@dataclass
class Site:
    """A server with secure listeners, and as many clients as a test makes."""

    make: Callable[[], Transport]
    host: str
    server: Transport
    address: str = ""
    keys: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    events: list[SecurityEvent] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    clients: list[Transport] = field(default_factory=list)

    @property
    def peer(self) -> Peer:
        return Peer(self.address, scheme="coaps")

    async def open(self, security: Security, *, stored: list[tuple[int, int, bytes]] | None = None) -> dict:
        """Begin to listen; after a restart at the same port, with what was stored."""
        await self.server.start()
        self.server.set_handlers(on_requests=self.take, on_security=self.hear)
        self.server.secure(security)
        port = int(self.address.rpartition(":")[2] or 0)
        self.address = await self.server.bind(self.host, port, secure=True)
        counts = self.server.restore(stored or [])
        self.server.serve()
        return counts

    async def restart(self, stored: list[tuple[int, int, bytes]] | None = None) -> dict:
        """Stop the server and start another one with these sessions, or those that the first one exported."""
        await self.server.close()
        if stored is None:
            latest = {row[0]: row for row in self.exports}
            stored = [(record, generation + 1, sealed) for record, generation, _, sealed in latest.values()]
        self.server = self.make()
        return await self.open(SEALED, stored=stored)

    def take(self, batch: list[Request]) -> None:
        self.requests.extend(batch)
        for request in batch:
            if request.path != ("silence",):
                self.server.respond(request.exchange, Code.CONTENT)
        self.changed.set()

    def hear(self, events: list[SecurityEvent]) -> None:
        self.events.extend(events)
        for event in events:
            if isinstance(event, LookUp) and event.identity.startswith("psk:"):
                self.server.provide_psks([(event.handshake, self.keys.get(event.identity, ()))])
            elif isinstance(event, LookUp):
                self.server.provide_verdict(event.handshake, accepted=event.identity in self.taken)
            elif isinstance(event, SessionExports):
                self.server.confirm_sessions([(record, mark) for record, _, mark, _ in event.rows])
        self.changed.set()

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def exports(self) -> list[tuple[int, int, int, bytes]]:
        return [row for event in self.of(SessionExports) for row in event.rows]

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def client(self, security: Security) -> Transport:
        client = self.make()
        await client.start()
        client.set_handlers(
            on_requests=lambda batch: [client.respond(r.exchange, Code.CONTENT) for r in batch]
        )
        client.secure(replace(security, handshake_timeout=0.01))
        self.clients.append(client)
        return client

    async def psk_client(self, name: str = "dev", key: bytes = KEY) -> Transport:
        return await self.client(Security(psk=(name.encode(), key)))

    async def get(self, client: Transport, *path: str) -> int:
        return (await client.request(self.peer, Code.GET, path or ("x",))).code

    async def register(self, client: Transport) -> None:
        await client.request(self.peer, Code.POST, ("rd",), query=("ep=dev",))


@pytest.fixture(params=["engine", "memory"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    network = MemoryNetwork()
    memory = request.param == "memory"
    make = (lambda: MemoryTransport(network)) if memory else EngineTransport
    made = Site(make, "10.0.0.1" if memory else "127.0.0.1", make())
    made.keys["psk:dev"] = (KEY,)
    yield made
    for client in made.clients:
        await client.close()
    await made.server.close()


async def test_requests_carry_the_identity_that_a_pre_shared_key_has_proved(site: Site) -> None:
    await site.open(SEALED)
    site.keys["psk:a%25%00"] = (KEY,)
    client = await site.client(Security(psk=(b"a%\0", KEY)))
    assert await site.get(client) == Code.CONTENT
    peer = site.requests[0].peer
    assert (peer.identity, peer.scheme, peer.names) == ("psk:a%25%00", "coaps", ())
    assert peer.identity == psk_identity(b"a%\0")
    [look_up], [established] = site.of(LookUp), site.of(Established)
    assert (look_up.identity, look_up.der, look_up.names) == (peer.identity, b"", ())
    assert established == Established(identity=peer.identity, names=(), address=peer.address)


async def test_the_server_reaches_a_device_by_its_identity_wherever_it_is(site: Site) -> None:
    await site.open(SEALED)
    elsewhere = Peer("192.0.2.1:1", identity="psk:dev")
    with pytest.raises(PeerGone, match="psk:dev"):
        await site.server.request(elsewhere, Code.GET, ("3", "0"))
    await site.get(await site.psk_client())
    assert (await site.server.request(elsewhere, Code.GET, ("3", "0"))).code == Code.CONTENT


@pytest.mark.parametrize(("name", "reason"), [("dev", "wrong-key"), ("stranger", "unknown-identity")])
async def test_a_wrong_key_and_an_unknown_identity_look_the_same_to_the_device(
    site: Site, name: str, reason: str
) -> None:
    await site.open(SEALED)
    client = await site.psk_client(name, OTHER)
    with pytest.raises(HandshakeError, match="decrypt-error") as caught:
        await site.get(client)
    assert caught.value.code == "handshake"
    await site.until(lambda: site.of(HandshakeFailed))
    failed = site.of(HandshakeFailed)[0]
    assert (failed.identity, failed.reason) == (f"psk:{name}", reason)
    assert site.requests == []


async def test_known_keys_are_not_asked_for_again_until_they_are_forgotten(site: Site) -> None:
    await site.open(SEALED)
    client = await site.psk_client()
    for asked in (1, 1):
        await site.get(client)
        client.forget(site.peer)
        assert len(site.of(LookUp)) == asked
    site.server.forget_key("psk:dev")
    await site.get(client)
    assert len(site.of(LookUp)) == 2


async def test_while_a_key_is_rotated_the_former_one_is_taken_too(site: Site) -> None:
    site.keys["psk:dev"] = (OTHER, KEY)
    await site.open(SEALED)
    assert await site.get(await site.psk_client(key=KEY)) == Code.CONTENT
    assert await site.get(await site.psk_client(key=OTHER)) == Code.CONTENT


async def test_raw_public_keys_are_taken_by_verdict(site: Site) -> None:
    ours, device, stranger = KeyPair(), KeyPair(), KeyPair()
    await site.open(replace(SEALED, private_key=ours.pem))
    identity = f"rpk:{hashlib.sha256(device.spki).hexdigest()}"
    site.taken.add(identity)
    client = await site.client(Security(private_key=device.pem, server_public_key=ours.spki))
    assert await site.get(client) == Code.CONTENT
    assert site.requests[0].peer.identity == identity
    assert (site.of(LookUp)[0].der, site.of(LookUp)[0].names) == (device.spki, ())
    client = await site.client(Security(private_key=stranger.pem, server_public_key=ours.spki))
    with pytest.raises(HandshakeError, match="certificate-unknown"):
        await site.get(client)
    await site.until(lambda: site.of(HandshakeFailed))
    assert site.of(HandshakeFailed)[0].reason == "unknown-peer"


async def test_a_server_with_another_raw_public_key_than_the_pinned_one_is_refused(site: Site) -> None:
    await site.open(replace(SEALED, private_key=KeyPair().pem))
    client = await site.client(Security(private_key=KeyPair().pem, server_public_key=KeyPair().spki))
    with pytest.raises(HandshakeError):
        await site.get(client)
    assert site.of(Established) == []


async def test_certificates_are_taken_by_verdict_and_tell_their_names(site: Site) -> None:
    authority, ours, device = Authority(), KeyPair(), KeyPair()
    server_certificate = authority.issue("server", ours, x509.DNSName("server.example"))
    certificate = authority.issue("meter-1", device, x509.UniformResourceIdentifier("urn:dev:meter-1"))
    await site.open(
        replace(SEALED, private_key=ours.pem, certificate=pem(server_certificate), trust=(authority.der,))
    )
    identity = f"x509:{hashlib.sha256(der(certificate)).hexdigest()}"
    site.taken.add(identity)
    presented = Security(
        private_key=device.pem,
        certificate=pem(certificate),
        trust=(authority.der,),
        server_certificate=der(server_certificate),
    )
    assert await site.get(await site.client(presented)) == Code.CONTENT
    names = ("meter-1", "urn:dev:meter-1")
    assert (site.requests[0].peer.identity, site.requests[0].peer.names) == (identity, names)
    asked = site.of(LookUp)[0]
    assert (asked.der, asked.names, asked.verified) == (der(certificate), names, True)


@pytest.mark.parametrize("trusts_another", [False, True])
async def test_a_certificate_without_a_path_is_taken_only_by_who_knows_it_by_itself(
    site: Site, trusts_another: bool
) -> None:
    foreign, ours, device = Authority("foreign"), KeyPair(), KeyPair()
    server_certificate = foreign.issue("server", ours)
    trust = (Authority().der,) if trusts_another else ()
    await site.open(replace(SEALED, private_key=ours.pem, certificate=pem(server_certificate), trust=trust))
    certificate = foreign.issue("meter-1", device)
    presented = Security(
        private_key=device.pem, certificate=pem(certificate), server_certificate=der(server_certificate)
    )
    with pytest.raises(HandshakeError, match="unknown-ca"):
        await site.get(await site.client(presented))
    await site.until(lambda: site.of(HandshakeFailed))
    assert site.of(HandshakeFailed)[0].reason == "unknown-authority"
    site.taken.add(f"x509:{hashlib.sha256(der(certificate)).hexdigest()}")
    assert await site.get(await site.client(presented)) == Code.CONTENT
    assert [look_up.verified for look_up in site.of(LookUp)] == [False, False]


async def test_where_only_paths_count_nobody_is_asked_about_other_certificates(site: Site) -> None:
    foreign, ours, device = Authority("foreign"), KeyPair(), KeyPair()
    server_certificate = foreign.issue("server", ours)
    certificate = foreign.issue("meter-1", device)
    site.taken.add(f"x509:{hashlib.sha256(der(certificate)).hexdigest()}")
    security = replace(SEALED, private_key=ours.pem, certificate=pem(server_certificate))
    await site.open(replace(security, trust=(Authority().der,), accept_pinned_certificates=False))
    presented = Security(
        private_key=device.pem, certificate=pem(certificate), server_certificate=der(server_certificate)
    )
    with pytest.raises(HandshakeError, match="unknown-ca"):
        await site.get(await site.client(presented))
    await site.until(lambda: site.of(HandshakeFailed))
    assert (site.of(HandshakeFailed)[0].reason, site.of(LookUp)) == ("unknown-authority", [])


async def test_a_suite_that_is_not_listed_is_not_negotiated(site: Site) -> None:
    await site.open(SEALED)
    cbc = "TLS_PSK_WITH_AES_128_CBC_SHA256"
    client = await site.client(Security(psk=(b"dev", KEY), suites=(cbc,)))
    with pytest.raises(HandshakeError, match="handshake-failure"):
        await site.get(client)
    await site.until(lambda: site.of(HandshakeFailed))
    assert site.of(HandshakeFailed)[0].reason == "no-common-suite"
    site.server.secure(replace(SEALED, suites=(*DEFAULT_SUITES, cbc)))
    assert await site.get(client) == Code.CONTENT
    site.server.secure(replace(SEALED, suites=(cbc,)))
    with pytest.raises(HandshakeError, match="handshake-failure"):
        await site.get(await site.psk_client())


async def test_the_suite_with_cbc_for_public_keys_is_negotiated_when_it_is_listed(site: Site) -> None:
    ours, device = KeyPair(), KeyPair()
    cbc = "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"
    await site.open(replace(SEALED, private_key=ours.pem, suites=(*DEFAULT_SUITES, cbc)))
    site.taken.add(f"rpk:{hashlib.sha256(device.spki).hexdigest()}")
    presented = Security(private_key=device.pem, server_public_key=ours.spki, suites=(cbc,))
    assert await site.get(await site.client(presented)) == Code.CONTENT


async def test_revoking_ends_what_an_identity_has_at_once(site: Site) -> None:
    await site.open(SEALED)
    client = await site.psk_client()
    await site.get(client)
    waiting = asyncio.ensure_future(site.get(client, "silence"))
    await site.until(lambda: len(site.requests) == 2)
    del site.keys["psk:dev"]
    site.server.revoke("psk:dev")
    with pytest.raises(PeerGone):
        await waiting
    await site.until(lambda: site.of(SessionGone))
    assert site.of(Ended) == [Ended(identity="psk:dev", reason="closed")]
    assert site.of(SessionGone) == [SessionGone(record=site.exports[0][0])]
    with pytest.raises(PeerGone):
        await site.server.request(site.requests[0].peer, Code.GET, ("3", "0"))
    with pytest.raises(HandshakeError):
        await site.get(client)


async def test_the_server_goes_by_the_session_that_registered_and_else_by_the_newest(site: Site) -> None:
    await site.open(SEALED)
    first, second = await site.psk_client(), await site.psk_client()
    asked: list[str] = []
    for name, client in (("first", first), ("second", second)):

        def answer(batch: list[Request], name: str = name, client: Transport = client) -> None:
            for request in batch:
                asked.append(name)
                client.respond(request.exchange, Code.CONTENT)

        client.set_handlers(on_requests=answer)
    device = Peer("192.0.2.1:1", identity="psk:dev")
    await site.register(first)
    await site.get(second)
    await site.server.request(device, Code.GET, ("3", "0"))
    await site.register(first)
    await site.server.request(device, Code.GET, ("3", "0"))
    await site.register(second)
    await site.server.request(device, Code.GET, ("3", "0"))
    assert asked == ["second", "first", "second"]


async def test_of_three_sessions_of_an_identity_the_one_heard_from_least_recently_ends(site: Site) -> None:
    await site.open(SEALED)
    for _ in range(3):
        await site.get(await site.psk_client())
    await site.until(lambda: site.of(Ended))
    assert site.of(Ended) == [Ended(identity="psk:dev", reason="replaced")]
    assert site.server.statistics()["dtls_sessions"] == 2


async def test_what_an_identity_has_survives_another_handshake(site: Site, tmp_path) -> None:
    await site.open(SEALED)
    content = b"image" * 100
    digest = hashlib.sha256(content).digest()
    (tmp_path / "image").write_bytes(content)
    site.server.add_blob(digest, str(tmp_path / "image"))
    device = Peer("192.0.2.1:1", identity="psk:dev")
    site.server.offer(("fw",), digest, device)
    site.server.keep("1", device)
    client = await site.psk_client()
    for _ in range(2):
        assert (await client.request(site.peer, Code.POST, ("rd", "1"))).code == Code.CHANGED
        assert (await client.request(site.peer, Code.GET, ("fw",))).payload == content
        client.forget(site.peer)
    site.keys["psk:other"] = (OTHER,)
    stranger = await site.psk_client("other", OTHER)
    assert await site.get(stranger, "fw") == Code.FORBIDDEN
    assert (await stranger.request(site.peer, Code.POST, ("rd", "1"))).code == Code.CONTENT


async def test_sessions_outlive_a_restart_without_a_handshake(site: Site) -> None:
    await site.open(SEALED)
    client = await site.psk_client()
    await site.get(client)
    assert await site.restart() == {"restored": 1}
    assert await site.get(client) == Code.CONTENT
    assert site.requests[1].peer == site.requests[0].peer
    assert (await site.server.request(site.requests[0].peer, Code.GET, ("3", "0"))).code == Code.CONTENT
    assert await site.restart() == {"restored": 1}
    assert await site.get(client) == Code.CONTENT
    assert len(site.of(Established)) == 1


async def test_rows_that_cannot_be_restored_are_counted_by_reason(site: Site) -> None:
    await site.open(SEALED)
    await site.get(await site.psk_client())
    record, generation, _, sealed = site.exports[0]
    good = (record, generation + 1, sealed)
    damaged = (record, generation + 1, sealed[:-9] + bytes(9))
    foreign = (record ^ 1, generation + 1, sealed)
    unclaimed = (record, generation, sealed)
    rows = [damaged, foreign, (1, 1, b""), unclaimed, good, good]
    assert await site.restart(rows) == {"unreadable": 3, "unclaimed": 1, "restored": 1, "duplicate": 1}


async def test_credentials_are_reloaded_while_sessions_go_on(site: Site) -> None:
    before, after = KeyPair(), KeyPair()
    await site.open(replace(SEALED, private_key=before.pem))
    client = await site.psk_client()
    await site.get(client)
    site.server.secure(replace(SEALED, private_key=after.pem))
    assert await site.get(client) == Code.CONTENT
    assert len(site.of(Established)) == 1
    device = KeyPair()
    site.taken.add(f"rpk:{hashlib.sha256(device.spki).hexdigest()}")
    fresh = await site.client(Security(private_key=device.pem, server_public_key=after.spki))
    assert await site.get(fresh) == Code.CONTENT


async def test_secrets_are_reported_only_when_that_is_asked_for(site: Site) -> None:
    await site.open(SEALED)
    await site.get(await site.psk_client())
    assert site.of(KeyLog) == []
    site.server.secure(replace(SEALED, key_log=True))
    await site.get(await site.psk_client())
    label, random, secret = site.of(KeyLog)[0].line.split(" ")
    assert (label, len(random), len(secret)) == ("CLIENT_RANDOM", 64, 96)


async def test_without_a_receiver_nobody_is_known(site: Site) -> None:
    await site.open(SEALED)
    site.server.set_handlers(on_requests=site.take)
    with pytest.raises(HandshakeError):
        await site.get(await site.psk_client())


async def test_secure_comes_first(site: Site) -> None:
    for refused in (site.server.listen(site.host, 0, secure=True), site.get(site.server)):
        site.address = f"{site.host}:5684"
        with pytest.raises(TransportError) as caught:
            await refused
        assert caught.value.field == "secure"
    with pytest.raises(TransportError) as caught:
        site.server.secure(Security(private_key=b"no key"))
    assert caught.value.field == "private_key"


async def test_an_expired_certificate_is_refused() -> None:
    authority, ours, device = Authority(), KeyPair(), KeyPair()
    server_certificate = authority.issue("server", ours)
    site = Site(EngineTransport, "127.0.0.1", EngineTransport())
    await site.open(
        replace(SEALED, private_key=ours.pem, certificate=pem(server_certificate), trust=(authority.der,))
    )
    certificate = authority.issue("meter-1", device, ends=datetime(2001, 1, 1, tzinfo=UTC))
    client = await site.client(
        Security(
            private_key=device.pem, certificate=pem(certificate), server_certificate=der(server_certificate)
        )
    )
    with pytest.raises(HandshakeError, match="certificate-expired"):
        await site.get(client)
    await site.until(lambda: site.of(HandshakeFailed))
    assert site.of(HandshakeFailed)[0].reason == "certificate-expired"
    await client.close()
    await site.server.close()
