# ruff: noqa: D102  the docstrings are the ports'
"""Deltas and transfers in memory."""

from collections.abc import Sequence
from dataclasses import replace

from lwm2m_server.store.delta_ports import Savings, StoredDelta, Transfer
from lwm2m_server.store.memory_tables import Tables


class MemoryDeltaStore:
    """See `delta_ports.DeltaStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._deltas: dict[tuple[bytes, bytes, str], StoredDelta] = {}
        self._failures: dict[tuple[str, bytes], str] = {}
        self._transfers: dict[tuple[str, str, bytes], Transfer] = {}

    async def put(self, deltas: Sequence[StoredDelta]) -> None:
        for delta in deltas:
            self._deltas[delta.base, delta.target, delta.method] = delta

    async def of(self, base: bytes, target: bytes) -> list[StoredDelta]:
        return [
            delta
            for _, delta in sorted(self._present().items(), key=lambda item: item[0][2])
            if delta.target == target and delta.base in (b"", base)
        ]

    async def digests(self) -> set[bytes]:
        return {delta.digest for delta in self._present().values() if delta.digest}

    async def fail(self, endpoint: str, digest: bytes, *, reason: str, at: float) -> int:  # noqa: ARG002
        self._failures[endpoint, digest] = reason
        return sum(failed == digest for _, failed in self._failures)

    async def failed(self, endpoint: str) -> set[bytes]:
        return {digest for device, digest in self._failures if device == endpoint}

    async def withdraw(self, digest: bytes) -> None:
        for key, delta in self._deltas.items():
            if delta.digest == digest:
                self._deltas[key] = replace(delta, state="withdrawn")

    async def record(self, transfers: Sequence[Transfer]) -> None:
        for transfer in transfers:
            self._transfers[transfer.campaign_id, transfer.endpoint, transfer.digest] = transfer

    async def transfers(self, campaign_id: str, endpoint: str) -> list[Transfer]:
        return [
            transfer
            for key, transfer in sorted(self._transfers.items())
            if key[:2] == (campaign_id, endpoint)
        ]

    async def savings(self, *, campaign_id: str | None = None, endpoint: str | None = None) -> Savings:
        updates: dict[tuple[str, str], list[Transfer]] = {}
        for transfer in self._transfers.values():
            if campaign_id in (None, transfer.campaign_id) and endpoint in (None, transfer.endpoint):
                updates.setdefault((transfer.campaign_id, transfer.endpoint), []).append(transfer)
        ended = [rows for rows in updates.values() if any(row.applied for row in rows)]
        return Savings(
            updates=len(ended),
            deltas=sum(any(row.applied and row.method for row in rows) for rows in ended),
            image_bytes=sum(row.image_size for rows in ended for row in rows if row.applied),
            sent_bytes=sum(row.sent for rows in ended for row in rows),
        )

    def _present(self) -> dict[tuple[bytes, bytes, str], StoredDelta]:
        """Those whose images are still there."""
        images = self._tables.images
        self._deltas = {
            key: delta
            for key, delta in self._deltas.items()
            if delta.target in images and (not delta.base or delta.base in images)
        }
        return self._deltas
