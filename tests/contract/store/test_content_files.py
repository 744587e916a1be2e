"""Content files: whole or not there, under their digest."""

import asyncio
import hashlib

import pytest

from lwm2m_server.errors import InvalidInput, NotFound, Untrusted
from lwm2m_server.store import FileStore
from lwm2m_server.store.errors import StoreError


async def chunks(data, size=1000):
    for start in range(0, len(data), size):
        yield data[start : start + size]


def files_in(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture
async def files(tmp_path):
    store = FileStore(tmp_path / "files", max_file=100_000, quota=150_000)
    await store.open()
    return store


async def test_a_file_is_found_under_its_digest(files, tmp_path):
    data = bytes(range(256)) * 200
    stored = await files.put(chunks(data))
    assert (stored.digest, stored.size, stored.created) == (hashlib.sha256(data).digest(), len(data), True)
    assert files.path(stored.digest) == stored.path
    assert stored.path.read_bytes() == data
    assert await files.digests() == [stored.digest]
    assert files.used == len(data)


async def test_the_same_file_is_stored_once(files):
    first, *rest = await asyncio.gather(*(files.put(chunks(b"x" * 5000)) for _ in range(4)))
    created = [each.created for each in (first, *rest)]
    assert created.count(True) == 1
    assert {each.path for each in rest} == {first.path}
    assert files.used == 5000


async def test_an_empty_file_is_a_file(files):
    assert (await files.put(chunks(b""))).size == 0


async def broken():
    yield b"x" * 2000
    raise RuntimeError("the sender went away")


@pytest.mark.parametrize(
    ("source", "expected", "error", "code"),
    [
        (lambda: chunks(b"x" * 100_001), None, InvalidInput, "too-large"),
        (lambda: chunks(b"x" * 2000), b"\0" * 32, Untrusted, "digest-mismatch"),
        (broken, None, RuntimeError, None),
    ],
)
async def test_what_fails_leaves_nothing(files, tmp_path, source, expected, error, code):
    with pytest.raises(error) as caught:
        await files.put(source(), expected=expected)
    assert getattr(caught.value, "code", None) == code
    assert files_in(tmp_path) == []
    assert files.used == 0


async def test_the_quota_counts_all_files(files):
    first = await files.put(chunks(b"a" * 90_000))
    with pytest.raises(StoreError) as caught:
        await files.put(chunks(b"b" * 60_001))
    assert caught.value.code == "storage-full"
    assert await files.delete(first.digest)
    assert not await files.delete(first.digest)
    await files.put(chunks(b"b" * 60_001))
    with pytest.raises(NotFound):
        files.path(first.digest)


async def test_a_crash_leaves_nothing_half_stored(files, tmp_path):
    stored = await files.put(chunks(b"a" * 100))
    (tmp_path / "files" / "incoming" / "left").write_bytes(b"half")
    again = FileStore(tmp_path / "files")
    await again.open()
    assert files_in(tmp_path / "files") == [f"images/{stored.digest.hex()}"]
    assert again.used == 100


async def test_a_mapped_file_can_be_deleted(files):
    stored = await files.put(chunks(b"a" * 100))
    with stored.path.open("rb") as held:
        await files.delete(stored.digest)
        assert held.read() == b"a" * 100


async def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        await FileStore(tmp_path / "file" / "files").open()
    assert caught.value.field == str(tmp_path / "file" / "files")
