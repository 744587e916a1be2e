"""Credentials: who may have which identity, what rotation leaves valid, and that keys stay secret."""

import hashlib
from datetime import UTC, datetime

import pytest

from certificates import Issuer, der, pem, public_key
from lwm2m_server.clock import ManualClock
from lwm2m_server.devices.identities import Kind, Source
from lwm2m_server.errors import Conflict, InvalidInput, NotFound
from lwm2m_server.services.credential_input import Material
from lwm2m_server.services.credentials import CredentialService
from lwm2m_server.services.sealing import Sealer
from lwm2m_server.store.memory import MemoryStore

NOW = 1_800_000_000.0
KEY = "00112233445566778899aabbccddeeff"
OTHER = "ff112233445566778899aabbccddeeff"


class Live:
    def __init__(self):
        self.heard = []

    def revoke(self, identity):
        self.heard.append(("revoke", identity))

    def rotated(self, identity):
        self.heard.append(("rotated", identity))

    def trust_changed(self):
        self.heard.append("trust")


class Desk:
    def __init__(self):
        self.store = MemoryStore()
        self.clock = ManualClock(NOW)
        self.sealer = Sealer(bytes(32))
        self.live = Live()
        self.service = CredentialService(self.store, self.clock, self.sealer, self.live)

    async def add(self, kind, endpoint="meter-1", **material):
        return await self.service.add(kind, endpoint, Material(**material), actor="ann")

    async def rotate(self, identity, /, overlap=60.0, **material):
        return await self.service.rotate(identity, Material(**material), overlap=overlap, actor="bob")

    async def key(self, identity):
        row = await self.store.credentials.get(identity)
        return self.sealer.open(row.secret, identity)

    async def kinds(self):
        return [event.kind for event in await self.store.events.after(0)]


@pytest.fixture
def desk():
    return Desk()


async def test_a_key_that_is_made_here_comes_back_once_and_is_sealed(desk):
    added, key = await desk.add(Kind.PSK)
    assert (added.identity, added.endpoint, len(key)) == ("psk:meter-1", "meter-1", 16)
    assert await desk.key("psk:meter-1") == key
    assert key not in added.secret
    _, other = await desk.add(Kind.PSK, endpoint="meter-2")
    assert other != key
    (event, _) = await desk.store.events.after(0)
    assert (event.kind, event.endpoint, event.data["by"]) == ("credential.added", "meter-1", "ann")
    assert key.hex() not in repr(event)


async def test_a_key_that_is_given_does_not_come_back(desk):
    added, key = await desk.add(Kind.PSK, identity="psk:a%00b", key=KEY)
    assert (added.identity, key) == ("psk:a%00b", None)
    assert await desk.key(added.identity) == bytes.fromhex(KEY)
    assert KEY not in repr(Material(key=KEY))


async def test_public_keys_and_certificates_are_known_by_their_digest_in_every_spelling(desk):
    spki = public_key()
    certificate = Issuer().issue("meter-1")
    rpk, _ = await desk.add(Kind.RPK, public_key=spki.hex())
    assert rpk.identity == "rpk:" + hashlib.sha256(spki).hexdigest()
    x509, _ = await desk.add(Kind.X509, certificate=pem(certificate))
    assert x509.identity == "x509:" + hashlib.sha256(der(certificate)).hexdigest()
    assert x509.public == der(certificate)
    by_digest, _ = await desk.add(Kind.X509, identity="x509:" + "AB" * 32)
    assert by_digest.identity == "x509:" + "ab" * 32
    listed = await desk.service.page(endpoint="meter-1")
    assert {row.kind for row in listed.items} == {"rpk", "x509"}


@pytest.mark.parametrize(
    ("kind", "material", "field"),
    [
        (Kind.PSK, {"key": "zz"}, "key"),
        (Kind.PSK, {"key": "00" * 65}, "key"),
        (Kind.PSK, {"identity": "%"}, "identity"),
        (Kind.PSK, {"public_key": "00"}, "public_key"),
        (Kind.RPK, {}, "public_key"),
        (Kind.RPK, {"public_key": "!"}, "public_key"),
        (Kind.RPK, {"public_key": "0000"}, "public_key"),
        (Kind.RPK, {"key": KEY}, "key"),
        (Kind.RPK, {"identity": "x509:" + "ab" * 32}, "identity"),
        (Kind.RPK, {"public_key": "-----BEGIN PRIVATE KEY-----"}, "public_key"),
        (
            Kind.X509,
            {"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"},
            "certificate",
        ),
        (Kind.X509, {"certificate": "00"}, "certificate"),
        (Kind.X509, {"identity": "x509:1"}, "identity"),
    ],
)
async def test_what_can_not_be_used_names_its_field_and_adds_nothing(desk, kind, material, field):
    with pytest.raises(InvalidInput) as caught:
        await desk.add(kind, **material)
    assert caught.value.field == field
    assert caught.value.hint
    assert material.get("key", "-") not in caught.value.message
    assert (await desk.service.page(revoked=True)).items == ()


async def test_an_identity_that_does_not_fit_what_was_given_is_refused(desk):
    with pytest.raises(InvalidInput, match="not the SHA-256"):
        await desk.add(Kind.RPK, identity="rpk:" + "ab" * 32, public_key=public_key().hex())
    expired = Issuer().issue("m", ends=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidInput, match="expired"):
        await desk.add(Kind.X509, certificate=pem(expired))
    with pytest.raises(InvalidInput) as caught:
        await desk.add(Kind.PSK, endpoint="a\nb")
    assert caught.value.field == "endpoint"


