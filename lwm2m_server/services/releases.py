"""Images, manifests and trusted keys: what may be sent to devices at all.

The server holds public keys only. A manifest gets in when a trusted key signed it and the very image that it names
is here already; so whatever a campaign offers was checked before.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from uuid import UUID

from lwm2m_server.errors import Lwm2mError, Untrusted
from lwm2m_server.firmware.envelope import Verified, parse_envelope
from lwm2m_server.firmware.facts import ComponentFacts, ManifestFacts
from lwm2m_server.firmware.images import check_claims
from lwm2m_server.firmware.inplace import NamedDelta, is_delta
from lwm2m_server.firmware.refusals import RefusalCode, refusal
from lwm2m_server.firmware.suit import component_text
from lwm2m_server.services.checks import verify_now
from lwm2m_server.services.images import ImageService
from lwm2m_server.services.keyring import KeyRing
from lwm2m_server.services.named_deltas import check_result
from lwm2m_server.services.naming import MAX_PAGE, before, check_name, hex_of, only
from lwm2m_server.store.records import JsonValue, NewEvent, Page, StoredImage, StoredManifest

MAX_ENVELOPE = 64 << 10  # bytes; a manifest is small, and devices hold it in RAM


class ReleaseService(ImageService, KeyRing):
    """Images by digest, manifests that were verified against trusted keys, and those keys."""

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
        keys = await self._store.trust.all(revoked=True)
        if not keys:
            raise Untrusted(
                "No key is trusted yet, so no manifest can be accepted.",
                code=RefusalCode.UNKNOWN_KEY.value,
                field="authentication",
                hint="Add the signer's public key first: lwm2m keys add FILE.",
            )
        return verify_now(envelope, keys, self._clock.now())

    async def _described(self, manifest_id: str, verified: Verified, name: str, actor: str) -> StoredManifest:
        """Hold a verified manifest against the images that it names, and those that came before it."""
        facts = verified.facts
        version = _text(facts.version, "version")
        vendor_id = _bytes(facts.vendor_id, "vendor identifier")
        class_id = _bytes(facts.class_id, "class identifier")
        await self._check_sequence(verified, vendor_id, class_id)
        first = _sent_for(facts)
        rest = (each for each in facts.components if not (each.is_decrypted or is_delta(each.component)))
        sent = [first, *(component for component in rest if component is not first)]
        images = [await self._check_component(component) for component in sent]
        images += [
            await self._check_delta(delta, component)
            for component in facts.components
            for delta in component.deltas
        ]
        own = images[0].data
        check_claims(images[0].version, _uuid(own.get("vendor_id")), _uuid(own.get("class_id")), facts)
        check_name(name or "manifest")
        return StoredManifest(
            id=manifest_id,
            name=name.strip() or f"{images[0].name} {version}",
            envelope=verified.envelope,
            key_id=verified.key_id.hex(),
            vendor_id=vendor_id,
            class_id=class_id,
            sequence=facts.sequence_number,
            version=version,
            image_digest=images[0].digest,
            image_size=images[0].size,
            created_at=self._clock.now(),
            created_by=actor,
            manufacturer=facts.main.manufacturer or None,
            model=facts.main.model or None,
            data=_details(verified),
            further_images=tuple(dict.fromkeys(image.digest for image in images[1:])),
        )

    async def _is_there(self, envelope: bytes) -> bool:
        """Whether the manifest in an envelope is stored already, under whatever signatures."""
        wanted, after = parse_envelope(envelope).digest, None
        while True:
            page = await self._store.manifests.page(after=after, limit=MAX_PAGE)
            if any(parse_envelope(entry.envelope).digest == wanted for entry in page.items):
                return True
            if page.next is None:
                return False
            after = page.next

    async def _check_sequence(self, verified: Verified, vendor_id: bytes, class_id: bytes) -> None:
        """Devices refuse what is below the highest number that they took; two manifests never share one.

        The same manifest with other signatures is no second one.
        """
        facts = verified.facts
        highest = await self._store.manifests.highest_sequence(vendor_id, class_id)
        if highest is None or facts.sequence_number > highest:
            return
        if not await self._is_there(verified.envelope):
            raise refusal(
                RefusalCode.SEQUENCE_ROLLBACK,
                f"the manifest has sequence number {facts.sequence_number}, and one for this class of devices "
                f"has {highest} already",
                field="sequence_number",
                hint=f"make it with a sequence number above {highest}",
            )

    async def _check_component(self, component: ComponentFacts) -> StoredImage:
        """Hold one component against its image; with several branches the first one's image counts."""
        digest = _bytes(next(iter(component.digests), None), "image digest")
        size = next(iter(component.sizes), None)
        if size is None:
            raise _lacking("image size")
        image = await self._store.images.get(digest)
        if image is None:
            raise refusal(
                RefusalCode.DIGEST_MISMATCH,
                f"no image with the manifest's digest {digest.hex()} is stored here",
                field="image_digest",
                hint="Upload the image first: lwm2m firmware add FILE. If it is there, it is not the one signed.",
            )
        if image.size != size:
            raise refusal(
                RefusalCode.SIZE_MISMATCH,
                f"the image has {image.size} bytes, the manifest says {size}",
                field="image_size",
            )
        return image

    async def _check_delta(self, delta: NamedDelta, component: ComponentFacts) -> StoredImage:
        """Hold a delta that the manifest names against its file and, where its base is here, against what it makes."""
        stored = await self._store.images.get(delta.digest)
        if stored is None:
            raise refusal(
                RefusalCode.DIGEST_MISMATCH,
                f"no file with the digest {delta.digest.hex()} of a delta in the manifest is stored here",
                field="in_place",
                hint="Upload the delta first, as it was made: lwm2m firmware add FILE.",
            )
        if stored.size != delta.size:
            raise refusal(
                RefusalCode.SIZE_MISMATCH,
                f"the delta has {stored.size} bytes, the manifest says {delta.size}",
                field="in_place",
            )
        base = await self._store.images.get(delta.base)
        if base is not None:
            wanted = _bytes(next(iter(component.digests), None), "image digest")
            paths = self._files.path(delta.base), self._files.path(delta.digest)
            size = next(iter(component.sizes), 0)
            await asyncio.to_thread(check_result, *paths, delta, wanted, size)
        return stored


