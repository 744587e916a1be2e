"""Keys, images and signed manifests, made as an operator makes them."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.server import Server
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.cose import SigningKey
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.firmware.inplace import NamedDelta

VENDOR = "acme.example"
CLASS = "M1"


def image_of(version: str, size: int, *, seed: int = 1) -> bytes:
    """Return an image that names its version in its first line, as plain devices need it."""
    head = f"firmware-version: {version}\n".encode()
    return head + random.Random(seed).randbytes(size - len(head))


@dataclass(frozen=True)
class Release:
    """An image with its signed manifest."""

    version: str
    image: bytes
    envelope: bytes

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.image).digest()


class Signer:
    """A key pair; the private half never goes to the server."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()

    @property
    def public(self) -> bytes:
        return self.key.public.pem()

    def public_file(self, folder: Path) -> Path:
        file = folder / "release.pub.pem"
        file.write_bytes(self.public)
        return file

    def release(
        self,
        version: str,
        image: bytes,
        *,
        sequence: int = 1,
        manufacturer: str = "Acme",
        model: str = "M1",
        vendor: str = VENDOR,
        class_name: str = CLASS,
        uri: str | None = None,
        deltas: tuple[NamedDelta, ...] = (),
        component: tuple[bytes, ...] = (b"\x00",),
    ) -> Release:
        """Describe and sign."""
        digest = hashlib.sha256(image).digest()
        description = ManifestDescription(
            vendor_domain=vendor,
            class_name=class_name,
            version=version,
            sequence_number=sequence,
            image_digest=digest,
            image_size=len(image),
            image_uri=uri or f"/fw/{digest.hex()}",
            manufacturer=manufacturer,
            model=model,
            deltas=deltas,
            component=component,
        )
        return Release(version, image, sign(build_manifest(description), self.key))

    def publish(self, server: Server, release: Release) -> str:
        """Upload key, image and manifest; return the manifest's id."""
        server.call("POST", "/keys", params={"name": "release"}, content=self.public, headers=PEM)
        server.call(
            "POST",
            "/firmware",
            params={"name": f"image-{release.version}.bin", "version": release.version},
            content=release.image,
            headers=BYTES,
        )
        manifest: dict[str, Any] = server.call(
            "POST", "/manifests", content=release.envelope, headers=ENVELOPE
        )
        return str(manifest["id"])


PEM = {"Content-Type": "application/x-pem-file"}
BYTES = {"Content-Type": "application/octet-stream"}
ENVELOPE = {"Content-Type": "application/suit-envelope+cose"}
