"""Files that the engine serves and pushes: known to it while a job needs them, open to one host at a time."""

from collections import Counter
from pathlib import Path
from typing import Protocol

from lwm2m_server.transport import Transport


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
    """What one job holds and has opened; follows the device to another host, and gives everything back."""

    def __init__(self, shelf: BlobShelf, transport: Transport, digests: tuple[bytes, ...]) -> None:
        """Hold these blobs; raise `NotFound` (and hold none) when one is gone."""
        self._shelf = shelf
        self._transport = transport
        self._digests: list[bytes] = []
        self._host: str | None = None
        try:
            for digest in digests:
                shelf.hold(digest)
                self._digests.append(digest)
        except BaseException:
            self.close()
            raise

    def open_to(self, host: str) -> None:
        """Let this host, and no longer another one, fetch them."""
        if host == self._host:
            return
        self._withdraw()
        self._host = host
        for digest in self._digests:
            self._transport.offer(blob_path(digest), digest, host)

    def open_for(self, host: str, digest: bytes) -> bool:
        """Say whether this host may fetch this blob now."""
        return host == self._host and digest in self._digests

    def close(self) -> None:
        """Withdraw the offers and release the blobs."""
        self._withdraw()
        for digest in self._digests:
            self._shelf.release(digest)
        self._digests = []

    def _withdraw(self) -> None:
        if self._host is not None:
            for digest in self._digests:
                self._transport.withdraw(blob_path(digest), self._host)
        self._host = None