async def test_an_identity_belongs_to_one_endpoint_until_it_is_removed(desk):
    await desk.add(Kind.PSK, identity="shared", key=KEY)
    with pytest.raises(Conflict) as caught:
        await desk.add(Kind.PSK, endpoint="meter-2", identity="shared", key=KEY)
    assert caught.value.code == "identity-taken"
    await desk.service.remove("psk:shared", actor="ann")
    added, _ = await desk.add(Kind.PSK, endpoint="meter-2", identity="shared", key=KEY)
    assert (added.endpoint, added.revoked_at) == ("meter-2", None)


async def test_a_rotated_key_counts_at_once_and_the_former_one_until_its_time(desk):
    await desk.add(Kind.PSK, key=KEY)
    rotated, key = await desk.rotate("psk:meter-1", overlap=60.0)
    assert rotated.previous_until == NOW + 60.0
    assert await desk.key("psk:meter-1") == key
    assert desk.sealer.open(rotated.previous, rotated.identity) == bytes.fromhex(KEY)
    assert desk.live.heard == [("rotated", "psk:meter-1")]
    assert await desk.kinds() == ["credential.added", "credential.rotated"]


async def test_without_overlap_nothing_of_the_former_key_is_left(desk):
    await desk.add(Kind.PSK, key=KEY)
    rotated, _ = await desk.rotate("psk:meter-1", overlap=0.0, key=OTHER)
    assert (rotated.previous, rotated.previous_until) == (None, None)
    assert desk.live.heard == [("revoke", "psk:meter-1")]
    with pytest.raises(Conflict):
        await desk.rotate("psk:meter-1", key=OTHER)


async def test_a_public_key_is_succeeded_by_another_for_the_same_endpoint(desk):
    old, _ = await desk.add(Kind.RPK, public_key=public_key().hex())
    new, _ = await desk.rotate(old.identity, public_key=public_key().hex())
    assert (new.endpoint, new.expires_at) == ("meter-1", None)
    assert (await desk.service.get(old.identity)).expires_at == NOW + 60.0
    with pytest.raises(Conflict):
        await desk.rotate(new.identity, identity=new.identity)
    newest, _ = await desk.rotate(new.identity, overlap=0.0, public_key=public_key().hex())
    assert (await desk.service.get(new.identity)).revoked_at == NOW
    assert desk.live.heard == [("rotated", old.identity), ("revoke", new.identity)]
    assert newest.revoked_at is None


async def test_what_has_ended_is_not_rotated_and_ranges_hold(desk):
    await desk.add(Kind.PSK, key=KEY)
    for overlap in (-1.0, 1e9, float("nan")):
        with pytest.raises(InvalidInput):
            await desk.rotate("psk:meter-1", overlap=overlap)
    await desk.service.remove("psk:meter-1", actor="ann")
    with pytest.raises(Conflict):
        await desk.rotate("psk:meter-1")
    with pytest.raises(NotFound):
        await desk.rotate("psk:nobody")


async def test_removing_erases_the_key_and_ends_sessions_each_time(desk):
    await desk.add(Kind.PSK, key=KEY)
    await desk.rotate("psk:meter-1")
    desk.live.heard.clear()
    for _ in range(2):
        await desk.service.remove("psk:meter-1", actor="ann")
    left = await desk.service.get("psk:meter-1")
    assert (left.secret, left.previous, left.revoked_at) == (None, None, NOW)
    assert desk.live.heard == [("revoke", "psk:meter-1")] * 2
    assert (await desk.kinds()).count("credential.removed") == 1
    assert (await desk.service.page()).items == ()


async def test_an_edit_on_an_old_reading_is_refused(desk, monkeypatch):
    await desk.add(Kind.PSK, key=KEY)

    async def changes_nothing(*_, **__):
        return False

    monkeypatch.setattr(desk.store.credentials, "change", changes_nothing)
    for call in (desk.rotate("psk:meter-1"), desk.service.remove("psk:meter-1", actor="ann")):
        with pytest.raises(Conflict) as caught:
            await call
        assert caught.value.code == "stale"
    assert desk.live.heard == []


async def authority(desk, issuer, source=Source.CN, pattern="{endpoint}", name="factory"):
    return await desk.service.add_authority(
        issuer.pem, name=name, source=source, pattern=pattern, actor="ann"
    )


async def test_an_authority_is_trusted_once_with_one_rule(desk):
    issuer = Issuer()
    added, new = await authority(desk, issuer)
    assert new
    assert added.id == hashlib.sha256(der(issuer.certificate)).hexdigest()
    assert await authority(desk, issuer) == (added, False)
    with pytest.raises(Conflict):
        await authority(desk, issuer, Source.URI)
    assert await desk.service.authorities() == (added,)
    assert desk.live.heard == ["trust"]
    await desk.service.remove_authority(added.id, actor="ann")
    assert await desk.service.authorities() == ()
    with pytest.raises(NotFound):
        await desk.service.remove_authority(added.id, actor="ann")
    assert await desk.kinds() == ["authority.added", "authority.removed"]


async def test_who_may_not_issue_is_no_authority(desk):
    issuer = Issuer()
    for certificate, match in (
        (pem(issuer.issue("meter-1")), "not that of an authority"),
        (Issuer(ends=datetime(2020, 1, 1, tzinfo=UTC)).pem, "expired"),
        ("00", "not a certificate"),
    ):
        with pytest.raises(InvalidInput, match=match) as caught:
            await desk.service.add_authority(
                certificate, name="x", source=Source.CN, pattern="{endpoint}", actor="ann"
            )
        assert caught.value.field == "certificate"
    with pytest.raises(InvalidInput) as caught:
        await authority(desk, issuer, name=" ")
    assert caught.value.field == "name"
    assert desk.live.heard == []
