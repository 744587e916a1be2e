"""Patches between images, which device could not use which, and how many bytes each update took."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelta:
    """A patch, by (base, target, method); the images are named by their digests, `base` is empty where none is needed.

    `state` is `ready`, or `failed` (it could not be made, `text` says why; then `digest` is empty), or `withdrawn`
    (several devices could not use it). `size` is in bytes; `seconds` and `memory` (bytes at most) are what it cost.
    """

    base: bytes
    target: bytes
    method: str
    digest: bytes
    size: int
    state: str
    created_at: float
    text: str = ""
    seconds: float = 0.0
    memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What one device fetched of one artefact in one campaign: a patch, or (`method` empty) the whole image.

    `sent` are the bytes that it has of the `size` that there are; `image` is the image that it makes, empty where that
    was not kept, `image_size` its bytes. `applied` when the update ended well by it.
    """

    campaign_id: str
    endpoint: str
    digest: bytes
    method: str
    size: int
    image_size: int
    sent: int
    updated_at: float
    applied: bool = False
    image: bytes = b""


@dataclass(frozen=True, slots=True)
class Savings:
    """Bytes of updates that ended well: images as a whole, what was sent for them, by how many updates with a delta."""

    updates: int = 0
    deltas: int = 0
    image_bytes: int = 0
    sent_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """How many fewer bytes were sent; below 0 when failed patches cost more than the others gained."""
        return self.image_bytes - self.sent_bytes


class DeltaStore(Protocol):
    """Deltas, their failures, and transfers."""

    async def put(self, deltas: Sequence[StoredDelta]) -> None:
        """Add or replace. Patches of images that are gone meanwhile are left out."""
        ...

    async def of(self, base: bytes, target: bytes) -> list[StoredDelta]:
        """Return the patches from `base` to `target` and those to `target` without a base, by method."""
        ...

    async def digests(self) -> set[bytes]:
        """Return the digests of all patches: what else is in the files may go."""
        ...

    async def fail(self, endpoint: str, digest: bytes, *, reason: str, at: float) -> int:
        """Note that a device could not use a patch; return how many devices could not."""
        ...

    async def failed(self, endpoint: str) -> set[bytes]:
        """Return the digests of the patches that this device could not use."""
        ...

    async def withdraw(self, digest: bytes) -> None:
        """Mark the patch as `withdrawn`."""
        ...

    async def record(self, transfers: Sequence[Transfer]) -> None:
        """Add or replace, by (campaign id, endpoint, digest)."""
        ...

    async def transfers(self, campaign_id: str, endpoint: str) -> list[Transfer]:
        """Return what a device fetched in a campaign, by digest."""
        ...

    async def savings(self, *, campaign_id: str | None = None, endpoint: str | None = None) -> Savings:
        """Add up the updates that ended well: of a campaign, of a device, or of all."""
        ...
