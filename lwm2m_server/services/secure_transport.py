"""What stands between the store and the transport's DTLS: credentials, sessions, trust, and refusals."""

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import TextIO

import structlog

from lwm2m_server.clock import Clock
from lwm2m_server.config import CoapsSettings
from lwm2m_server.services.background import Pump, Timers
from lwm2m_server.services.identities import IdentityService
from lwm2m_server.services.sealing import Sealer
from lwm2m_server.services.security_log import SecurityLog
from lwm2m_server.services.server_key import ServerKeys
from lwm2m_server.services.sessions import SessionKeeper
from lwm2m_server.store.ports import Store
from lwm2m_server.transport import (
    Established,
    HandshakeFailed,
    KeyLog,
    LookUp,
    Security,
    SecurityEvent,
    SessionExports,
    SessionGone,
    Suspicious,
    Transport,
)

_log = structlog.get_logger(__name__)

# Told with the better reason when the look-up was answered.
_TOLD = frozenset({"unknown-authority", "unknown-identity", "unknown-peer"})


class SecureTransport:
    """Gives the transport what it needs for coaps, and takes its news."""

    def __init__(
        self,
        settings: CoapsSettings,
        store: Store,
        transport: Transport,
        clock: Clock,
        timers: Timers,
        *,
        sealer: Sealer,
        keys: ServerKeys,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._sealer = sealer
        self._keys = keys
        self._key_log: TextIO | None = None
        self._trust = Pump("trust", self.secure, timers=timers)
        self.log = SecurityLog(store.events, clock, timers)
        self.identities = IdentityService(
            store, transport, clock, timers, sealer, self.log, on_trust_changed=self._trust.wake
        )
        self.sessions = SessionKeeper(
            store.sessions, transport, clock, timers, lifetime=settings.session_lifetime
        )

    async def secure(self) -> None:
        """Tell the transport what to present and whom to trust, if it is to speak DTLS; call before it listens.

        Raises `TransportError` naming what can't be used.
        """
        if not self._settings.listen:
            return
        key = self._keys.current
        file = self._settings.key_log_file
        if file is not None and self._key_log is None:
            opener = partial(os.open, mode=0o600)
            self._key_log = await asyncio.to_thread(open, file, "a", encoding="ascii", opener=opener)
            _log.warning("all traffic can be read by whoever has the key log", file=str(file))
        self._transport.secure(
            Security(
                certificate=key.certificate,
                private_key=key.private_key,
                accept_raw_public_keys=self._settings.raw_public_keys,
                trust=await self.identities.trust(),
                suites=tuple(self._settings.suites),
                connection_id_length=self._settings.connection_id_length,
                handshake_timeout=self._settings.handshake_timeout,
                sealing_key=self._sealer.sessions_key,
                key_log=self._key_log is not None,
            )
        )

    async def restore(self) -> dict[str, int]:
        """Take stored sessions back; call between the transport's `bind` and its `serve`."""
        return await self.sessions.restore()

    def start(self) -> None:
        """Begin to end what is overdue."""
        self.identities.start()

    async def reload(self) -> None:
        """Read key and certificate again (SIGHUP); sessions go on. When that fails the present ones stay.

        Raises `InvalidInput` naming the file, `TransportError`.
        """
        await self._keys.reload()
        await self.secure()

    def on_security(self, events: Sequence[SecurityEvent]) -> None:
        """Take the transport's news."""
        look_ups: list[LookUp] = []
        for event in events:
            match event:
                case LookUp():
                    look_ups.append(event)
                case SessionExports():
                    self.sessions.exported(event.rows)
                case Established():
                    pass
                case SessionGone():
                    self.sessions.gone(event.record)
                case HandshakeFailed() if event.reason not in _TOLD:
                    self.log.refused(event.reason, address=event.address, identity=event.identity)
                case Suspicious():
                    self.log.refused("suspicious", address=event.address, identity=event.identity)
                case KeyLog() if self._key_log is not None:
                    print(event.line, file=self._key_log, flush=True)
        if look_ups:
            self.identities.on_look_up(look_ups)

    async def close(self) -> None:
        """Store what waits. Close the transport before: it exports all sessions at its end."""
        await self._trust.close()
        await self.identities.close()
        await self.sessions.close()
        await self.log.close()
        if self._key_log is not None:
            self._key_log.close()
