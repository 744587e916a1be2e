"""A manifest with deltas gets in when they are stored, and make its image of what is stored of their bases."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from harness.releases import Signer, image_of
from lwm2m_server.clock import ManualClock
from lwm2m_server.errors import Conflict, Lwm2mError
from lwm2m_server.firmware.deltas.named import make_named
from lwm2m_server.firmware.inplace import NamedDelta
from lwm2m_server.services.releases import ReleaseService
from lwm2m_server.store import FileStore
from lwm2m_server.store.memory import MemoryStore
from lwm2m_server.store.records import StoredManifest
from memory.world import chunks

OLD = image_of("1.0.0", 6000)
OLDER = image_of("0.9.0", 5500, seed=2)
NEW = b"firmware-version: 2.0.0\n" + OLD[24:3000] + b"changed" + OLD[3000:]
DELTAS = tuple(make_named(base, NEW, slot_size=10_000, segment_size=1024) for base in (OLD, OLDER))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.files = FileStore(folder)
        self.releases = ReleaseService(self.store, self.files, ManualClock())
        self.signer = Signer()

    async def put(self, *contents: bytes) -> None:
        for content in contents:
            await self.releases.add_image(chunks(content, 1000), name="x", actor="ann")

    async def add(self, *deltas: NamedDelta) -> StoredManifest:
        envelope = self.signer.release("2.0.0", NEW, deltas=deltas).envelope
        manifest, _ = await self.releases.add_manifest(envelope, actor="ann")
        return manifest


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    await made.files.open()
    await made.releases.add_key(made.signer.public, name="release", actor="ann")
    await made.put(NEW)
    return made


async def refused(bench: Bench, *deltas: NamedDelta) -> Lwm2mError:
    with pytest.raises(Lwm2mError) as caught:
        await bench.add(*deltas)
    assert caught.value.field == "in_place"
    assert caught.value.hint or caught.value.code == "size-mismatch"
    assert not (await bench.store.manifests.page()).items
    return caught.value


def other(delta: NamedDelta, content: bytes) -> NamedDelta:
    """The same branch with other bytes, which are named as they are."""
    return replace(delta, digest=sha256(content).digest(), size=len(content), content=content)


async def test_the_deltas_are_kept_with_the_manifest(bench: Bench) -> None:
    await bench.put(OLD, OLDER, *(delta.content for delta in DELTAS))
    manifest = await bench.add(*DELTAS)
    assert manifest.further_images == tuple(delta.digest for delta in DELTAS)
    main = manifest.data["components"][0]
    assert [each["base"] for each in main["deltas"]] == [delta.base.hex() for delta in DELTAS]
    assert (main["deltas"][0]["memory"], main["deltas"][0]["segment"]) == (9216, 1024)
    with pytest.raises(Conflict):
        await bench.releases.remove_image(DELTAS[1].digest.hex(), actor="ann")


async def test_a_delta_that_was_not_uploaded_is_told(bench: Bench) -> None:
    await bench.put(OLD, DELTAS[0].content)
    error = await refused(bench, *DELTAS)
    assert error.code == "digest-mismatch"
    assert DELTAS[1].digest.hex() in error.message


async def test_a_delta_of_another_size_is_told(bench: Bench) -> None:
    await bench.put(DELTAS[0].content)
    error = await refused(bench, replace(DELTAS[0], size=DELTAS[0].size + 1))
    assert error.code == "size-mismatch"


async def test_a_base_that_is_not_here_can_not_be_tried(bench: Bench) -> None:
    await bench.put(DELTAS[0].content)
    assert (await bench.add(DELTAS[0])).further_images == (DELTAS[0].digest,)


@pytest.mark.protection("server", "delta-base", "delta-result")
@pytest.mark.parametrize(
    "how", ["noise", "changed", "for another base", "of another image", "for another slot"]
)
async def test_a_delta_that_does_not_make_the_image_of_the_manifest_is_refused(
    bench: Bench, how: str
) -> None:
    good = DELTAS[0]
    wrong = {
        "noise": other(good, b"noise" * 50),
        "changed": other(good, good.content[:60] + bytes([good.content[60] ^ 1]) + good.content[61:]),
        "for another base": other(good, DELTAS[1].content),
        "of another image": other(
            good, make_named(OLD, NEW + b"!", slot_size=10_000, segment_size=1024).content
        ),
        "for another slot": other(good, make_named(OLD, NEW, slot_size=20_480, segment_size=1024).content),
    }[how]
    await bench.put(OLD, wrong.content)
    error = await refused(bench, wrong)
    assert error.code == "digest-mismatch"
    assert good.base.hex() in error.message
