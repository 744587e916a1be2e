"""What an image says of itself, and what was verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

Plain = str | int | bool | None | list["Plain"] | dict[str, "Plain"]
"""What goes into JSON."""

_NONE: Final[Mapping[str, Plain]] = {}


class SignatureState(StrEnum):
    """What is known of a signature."""

    VERIFIED = "verified"
    """It holds, and a trusted key made it."""
    UNKNOWN_KEY = "unknown-key"
    """No trusted key made it."""
    SAMPLE_KEY = "sample-key"
    """Made with a key pair that MCUboot publishes: anyone can."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature. `key` is the id of the trusted key, else the fingerprint in the image (hex), if any."""

    algorithm: str
    state: SignatureState
    key: str | None = None

    def plain(self) -> dict[str, Plain]:
        """For JSON."""
        return {"algorithm": self.algorithm, "state": self.state.value, "key": self.key}


@dataclass(frozen=True, slots=True)
class Dependency:
    """Another image (MCUboot's number) that must have at least this version."""

    image: int
    version: str

    def plain(self) -> dict[str, Plain]:
        """For JSON."""
        return {"image": self.image, "version": self.version}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What a parser found; None or empty where the format or the image does not say it.

    `vendor_id` and `class_id` are UUIDs (16 bytes). `content_checked`: the image's own hash or checksum holds.
    `details` are of the format, `notes` sentences for people.
    """

    version: str | None = None
    project: str | None = None
    chip: str | None = None
    security_counter: int | None = None
    vendor_id: bytes | None = None
    class_id: bytes | None = None
    dependencies: tuple[Dependency, ...] = ()
    signatures: tuple[Signature, ...] = ()
    content_checked: bool = False
    details: Mapping[str, Plain] = field(default_factory=lambda: _NONE)
    notes: tuple[str, ...] = ()
