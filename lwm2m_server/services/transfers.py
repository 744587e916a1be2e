"""How many bytes one update took: of the image, and of patches that were offered in its place."""

from dataclasses import replace

from lwm2m_server.clock import Clock
from lwm2m_server.store.delta_ports import DeltaStore, StoredDelta, Transfer


class Transfers:
    """Counts what the device of one deployment has fetched; `save` writes it down."""

    def __init__(
        self, store: DeltaStore, clock: Clock, campaign_id: str, endpoint: str, image: bytes, size: int
    ) -> None:
        """`image` is the SHA-256 of what is to be installed, `size` its bytes."""
        self._store = store
        self._clock = clock
        self._image = image
        self._size = size
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
            )
        }
        self._unsaved: set[bytes] = set()

    async def restore(self) -> list[bytes]:
        """Take up what was counted before a restart; return the digests of the patches that were offered."""
        (own,) = self._rows.values()
        for row in await self._store.transfers(own.campaign_id, own.endpoint):
            self._rows[row.digest] = row
        return [digest for digest, row in self._rows.items() if row.method]

    def offered(self, delta: StoredDelta) -> None:
        """Count a patch that is offered now, if it makes the image of this deployment."""
        if delta.target == self._image and delta.digest not in self._rows:
            self._rows[delta.digest] = replace(
                self._rows[self._image],
                digest=delta.digest,
                method=delta.method,
                size=delta.size,
                sent=0,
                updated_at=self._clock.now(),
            )
            self._unsaved.add(delta.digest)

    def fetched(self, digest: bytes, offset: int) -> int:
        """The device has an artefact up to `offset`; return how much of the image that is worth."""
        row = self._rows.get(digest)
        if row is None:
            return offset
        if offset > row.sent:
            self._rows[digest] = replace(row, sent=offset, updated_at=self._clock.now())
            self._unsaved.add(digest)
        return offset if not row.method else offset * self._size // max(1, row.size)

    async def save(self, *, succeeded: bool = False) -> None:
        """Write down what changed. What an update that ended well came by: the whole image, else the last patch."""
        if succeeded:
            whole = [row for row in self._rows.values() if row.sent >= row.size]
            if whole:
                used = min(whole, key=lambda row: (row.method != "", -row.updated_at))
                self._rows[used.digest] = replace(used, applied=True)
                self._unsaved.add(used.digest)
        unsaved, self._unsaved = self._unsaved, set()
        if unsaved:
            await self._store.record([self._rows[digest] for digest in sorted(unsaved)])
