"""Content files: images by their SHA-256, kept through obstore in a local directory.

A file is written under `incoming/`, brought to the disk (fsync), and only then renamed to
`images/<digest>`: what has that name is whole and stays, also after a power cut. What a crash left in
`incoming/` is removed at the next start.
"""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from lwm2m_server.errors import InvalidInput, NotFound, Untrusted
from lwm2m_server.store.errors import StoreError

DEFAULT_MAX_FILE = 256 << 20  # bytes
_BUFFER = 1 << 20
_INCOMING = "incoming"
_IMAGES = "images"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is in the store; `created` is False when it was there before."""

    digest: bytes
    size: int
    path: Path
    created: bool


class FileStore:
    """Files below `root`. `max_file` bounds one file and `quota` all of them, in bytes."""

    def __init__(self, root: Path, *, max_file: int = DEFAULT_MAX_FILE, quota: int | None = None) -> None:
        self._root = root
        self._max_file = max_file
        self._quota = quota
        self._used = 0
        self._store: LocalStore | None = None
        self._publishing = asyncio.Lock()

    async def open(self) -> None:
        """Make the directories, remove what a crash left, count what is there. Raises `StoreError`."""
        self._used = await asyncio.to_thread(self._prepare)
        self._store = LocalStore(self._root)

    @property
    def root(self) -> Path:
        """The directory of it all."""
        return self._root

    @property
    def used(self) -> int:
        """Bytes of all files, those that are being written included."""
        return self._used

    async def put(
        self,
        chunks: AsyncIterable[bytes],
        *,
        expected: bytes | None = None,
        check: Callable[[Path, bytes], None] | None = None,
    ) -> StoredFile:
        """Store the bytes under their digest; nothing is kept when it fails.

        `check` sees the whole file and its digest, in a thread, before anyone else can; what it raises refuses
        the file. Raises `InvalidInput` (code `too-large`), `StoreError` (`storage-full`, disk errors) and `Untrusted`
        (`digest-mismatch`) when `expected` is another digest.
        """
        name = f"{_INCOMING}/{secrets.token_hex(16)}"
        async with self._reserved() as reservation, self._cleaned(name):
            digest = await self._receive(name, chunks, reservation)
            if expected is not None and digest != expected:
                raise Untrusted(
                    f"the file's SHA-256 is {digest.hex()}, expected {expected.hex()}",
                    code="digest-mismatch",
                    field="digest",
                    hint="send the file again; it was damaged on the way, or it is another one",
                )
            if check is not None:
                await asyncio.to_thread(check, self._root / name, digest)
            path = self._path(digest)
            async with self._publishing:
                if path.exists():
                    return StoredFile(digest, reservation.size, path, created=False)
                await self._publish(name, digest)
                reservation.keep = True
            return StoredFile(digest, reservation.size, path, created=True)

    async def adopt(self, file: Path, digest: bytes, size: int) -> StoredFile:
        """Make a file under `root` that is whole, on the disk and counted already one of ours."""
        path = self._path(digest)
        async with self._publishing:
            if created := not path.exists():
                await asyncio.to_thread(file.rename, path)
                await asyncio.to_thread(_sync, path.parent)
            else:
                await asyncio.to_thread(file.unlink)
                self.release(size)
        return StoredFile(digest, size, path, created=created)

    def path(self, digest: bytes) -> Path:
        """Return where the file is, for mapping it into memory. Raises `NotFound`."""
        path = self._path(digest)
        if not path.is_file():
            raise NotFound(
                f"there is no file with digest {digest.hex()}", field="digest", hint="upload the image again"
            )
        return path

    async def delete(self, digest: bytes) -> bool:
        """Remove a file; False when there is none. Who has it mapped keeps reading the old bytes."""
        try:
            size = self.path(digest).stat().st_size
        except (NotFound, FileNotFoundError):
            return False
        await obstore.delete_async(self._ready, f"{_IMAGES}/{digest.hex()}")
        self._used -= size
        return True

    async def digests(self) -> list[bytes]:
        """Return the digests of all files, in order."""
        names = await asyncio.to_thread(lambda: [entry.name for entry in (self._root / _IMAGES).iterdir()])
        return sorted(bytes.fromhex(name) for name in names if len(name) == 64)

    @property
    def _ready(self) -> LocalStore:
        if self._store is None:
            raise StoreError(f"the files in {self._root} are not open", field=str(self._root))
        return self._store

    def _path(self, digest: bytes) -> Path:
        return self._root / _IMAGES / digest.hex()

    def _prepare(self) -> int:
        try:
            for directory in (self._root / _INCOMING, self._root / _IMAGES):
                directory.mkdir(parents=True, exist_ok=True)
            for left in (self._root / _INCOMING).iterdir():
                left.unlink()
            return sum(file.stat().st_size for file in (self._root / _IMAGES).iterdir())
        except OSError as error:
            raise StoreError(
                f"the directory {self._root} can't be used: {error.strerror}",
                field=str(self._root),
                hint="check that it may be written",
            ) from error

    async def _receive(self, name: str, chunks: AsyncIterable[bytes], reservation: "_Reservation") -> bytes:
        """Write the chunks to `name` and to the disk; return their SHA-256."""
        digest = hashlib.sha256()
        async with obstore.open_writer_async(self._ready, name, buffer_size=_BUFFER) as writer:
            async for chunk in chunks:
                reservation.add(len(chunk))
                digest.update(chunk)
                await writer.write(chunk)
        await asyncio.to_thread(_sync, self._root / name)
        return digest.digest()

    async def _publish(self, name: str, digest: bytes) -> None:
        await obstore.rename_async(self._ready, name, f"{_IMAGES}/{digest.hex()}")
        await asyncio.to_thread(_sync, self._root / _IMAGES)

    @asynccontextmanager
    async def _reserved(self) -> AsyncIterator["_Reservation"]:
        reservation = _Reservation(self)
        try:
            yield reservation
        finally:
            if not reservation.keep:
                self._used -= reservation.size

    @asynccontextmanager
    async def _cleaned(self, name: str) -> AsyncIterator[None]:
        """Remove what is left under `name`, and put the disk's errors into words."""
        try:
            yield
        except (BaseError, OSError) as error:
            full = "No space left" in str(error)
            raise StoreError(
                f"the file can't be stored in {self._root}: {'the disk is full' if full else error}",
                code="storage-full" if full else None,
                field=str(self._root),
                hint="free space" if full else "check the disk and its mount",
            ) from error
        finally:
            for left in (self._root / _INCOMING).glob(f"{Path(name).name}*"):
                left.unlink(missing_ok=True)

    def reserve(self, size: int, total: int) -> None:
        """Count `size` more bytes of a file that has `total` so far, these included."""
        if total > self._max_file:
            raise InvalidInput(
                f"the file is larger than {self._max_file} bytes",
                code="too-large",
                field="file",
                hint="raise max_image_size in the configuration if it is meant to be",
            )
        if self._quota is not None and self._used + size > self._quota:
            raise StoreError(
                f"the files would take more than {self._quota} bytes",
                code="storage-full",
                field="file",
                hint="delete images that are no longer needed, or raise images.quota",
            )
        self._used += size

    def release(self, size: int) -> None:
        """Count `size` bytes no longer."""
        self._used -= size


@dataclass(slots=True)
class _Reservation:
    """Bytes that a file under way has taken of the quota."""

    store: FileStore
    size: int = 0
    keep: bool = False

    def add(self, size: int) -> None:
        self.store.reserve(size, self.size + size)
        self.size += size


def _sync(path: Path) -> None:
    """Bring a file or a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
