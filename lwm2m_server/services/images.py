"""Firmware images on the server: what gets in, and what is known of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lwm2m_server import versions
from lwm2m_server.clock import Clock
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.images import inspect
from lwm2m_server.services.naming import DIGEST_LENGTH, MAX_PAGE, before, check_name, hex_of, missing, only
from lwm2m_server.store.files import FileStore, StoredFile
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import JsonValue, NewEvent, Page, StoredImage


class ImageService:
    """Images by digest."""

    def __init__(self, store: Store, files: FileStore, clock: Clock) -> None:
        self._store = store
        self._files = files
        self._clock = clock

    async def add_image(
        self, chunks: AsyncIterator[bytes], *, name: str, version: str | None = None, actor: str
    ) -> tuple[StoredImage, bool]:
        """Store an image; return it and whether it is new (False: these bytes were there already).

        Raises `InvalidInput` for an empty or too large image or a bad version; then nothing is kept.
        """
        check_name(name)
        if version:
            versions.parse(version)
        file = await self._files.put(_not_empty(chunks))
        async with self._whole(file):
            return await self._describe_image(file, name.strip(), version, actor)

    async def _describe_image(
        self, file: StoredFile, name: str, version: str | None, actor: str
    ) -> tuple[StoredImage, bool]:
        found = await asyncio.to_thread(inspect, file.path)
        now = self._clock.now()
        image = StoredImage(
            digest=file.digest,
            size=file.size,
            name=name,
            created_at=now,
            version=version or found.version,
            format=found.format.value,
            created_by=actor,
        )
        data: dict[str, JsonValue] = {"digest": file.digest.hex(), "name": image.name, "by": actor}
        new = await self._store.images.add(image, events=[NewEvent(kind="image.added", at=now, data=data)])
        return (image, True) if new else (await self._image(file.digest), False)

    async def images(self, *, after: str | None = None, limit: int = 100) -> Page[StoredImage]:
        """Return images by digest."""
        return await self._store.images.page(after=after, limit=max(1, min(limit, MAX_PAGE)))

    async def image(self, digest: str) -> StoredImage:
        """Return the image of this digest: 64 hex digits, or the beginning of one image's. Raises `NotFound`."""
        wanted = hex_of("image", digest)
        if len(wanted) == DIGEST_LENGTH:
            return await self._image(bytes.fromhex(wanted))
        page = await self._store.images.page(after=before(wanted), limit=2)
        return only("image", wanted, [image for image in page.items if image.digest.hex().startswith(wanted)])

    async def remove_image(self, digest: str, *, actor: str) -> None:
        """Remove an image. Raises `Conflict` while a manifest names it."""
        image = await self.image(digest)
        data: dict[str, JsonValue] = {"digest": image.digest.hex(), "name": image.name, "by": actor}
        event = NewEvent(kind="image.removed", at=self._clock.now(), data=data)
        if await self._store.images.delete(image.digest, events=[event]):
            await self._files.delete(image.digest)

    @asynccontextmanager
    async def _whole(self, file: StoredFile) -> AsyncIterator[None]:
        """Remove a file that was just stored when its description can't be: all of it is kept, or nothing."""
        try:
            yield
        except BaseException:
            if file.created:
                await self._files.delete(file.digest)
            raise

    async def _image(self, digest: bytes) -> StoredImage:
        image = await self._store.images.get(digest)
        if image is None:
            raise missing("image", digest.hex())
        return image


async def _not_empty(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        yield chunk
    if not size:
        raise InvalidInput("The image is empty.", code="empty", field="image")
