"""Who may sign what for the server: roles, validity, second signatures, approval; what a manifest must not be."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.releases import CLASS, VENDOR, image_of
from lwm2m_server.clock import ManualClock
from lwm2m_server.errors import Conflict, InvalidInput, Lwm2mError, NotFound
from lwm2m_server.firmware.build import ComponentDescription, ManifestDescription, build_manifest
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.firmware.keys import KeyType, SigningKey
from lwm2m_server.services.checks import still_stands
from lwm2m_server.services.releases import ReleaseService
from lwm2m_server.store import FileStore
from lwm2m_server.store.memory import MemoryStore
from memory.world import chunks

MAIN, MODEM = image_of("2.0.0", 3000), image_of("5.1.0", 2000, seed=2)
AUTHOR, OPERATOR, SECOND = (
    SigningKey.generate(),
    SigningKey.generate(),
    SigningKey.generate(KeyType.ML_DSA_44),
)
DAY = 86400.0


def digest(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()


DESCRIPTION = ManifestDescription(
    vendor_domain=VENDOR,
    class_name=CLASS,
    version="2.0.0",
    sequence_number=7,
    image_digest=digest(MAIN),
    image_size=len(MAIN),
    image_uri="/fw/main",
    manufacturer="Acme",
    model="M1",
)
TWO = replace(
    DESCRIPTION,
    further=(
        ComponentDescription(
            component=(b"\x01",), digest=digest(MODEM), size=len(MODEM), uri="/fw/modem", version="5.1.0"
        ),
    ),
)


def made(description: ManifestDescription = DESCRIPTION, *keys: SigningKey) -> bytes:
    envelope = build_manifest(description)
    for key in keys or (AUTHOR,):
        envelope = sign(envelope, key)
    return envelope


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.files = FileStore(folder, max_file=100_000)
        self.clock = ManualClock()
        self.releases = ReleaseService(self.store, self.files, self.clock)

    async def trust(self, key: SigningKey, **options: Any) -> str:
        name = key.key_type.value
        return (await self.releases.add_key(key.public.pem(), name=name, actor="ann", **options))[0].key_id

    async def add(self, envelope: bytes) -> Any:
        return (await self.releases.add_manifest(envelope, actor="ann"))[0]

    async def code(self, envelope: bytes) -> str:
        before = (await self.files.digests(), await self.store.events.last_id())
        with pytest.raises(Lwm2mError) as caught:
            await self.add(envelope)
        assert (await self.files.digests(), await self.store.events.last_id()) == before
        assert caught.value.field
        return str(caught.value.code)


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "blobs")
    await bench.files.open()
    for image in (MAIN, MODEM):
        await bench.releases.add_image(chunks(image, 1000), name="image.bin", actor="ann")
    return bench


@pytest.mark.protection("server", "key-time")
async def test_a_key_counts_from_its_first_moment_until_before_its_last(bench: Bench) -> None:
    now = bench.clock.now()
    await bench.trust(AUTHOR, not_before=now + DAY, not_after=now + 2 * DAY)
    assert await bench.code(made()) == "key-not-yet-valid"
    bench.clock.advance(DAY)
    manifest = await bench.add(made())
    bench.clock.advance(DAY)
    assert await bench.code(made(replace(DESCRIPTION, sequence_number=8))) == "key-expired"
    keys = await bench.store.trust.all(revoked=True)
    stands = still_stands(manifest, keys, bench.clock.now())
    assert stands is not None
    assert stands.reason == "key-expired"


@pytest.mark.protection("server", "revoked-key")
async def test_a_revoked_key_ends_what_it_signed_also_after_it_was_accepted(bench: Bench) -> None:
    key_id = await bench.trust(AUTHOR)
    manifest = await bench.add(made())
    assert still_stands(manifest, await bench.store.trust.all(revoked=True), bench.clock.now()) is None
    await bench.releases.remove_key(key_id, actor="ann")
    stands = still_stands(manifest, await bench.store.trust.all(revoked=True), bench.clock.now())
    assert stands is not None
    assert stands.reason == "key-revoked"


@pytest.mark.protection("server", "key-role")
async def test_only_an_image_author_makes_a_manifest_acceptable(bench: Bench) -> None:
    await bench.trust(AUTHOR, roles=["operator-approval"])
    assert await bench.code(made()) == "role-mismatch"


@pytest.mark.protection("server", "second-signature")
async def test_a_second_signature_that_the_policy_asks_for_must_be_there(bench: Bench) -> None:
    await bench.trust(AUTHOR, requires="ml-dsa-44")
    assert await bench.code(made()) == "second-signature"
    assert await bench.code(made(DESCRIPTION, AUTHOR, SECOND)) == "second-signature", "a stranger's"
    await bench.trust(SECOND)
    manifest = await bench.add(made(DESCRIPTION, AUTHOR, SECOND))
    assert manifest.data["signers"] == [key.public.key_id.hex() for key in (AUTHOR, SECOND)]


@pytest.mark.protection("server", "downgrade")
async def test_going_back_to_an_older_version_takes_an_operators_signature(bench: Bench) -> None:
    await bench.trust(AUTHOR, roles=["image-author", "operator-approval"])
    back = replace(DESCRIPTION, downgrade=True)
    assert await bench.code(made(back)) == "not-approved", "the author can't approve by the same signature"
    assert await bench.code(made(back, AUTHOR, OPERATOR)) == "not-approved", "a stranger's"
    await bench.trust(OPERATOR, roles=["operator-approval"])
    manifest = await bench.add(made(back, AUTHOR, OPERATOR))
    assert (manifest.data["downgrade"], manifest.data["approver"]) == (True, OPERATOR.public.key_id.hex())


@pytest.mark.protection("server", "expired")
async def test_a_manifest_whose_time_is_over_is_neither_taken_nor_offered(bench: Bench) -> None:
    await bench.trust(AUTHOR)
    until = int(bench.clock.now() + DAY)
    manifest = await bench.add(made(replace(DESCRIPTION, use_before=until)))
    bench.clock.advance(DAY)
    assert await bench.code(made(replace(DESCRIPTION, use_before=until, sequence_number=8))) == "expired"
    stands = still_stands(manifest, await bench.store.trust.all(revoked=True), bench.clock.now())
    assert stands is not None
    assert stands.reason == "expired"


@pytest.mark.protection("server", "sequence")
async def test_sequence_numbers_of_a_class_go_up(bench: Bench) -> None:
    await bench.trust(AUTHOR)
    manifest = await bench.add(made())
    again = await bench.add(made())
    assert again.id != manifest.id, "the same manifest under another signature"
    await bench.releases.remove_manifest(again.id, actor="ann")
    for sequence in (6, 7):
        other = replace(DESCRIPTION, sequence_number=sequence, version="2.0.1")
        assert await bench.code(made(other)) == "sequence-rollback"
    await bench.add(made(replace(DESCRIPTION, sequence_number=6, class_name="other")))
    await bench.releases.remove_manifest(manifest.id, actor="ann")
    await bench.add(made(replace(DESCRIPTION, sequence_number=6)))


@pytest.mark.protection("server", "changed-image")
async def test_every_component_needs_its_image_here(bench: Bench) -> None:
    await bench.trust(AUTHOR)
    manifest = await bench.add(made(TWO))
    assert [entry["version"] for entry in manifest.data["components"]] == ["2.0.0", "5.1.0"]
    assert manifest.further_images == (digest(MODEM),)
    with pytest.raises(Conflict):
        await bench.releases.remove_image(digest(MODEM).hex(), actor="ann")
    (modem,) = TWO.further
    for wrong, code in (
        (replace(modem, digest=bytes(32)), "digest-mismatch"),
        (replace(modem, size=1), "size-mismatch"),
    ):
        assert await bench.code(made(replace(TWO, sequence_number=9, further=(wrong,)))) == code


async def test_validity_ends_the_old_key_of_a_rotation(bench: Bench) -> None:
    key_id = await bench.trust(AUTHOR)
    changed = await bench.releases.change_key(key_id, {"not_after": bench.clock.now()}, actor="ann")
    assert changed.not_after == bench.clock.now()
    assert await bench.code(made()) == "key-expired"
    await bench.releases.change_key(key_id, {"not_after": None}, actor="ann")
    await bench.add(made())
    await bench.releases.remove_key(key_id, actor="ann")
    with pytest.raises(Conflict):
        await bench.releases.change_key(key_id, {"name": "x"}, actor="ann")
    with pytest.raises(NotFound):
        await bench.releases.change_key("00", {"name": "x"}, actor="ann")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"roles": []}, "roles"),
        ({"roles": ["boss"]}, "roles"),
        ({"not_before": 5.0, "not_after": 5.0}, "not_after"),
        ({"requires": "rot13"}, "requires"),
        ({"requires": "ml-dsa-44", "roles": ["operator-approval"]}, "requires"),
    ],
)
async def test_a_policy_that_makes_no_sense_is_refused(
    bench: Bench, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await bench.trust(AUTHOR, **options)
    assert caught.value.field == field
    assert await bench.releases.keys() == ()
