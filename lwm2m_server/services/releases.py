"""Images, manifests and trusted keys: what may be sent to devices at all.

The server holds public keys only. A manifest gets in when a trusted key signed it and the very image that it names
is here already; so whatever a campaign offers was checked before.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from lwm2m_server import versions
from lwm2m_server.clock import Clock
from lwm2m_server.errors import Conflict, InvalidInput, NotFound, Untrusted
from lwm2m_server.firmware.cose import VerificationKey
from lwm2m_server.firmware.envelope import Verified, verify
from lwm2m_server.firmware.images import inspect
from lwm2m_server.firmware.refusals import RefusalCode, refusal
from lwm2m_server.store.files import FileStore, StoredFile
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import JsonValue, NewEvent, Page, StoredImage, StoredManifest, TrustedKey

MAX_ENVELOPE = 64 << 10  # bytes; a manifest is small, and devices hold it in RAM
_MAX_NAME = 200
_MAX_PAGE = 1000
_HEX = re.compile(r"[0-9a-f]{4,64}")
_DIGEST_LENGTH = 64

T = TypeVar("T")


class ReleaseService:
    """Images by digest, manifests that were verified against trusted keys, and those keys."""

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
        _check_name(name)
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
        return await self._store.images.page(after=after, limit=max(1, min(limit, _MAX_PAGE)))

    async def image(self, digest: str) -> StoredImage:
        """Return the image of this digest: 64 hex digits, or the beginning of one image's. Raises `NotFound`."""
        wanted = _hex("image", digest)
        if len(wanted) == _DIGEST_LENGTH:
            return await self._image(bytes.fromhex(wanted))
        page = await self._store.images.page(after=_before(wanted), limit=2)
        return _only(
            "image", wanted, [image for image in page.items if image.digest.hex().startswith(wanted)]
        )

    async def remove_image(self, digest: str, *, actor: str) -> None:
        """Remove an image. Raises `Conflict` while a manifest names it."""
        image = await self.image(digest)
        data: dict[str, JsonValue] = {"digest": image.digest.hex(), "name": image.name, "by": actor}
        event = NewEvent(kind="image.removed", at=self._clock.now(), data=data)
        if await self._store.images.delete(image.digest, events=[event]):
            await self._files.delete(image.digest)

    async def add_key(self, document: bytes, *, name: str, actor: str) -> tuple[TrustedKey, bool]:
        """Trust a public key (PEM); return it and whether it is new. A private key is refused and not kept.

        A key that was revoked stays revoked (`Conflict`): what it signed since can't be told from before.
        """
        _check_name(name)
        public = VerificationKey.from_pem(document)
        now = self._clock.now()
        key = TrustedKey(
            key_id=public.key_id.hex(),
            name=name.strip(),
            algorithm=public.key_type.value,
            public_key=public.pem(),
            created_at=now,
            created_by=actor,
        )
        data: dict[str, JsonValue] = {"key": key.key_id, "name": key.name, "by": actor}
        if await self._store.trust.add(key, events=[NewEvent(kind="key.added", at=now, data=data)]):
            return key, True
        known = await self._key(key.key_id)
        if known.revoked_at is not None:
            raise Conflict(
                f"Key '{known.name}' ({known.key_id}) was revoked.",
                code="revoked",
                field="key",
                hint="Make a new key pair and sign with that.",
            )
        return known, False

    async def keys(self, *, revoked: bool = False) -> tuple[TrustedKey, ...]:
        """Return the trusted keys, those that were revoked only when asked for."""
        return tuple(await self._store.trust.all(revoked=revoked))

    async def remove_key(self, key_id: str, *, actor: str) -> None:
        """Trust a key no longer; doing it again changes nothing. Raises `NotFound`."""
        key = await self._key(key_id.strip().lower())
        data: dict[str, JsonValue] = {"key": key.key_id, "name": key.name, "by": actor}
        now = self._clock.now()
        await self._store.trust.revoke(
            key.key_id, now=now, events=[NewEvent(kind="key.revoked", at=now, data=data)]
        )

    async def add_manifest(
        self, envelope: bytes, *, name: str = "", actor: str
    ) -> tuple[StoredManifest, bool]:
        """Verify a signed envelope and store it; return it and whether it is new.

        Raises `Untrusted` or `InvalidInput`; `code` says why (`signature`, `unknown-key`, `malformed`,
        `digest-mismatch`, `size-mismatch`, ...), `field` where. Then nothing is kept.
        """
        if len(envelope) > MAX_ENVELOPE:
            raise refusal(
                RefusalCode.MALFORMED, f"an envelope has at most {MAX_ENVELOPE} bytes", field="envelope"
            )
        manifest_id = hashlib.sha256(envelope).hexdigest()
        verified = await self._verified(envelope)
        known = await self._store.manifests.get(manifest_id)
        if known is not None:
            return known, False
        manifest = await self._described(manifest_id, verified, name, actor)
        # As a file too: devices take the envelope as a blob, by push or pull, like any image.
        file = await self._files.put(_once(envelope), expected=bytes.fromhex(manifest_id))
        data: dict[str, JsonValue] = {
            "manifest": manifest_id,
            "name": manifest.name,
            "version": manifest.version,
            "by": actor,
        }
        event = NewEvent(kind="manifest.added", at=manifest.created_at, data=data)
        async with self._whole(file):
            new = await self._store.manifests.add(manifest, events=[event])
        return manifest, new

    async def manifests(self, *, after: str | None = None, limit: int = 100) -> Page[StoredManifest]:
        """Return manifests by id."""
        return await self._store.manifests.page(after=after, limit=max(1, min(limit, _MAX_PAGE)))

    async def manifest(self, manifest_id: str) -> StoredManifest:
        """Return a manifest by its id (hex), or the beginning of one; `.envelope` has the bytes. `NotFound`."""
        wanted = _hex("manifest", manifest_id)
        found = await self._store.manifests.get(wanted)
        if found is not None:
            return found
        page = await self._store.manifests.page(after=_before(wanted), limit=2)
        return _only("manifest", wanted, [entry for entry in page.items if entry.id.startswith(wanted)])

    async def remove_manifest(self, manifest_id: str, *, actor: str) -> None:
        """Remove a manifest. Raises `Conflict` while a campaign names it."""
        manifest = await self.manifest(manifest_id)
        data: dict[str, JsonValue] = {"manifest": manifest.id, "name": manifest.name, "by": actor}
        event = NewEvent(kind="manifest.removed", at=self._clock.now(), data=data)
        if await self._store.manifests.delete(manifest.id, events=[event]):
            await self._files.delete(bytes.fromhex(manifest.id))

    @asynccontextmanager
    async def _whole(self, file: StoredFile) -> AsyncIterator[None]:
        """Remove a file that was just stored when its description can't be: all of it is kept, or nothing."""
        try:
            yield
        except BaseException:
            if file.created:
                await self._files.delete(file.digest)
            raise

    async def _verified(self, envelope: bytes) -> Verified:
        trusted = [VerificationKey.from_pem(key.public_key) for key in await self._store.trust.all()]
        if not trusted:
            raise Untrusted(
                "No key is trusted yet, so no manifest can be accepted.",
                code=RefusalCode.UNKNOWN_KEY.value,
                field="authentication",
                hint="Add the signer's public key first: lwm2m keys add FILE.",
            )
        return verify(envelope, trusted)

    async def _described(self, manifest_id: str, verified: Verified, name: str, actor: str) -> StoredManifest:
        """Hold a verified manifest against the image that it names."""
        facts = verified.facts
        if len(facts.components) != 1:
            raise refusal(
                RefusalCode.UNSUPPORTED,
                f"the manifest has {len(facts.components)} components; one is supported",
                field="manifest/3",
            )
        needed = {
            "vendor identifier": facts.vendor_id,
            "class identifier": facts.class_id,
            "image digest": facts.image_digest,
            "image size": facts.image_size,
            "version": facts.version,
        }
        for what, value in needed.items():
            if value is None:
                raise refusal(
                    RefusalCode.UNSUPPORTED,
                    f"the manifest names no {what}",
                    field=what.replace(" ", "_"),
                    hint="Make it with: lwm2m manifest create.",
                )
        digest, version = facts.image_digest or b"", facts.version or ""
        image = await self._store.images.get(digest)
        if image is None:
            raise refusal(
                RefusalCode.DIGEST_MISMATCH,
                f"no image with the manifest's digest {digest.hex()} is stored here",
                field="image_digest",
                hint="Upload the image first: lwm2m firmware add FILE. If it is there, it is not the one signed.",
            )
        if image.size != facts.image_size:
            raise refusal(
                RefusalCode.SIZE_MISMATCH,
                f"the image has {image.size} bytes, the manifest says {facts.image_size}",
                field="image_size",
            )
        _check_name(name or "manifest")
        return StoredManifest(
            id=manifest_id,
            name=name.strip() or f"{image.name} {version}",
            envelope=verified.envelope,
            key_id=verified.key_id.hex(),
            vendor_id=facts.vendor_id or b"",
            class_id=facts.class_id or b"",
            sequence=facts.sequence_number,
            version=version,
            image_digest=digest,
            image_size=image.size,
            created_at=self._clock.now(),
            created_by=actor,
            manufacturer=facts.main.manufacturer or None,
            model=facts.main.model or None,
        )

    async def _image(self, digest: bytes) -> StoredImage:
        image = await self._store.images.get(digest)
        if image is None:
            raise _missing("image", digest.hex())
        return image

    async def _key(self, key_id: str) -> TrustedKey:
        key = await self._store.trust.get(key_id)
        if key is None:
            raise NotFound(
                f"There is no key '{key_id}'.", field="key", hint="See what is there: lwm2m keys list."
            )
        return key


