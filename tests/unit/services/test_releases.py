"""What gets in: images, keys and manifests, each whole or not at all, and refusals that say why."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.releases import Release, Signer, image_of
from lwm2m_server.clock import ManualClock
from lwm2m_server.errors import Conflict, InvalidInput, Lwm2mError, NotFound, Untrusted
from lwm2m_server.services.campaigns import CampaignDraft, CampaignService
from lwm2m_server.services.releases import MAX_ENVELOPE, ReleaseService
from lwm2m_server.store import FileStore
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.memory import MemoryStore
from memory.world import chunks

IMAGE = image_of("2.0.0", 5000)
DIGEST = hashlib.sha256(IMAGE).hexdigest()


class Bench:
    """A release service, its store and files, and a signer that is trusted."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.files = FileStore(folder, max_file=100_000)
        self.releases = ReleaseService(self.store, self.files, ManualClock())
        self.signer = Signer()

    async def image(self, content: bytes = IMAGE, **options: Any) -> tuple[Any, bool]:
        options = {"name": "image.bin", "actor": "ann", **options}
        return await self.releases.add_image(chunks(content, 1000), **options)

    async def trust(self, signer: Signer | None = None) -> str:
        key, _ = await self.releases.add_key((signer or self.signer).public, name="release", actor="ann")
        return key.key_id

    def release(self, image: bytes = IMAGE, **options: Any) -> Release:
        return self.signer.release("2.0.0", image, **options)

    async def contents(self) -> tuple[object, ...]:
        """Return all that is stored, to see that nothing changed."""
        return (
            await self.files.digests(),
            (await self.store.images.page()).items,
            (await self.store.manifests.page()).items,
            await self.store.trust.all(revoked=True),
            await self.store.events.last_id(),
        )


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "blobs")
    await bench.files.open()
    return bench


async def refused(bench: Bench, work: Any, kind: type[Lwm2mError] = Lwm2mError) -> Lwm2mError:
    """Await something that must be refused without a trace."""
    before = await bench.contents()
    with pytest.raises(kind) as caught:
        await work
    assert await bench.contents() == before
    return caught.value


def fails(*_: object, **__: object) -> Any:
    raise StoreError("the disk is full")


# images


async def test_an_image_is_stored_under_its_digest(bench: Bench) -> None:
    image, new = await bench.image()
    assert new
    assert (image.digest.hex(), image.size, image.version) == (DIGEST, 5000, "2.0.0")
    assert bench.files.path(image.digest).read_bytes() == IMAGE
    again, new = await bench.image(name="other name")
    assert not new
    assert again == image
    assert len(await bench.files.digests()) == 1


async def test_the_version_that_is_given_counts_where_the_image_names_none(bench: Bench) -> None:
    image, _ = await bench.image(b"no line", version="3.1.4")
    assert image.version == "3.1.4"
    with pytest.raises(Conflict) as caught:
        await bench.image(b"no line", version="3.1.5")
    assert (caught.value.code, caught.value.field) == ("version-mismatch", "version")


@pytest.mark.parametrize(
    ("content", "options", "field", "code"),
    [
        (b"", {}, "image", "empty"),
        (b"x" * 100_001, {}, "file", "too-large"),
        (IMAGE, {"version": "not a version"}, "version", "invalid-version"),
        (IMAGE, {"version": "2.0.1"}, "version", "version-mismatch"),
        (b":020000040000FA\n:00000001FF\n", {}, "image", "image-container"),
        (IMAGE, {"name": ""}, "name", "invalid"),
        (IMAGE, {"name": "a\x00b"}, "name", "invalid"),
        (IMAGE, {"name": "x" * 201}, "name", "invalid"),
    ],
)
async def test_a_bad_image_is_refused_with_its_field_and_nothing_is_kept(
    bench: Bench, content: bytes, options: dict[str, str], field: str, code: str
) -> None:
    error = await refused(bench, bench.image(content, **options), InvalidInput)
    assert (error.field, error.code) == (field, code)


@pytest.mark.protection("server", "half-image")
async def test_an_upload_that_breaks_off_leaves_nothing(bench: Bench) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise EOFError("gone")

    before = await bench.contents()
    with pytest.raises(EOFError):
        await bench.releases.add_image(broken(), name="image.bin", actor="ann")
    assert await bench.contents() == before
    assert bench.files.used == 0


async def test_an_image_that_cant_be_described_is_not_kept_as_a_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bench.store.images, "add", fails)
        await refused(bench, bench.image(), StoreError)
    assert bench.files.used == 0
    assert (await bench.image())[1]


