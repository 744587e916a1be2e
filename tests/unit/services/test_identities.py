"""Handshakes get the keys and verdicts that hold at that moment; every refusal has its reason for the operator."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from certificates import Issuer, der, public_key
from lwm2m_server.clock import ManualClock
from lwm2m_server.devices.identities import Kind, Source
from lwm2m_server.services.background import LoopTimers
from lwm2m_server.services.credential_input import Material
from lwm2m_server.services.credentials import CredentialService
from lwm2m_server.services.identities import IdentityService
from lwm2m_server.services.public_keys import identity_of_certificate, identity_of_key
from lwm2m_server.services.sealing import Sealer
from lwm2m_server.services.security_log import SecurityLog
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.memory import MemoryStore

NOW = 1_800_000_000.0
KEY = bytes.fromhex("00112233445566778899aabbccddeeff")


@dataclass(frozen=True)
class LookUp:
    handshake: int
    identity: str
    der: bytes = b""
    names: tuple[str, ...] = ()
    address: str = "192.0.2.7:40000"
    verified: bool = True


class Handshakes:
    def __init__(self):
        self.answers = {}
        self.heard = []

    def provide_psks(self, answers):
        for handshake, keys in answers:
            assert handshake not in self.answers
            self.answers[handshake] = keys

    def provide_verdict(self, handshake, *, accepted):
        assert handshake not in self.answers
        self.answers[handshake] = accepted

    def forget_key(self, identity):
        self.heard.append(("forget", identity))

    def revoke(self, identity):
        self.heard.append(("revoke", identity))


class Desk:
    def __init__(self):
        self.store = MemoryStore()
        self.clock = ManualClock(NOW)
        sealer = Sealer(bytes(32))
        self.transport = Handshakes()
        self.log = SecurityLog(self.store.events, self.clock, LoopTimers())
        self.trusts = 0
        self.identities = IdentityService(
            self.store,
            self.transport,
            self.clock,
            LoopTimers(),
            sealer,
            self.log,
            on_trust_changed=self._trust,
        )
        self.credentials = CredentialService(self.store, self.clock, sealer, self.identities)
        self.handshakes = 0

    def _trust(self):
        self.trusts += 1

    async def endpoint_of(self, identity):
        return (await self.identities.endpoints_of([identity]))[identity]

    async def add(self, kind, endpoint="meter-1", **material):
        added, _ = await self.credentials.add(kind, endpoint, Material(**material), actor="ann")
        return added.identity

    async def psk(self, endpoint="meter-1"):
        return await self.add(Kind.PSK, endpoint, key=KEY.hex())

    async def authority(self, issuer, source=Source.CN, pattern="{endpoint}"):
        added, _ = await self.credentials.add_authority(
            issuer.pem, name="factory", source=source, pattern=pattern, actor="ann"
        )
        return added

    async def ask(self, identity, der=b""):
        """Look an identity up and return the answer."""
        (answer,) = await self.ask_all((identity, der))
        return answer

    async def ask_certificate(self, certificate, *, verified=True):
        asked = (identity_of_certificate(der(certificate)), der(certificate))
        (answer,) = await self.ask_all(asked, verified=verified)
        return answer

    async def ask_all(self, *asked, verified=True):
        numbers = range(self.handshakes, self.handshakes + len(asked))
        self.handshakes += len(asked)
        self.identities.on_look_up(
            [
                LookUp(number, identity, der, verified=verified)
                for number, (identity, der) in zip(numbers, asked, strict=True)
            ]
        )
        async with asyncio.timeout(5):
            while not all(number in self.transport.answers for number in numbers):
                await asyncio.sleep(0)
        return [self.transport.answers[number] for number in numbers]

    async def refusals(self):
        await self.log.close()
        found = [each for each in await self.store.events.after(0) if each.kind == "security.refused"]
        return [each.data["reason"] for each in found]


@pytest.fixture
async def desk():
    desk = Desk()
    yield desk
    await desk.identities.close()
    await desk.log.close()


async def test_a_known_identity_gets_its_key_and_stands_for_its_endpoint(desk):
    identity = await desk.psk()
    assert await desk.ask(identity) == (KEY,)
    assert await desk.endpoint_of(identity) == "meter-1"
    assert await desk.refusals() == []


async def test_an_unknown_one_gets_no_key_and_one_event(desk):
    assert await desk.ask("psk:nobody") == ()
    assert await desk.endpoint_of("psk:nobody") is None
    assert await desk.refusals() == ["unknown-identity"]


async def test_many_look_ups_are_one_read(desk, monkeypatch):
    identities = [await desk.psk(f"meter-{number}") for number in range(50)]
    reads = []
    read = desk.store.credentials.grants

    async def counted(wanted):
        reads.append(len(wanted))
        return await read(wanted)

    monkeypatch.setattr(desk.store.credentials, "grants", counted)
    assert await desk.ask_all(*((identity, b"") for identity in identities)) == [(KEY,)] * 50
    assert reads == [50]


async def test_both_keys_count_during_the_overlap_and_the_new_one_comes_first(desk):
    identity = await desk.psk()
    _, new = await desk.credentials.rotate(identity, Material(), overlap=60.0, actor="ann")
    assert desk.transport.heard == [("forget", identity)]
    assert await desk.ask(identity) == (new, KEY)
    desk.clock.advance(60.0)
    assert await desk.ask(identity) == (new,)
    desk.identities._tidy.wake()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await desk.store.credentials.get(identity)).previous is None, "it is erased, not only left out"
    assert desk.transport.heard[-1] == ("forget", identity), "the engine remembers it no longer either"


async def test_a_removed_credential_ends_at_once_everywhere(desk):
    identity = await desk.psk()
    assert await desk.endpoint_of(identity) == "meter-1"
    await desk.credentials.remove(identity, actor="ann")
    assert desk.transport.heard == [("revoke", identity)]
    assert await desk.endpoint_of(identity) is None
    assert await desk.ask(identity) == ()
    assert await desk.refusals() == ["revoked"]


async def test_a_revocation_during_a_look_up_wins(desk, monkeypatch):
    identity = await desk.psk()
    read = desk.store.credentials.grants
    overtaken = []

    async def slow(wanted):
        found = await read(wanted)
        if not overtaken:
            overtaken.append(True)
            await desk.credentials.remove(identity, actor="ann")
        return found

    monkeypatch.setattr(desk.store.credentials, "grants", slow)
    assert await desk.ask(identity) == ()


async def test_a_revocation_while_the_endpoint_is_looked_up_is_not_forgotten(desk, monkeypatch):
    identity = await desk.psk()
    read = desk.store.credentials.grants

    async def slow(wanted):
        found = await read(wanted)
        monkeypatch.undo()
        await desk.credentials.remove(identity, actor="ann")
        return found

    monkeypatch.setattr(desk.store.credentials, "grants", slow)
    await desk.endpoint_of(identity)
    assert await desk.endpoint_of(identity) is None


async def test_a_store_that_fails_refuses_nobody(desk, monkeypatch):
    identity = await desk.psk()

    async def fails(_):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store.credentials, "grants", fails)
        desk.identities.on_look_up([LookUp(100, identity)])
        for _ in range(5):
            await asyncio.sleep(0)
        assert desk.transport.answers == {}
    assert await desk.ask(identity) == (KEY,)
    assert desk.transport.answers[100] == (KEY,)


async def test_a_row_that_was_exchanged_with_anothers_gives_no_key(desk):
    one, other = await desk.psk("meter-1"), await desk.psk("meter-2")
    rows = desk.store.credentials._rows
    rows[one] = replace(rows[one], secret=rows[other].secret)
    assert await desk.ask(one) == ()
    assert await desk.refusals() == ["damaged-key"]


async def test_a_raw_public_key_is_taken_when_it_is_known(desk):
    known, stranger = public_key(), public_key()
    identity = await desk.add(Kind.RPK, public_key=known.hex())
    assert await desk.ask(identity, known) is True
    assert await desk.ask(identity_of_key(stranger), stranger) is False
    assert await desk.refusals() == ["unknown-identity"]


async def test_a_succeeded_key_counts_until_its_time_and_then_its_sessions_end(desk):
    first, second = public_key(), public_key()
    old = await desk.add(Kind.RPK, public_key=first.hex())
    new, _ = await desk.credentials.rotate(old, Material(public_key=second.hex()), overlap=60.0, actor="ann")
    assert [await desk.endpoint_of(each) for each in (old, new.identity)] == ["meter-1"] * 2
    assert await desk.ask_all((old, first), (new.identity, second)) == [True, True]
    desk.clock.advance(60.0)
    assert await desk.endpoint_of(old) is None, "also from memory"
    assert await desk.ask(old, first) is False
    await desk.identities._end_overdue()
    assert ("revoke", old) in desk.transport.heard
    assert (await desk.store.credentials.get(old)).revoked_at == NOW + 60.0
    assert await desk.ask(old, first) is False
    assert set(await desk.refusals()) == {"expired"}
    assert await desk.endpoint_of(new.identity) == "meter-1"


async def test_a_certificate_of_an_authority_stands_for_the_name_that_its_rule_finds(desk):
    issuer = Issuer()
    authority = await desk.authority(issuer, Source.URI, "urn:imei:{endpoint}")
    certificate = issuer.issue("other", uri=["urn:imei:490154203237518"])
    identity = identity_of_certificate(der(certificate))
    assert await desk.ask_certificate(certificate) is True
    assert await desk.endpoint_of(identity) == "490154203237518"
    noted = await desk.store.credentials.get(identity)
    assert (noted.authority, noted.created_by) == (authority.id, "authority")
    assert await desk.ask_certificate(certificate) is True, "now it is known"


@pytest.mark.parametrize(
    ("source", "pattern", "names", "reason"),
    [
        (Source.CN, "dev-{endpoint}", {"cn": ["meter"]}, "no-rule-matches"),
        (Source.CN, "{endpoint}", {"uri": ["urn:x"]}, "no-rule-matches"),
        (Source.DNS, "{endpoint}.a.example", {"dns": ["m1.a.example", "m2.a.example"]}, "ambiguous-names"),
        (Source.CN, "{endpoint}", {"cn": ["a", "b"]}, "ambiguous-names"),
        (Source.CN, "{endpoint}", {"cn": ["a\nb"]}, "bad-endpoint-name"),
        (Source.NONE, "", {"cn": ["meter"]}, "unknown-identity"),
    ],
)
async def test_a_certificate_whose_names_do_not_fit_is_refused(desk, source, pattern, names, reason):
    issuer = Issuer()
    await desk.authority(issuer, source, pattern)
    certificate = issuer.issue(*names.get("cn", ()), dns=names.get("dns", ()), uri=names.get("uri", ()))
    assert await desk.ask_certificate(certificate) is False
    assert await desk.refusals() == [reason]
    assert (await desk.store.credentials.page()).items == ()


async def test_a_foreign_authority_counts_nothing_even_under_the_same_name(desk):
    trusted, foreign = Issuer("same name"), Issuer("same name")
    await desk.authority(trusted)
    assert await desk.ask_certificate(foreign.issue("meter-1")) is False
    assert await desk.ask("x509:" + "ab" * 32, b"no certificate") is False
    assert await desk.refusals() == ["foreign-authority", "bad-certificate"]


async def test_a_session_that_is_not_resumed_is_no_event(desk):
    known, stranger = public_key(), public_key()
    identity = await desk.add(Kind.RPK, public_key=known.hex())
    assert await desk.ask(identity, b"") is True
    assert await desk.ask(identity_of_key(stranger), b"") is False
    assert await desk.ask("x509:" + "ab" * 32, b"") is False
    assert await desk.refusals() == []


async def test_a_known_fingerprint_needs_no_rule(desk):
    issuer = Issuer()
    await desk.authority(issuer, Source.NONE, "")
    certificate = issuer.issue("anything")
    await desk.add(Kind.X509, identity=identity_of_certificate(der(certificate)))
    assert await desk.ask_certificate(certificate) is True


async def test_without_a_path_a_certificate_counts_by_its_own_fingerprint_alone(desk):
    issuer = Issuer()
    pinned, other = issuer.issue("meter-1"), issuer.issue("meter-2")
    identity = await desk.add(Kind.X509, identity=identity_of_certificate(der(pinned)))
    assert await desk.ask_certificate(pinned, verified=False) is True
    assert await desk.endpoint_of(identity) == "meter-1"
    assert await desk.ask_certificate(other, verified=False) is False
    await desk.credentials.remove(identity, actor="ann")
    assert await desk.ask_certificate(pinned, verified=False) is False
    assert await desk.refusals() == ["unknown-authority", "revoked"]


async def test_an_authoritys_rule_never_applies_without_a_path(desk):
    issuer = Issuer()
    await desk.authority(issuer)
    new, noted = issuer.issue("meter-1"), issuer.issue("meter-2")
    assert await desk.ask_certificate(noted) is True, "the rule has made it a credential"
    for certificate in (new, noted):
        assert await desk.ask_certificate(certificate, verified=False) is False
    assert await desk.store.credentials.get(identity_of_certificate(der(new))) is None
    await desk.log.close()
    refused = [each for each in await desk.store.events.after(0) if each.kind == "security.refused"]
    assert [(each.data["reason"], each.data["identity"]) for each in refused] == [
        ("unknown-authority", identity_of_certificate(der(each))) for each in (new, noted)
    ]


async def test_what_an_authority_vouched_for_goes_with_it(desk):
    issuer = Issuer()
    authority = await desk.authority(issuer)
    certificate = issuer.issue("meter-1")
    identity = identity_of_certificate(der(certificate))
    await desk.ask_certificate(certificate)
    assert await desk.endpoint_of(identity) == "meter-1"
    assert await desk.identities.trust() == (authority.certificate,)
    await desk.credentials.remove_authority(authority.id, actor="ann")
    assert desk.transport.heard == [("revoke", identity)]
    assert (desk.trusts, await desk.identities.trust()) == (2, ())
    assert await desk.endpoint_of(identity) is None
    assert await desk.ask_certificate(certificate) is False
    assert await desk.refusals() == ["foreign-authority"]


async def test_an_authority_that_is_removed_meanwhile_vouches_for_nobody(desk, monkeypatch):
    issuer = Issuer()
    authority = await desk.authority(issuer)
    add = desk.store.credentials.add_many

    async def slow(rows):
        monkeypatch.undo()
        await desk.credentials.remove_authority(authority.id, actor="ann")
        return await add(rows)

    monkeypatch.setattr(desk.store.credentials, "add_many", slow)
    certificate = issuer.issue("meter-1")
    assert await desk.ask_certificate(certificate) is False
    assert await desk.endpoint_of(identity_of_certificate(der(certificate))) is None


async def test_one_certificate_of_an_authority_can_be_removed_for_good(desk):
    issuer = Issuer()
    await desk.authority(issuer)
    certificate = issuer.issue("meter-1")
    await desk.ask_certificate(certificate)
    await desk.credentials.remove(identity_of_certificate(der(certificate)), actor="ann")
    assert await desk.ask_certificate(certificate) is False
    assert await desk.refusals() == ["revoked"]


async def test_an_expired_certificate_of_an_authority_is_forgotten(desk):
    issuer = Issuer()
    await desk.authority(issuer)
    certificate = issuer.issue("meter-1", ends=datetime.fromtimestamp(NOW + 60, UTC))
    identity = identity_of_certificate(der(certificate))
    await desk.ask_certificate(certificate)
    desk.clock.advance(60.0)
    assert await desk.endpoint_of(identity) is None
    await desk.identities._end_overdue()
    assert await desk.store.credentials.get(identity) is None
    assert ("revoke", identity) in desk.transport.heard


async def test_the_memory_of_endpoints_is_bounded(desk, monkeypatch):
    monkeypatch.setattr("lwm2m_server.services.identities.MAX_CACHED", 3)
    identities = [await desk.psk(f"meter-{number}") for number in range(6)]
    for identity in identities:
        await desk.endpoint_of(identity)
    assert list(desk.identities._cache) == identities[3:]


async def test_a_flood_of_look_ups_is_bounded_by_the_newest(desk, monkeypatch):
    monkeypatch.setattr("lwm2m_server.services.identities.MAX_WAITING", 10)
    desk.identities.on_look_up([LookUp(number, "psk:x") for number in range(100)])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert set(desk.transport.answers) == set(range(90, 100))


async def test_a_foreign_name_is_an_event_of_that_device(desk):
    desk.identities.foreign(LookUp(0, "psk:thief"), "meter-1")
    await desk.log.close()
    (event,) = await desk.store.events.after(0)
    assert (event.kind, event.endpoint) == ("security.refused", "meter-1")
    assert (event.data["reason"], event.data["identity"]) == ("endpoint-not-allowed", "psk:thief")


async def test_the_register_after_a_handshake_asks_the_store_no_more(desk, monkeypatch):
    identity = await desk.psk()
    assert await desk.ask(identity) == (KEY,)
    monkeypatch.setattr(desk.store.credentials, "get", None)
    assert await desk.endpoint_of(identity) == "meter-1"
