"""Files that the engine serves and pushes: known to it while a job needs them, open to one peer at a time."""

from collections import Counter
from pathlib import Path
from typing import Protocol

from lwm2m_server.transport import Peer, Transport


class Files(Protocol):
    """What is needed of the content-addressed files."""

    def path(self, digest: bytes) -> Path:
        """Return the local file with these bytes; raise `NotFound`."""
        ...


def blob_path(digest: bytes) -> tuple[str, str]:
    """Return the CoAP path under which these bytes are offered."""
    return ("fw", digest.hex())


class BlobShelf:
    """Counts who needs which blob."""

    def __init__(self, transport: Transport, files: Files) -> None:
        self._transport = transport
        self._files = files
        self._held: Counter[bytes] = Counter()

    def hold(self, digest: bytes) -> None:
        """Make the bytes known to the engine; raise `NotFound` when the file is gone."""
        if not self._held[digest]:
            self._transport.add_blob(digest, str(self._files.path(digest)))
        self._held[digest] += 1

    def release(self, digest: bytes) -> None:
        """Need them no longer; transfers under way keep theirs to the end."""
        self._held[digest] -= 1
        if not self._held[digest]:
            del self._held[digest]
            self._transport.remove_blob(digest)


class Offers:
    """What one job holds and has opened; follows the device to another peer, and gives everything back."""

    def __init__(self, shelf: BlobShelf, transport: Transport, digests: tuple[bytes, ...]) -> None:
        """Hold these blobs; raise `NotFound` (and hold none) when one is gone."""
        self._shelf = shelf
        self._transport = transport
        self._digests: list[bytes] = []
        self._peer: Peer | None = None
        try:
            for digest in digests:
                shelf.hold(digest)
                self._digests.append(digest)
        except BaseException:
            self.close()
            raise

    def add(self, digest: bytes) -> None:
        """Hold and open one blob more; raise `NotFound` when it is gone."""
        if digest not in self._digests:
            self._shelf.hold(digest)
            self._digests.append(digest)
            if self._peer is not None:
                self._transport.offer(blob_path(digest), digest, self._peer)

    def open_to(self, peer: Peer) -> None:
        """Let this peer, and no longer another one, fetch them."""
        if self._is_open_to(peer):
            return
        self._withdraw()
        self._peer = peer
        for digest in self._digests:
            self._transport.offer(blob_path(digest), digest, peer)

    def open_for(self, peer: Peer, digest: bytes) -> bool:
        """Say whether this peer may fetch this blob now."""
        return self._is_open_to(peer) and digest in self._digests

    def close(self) -> None:
        """Withdraw the offers and release the blobs."""
        self._withdraw()
        for digest in self._digests:
            self._shelf.release(digest)
        self._digests = []

    def _withdraw(self) -> None:
        if self._peer is not None:
            for digest in self._digests:
                self._transport.withdraw(blob_path(digest), self._peer)
        self._peer = None

    def _is_open_to(self, peer: Peer) -> bool:
        """An identity counts wherever it is, a peer without one by its host: downloads come from other ports."""
        known = self._peer
        if known is None or peer.identity != known.identity:
            return False
        return peer.identity is not None or peer.host == known.host
