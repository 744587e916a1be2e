"""The JSON of images, manifests and trusted keys."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from lwm2m_server.api.models.common import HexDigest, moment, optional_moment
from lwm2m_server.store import records


class Image(BaseModel):
    """A firmware image, found by the SHA-256 of its bytes."""

    digest: HexDigest
    size: int = Field(description="Bytes")
    name: str
    version: str | None
    format: str
    details: dict[str, Any]
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, image: records.StoredImage) -> "Image":
        """Convert the record."""
        return cls(
            digest=image.digest.hex(),
            size=image.size,
            name=image.name,
            version=image.version,
            format=image.format,
            details=dict(image.data),
            created_at=moment(image.created_at),
            created_by=image.created_by,
        )


class Manifest(BaseModel):
    """A verified manifest (SUIT)."""

    id: str
    name: str
    version: str
    sequence: int
    vendor_id: str
    class_id: str
    manufacturer: str | None
    model: str | None
    image_digest: HexDigest
    image_size: int = Field(description="Bytes")
    key_id: str
    details: dict[str, Any]
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, manifest: records.StoredManifest) -> "Manifest":
        """Convert the record."""
        return cls(
            id=manifest.id,
            name=manifest.name,
            version=manifest.version,
            sequence=manifest.sequence,
            vendor_id=manifest.vendor_id.hex(),
            class_id=manifest.class_id.hex(),
            manufacturer=manifest.manufacturer,
            model=manifest.model,
            image_digest=manifest.image_digest.hex(),
            image_size=manifest.image_size,
            key_id=manifest.key_id,
            details=dict(manifest.data),
            created_at=moment(manifest.created_at),
            created_by=manifest.created_by,
        )


class Key(BaseModel):
    """A public key whose manifests are accepted."""

    id: str
    name: str
    algorithm: str
    created_at: datetime
    created_by: str
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: records.TrustedKey) -> "Key":
        """Convert the record."""
        return cls(
            id=key.key_id,
            name=key.name,
            algorithm=key.algorithm,
            created_at=moment(key.created_at),
            created_by=key.created_by,
            revoked_at=optional_moment(key.revoked_at),
        )