async def test_a_failure_does_not_take_the_file_of_an_image_that_was_there_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _ = await bench.image()
    monkeypatch.setattr(bench.store.images, "add", fails)
    await refused(bench, bench.image(), StoreError)
    assert bench.files.path(image.digest).is_file()


@pytest.mark.parametrize("text", [DIGEST, DIGEST.upper(), f"sha256:{DIGEST}", DIGEST[:8], f" {DIGEST[:4]} "])
async def test_an_image_is_found_by_its_digest_or_the_beginning(bench: Bench, text: str) -> None:
    await bench.image()
    assert (await bench.releases.image(text)).digest.hex() == DIGEST


async def test_a_beginning_that_fits_two_images_names_none(bench: Bench) -> None:
    first: dict[str, bytes] = {}
    number = 0
    while True:
        content = f"firmware-version: 1.0.{number}\n".encode()
        beginning = hashlib.sha256(content).hexdigest()[:4]
        if beginning in first:
            break
        first[beginning] = content
        number += 1
    await bench.image(content)
    await bench.image(first[beginning])
    error = await refused(bench, bench.releases.image(beginning), InvalidInput)
    assert error.code == "ambiguous"


@pytest.mark.parametrize("text", ["", "xyz", "abc", "g" * 64, "a" * 65, "../../etc"])
async def test_what_is_no_digest_is_refused(bench: Bench, text: str) -> None:
    assert (await refused(bench, bench.releases.image(text), InvalidInput)).field == "image"
    assert (await refused(bench, bench.releases.manifest(text), InvalidInput)).field == "manifest"


async def test_what_is_not_there_is_not_found(bench: Bench) -> None:
    for text in ("ffff", "0000", "f" * 64, "0" * 64):
        await refused(bench, bench.releases.image(text), NotFound)
        await refused(bench, bench.releases.manifest(text), NotFound)


async def test_an_image_goes_with_its_file_unless_a_manifest_names_it(bench: Bench) -> None:
    await bench.image()
    await bench.trust()
    manifest, _ = await bench.releases.add_manifest(bench.release().envelope, actor="ann")
    error = await refused(bench, bench.releases.remove_image(DIGEST, actor="ann"), Conflict)
    assert error.hint
    await bench.releases.remove_manifest(manifest.id, actor="ann")
    await bench.releases.remove_image(DIGEST, actor="ann")
    assert await bench.files.digests() == []
    assert bench.files.used == 0


# keys


@pytest.mark.protection("server", "private-key")
async def test_a_key_is_trusted_once_and_a_private_one_never(bench: Bench) -> None:
    key, new = await bench.releases.add_key(bench.signer.public, name="release", actor="ann")
    assert new
    assert not (await bench.releases.add_key(bench.signer.public, name="other", actor="ann"))[1]
    assert await bench.releases.keys() == (key,)
    private = bench.signer.key.pem()
    error = await refused(bench, bench.releases.add_key(private, name="oops", actor="ann"), InvalidInput)
    assert private.decode() not in error.message + (error.hint or "")


