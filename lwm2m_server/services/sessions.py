"""Sessions of the secure transport, so that they outlive a restart.

The transport exports a session when it is new, when it comes near the end of the record numbers that it has
reserved, and at the end. It uses the next numbers only after `confirm_sessions`: so no nonce is used twice,
whenever the process dies. At a start all stored sessions are claimed, once.

Nobody waits for a session to be stored: half of its numbers are left when it asks, and a crash before costs the
device one handshake. So exports are collected for a moment, and a fleet that comes back costs few transactions.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import structlog

from lwm2m_server.clock import Clock
from lwm2m_server.errors import Lwm2mError
from lwm2m_server.services.background import Cancellable, Pump, Timers
from lwm2m_server.store.security_ports import SessionStore

_log = structlog.get_logger(__name__)

_CHUNK = 1000
_HELD = 0.1  # seconds
_PAGE = 10_000  # sessions restored at once


SessionExport = tuple[int, int, int, bytes]
"""A session to be stored, as the transport tells of it: its number (64 bits), the claim that it came from, the mark
to confirm it with, and what is sealed.
"""


class Confirms(Protocol):
    """What is needed of the transport."""

    def confirm_sessions(self, marks: Sequence[tuple[int, int]]) -> None:
        """The exports of these records with these marks are durable."""
        ...

    def restore(self, sessions: Sequence[tuple[int, int, bytes]]) -> dict[str, int]:
        """Take sessions back; return how many ended in which way."""
        ...


class SessionKeeper:
    """Stores exports in batches."""

    def __init__(
        self, store: SessionStore, transport: Confirms, clock: Clock, timers: Timers, *, lifetime: float
    ) -> None:
        """`lifetime`: seconds after which a session that was not saved again is forgotten at a start."""
        self._store = store
        self._transport = transport
        self._clock = clock
        self._lifetime = lifetime
        self._waiting: dict[int, SessionExport | None] = {}
        self._timers = timers
        self._timer: Cancellable | None = None
        self._pump = Pump("sessions", self._save, timers=timers)

    def exported(self, exports: Sequence[SessionExport]) -> None:
        """Store these; only the last export of a session counts."""
        self._waiting.update((export[0], export) for export in exports)
        self._soon()

    def gone(self, record: int) -> None:
        """Forget this."""
        self._waiting[record] = None
        self._soon()

    async def restore(self) -> dict[str, int]:
        """Claim what is stored and hand it to the transport; call between its `bind` and its `serve`.

        Returns how many ended in which way. A store that can't be read gives none: devices shake hands anew.
        """
        counts: Counter[str] = Counter()
        try:
            await self._store.claim(since=self._clock.now() - self._lifetime)
            after: str | None = None
            while True:
                page = await self._store.page(after=after, limit=_PAGE)
                if page.items:
                    counts.update(self._transport.restore(page.items))
                after = page.next
                if after is None:
                    break
        except Lwm2mError as error:
            _log.error("sessions not restored, devices must shake hands anew", error=error.message)
            return {**counts, "lost": 1}
        if counts:
            _log.info("sessions restored", **counts)
        return dict(counts)

    async def close(self) -> None:
        """Store what waits. Close the transport before: it exports all sessions at its end."""
        if self._timer is not None:
            self._timer.cancel()
        await self._pump.close()
        try:
            await self._save()
        except Lwm2mError as error:
            _log.error("sessions lost", count=len(self._waiting), error=error.message)

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = self._timers.later(_HELD, self._due)

    def _due(self) -> None:
        self._timer = None
        self._pump.wake()

    async def _save(self) -> None:
        while self._waiting:
            records = list(self._waiting)[:_CHUNK]
            batch = {record: self._waiting.pop(record) for record in records}
            try:
                await self._write(batch)
            except BaseException:
                self._waiting = batch | self._waiting  # behind what is newer
                raise

    async def _write(self, batch: dict[int, SessionExport | None]) -> None:
        now = self._clock.now()
        exports = [export for export in batch.values() if export is not None]
        saved = await self._store.save(
            [(record, generation, sealed, now) for record, generation, _, sealed in exports]
        )
        self._transport.confirm_sessions(
            [(export[0], export[2]) for export, is_durable in zip(exports, saved, strict=True) if is_durable]
        )
        if len(exports) < len(batch):
            await self._store.remove([record for record, export in batch.items() if export is None])
