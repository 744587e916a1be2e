"""Images, manifests and trusted keys: what may be sent to devices at all.

The server holds public keys only. A manifest gets in when a trusted key signed it and the very image that it names
is here already; so whatever a campaign offers was checked before.
"""

import hashlib
from collections.abc import AsyncIterator

from lwm2m_server.errors import Conflict, NotFound, Untrusted
from lwm2m_server.firmware.cose import VerificationKey
from lwm2m_server.firmware.envelope import Verified, verify
from lwm2m_server.firmware.refusals import RefusalCode, refusal
from lwm2m_server.services.images import ImageService
from lwm2m_server.services.naming import MAX_PAGE, before, check_name, hex_of, only
from lwm2m_server.store.records import JsonValue, NewEvent, Page, StoredManifest, TrustedKey

MAX_ENVELOPE = 64 << 10  # bytes; a manifest is small, and devices hold it in RAM


class ReleaseService(ImageService):
    """Images by digest, manifests that were verified against trusted keys, and those keys."""

    async def add_key(self, document: bytes, *, name: str, actor: str) -> tuple[TrustedKey, bool]:
        """Trust a public key (PEM); return it and whether it is new. A private key is refused and not kept.

        A key that was revoked stays revoked (`Conflict`): what it signed since can't be told from before.
        """
        check_name(name)
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
        return await self._store.manifests.page(after=after, limit=max(1, min(limit, MAX_PAGE)))

    async def manifest(self, manifest_id: str) -> StoredManifest:
        """Return a manifest by its id (hex), or the beginning of one; `.envelope` has the bytes. `NotFound`."""
        wanted = hex_of("manifest", manifest_id)
        found = await self._store.manifests.get(wanted)
        if found is not None:
            return found
        page = await self._store.manifests.page(after=before(wanted), limit=2)
        return only("manifest", wanted, [entry for entry in page.items if entry.id.startswith(wanted)])

    async def remove_manifest(self, manifest_id: str, *, actor: str) -> None:
        """Remove a manifest. Raises `Conflict` while a campaign names it."""
        manifest = await self.manifest(manifest_id)
        data: dict[str, JsonValue] = {"manifest": manifest.id, "name": manifest.name, "by": actor}
        event = NewEvent(kind="manifest.removed", at=self._clock.now(), data=data)
        if await self._store.manifests.delete(manifest.id, events=[event]):
            await self._files.delete(bytes.fromhex(manifest.id))

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
        check_name(name or "manifest")
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

    async def _key(self, key_id: str) -> TrustedKey:
        key = await self._store.trust.get(key_id)
        if key is None:
            raise NotFound(
                f"There is no key '{key_id}'.", field="key", hint="See what is there: lwm2m keys list."
            )
        return key


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