@pytest.mark.parametrize(
    "document", [b"", b"\xff\x00", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
async def test_what_is_no_key_is_refused(bench: Bench, document: bytes) -> None:
    await refused(bench, bench.releases.add_key(document, name="k", actor="ann"), InvalidInput)


@pytest.mark.protection("server", "revoked-key")
async def test_a_revoked_key_verifies_nothing_and_stays_revoked(bench: Bench) -> None:
    await bench.image()
    key_id = await bench.trust()
    await bench.releases.remove_key(key_id, actor="ann")
    await bench.releases.remove_key(key_id.upper(), actor="ann")
    assert await bench.releases.keys() == ()
    assert len(await bench.releases.keys(revoked=True)) == 1
    again = bench.releases.add_key(bench.signer.public, name="again", actor="ann")
    assert (await refused(bench, again, Conflict)).code == "revoked"
    added = bench.releases.add_manifest(bench.release().envelope, actor="ann")
    assert (await refused(bench, added, Untrusted)).code == "key-revoked"
    with pytest.raises(NotFound):
        await bench.releases.remove_key("ab" * 8, actor="ann")


# manifests


async def test_a_manifest_is_stored_with_what_it_says(bench: Bench) -> None:
    await bench.image()
    await bench.trust()
    release = bench.release(sequence=7)
    manifest, new = await bench.releases.add_manifest(release.envelope, actor="ann")
    assert new
    assert (manifest.version, manifest.sequence, manifest.image_size) == ("2.0.0", 7, 5000)
    assert (manifest.manufacturer, manifest.model) == ("Acme", "M1")
    assert manifest.image_digest.hex() == DIGEST
    assert manifest.id == hashlib.sha256(release.envelope).hexdigest()
    assert manifest.envelope == release.envelope
    assert bench.files.path(bytes.fromhex(manifest.id)).read_bytes() == release.envelope
    assert (await bench.releases.add_manifest(release.envelope, actor="bob")) == (manifest, False)
    assert await bench.releases.manifest(manifest.id[:10]) == manifest


@pytest.mark.protection("server", "unknown-signer")
async def test_a_manifest_that_nobody_trusted_signed(bench: Bench) -> None:
    await bench.image()
    nobody = bench.releases.add_manifest(bench.release().envelope, actor="ann")
    assert (await refused(bench, nobody, Untrusted)).code == "unknown-key"
    await bench.trust(Signer())
    other = bench.releases.add_manifest(bench.release().envelope, actor="ann")
    assert (await refused(bench, other, Untrusted)).code == "unknown-key"


@pytest.mark.protection("server", "changed-manifest")
async def test_a_manifest_with_a_bit_altered_is_refused_wherever_the_bit_is(bench: Bench) -> None:
    await bench.image()
    await bench.trust()
    envelope = bench.release().envelope
    before = await bench.contents()
    for at in range(0, len(envelope), 7):
        altered = envelope[:at] + bytes([envelope[at] ^ 0x10]) + envelope[at + 1 :]
        with pytest.raises((Untrusted, InvalidInput)) as caught:
            await bench.releases.add_manifest(altered, actor="ann")
        assert caught.value.code in {"signature", "unknown-key", "malformed", "unsupported"}
    assert await bench.contents() == before


@pytest.mark.parametrize("envelope", [b"", b"\xff", b"\xa0", bytes(100), b"x" * (MAX_ENVELOPE + 1)])
async def test_what_is_no_manifest_is_malformed(bench: Bench, envelope: bytes) -> None:
    await bench.trust()
    error = await refused(bench, bench.releases.add_manifest(envelope, actor="ann"))
    assert error.code == "malformed"
    assert error.field


async def test_a_manifest_needs_its_image_here_with_the_size_it_says(bench: Bench) -> None:
    await bench.trust()
    await bench.image(image_of("2.0.0", 5000, seed=2))
    missing = bench.releases.add_manifest(bench.release().envelope, actor="ann")
    error = await refused(bench, missing)
    assert (error.code, error.field) == ("digest-mismatch", "image_digest")
    assert error.hint
    assert DIGEST in error.message


async def test_a_size_that_the_image_does_not_have(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.trust()
    await bench.image()
    real = bench.store.images.get

    async def smaller(digest: bytes) -> Any:
        image = await real(digest)
        assert image is not None
        return type(image)(digest=digest, size=4999, name=image.name, created_at=image.created_at)

    with monkeypatch.context() as patch:
        patch.setattr(bench.store.images, "get", smaller)
        error = await refused(bench, bench.releases.add_manifest(bench.release().envelope, actor="ann"))
    assert (error.code, error.field) == ("size-mismatch", "image_size")


async def test_a_manifest_that_cant_be_described_is_not_kept_as_a_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.trust()
    await bench.image()
    monkeypatch.setattr(bench.store.manifests, "add", fails)
    await refused(bench, bench.releases.add_manifest(bench.release().envelope, actor="ann"), StoreError)


async def test_a_bad_name_for_a_manifest_is_refused(bench: Bench) -> None:
    await bench.trust()
    await bench.image()
    added = bench.releases.add_manifest(bench.release().envelope, name="\x07", actor="ann")
    assert (await refused(bench, added, InvalidInput)).field == "name"


async def test_a_manifest_stays_while_a_campaign_names_it(bench: Bench) -> None:
    await bench.trust()
    await bench.image()
    manifest, _ = await bench.releases.add_manifest(bench.release().envelope, actor="ann")
    campaigns = CampaignService(bench.store, ManualClock(), wake=lambda: None)
    draft = CampaignDraft(name="c", manifest_id=manifest.id)
    campaign = await campaigns.create(draft, actor="ann")
    await refused(bench, bench.releases.remove_manifest(manifest.id, actor="ann"), Conflict)
    await campaigns.delete(campaign.id, actor="ann")
    await bench.releases.remove_manifest(manifest.id, actor="ann")
    assert [digest.hex() for digest in await bench.files.digests()] == [DIGEST]


async def test_a_manifest_says_the_version_that_its_image_says(bench: Bench) -> None:
    await bench.trust()
    await bench.image()
    before = await bench.contents()
    with pytest.raises(InvalidInput) as error:
        await bench.releases.add_manifest(bench.signer.release("3.0.0", IMAGE).envelope, actor="ann")
    assert (error.value.code, error.value.field) == ("version-mismatch", "version")
    assert await bench.contents() == before
