"""Firmware images on the server: what gets in, what is known of it, and the keys that may have signed it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from lwm2m_server import versions
from lwm2m_server.clock import Clock
from lwm2m_server.errors import Conflict, InvalidInput, NotFound
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.image_checks import Expected, check_expected, check_signed
from lwm2m_server.firmware.images import ImageInfo, details_of, inspect
from lwm2m_server.services.naming import DIGEST_LENGTH, MAX_PAGE, before, check_name, hex_of, missing, only
from lwm2m_server.store.files import FileStore, StoredFile
from lwm2m_server.store.image_keys import StoredImageKey
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import JsonValue, NewEvent, Page, StoredImage


@dataclass(slots=True)
class Examination:
    """Looks at a whole file before it is stored: format, hash, signatures, and what was said of it."""

    keys: tuple[ImageKey, ...]
    expected: Expected
    require_signed: bool
    info: ImageInfo | None = None

    def __call__(self, path: Path, digest: bytes) -> None:
        """Raise `ImageRefused` for what must not get in. Runs in a thread."""
        info = inspect(path, self.keys, digest=digest)
        check_expected(info, self.expected)
        if self.require_signed:
            check_signed(info)
        self.info = info


class ImageService:
    """Images by digest."""

    def __init__(self, store: Store, files: FileStore, clock: Clock, *, require_signed: bool = False) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._require_signed = require_signed

    async def add_image(
        self,
        chunks: AsyncIterator[bytes],
        *,
        name: str,
        version: str | None = None,
        expected: Expected | None = None,
        actor: str,
    ) -> tuple[StoredImage, bool]:
        """Store an image; return it and whether it is new (False: these bytes were there already).

        `version` and `expected` are what the operator says of it and must agree with what it says itself. Raises
        `InvalidInput` and `Untrusted` with the codes of `ImageCode`; then nothing is kept.
        """
        check_name(name)
        expected = expected or Expected()
        examination = await self.examination(replace(expected, version=version or expected.version))
        file = await self._files.put(_not_empty(chunks), check=examination)
        return await self.register(file, examination, name=name, actor=actor)

    async def examination(self, expected: Expected) -> Examination:
        """Return the check for a file that is to be stored. Raises `InvalidInput` for what can't be expected."""
        expected.check()
        keys = [ImageKey.from_pem(key.public_key) for key in await self._store.image_keys.all()]
        return Examination(tuple(keys), expected, self._require_signed)

    async def register(
        self, file: StoredFile, examination: Examination, *, name: str, actor: str
    ) -> tuple[StoredImage, bool]:
        """Describe a file that passed its examination; return the image and whether it is new."""
        async with self._whole(file):
            return await self._describe_image(file, examination, name.strip(), actor)

    async def _describe_image(
        self, file: StoredFile, examination: Examination, name: str, actor: str
    ) -> tuple[StoredImage, bool]:
        found = examination.info or inspect(file.path, examination.keys, digest=file.digest)
        said = examination.expected.version
        now = self._clock.now()
        image = StoredImage(
            digest=file.digest,
            size=file.size,
            name=name,
            created_at=now,
            version=said or found.version,
            format=found.format.value,
            created_by=actor,
            data=cast("dict[str, JsonValue]", details_of(found)),
        )
        data: dict[str, JsonValue] = {"digest": file.digest.hex(), "name": image.name, "by": actor}
        if await self._store.images.add(image, events=[NewEvent(kind="image.added", at=now, data=data)]):
            return image, True
        known = await self._image(file.digest)
        _check_version(known, said)
        return known, False

    async def compare(self, image: StoredImage, expected: Expected) -> None:
        """Hold an image that is stored against what is said of it now, as if it came again. Raises as `add_image`."""
        examination = await self.examination(expected)
        await asyncio.to_thread(examination, self._files.path(image.digest), image.digest)
        _check_version(image, expected.version)

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

    async def add_image_key(self, document: bytes, *, name: str, actor: str) -> tuple[StoredImageKey, bool]:
        """Trust a boot loader's public key (PEM); return it and whether it is new. A private key is refused."""
        check_name(name)
        public = ImageKey.from_pem(document)
        if public.sample:
            raise InvalidInput(
                "this is MCUboot's published sample key, with which anyone can sign",
                code="sample-key",
                field="key",
                hint="make a key of your own: imgtool keygen",
            )
        now = self._clock.now()
        key = StoredImageKey(
            key_id=public.key_id,
            name=name.strip(),
            algorithm=public.algorithm,
            public_key=public.pem(),
            created_at=now,
            created_by=actor,
        )
        data: dict[str, JsonValue] = {"key": key.key_id, "name": key.name, "by": actor}
        event = NewEvent(kind="image-key.added", at=now, data=data)
        if await self._store.image_keys.add(key, events=[event]):
            return key, True
        return next(known for known in await self.image_keys() if known.key_id == key.key_id), False

    async def image_keys(self) -> tuple[StoredImageKey, ...]:
        """Return the keys that images may be signed with."""
        return tuple(await self._store.image_keys.all())

    async def remove_image_key(self, key_id: str, *, actor: str) -> None:
        """Trust a boot loader's key no longer; images that are stored stay. Raises `NotFound`."""
        wanted = key_id.strip().lower()
        data: dict[str, JsonValue] = {"key": wanted, "by": actor}
        event = NewEvent(kind="image-key.removed", at=self._clock.now(), data=data)
        if not await self._store.image_keys.remove(wanted, events=[event]):
            raise NotFound(
                f"There is no image key '{key_id}'.",
                field="key",
                hint="See what is there: lwm2m firmware keys list.",
            )

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


def _check_version(known: StoredImage, said: str | None) -> None:
    if said is not None and known.version is not None and not versions.same(known.version, said):
        raise Conflict(
            f"this image is stored already, as version {known.version}, not {said}",
            code="version-mismatch",
            field="version",
            hint="remove it first (lwm2m firmware remove) if that version is wrong",
        )
