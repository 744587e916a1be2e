# ruff: noqa: D102  the docstrings are the ports'
"""Images, manifests, trusted keys and tokens in memory."""

from collections.abc import Sequence
from dataclasses import replace

from lwm2m_server.store.memory_tables import Tables, cut
from lwm2m_server.store.records import NewEvent, Page, StoredImage, StoredManifest, Token, TrustedKey
from lwm2m_server.store.rules import (
    check_sequence,
    digest_key,
    image_in_use,
    manifest_in_use,
    no_image,
    token_taken,
)


class MemoryImageStore:
    """See `ports.ImageStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, image: StoredImage, *, events: Sequence[NewEvent] = ()) -> bool:
        if image.digest in self._tables.images:
            return False
        self._tables.images[image.digest] = image
        self._tables.append(events)
        return True

    async def get(self, digest: bytes) -> StoredImage | None:
        return self._tables.images.get(digest)

    async def page(self, *, after: str | None = None, limit: int = 100) -> Page[StoredImage]:
        key = None if after is None else digest_key(after).hex()
        return cut(self._tables.images.values(), lambda image: image.digest.hex(), key, limit)

    async def delete(self, digest: bytes, *, events: Sequence[NewEvent] = ()) -> bool:
        manifests = self._tables.manifests.values()
        if any(digest in (manifest.image_digest, *manifest.further_images) for manifest in manifests):
            raise image_in_use(digest)
        if self._tables.images.pop(digest, None) is None:
            return False
        self._tables.append(events)
        return True


class MemoryManifestStore:
    """See `ports.ManifestStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, manifest: StoredManifest, *, events: Sequence[NewEvent] = ()) -> bool:
        check_sequence(manifest)
        for digest in (manifest.image_digest, *manifest.further_images):
            if digest not in self._tables.images:
                raise no_image(digest)
        if manifest.id in self._tables.manifests:
            return False
        self._tables.manifests[manifest.id] = manifest
        self._tables.append(events)
        return True

    async def get(self, manifest_id: str) -> StoredManifest | None:
        return self._tables.manifests.get(manifest_id)

    async def page(self, *, after: str | None = None, limit: int = 100) -> Page[StoredManifest]:
        return cut(self._tables.manifests.values(), lambda manifest: manifest.id, after, limit)

    async def highest_sequence(self, vendor_id: bytes, class_id: bytes) -> int | None:
        return max(
            (
                manifest.sequence
                for manifest in self._tables.manifests.values()
                if (manifest.vendor_id, manifest.class_id) == (vendor_id, class_id)
            ),
            default=None,
        )

    async def delete(self, manifest_id: str, *, events: Sequence[NewEvent] = ()) -> bool:
        if any(campaign.manifest_id == manifest_id for campaign in self._tables.campaigns.values()):
            raise manifest_in_use(manifest_id)
        if self._tables.manifests.pop(manifest_id, None) is None:
            return False
        self._tables.append(events)
        return True


class MemoryTrustStore:
    """See `ports.TrustStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, key: TrustedKey, *, events: Sequence[NewEvent] = ()) -> bool:
        if key.key_id in self._tables.keys:
            return False
        self._tables.keys[key.key_id] = key
        self._tables.append(events)
        return True

    async def get(self, key_id: str) -> TrustedKey | None:
        return self._tables.keys.get(key_id)

    async def all(self, *, revoked: bool = False) -> list[TrustedKey]:
        return [key for _, key in sorted(self._tables.keys.items()) if revoked or key.revoked_at is None]

    async def change(self, key: TrustedKey, *, events: Sequence[NewEvent] = ()) -> bool:
        known = self._tables.keys.get(key.key_id)
        if known is None or known.revoked_at is not None:
            return False
        self._tables.keys[key.key_id] = replace(
            known,
            name=key.name,
            roles=key.roles,
            not_before=key.not_before,
            not_after=key.not_after,
            requires=key.requires,
        )
        self._tables.append(events)
        return True

    async def revoke(self, key_id: str, *, now: float, events: Sequence[NewEvent] = ()) -> bool:
        key = self._tables.keys.get(key_id)
        if key is None or key.revoked_at is not None:
            return False
        self._tables.keys[key_id] = replace(key, revoked_at=now)
        self._tables.append(events)
        return True


class MemoryTokenStore:
    """See `ports.TokenStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, token: Token, *, events: Sequence[NewEvent] = ()) -> None:
        for other in self._tables.tokens.values():
            if other.id == token.id or other.name == token.name or other.secret_hash == token.secret_hash:
                raise token_taken(token)
        self._tables.tokens[token.id] = token
        self._tables.append(events)

    async def by_hash(self, secret_hash: bytes) -> Token | None:
        tokens = self._tables.tokens.values()
        return next((token for token in tokens if token.secret_hash == secret_hash), None)

    async def all(self) -> list[Token]:
        return [token for _, token in sorted(self._tables.tokens.items())]

    async def revoke(self, token_id: str, *, now: float, events: Sequence[NewEvent] = ()) -> bool:
        token = self._tables.tokens.get(token_id)
        if token is None or token.revoked_at is not None:
            return False
        self._tables.tokens[token_id] = replace(token, revoked_at=now)
        self._tables.append(events)
        return True
