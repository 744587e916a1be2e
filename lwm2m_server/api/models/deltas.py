"""The JSON of deltas and of what they save."""

from pydantic import BaseModel, Field

from lwm2m_server.api.models.common import HexDigest
from lwm2m_server.store import delta_ports


class Delta(BaseModel):
    """What one method made of a pair of images."""

    method: str
    state: str = Field(description="ready, failed (see text), or withdrawn: several devices could not use it")
    text: str
    digest: HexDigest | None = Field(description="SHA-256 of the patch")
    size: int = Field(description="Bytes of the patch")
    share: float = Field(description="Of the new image", examples=[0.021])
    seconds: float = Field(description="To make it and to apply it back")
    memory: int = Field(description="Bytes at most, of the process that made it")

    @classmethod
    def of(cls, delta: delta_ports.StoredDelta, image_size: int) -> "Delta":
        """Convert the record; `image_size` are the bytes of the new image."""
        return cls(
            method=delta.method,
            state=delta.state,
            text=delta.text,
            digest=delta.digest.hex() or None,
            size=delta.size,
            share=round(delta.size / max(1, image_size), 4),
            seconds=delta.seconds,
            memory=delta.memory,
        )


class Comparison(BaseModel):
    """A pair of images, and every method's result, the smallest patch first."""

    base: HexDigest
    target: HexDigest
    size: int = Field(description="Bytes of the new image")
    deltas: list[Delta]


class Savings(BaseModel):
    """Bytes of updates that ended well."""

    updates: int
    deltas: int = Field(description="Updates that came by a delta")
    image_bytes: int = Field(description="Their images as a whole")
    sent_bytes: int = Field(description="What was fetched for them, patches that failed included")
    saved_bytes: int

    @classmethod
    def of(cls, savings: delta_ports.Savings) -> "Savings":
        """Convert the sums."""
        return cls(**{name: getattr(savings, name) for name in cls.model_fields})
