"""The JSON of images, manifests and trusted keys."""

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field

from lwm2m_server.api.models.common import Body, HexDigest, moment, optional_moment
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
    roles: list[str] = Field(examples=[["image-author"]])
    not_before: datetime | None = Field(description="It counts from then on")
    not_after: datetime | None = Field(description="It counts until before then")
    requires: str | None = Field(description="Algorithm of a second signature that must be there too")
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
            roles=list(key.roles),
            not_before=optional_moment(key.not_before),
            not_after=optional_moment(key.not_after),
            requires=key.requires,
            created_at=moment(key.created_at),
            created_by=key.created_by,
            revoked_at=optional_moment(key.revoked_at),
        )


class KeyChange(Body):
    """What may be changed of a key; members that are left out stay as they are."""

    name: str = Field(default="", min_length=1, max_length=100)
    roles: list[str] = Field(default=[], min_length=1)
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    requires: str | None = None

    def changes(self) -> dict[str, Any]:
        """Return the members that were sent, times as seconds since the epoch."""
        sent = {name: getattr(self, name) for name in self.model_fields_set}
        return {
            name: value.timestamp() if isinstance(value, datetime) else value for name, value in sent.items()
        }
