"""The JSON of uploads under way and of image keys."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from lwm2m_server.api.models.common import HexDigest, moment
from lwm2m_server.api.models.releases import Image
from lwm2m_server.services.uploads import Progress
from lwm2m_server.store.image_keys import StoredImageKey


class ImageClaims(BaseModel):
    """What is said of an image; it is refused where it says something else itself."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: str | None = Field(None, max_length=128, examples=["2.1.0"])
    format: str | None = Field(
        None,
        max_length=20,
        description="raw, mcuboot or esp-idf; uf2, intel-hex or elf let such a file in as it is",
    )
    project: str | None = Field(None, max_length=64, description="ESP-IDF's project name")
    chip: str | None = Field(None, max_length=32, examples=["ESP32-S3"])
    security_counter: int | None = Field(
        None, ge=0, le=0xFFFFFFFF, description="Also ESP-IDF's secure version"
    )
    vendor: str | None = Field(None, max_length=200, description="Domain or UUID", examples=["acme.example"])
    device_class: str | None = Field(
        None, alias="class", max_length=200, description="Name (with the vendor) or UUID"
    )


class UploadBody(ImageClaims):
    """What is going to be uploaded."""

    name: str = Field(min_length=1, max_length=200, description="File name", examples=["pump-2.1.0.bin"])
    size: int = Field(ge=1, le=1 << 40, description="Bytes")
    digest: HexDigest


class Upload(BaseModel):
    """An upload under way, or the image that came of it."""

    digest: HexDigest
    size: int = Field(description="Bytes")
    offset: int = Field(description="Bytes that are here")
    name: str
    created_at: datetime
    created_by: str
    image: Image | None = Field(description="There when all bytes are, and the image was accepted")

    @classmethod
    def of(cls, progress: Progress) -> "Upload":
        """Convert it."""
        if progress.upload is None:
            assert progress.image is not None  # noqa: S101  one of them is there
            image = progress.image
            return cls(
                digest=image.digest.hex(),
                size=image.size,
                offset=image.size,
                name=image.name,
                created_at=moment(image.created_at),
                created_by=image.created_by,
                image=Image.of(image),
            )
        upload = progress.upload
        return cls(
            digest=upload.id,
            size=upload.size,
            offset=upload.offset,
            name=upload.name,
            created_at=moment(upload.created_at),
            created_by=upload.created_by,
            image=None,
        )


class ImageKey(BaseModel):
    """A boot loader's public key: images that it signed are known as verified."""

    id: str
    name: str
    algorithm: str
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, key: StoredImageKey) -> "ImageKey":
        """Convert the record."""
        return cls(
            id=key.key_id,
            name=key.name,
            algorithm=key.algorithm,
            created_at=moment(key.created_at),
            created_by=key.created_by,
        )
