"""How many bytes one update took: of its images, and of patches that were offered in their place."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from lwm2m_server.clock import Clock
from lwm2m_server.store.delta_ports import DeltaStore, StoredDelta, Transfer

IN_PLACE = "detools-in-place"
"""The method of deltas that manifests name; the others are those of `firmware.deltas`."""


class Transfers:
    """Counts what the device of one deployment has fetched; `save` writes it down."""

    def __init__(
        self,
        store: DeltaStore,
        clock: Clock,
        campaign_id: str,
        endpoint: str,
        images: Mapping[bytes, int],
        deltas: Iterable[tuple[bytes, bytes, int]] = (),
    ) -> None:
        """`images` are what is to be fetched, by SHA-256, with their bytes.

        `deltas` are those that the manifest itself names: the image that each makes, its SHA-256, its bytes.
        """
        self._store = store
        self._clock = clock
        self._campaign_id = campaign_id
        self._endpoint = endpoint
        self._images = dict(images)
        self._rows = {
            image: Transfer(
                campaign_id=campaign_id,
                endpoint=endpoint,
                digest=image,
                method="",
                size=size,
                image_size=size,
                sent=0,
                updated_at=clock.now(),
                image=image,
            )
            for image, size in images.items()
        }
        for image, digest, size in deltas:
            if image in images:
                made = replace(self._rows[image], digest=digest, method=IN_PLACE, size=size)
                self._rows.setdefault(digest, made)
        self._unsaved: set[bytes] = set()

    async def restore(self) -> list[bytes]:
        """Take up what was counted before a restart; return the digests of the patches that were offered."""
        stored = await self._store.transfers(self._campaign_id, self._endpoint)
        self._rows |= {row.digest: row for row in stored}
        return [row.digest for row in stored if row.method]

    def offered(self, delta: StoredDelta) -> None:
        """Count a patch that is offered now, if it makes an image of this deployment."""
        if delta.target in self._images and delta.digest not in self._rows:
            self._rows[delta.digest] = replace(
                self._rows[delta.target],
                digest=delta.digest,
                method=delta.method,
                size=delta.size,
                sent=0,
                updated_at=self._clock.now(),
            )
            self._unsaved.add(delta.digest)

    def fetched(self, digest: bytes, offset: int) -> int:
        """The device has an artefact up to `offset`; return how much of all images it has by that, in bytes."""
        row = self._rows.get(digest)
        if row is not None and offset > row.sent:
            self._rows[digest] = replace(row, sent=offset, updated_at=self._clock.now())
            self._unsaved.add(digest)
        total = sum(self._reached(image) for image in self._images)
        # what is not counted here, such as the manifest, is progress all the same
        return total if row is not None else max(total, offset)

    async def save(self, *, succeeded: bool = False) -> None:
        """Write down what changed. What an update that ended well came by: each whole image, else its last patch."""
        for image in self._images if succeeded else ():
            whole = [row for row in self._of(image) if row.sent >= row.size]
            if whole:
                used = min(whole, key=lambda row: (row.method != "", -row.updated_at))
                self._rows[used.digest] = replace(used, applied=True)
                self._unsaved.add(used.digest)
        unsaved, self._unsaved = self._unsaved, set()
        if unsaved:
            await self._store.record([self._rows[digest] for digest in sorted(unsaved)])

    def _of(self, image: bytes) -> list[Transfer]:
        # rows of earlier servers do not name their image: there was but one
        return [row for row in self._rows.values() if (row.image or next(iter(self._images))) == image]

    def _reached(self, image: bytes) -> int:
        """How much of an image has come, by whatever way has brought most."""
        size = self._images[image]
        return max(row.sent * size // max(1, row.size) for row in self._of(image))
