"""Which endpoint name an identity stands for; answers the handshakes that wait for a key or a verdict.

A certificate without a path to an authority is taken only when its fingerprint was added as a credential.

A certificate that no credential names is taken when an authority itself has issued it and a name in it fits the
authority's rule. It is noted as a credential then: from there on it is looked up, listed and revoked like any
other, and its sessions outlive a restart.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog
from cryptography import x509

from lwm2m_server.clock import Clock
from lwm2m_server.devices.identities import Kind, NameRule, Source
from lwm2m_server.errors import InvalidInput
from lwm2m_server.services.background import Pump, Timers
from lwm2m_server.services.credential_input import endpoint_name
from lwm2m_server.services.public_keys import ends_at, is_issued_by, names_of
from lwm2m_server.services.sealing import SealBroken, Sealer
from lwm2m_server.services.security_log import SecurityLog
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import Authority, Credential, Grant, JsonValue, NewEvent
from lwm2m_server.store.security_rules import grant_of

_log = structlog.get_logger(__name__)

MAX_CACHED = 65_536  # identities
MAX_WAITING = (
    65_536  # look-ups: one of each half-open handshake that the settings allow, so that none is lost
)
_CHUNK = 1000
_PSK = f"{Kind.PSK}:"
_X509 = f"{Kind.X509}:"
TIDY_INTERVAL = 10.0  # seconds


class LookUp(Protocol):
    """A handshake that waits for an answer, as the transport tells of it."""

    @property
    def handshake(self) -> int:
        """What the answer names."""
        ...

    @property
    def address(self) -> str:
        """`host:port` of the peer."""
        ...

    @property
    def identity(self) -> str:
        """The identity text; not proved yet."""
        ...

    @property
    def der(self) -> bytes:
        """The certificate or the public key; empty for a pre-shared key."""
        ...

    @property
    def verified(self) -> bool:
        """False for a certificate that leads to no authority: what it says is not vouched for."""
        ...


class Remote(Protocol):
    """A peer that sent something."""

    @property
    def address(self) -> str:
        """`host:port`."""
        ...

    @property
    def identity(self) -> str | None:
        """What it has proved."""
        ...


class Handshakes(Protocol):
    """What is needed of the transport."""

    def provide_psks(self, answers: Sequence[tuple[int, tuple[bytes, ...]]]) -> None:
        """Answer handshakes with the current key and at most one former; none: unknown."""
        ...

    def provide_verdict(self, handshake: int, *, accepted: bool) -> None:
        """Answer for a public key or a certificate."""
        ...

    def forget_key(self, identity: str) -> None:
        """Ask again at the next handshake of this identity."""
        ...

    def revoke(self, identity: str) -> None:
        """End all that this identity has."""
        ...


class _Refused(Exception):
    def __init__(self, reason: str, endpoint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.endpoint = endpoint


class IdentityService:
    """Identities of the secure transport."""

    def __init__(
        self,
        store: Store,
        transport: Handshakes,
        clock: Clock,
        timers: Timers,
        sealer: Sealer,
        log: SecurityLog,
        *,
        on_trust_changed: Callable[[], None],
    ) -> None:
        """`on_trust_changed` is called when `trust` gives others than before."""
        self._store = store
        self._transport = transport
        self._clock = clock
        self._sealer = sealer
        self._refusals = log
        self._cache: OrderedDict[str, tuple[str, float | None]] = OrderedDict()
        self._changes = 0
        self._waiting: list[LookUp] = []
        self._look_ups = Pump("look-ups", self._answer, timers=timers)
        self._tidy = Pump("credentials", self._end_overdue, timers=timers, interval=TIDY_INTERVAL)
        self._on_trust_changed = on_trust_changed

    def start(self) -> None:
        """Begin to end what is overdue."""
        self._tidy.start()

    async def close(self) -> None:
        """End the background work; handshakes that wait get no answer."""
        await self._tidy.close()
        await self._look_ups.close()

    async def endpoints_of(self, identities: Iterable[str]) -> dict[str, str | None]:
        """Return the endpoint name that each identity may use; None for one that has none (any more).

        The names in a certificate don't matter here: what they stand for was noted at the handshake.
        """
        now = self._clock.now()
        found: dict[str, str | None] = {}
        unknown: list[str] = []
        for identity in identities:
            cached = self._cache.get(identity)
            if cached is None:
                unknown.append(identity)
            else:
                self._cache.move_to_end(identity)
                found[identity] = _unless_over(cached, now)
        if unknown:
            changes = self._changes
            rows = await self._store.credentials.grants(unknown)
            kept: dict[str, tuple[str, float | None]] = {}
            for identity in unknown:
                row = rows.get(identity)
                if row is None or row.revoked_at is not None:
                    found[identity] = None
                    continue
                kept[identity] = fact = (row.endpoint, row.expires_at)
                found[identity] = _unless_over(fact, now)
            if changes == self._changes:  # nothing was revoked while the store answered
                self._keep(kept)
        return found

    def foreign(self, peer: Remote, endpoint: str) -> None:
        """Note that this peer was refused under a name that is not its own."""
        self._refusals.refused(
            "endpoint-not-allowed", address=peer.address, identity=peer.identity, endpoint=endpoint or None
        )

    def on_look_up(self, look_ups: Sequence[LookUp]) -> None:
        """Take handshakes that wait; they are answered in batches, with one read each."""
        # The oldest have given up by the time that so many wait.
        self._waiting = [*self._waiting, *look_ups][-MAX_WAITING:]
        self._look_ups.wake()

    def revoke(self, identity: str) -> None:
        """End the sessions of this identity, and don't answer for it from memory."""
        self._forget(identity)
        self._transport.revoke(identity)

    def rotated(self, identity: str) -> None:
        """Look up its keys again at the next handshake."""
        self._forget(identity)
        self._transport.forget_key(identity)

    def trust_changed(self) -> None:
        """Tell whoever hands the authorities to the transport."""
        self._changes += 1
        self._on_trust_changed()

    async def trust(self) -> tuple[bytes, ...]:
        """Return the certificates of the authorities (DER)."""
        return tuple(authority.certificate for authority in await self._store.authorities.all())

    def _keep(self, found: Mapping[str, tuple[str, float | None]]) -> None:
        cache = self._cache
        for identity, fact in found.items():  # `update` of an OrderedDict takes several times as long
            cache[identity] = fact
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)

    def _forget(self, identity: str) -> None:
        self._changes += 1
        self._cache.pop(identity, None)

    async def _answer(self) -> None:
        waiting, self._waiting = self._waiting[:_CHUNK], self._waiting[_CHUNK:]
        if not waiting:
            return
        if self._waiting:
            self._look_ups.wake()
        changes = self._changes
        try:
            rows = await self._store.credentials.grants({each.identity for each in waiting})
            unknown = [] if len(rows) == len(waiting) else waiting
            vouched = await self._vouch([each for each in unknown if _is_unknown_certificate(each, rows)])
        except BaseException:
            # Devices repeat their flights meanwhile; they must not hear that they are unknown.
            self._waiting = [*waiting, *self._waiting][-MAX_WAITING:]
            raise
        if changes != self._changes:  # what was read may have been revoked meanwhile
            self._waiting = [*waiting, *self._waiting]
            self._look_ups.wake()
            return
        self._decide(waiting, {**rows, **vouched})

    def _decide(self, waiting: Sequence[LookUp], found: Mapping[str, Grant | str]) -> None:
        now = self._clock.now()
        psks: list[tuple[int, tuple[bytes, ...]]] = []
        kept: dict[str, tuple[str, float | None]] = {}
        for look_up in waiting:
            identity = look_up.identity
            is_psk = identity.startswith(_PSK)
            keys: tuple[bytes, ...] = ()
            accepted = False
            try:
                row = _valid(found.get(identity), now, verified=look_up.verified)
                if is_psk:
                    keys = self._keys(row, now)
                kept[identity] = (row.endpoint, row.expires_at)
                accepted = True
            except _Refused as refused:
                # A session that is not resumed is no event yet: a handshake with the certificate or key itself
                # follows.
                if is_psk or look_up.der:
                    self._refusals.refused(
                        refused.reason,
                        address=look_up.address,
                        identity=identity,
                        endpoint=refused.endpoint,
                    )
            if is_psk:
                psks.append((look_up.handshake, keys))
            else:
                self._transport.provide_verdict(look_up.handshake, accepted=accepted)
        if psks:
            self._transport.provide_psks(psks)
        # The Registers that follow the handshakes find them here.
        self._keep(kept)

    def _keys(self, row: Grant, now: float) -> tuple[bytes, ...]:
        """Return the current key, and the former one while it counts."""
        try:
            key = self._sealer.open(row.secret or b"", row.identity)
            if row.previous is None or (row.previous_until or 0.0) <= now:
                return (key,)
            return key, self._sealer.open(row.previous, row.identity)
        except SealBroken as error:
            _log.error("key not usable", identity=row.identity, error=error.message)
            raise _Refused("damaged-key", row.endpoint) from None

    async def _vouch(self, look_ups: Sequence[LookUp]) -> dict[str, Grant | str]:
        """Return what a new credential grants for each certificate that an authority vouches for, else the reason."""
        if not look_ups:
            return {}
        authorities = await self._store.authorities.all()
        found: dict[str, Grant | str] = {}
        new: list[Credential] = []
        for look_up in look_ups:
            try:
                new.append(self._by_rule(look_up, authorities))
                found[look_up.identity] = grant_of(new[-1])
            except _Refused as refused:
                found[look_up.identity] = refused.reason
        await self._store.credentials.add_many([(each, _vouched_event(each)) for each in new])
        # An authority that was removed meanwhile has taken along only what was there before.
        left = {authority.id for authority in await self._store.authorities.all()}
        for each in new:
            if each.authority not in left:
                await self._store.credentials.delete(each.identity)
                found[each.identity] = "foreign-authority"
        return found

    def _by_rule(self, look_up: LookUp, authorities: Sequence[Authority]) -> Credential:
        try:
            certificate = x509.load_der_x509_certificate(look_up.der)
        except ValueError:
            raise _Refused("bad-certificate") from None
        issuer = next(
            (each for each in authorities if is_issued_by(certificate, _loaded(each.certificate))), None
        )
        if issuer is None:
            raise _Refused("foreign-authority")
        rule = NameRule(Source(issuer.source), issuer.pattern)
        if rule.source is Source.NONE:
            raise _Refused("unknown-identity")
        names = rule.endpoints(names_of(certificate, rule.source))
        if len(names) != 1:
            raise _Refused("ambiguous-names" if names else "no-rule-matches")
        try:
            endpoint = endpoint_name(names.pop())
        except InvalidInput:
            raise _Refused("bad-endpoint-name") from None
        return Credential(
            identity=look_up.identity,
            kind=Kind.X509,
            endpoint=endpoint,
            created_at=self._clock.now(),
            created_by="authority",
            public=look_up.der,
            expires_at=ends_at(certificate),
            authority=issuer.id,
        )

    async def _end_overdue(self) -> None:
        now = self._clock.now()
        for row in await self._store.credentials.due(now=now):
            if row.expires_at is None or row.expires_at > now:
                new = replace(row, previous=None, previous_until=None, revision=row.revision + 1)
                await self._store.credentials.change(row, new)
                self.rotated(row.identity)
                continue
            if (
                row.authority is not None
            ):  # its successors may be many; the transport knows that it has expired
                await self._store.credentials.delete(row.identity)
            else:
                new = replace(
                    row,
                    secret=None,
                    previous=None,
                    previous_until=None,
                    revoked_at=row.expires_at,
                    revision=row.revision + 1,
                )
                await self._store.credentials.change(row, new)
            self.revoke(row.identity)


