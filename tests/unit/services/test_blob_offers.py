"""Blobs and offers: open to one host a job, counted, and all given back."""

import hashlib
from pathlib import Path

import pytest

from lwm2m_server.errors import NotFound
from lwm2m_server.services.blobs import BlobShelf, Offers, blob_path
from lwm2m_server.transport import Peer
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport

ONE, TWO = (hashlib.sha256(text).digest() for text in (b"one", b"two"))


class Shelf:
    """Files in a folder, and a transport that remembers what is open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for text in (b"one", b"two"):
            (folder / hashlib.sha256(text).hexdigest()).write_bytes(text)
        self.transport = Open(MemoryNetwork())
        self.shelf = BlobShelf(self.transport, self)

    def path(self, digest: bytes) -> Path:
        file = self.folder / digest.hex()
        if not file.exists():
            raise NotFound("gone")
        return file

    def offers(self, *digests: bytes) -> Offers:
        return Offers(self.shelf, self.transport, digests)


class Open(MemoryTransport):
    """Keeps the books that a test reads."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__(network)
        self.blobs: list[bytes] = []
        self.open: list[tuple[str, str | None]] = []

    def add_blob(self, digest: bytes, file: str) -> int:
        self.blobs.append(digest)
        return super().add_blob(digest, file)

    def remove_blob(self, digest: bytes) -> None:
        self.blobs.remove(digest)
        super().remove_blob(digest)

    def offer(self, path: tuple[str, ...], digest: bytes, to: Peer) -> None:
        self.open.append((path[1], to.identity or to.host))
        super().offer(path, digest, to)

    def withdraw(self, path: tuple[str, ...], to: Peer) -> None:
        self.open.remove((path[1], to.identity or to.host))
        super().withdraw(path, to)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def test_a_blob_is_known_while_anyone_needs_it(shelf: Shelf) -> None:
    first, second = shelf.offers(ONE), shelf.offers(ONE, TWO)
    assert sorted(shelf.transport.blobs) == sorted([ONE, TWO]), "each once"
    first.close()
    assert ONE in shelf.transport.blobs
    second.close()
    assert shelf.transport.blobs == []


async def test_an_offer_follows_the_device_and_ends(shelf: Shelf) -> None:
    offers = shelf.offers(ONE)
    assert shelf.transport.open == []
    offers.open_to(Peer("10.0.0.2:5683"))
    offers.open_to(Peer("10.0.0.2:40000"))
    assert shelf.transport.open == [(ONE.hex(), "10.0.0.2")]
    offers.open_to(Peer("10.0.0.3:5683"))
    assert shelf.transport.open == [(ONE.hex(), "10.0.0.3")]
    for address in ("10.0.0.3:5684", "10.0.0.4:5684"):
        offers.open_to(Peer(address, identity="psk:meter"))
        assert shelf.transport.open == [(ONE.hex(), "psk:meter")]
    assert offers.open_for(Peer("10.0.0.5:1", identity="psk:meter"), ONE)
    assert not offers.open_for(Peer("10.0.0.4:5684", identity="psk:other"), ONE)
    assert not offers.open_for(Peer("10.0.0.4:5684"), ONE)
    offers.close()
    offers.close()
    assert shelf.transport.open == []


async def test_a_missing_file_leaves_nothing_behind(shelf: Shelf) -> None:
    (shelf.folder / TWO.hex()).unlink()
    with pytest.raises(NotFound):
        shelf.offers(ONE, TWO)
    assert shelf.transport.blobs == []


def test_the_path_of_a_blob_is_its_digest() -> None:
    assert blob_path(ONE) == ("fw", ONE.hex())
