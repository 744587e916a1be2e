"""Uploads under way: parts of files that go on where they broke off, also after a restart.

Each has two files in `uploads/`: its bytes so far under the digest that it will have, and a description beside it
(`.json`). The whole size counts against the quota from the beginning, so that an upload which was begun can end.
"""

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from lwm2m_server.errors import Conflict, Lwm2mError, NotFound, Untrusted
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.files import FileStore, StoredFile
from lwm2m_server.store.records import JsonValue

_BUFFER = 1 << 20
_DESCRIPTION = ".json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that is not whole yet. `id` is its SHA-256 in hex, `data` what was said of it (JSON)."""

    id: str
    size: int
    name: str
    created_by: str
    created_at: float
    updated_at: float
    offset: int = 0
    data: Mapping[str, JsonValue] = field(default_factory=dict)


class UploadFiles:
    """The parts below a file store's directory. `open` comes after the file store's."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._folder = files.root / "uploads"
        self._uploads: dict[str, Upload] = {}
        self._hashes: dict[str, tuple[Any, int]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._writers: dict[str, asyncio.Event] = {}

    async def open(self) -> None:
        """Find what was under way; what can't be gone on with is removed. Raises `StoreError`."""
        for upload in await self._guarded(self._scan):
            try:
                self._files.reserve(upload.size, upload.size)
            except Lwm2mError:  # limits were lowered meanwhile
                await self._guarded(partial(self._unlink, upload.id))
            else:
                self._uploads[upload.id] = upload

    def all(self) -> list[Upload]:
        """Return the uploads under way."""
        return list(self._uploads.values())

    def find(self, upload_id: str) -> Upload | None:
        """Return the upload with this digest, or None."""
        return self._uploads.get(upload_id)

    def get(self, upload_id: str) -> Upload:
        """Return the upload with this digest. Raises `NotFound`."""
        upload = self._uploads.get(upload_id)
        if upload is None:
            raise NotFound(
                "there is no such upload under way", field="upload", hint="begin it: POST /firmware/uploads"
            )
        return upload

    async def create(self, upload: Upload) -> None:
        """Begin. Raises `InvalidInput` (`too-large`), `StoreError` (`storage-full`, disk errors)."""
        self._files.reserve(upload.size, upload.size)
        try:
            await self._guarded(lambda: self._describe(upload))
        except BaseException:
            self._files.release(upload.size)
            raise
        self._uploads[upload.id] = upload

    async def restate(self, upload_id: str, name: str, data: Mapping[str, JsonValue]) -> Upload:
        """Say something else of an upload; its bytes stay. Raises `NotFound`."""
        upload = replace(self.get(upload_id), name=name, data=data)
        await self._guarded(partial(self._describe, upload))
        now = self.get(upload_id)
        self._uploads[upload_id] = replace(now, name=name, data=data)
        return self._uploads[upload_id]

    async def append(
        self, upload_id: str, offset: int, chunks: AsyncIterable[bytes], now: Callable[[], float]
    ) -> Upload:
        """Take bytes from `offset` on, which must be where the upload stands; return how far it is then.

        What came before an error stays. Who begins to append ends another one that does: after a broken
        connection the old request may hang. Raises `Conflict` (`upload-offset`, `upload-superseded`).
        """
        if upload_id in self._writers:
            self._writers[upload_id].set()
        async with self._locks.setdefault(upload_id, asyncio.Lock()):
            upload = self.get(upload_id)
            if offset != upload.offset:
                raise Conflict(
                    f"the upload stands at byte {upload.offset}, not at {offset}",
                    code="upload-offset",
                    field="Upload-Offset",
                    hint=f"go on at byte {upload.offset}",
                )
            superseded = self._writers[upload_id] = asyncio.Event()
            try:
                await self._write(upload, until(chunks, superseded), now)
            finally:
                if self._writers.get(upload_id) is superseded:
                    del self._writers[upload_id]
            return self.get(upload_id)

    async def publish(self, upload_id: str, check: Callable[[Path, bytes], None]) -> StoredFile:
        """Make a whole upload a file of the store, once `check` (in a thread) let it pass.

        Nothing is left of it after a refusal. Raises `Untrusted` (`digest-mismatch`) and what `check` raises.
        """
        async with self._locks.setdefault(upload_id, asyncio.Lock()):
            upload = self.get(upload_id)
            path = self._folder / upload_id
            try:
                digest = (await self._hash(upload)).digest()
                if digest.hex() != upload_id:
                    raise Untrusted(
                        f"the file's SHA-256 is {digest.hex()}, {upload_id} was announced",
                        code="digest-mismatch",
                        field="digest",
                        hint="send the file again; it was damaged on the way, or it changed meanwhile",
                    )
                await asyncio.to_thread(check, path, digest)
                file = await self._files.adopt(path, digest, upload.size)
            except Lwm2mError:
                await self._forget(upload)
                self._files.release(upload.size)
                raise
            await self._forget(upload)
            return file

    async def remove(self, upload_id: str) -> None:
        """End an upload without a file. Raises `NotFound`."""
        if upload_id in self._writers:
            self._writers[upload_id].set()
        async with self._locks.setdefault(upload_id, asyncio.Lock()):
            upload = self.get(upload_id)
            await self._forget(upload)
            self._files.release(upload.size)

    async def _write(self, upload: Upload, chunks: AsyncIterator[bytes], now: Callable[[], float]) -> None:
        digest, count = await self._hash(upload), upload.offset
        path = self._folder / upload.id

        def cut_to_offset() -> BinaryIO:
            file = path.open("r+b")
            file.truncate(upload.offset)
            file.seek(upload.offset)
            return file

        file = await self._guarded(cut_to_offset)
        try:
            async for piece in gathered(chunks):
                room = upload.size - count
                await self._guarded(partial(file.write, piece[:room]))
                digest.update(piece[:room])
                count += min(len(piece), room)
                if len(piece) > room:
                    raise Conflict(
                        f"more bytes came than the {upload.size} that were announced",
                        code="upload-offset",
                        field="Upload-Offset",
                        hint="announce the size of the file as it is",
                    )
        finally:
            # shielded: what came before a cancelled request still counts
            await asyncio.shield(self._guarded(lambda: _finish(file)))
            self._hashes[upload.id] = (digest, count)
            # what is said of it may have changed meanwhile
            self._uploads[upload.id] = replace(self.get(upload.id), offset=count, updated_at=now())

    async def _hash(self, upload: Upload) -> Any:
        """Return the hash of what is there; it is computed anew after a restart only."""
        digest, count = self._hashes.get(upload.id, (None, -1))
        if count == upload.offset:
            return digest

        def read() -> Any:
            with (self._folder / upload.id).open("rb") as file:
                found, left = hashlib.sha256(), upload.offset
                while left and (piece := file.read(min(_BUFFER, left))):
                    found.update(piece)
                    left -= len(piece)
                return found

        return await self._guarded(read)

    async def _forget(self, upload: Upload) -> None:
        for table in (self._uploads, self._hashes):
            table.pop(upload.id, None)
        await self._guarded(lambda: self._unlink(upload.id))

    def _scan(self) -> list[Upload]:
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for description in self._folder.glob(f"*{_DESCRIPTION}"):
            try:
                values = json.loads(description.read_bytes())
                there = description.with_suffix("").stat()
                upload = Upload(**values)
                heard = max(upload.updated_at, there.st_mtime)
                found.append(replace(upload, offset=min(there.st_size, upload.size), updated_at=heard))
            except (OSError, ValueError, TypeError):
                continue
        kept = {name for upload in found for name in (upload.id, upload.id + _DESCRIPTION)}
        for stray in self._folder.iterdir():
            if stray.name not in kept:
                stray.unlink()
        return found

    def _describe(self, upload: Upload) -> None:
        (self._folder / upload.id).touch()
        target = self._folder / (upload.id + _DESCRIPTION)
        temporary = target.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(json.dumps(asdict(upload)).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)

    def _unlink(self, upload_id: str) -> None:
        for name in (upload_id + _DESCRIPTION, upload_id):
            (self._folder / name).unlink(missing_ok=True)

    async def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise StoreError(
                f"the upload can't be kept in {self._folder}: {error.strerror or error}",
                field=str(self._folder),
                hint="check the disk, its free space and its mount",
            ) from error


def _finish(file: BinaryIO) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())


async def gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Join small chunks, so that each write is worth its thread; what came before an error comes before it."""
    buffer = bytearray()
    try:
        async for chunk in chunks:
            buffer += chunk
            if len(buffer) >= _BUFFER:
                yield bytes(buffer)
                buffer.clear()
    except Exception:
        if buffer:
            yield bytes(buffer)
        raise
    if buffer:
        yield bytes(buffer)


async def until(chunks: AsyncIterable[bytes], stop: asyncio.Event) -> AsyncIterator[bytes]:
    """Pass chunks on until somebody sets `stop`; then `Conflict` (`upload-superseded`)."""
    source = aiter(chunks)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        while True:
            coming = asyncio.ensure_future(anext(source, None))
            try:
                await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                coming.cancel()
                raise
            if stop.is_set():
                coming.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await coming
                raise Conflict(
                    "another request goes on with this upload", code="upload-superseded", field="upload"
                )
            chunk = coming.result()
            if chunk is None:
                return
            yield chunk
    finally:
        stopping.cancel()