def _unless_over(fact: tuple[str, float | None], now: float) -> str | None:
    endpoint, expires_at = fact
    return None if expires_at is not None and expires_at <= now else endpoint


def _valid(found: Grant | str | None, now: float, *, verified: bool) -> Grant:
    """Return what holds now of what was found; raises `_Refused` with the reason that was found, or is seen."""
    if isinstance(found, str):
        raise _Refused(found)
    if not verified and (found is None or found.authority is not None):
        raise _Refused("unknown-authority")
    if found is None:
        raise _Refused("unknown-identity")
    is_over = found.expires_at is not None and found.expires_at <= now
    if found.revoked_at is not None or is_over:
        raise _Refused("expired" if is_over else "revoked", found.endpoint)
    return found


def _is_unknown_certificate(look_up: LookUp, rows: Mapping[str, Grant]) -> bool:
    identity = look_up.identity
    return identity.startswith(_X509) and look_up.verified and identity not in rows


def _loaded(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def _vouched_event(credential: Credential) -> NewEvent:
    data: dict[str, JsonValue] = {
        "identity": credential.identity,
        "kind": credential.kind,
        "by": "authority",
        "authority": credential.authority,
    }
    return NewEvent(
        kind="credential.added", at=credential.created_at, endpoint=credential.endpoint, data=data
    )