def _uuid(text: JsonValue) -> bytes | None:
    return UUID(text).bytes if isinstance(text, str) else None


def _details(verified: Verified) -> dict[str, JsonValue]:
    """What the faces and the checks ask of a manifest besides its columns."""
    facts = verified.facts
    return {
        "signers": [key_id.hex() for key_id in verified.signer_ids],
        "approver": None if verified.approver_id is None else verified.approver_id.hex(),
        "downgrade": facts.downgrade,
        "use_before": facts.use_before,
        "vendor_ids": [value.hex() for value in facts.main.vendor_ids],
        "class_ids": [value.hex() for value in facts.main.class_ids],
        "components": [
            {
                "component": component_text(component.component),
                "version": component.version,
                "digest": _bytes(next(iter(component.digests), None), "image digest").hex(),
                "size": next(iter(component.sizes), None),
                "uri": next(iter(component.uris), None),
                "integrated": any(uri in verified.payloads for uri in component.uris),
                "encrypted": component.is_decrypted,
                "deltas": [
                    {
                        "base": delta.base.hex(),
                        "digest": delta.digest.hex(),
                        "size": delta.size,
                        "memory": delta.memory,
                        "segment": delta.segment,
                    }
                    for delta in component.deltas
                ],
            }
            for component in facts.components
        ],
    }


def _sent_for(facts: ManifestFacts) -> ComponentFacts:
    """Return the component whose bytes are sent for the first one: its encrypted payload, or itself."""
    main = facts.main
    if main.encryption is None or main.source is None:
        return main
    if main.source >= len(facts.components) or facts.components[main.source].is_decrypted:
        raise refusal(
            RefusalCode.UNSUPPORTED,
            "the manifest decrypts its first component from one that is not sent",
            field="source-component",
        )
    return facts.components[main.source]


def _bytes(value: bytes | None, what: str) -> bytes:
    if value is None:
        raise _lacking(what)
    return value


def _text(value: str | None, what: str) -> str:
    if value is None:
        raise _lacking(what)
    return value


def _lacking(what: str) -> Lwm2mError:
    return refusal(
        RefusalCode.UNSUPPORTED,
        f"the manifest names no {what}",
        field=what.replace(" ", "_"),
        hint="Make it with: lwm2m manifest create.",
    )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
