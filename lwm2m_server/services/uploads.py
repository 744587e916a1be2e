"""Uploads of images that go on where they broke off: begun with size and digest, filled, examined when whole.

An upload is known by the digest that its file will have: who uploads the same file again, from wherever, goes on
with it, and a file that is here already needs no bytes at all.
"""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any, cast

from lwm2m_server.clock import Clock
from lwm2m_server.errors import Conflict, InvalidInput, NotFound
from lwm2m_server.firmware.image_checks import Expected
from lwm2m_server.firmware.images import ImageFormat
from lwm2m_server.services.background import Background, Cancellable, Timers
from lwm2m_server.services.images import ImageService
from lwm2m_server.services.naming import check_name
from lwm2m_server.store.records import JsonValue, StoredImage
from lwm2m_server.store.uploads import Upload, UploadFiles

SWEEP_INTERVAL = 600.0  # seconds

UPLOAD_REFUSALS = {
    "too-large": "the file is larger than `max_image_size`",
    "storage-full": "`images.quota` or the disk has no room for it",
    "digest-mismatch": "the bytes that came are not those whose SHA-256 was announced",
    "upload-offset": "the bytes do not belong where the upload stands; the message says where that is",
    "upload-superseded": "another request went on with the upload meanwhile",
    "too-many-uploads": "`images.max_uploads` are under way",
    "sample-key": "MCUboot's published sample key is nobody's, so it can't be trusted",
}
"""What else may be said to an upload, beside the codes of images; for the documentation."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How many uploads may be under way, and for how long (seconds) without a byte."""

    most: int = 16
    lifetime: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an upload stands: `image` is there when it has ended well, `upload` before."""

    upload: Upload | None
    image: StoredImage | None = None
    new: bool = False


class UploadService:
    """Uploads under way. `open` comes before everything else, `close` ends the timer."""

    def __init__(
        self,
        images: ImageService,
        files: UploadFiles,
        clock: Clock,
        timers: Timers,
        limits: UploadLimits | None = None,
    ) -> None:
        self._images = images
        self._files = files
        self._clock = clock
        self._timers = timers
        self._limits = limits or UploadLimits()
        self._background = Background("uploads")
        self._timer: Cancellable | None = None

    async def open(self) -> None:
        """Go on with what was under way before, and remove what is too old, now and from time to time."""
        await self._files.open()
        await self.sweep()
        self._arm()

    async def close(self) -> None:
        """End the timer; uploads stay for the next start."""
        if self._timer is not None:
            self._timer.cancel()
        await self._background.close()

    async def begin(self, digest: str, size: int, *, name: str, expected: Expected, actor: str) -> Progress:
        """Begin an upload, or find the one of this digest, or the image itself.

        Raises `InvalidInput` (also `too-large`), `Conflict` (`too-many-uploads`), `StoreError` (`storage-full`).
        """
        check_name(name)
        expected.check()
        if (image := await self._stored(digest)) is not None:
            await self._images.compare(image, expected)
            return Progress(None, image)
        known = self._files.find(digest)
        if known is not None:
            if known.size == size:
                return Progress(await self._files.restate(digest, name.strip(), _plain(expected)))
            await self._files.remove(digest)
        await self.sweep()
        if len(self._files.all()) >= self._limits.most:
            raise Conflict(
                f"{self._limits.most} uploads are under way already",
                code="too-many-uploads",
                field="upload",
                hint="finish or remove one of them, or raise images.max_uploads",
            )
        now = self._clock.now()
        upload = Upload(
            id=digest,
            size=size,
            name=name.strip(),
            created_by=actor,
            created_at=now,
            updated_at=now,
            data=_plain(expected),
        )
        await self._files.create(upload)
        return Progress(upload, new=True)

    async def state(self, digest: str) -> Progress:
        """Return where an upload stands; the image when it is whole. Raises `NotFound`."""
        if (upload := self._files.find(digest)) is not None:
            return Progress(upload)
        if (image := await self._stored(digest)) is not None:
            return Progress(None, image)
        return Progress(self._files.get(digest))

    async def append(self, digest: str, offset: int, chunks: AsyncIterator[bytes], *, actor: str) -> Progress:
        """Take bytes from `offset` on; with the last one the image is examined and stored, or refused and gone.

        Raises `NotFound`, `Conflict` (`upload-offset`, `upload-superseded`), and what `add_image` raises.
        """
        if self._files.find(digest) is None and (image := await self._stored(digest)) is not None:
            return Progress(None, image)
        upload = await self._files.append(digest, offset, chunks, self._clock.now)
        if upload.offset < upload.size:
            return Progress(upload)
        examination = await self._images.examination(_expected(upload))
        file = await self._files.publish(digest, examination)
        image, new = await self._images.register(file, examination, name=upload.name, actor=actor)
        return Progress(None, image, new)

    async def remove(self, digest: str) -> None:
        """End an upload without an image. Raises `NotFound`."""
        await self._files.remove(digest)

    async def sweep(self) -> None:
        """Remove uploads that got no byte for too long."""
        oldest = self._clock.now() - self._limits.lifetime
        for upload in self._files.all():
            if upload.updated_at < oldest:
                await self._files.remove(upload.id)

    async def _stored(self, digest: str) -> StoredImage | None:
        try:
            return await self._images.image(digest)
        except NotFound:
            return None

    def _arm(self) -> None:
        self._timer = self._timers.later(SWEEP_INTERVAL, self._tick)

    def _tick(self) -> None:
        self._background.spawn(self.sweep())
        self._arm()


def expected_of(values: dict[str, Any]) -> Expected:
    """Read what is said of an image from plain values. Raises `InvalidInput` for an unknown format."""
    if values.get("format") is not None:
        known = [kind.value for kind in ImageFormat]
        if values["format"] not in known:
            raise InvalidInput(
                f"'{values['format']}' is no format of images",
                field="format",
                hint=f"known are {', '.join(known)}",
            )
        values = {**values, "format": ImageFormat(values["format"])}
    return Expected(**values)


def _plain(expected: Expected) -> dict[str, JsonValue]:
    return cast("dict[str, JsonValue]", {k: v for k, v in asdict(expected).items() if v is not None})


def _expected(upload: Upload) -> Expected:
    return expected_of(dict(upload.data))