def _hex(what: str, text: str) -> str:
    wanted = text.strip().lower().removeprefix("sha256:")
    if not _HEX.fullmatch(wanted):
        raise InvalidInput(
            f"'{text[:80]}' does not name an {what}."
            if what == "image"
            else f"'{text[:80]}' names no {what}.",
            field=what,
            hint="Give 4 to 64 hex digits.",
        )
    return wanted


def _before(prefix: str) -> str | None:
    """Return a key that sorts right before everything that begins with `prefix` (64 hex digits)."""
    number = int(prefix.ljust(_DIGEST_LENGTH, "0"), 16) - 1
    return None if number < 0 else format(number, "064x")


def _only(what: str, wanted: str, found: list[T]) -> T:
    if not found:
        raise _missing(what, wanted)
    if len(found) > 1:
        raise InvalidInput(
            f"Several begin with '{wanted}'.", code="ambiguous", field=what, hint="Give more digits."
        )
    return found[0]


def _missing(what: str, key: str) -> NotFound:
    command = "firmware" if what == "image" else what
    return NotFound(
        f"There is no {what} '{key}'.", field=what, hint=f"See what is there: lwm2m {command} list."
    )


def _check_name(name: str) -> None:
    stripped = name.strip()
    if not stripped or len(stripped) > _MAX_NAME or not stripped.isprintable():
        raise InvalidInput(f"A name has 1 to {_MAX_NAME} printable characters.", field="name")


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _not_empty(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        yield chunk
    if not size:
        raise InvalidInput("The image is empty.", code="empty", field="image")
