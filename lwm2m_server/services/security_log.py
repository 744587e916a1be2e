"""What was refused for reasons of security, as events for the operator: few, however many refusals there are.

The first refusal of an identity from a network (IPv4 /24, IPv6 /64) for a reason is told at once; what follows
within a minute is counted and told together. When many differ, which only an attack makes, the rest of that
minute is one count.
"""

import ipaddress
from dataclasses import dataclass

from lwm2m_server.clock import Clock
from lwm2m_server.services.background import Cancellable, Pump, Timers
from lwm2m_server.store.ports import EventStore
from lwm2m_server.store.records import JsonValue, NewEvent

WINDOW = 60.0  # seconds
MAX_KINDS = 64  # told apart in a window
_PREFIX = {4: 24, 6: 64}

TEXTS = {
    "unknown-identity": "nobody has added this identity",
    "revoked": "the credential was removed",
    "expired": "the credential's time has ended",
    "no-rule-matches": "no name in the certificate fits the rule of its authority",
    "ambiguous-names": "names in the certificate stand for several endpoint names",
    "bad-endpoint-name": "what stands in the certificate is no endpoint name",
    "foreign-authority": "the certificate's issuer itself is no authority here",
    "unknown-authority": "no authority here vouches for the certificate, and it was not added by its fingerprint",
    "bad-certificate": "the certificate can't be read",
    "damaged-key": "the stored key can't be opened",
    "endpoint-not-allowed": "the identity belongs to another endpoint name",
    "suspicious": "many forged records came for this identity's session",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    reason: str
    identity: str | None
    network: str
    endpoint: str | None


_OTHERS = _Kind("others", None, "", None)


class SecurityLog:
    """Writes `security.refused` events."""

    def __init__(self, events: EventStore, clock: Clock, timers: Timers) -> None:
        self._events = events
        self._clock = clock
        self._timers = timers
        self._counts: dict[_Kind, int] = {}
        self._ready: list[NewEvent] = []
        self._window: Cancellable | None = None
        self._pump = Pump("security-log", self._write, timers=timers)

    def refused(
        self, reason: str, *, address: str = "", identity: str | None = None, endpoint: str | None = None
    ) -> None:
        """Note a refusal; `address` is `host:port`, `endpoint` the name that was asked for or belongs to it."""
        kind = _Kind(reason, identity, network_of(address), endpoint)
        if kind not in self._counts and len(self._counts) >= MAX_KINDS:
            kind = _OTHERS
        if kind in self._counts:
            self._counts[kind] += 1
            return
        # Of the others none is told for itself.
        self._counts[kind] = 1 if kind is _OTHERS else 0
        if kind is not _OTHERS:
            self._tell(kind, 1, address)
        if self._window is None:
            self._window = self._timers.later(WINDOW, self._end_window)

    async def close(self) -> None:
        """Tell what was counted, and end."""
        self._end_window()
        await self._write()
        await self._pump.close()

    def _end_window(self) -> None:
        if self._window is not None:
            self._window.cancel()
            self._window = None
        counts, self._counts = self._counts, {}
        for kind, count in counts.items():
            if count:
                self._tell(kind, count, "")

    def _tell(self, kind: _Kind, count: int, address: str) -> None:
        data: dict[str, JsonValue] = {"reason": kind.reason, "count": count}
        if kind.identity is not None:
            data["identity"] = kind.identity
        if address or kind.network:
            data["address"] = address or kind.network
        text = TEXTS.get(kind.reason)
        if text is not None:
            data["text"] = text
        self._ready.append(
            NewEvent(kind="security.refused", at=self._clock.now(), endpoint=kind.endpoint, data=data)
        )
        self._pump.wake()

    async def _write(self) -> None:
        events, self._ready = self._ready, []
        if not events:
            return
        try:
            await self._events.append(events)
        except BaseException:
            self._ready = (events + self._ready)[: 4 * MAX_KINDS]
            raise


def network_of(address: str) -> str:
    """Return the network of `host:port`, as text; empty when it is none."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((ip, _PREFIX[ip.version]), strict=False))
