"""Credentials of devices, as operators see them: add, show, rotate, remove, import; and authorities.

Pre-shared keys are sealed before they reach the store. A key is shown once, to whoever had it made; no other
answer, event or log holds one.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from lwm2m_server.clock import Clock
from lwm2m_server.devices.identities import Kind, NameRule, Source, canonical
from lwm2m_server.errors import Conflict, InvalidInput, NotFound
from lwm2m_server.services.credential_import import Importer, ImportReport
from lwm2m_server.services.credential_input import Material, checked, endpoint_name
from lwm2m_server.services.naming import MAX_PAGE
from lwm2m_server.services.public_keys import certificate_of, ends_at, is_authority
from lwm2m_server.services.sealing import Sealer
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import Authority, Credential, JsonValue, NewEvent, Page
from lwm2m_server.store.security_rules import credential_taken

MAX_OVERLAP = 31_536_000.0  # seconds
MAX_AUTHORITIES = 100
_MAX_NAME = 100


class Live(Protocol):
    """Who must hear of changes at once. `IdentityService` is one."""

    def revoke(self, identity: str) -> None:
        """End the sessions of this identity."""
        ...

    def rotated(self, identity: str) -> None:
        """Use its former key no longer without asking again."""
        ...

    def trust_changed(self) -> None:
        """The authorities are others now."""
        ...


class CredentialService:
    """Who devices are."""

    def __init__(self, store: Store, clock: Clock, sealer: Sealer, live: Live) -> None:
        self._store = store
        self._clock = clock
        self._sealer = sealer
        self._live = live

    async def add(
        self, kind: Kind, endpoint: str, material: Material, *, actor: str
    ) -> tuple[Credential, bytes | None]:
        """Add a credential; return it, and the pre-shared key if one was made here: nobody sees it again.

        Raises `InvalidInput` naming the field, `Conflict` when the identity is taken.
        """
        endpoint = endpoint_name(endpoint)
        now = self._clock.now()
        found = checked(kind, endpoint, material, now=now)
        credential = Credential(
            identity=found.identity,
            kind=kind,
            endpoint=endpoint,
            created_at=now,
            created_by=actor,
            secret=None if found.key is None else self._sealer.seal(found.key, found.identity),
            public=found.public,
            expires_at=found.expires_at,
        )
        if not await self._store.credentials.add(
            credential, events=[self._event("added", credential, actor)]
        ):
            raise credential_taken(found.identity)
        return await self.get(found.identity), None if material.key else found.key

    async def page(
        self,
        *,
        endpoint: str | None = None,
        kind: Kind | None = None,
        revoked: bool = False,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Credential]:
        """Return credentials by identity, the revoked ones only when asked for."""
        limit = max(1, min(limit, MAX_PAGE))
        return await self._store.credentials.page(
            endpoint=endpoint, kind=kind, revoked=revoked, after=after, limit=limit
        )

    async def get(self, identity: str) -> Credential:
        """Return one, also when it is revoked; raises `NotFound`, `InvalidInput`."""
        identity = canonical(identity)
        found = await self._store.credentials.get(identity)
        if found is None:
            raise NotFound(
                f"There is no credential {identity}.",
                field="identity",
                hint="See what is there: lwm2m credentials list.",
            )
        return found

    async def rotate(
        self, identity: str, material: Material, *, overlap: float, actor: str
    ) -> tuple[Credential, bytes | None]:
        """Give the device a new key; the old one counts for `overlap` seconds more.

        A pre-shared key keeps its identity; a public key or certificate has a new one. Without overlap live
        sessions end at once. Returns as `add`; raises `InvalidInput`, `NotFound`, `Conflict`.
        """
        old = await self.get(identity)
        if not 0 <= overlap <= MAX_OVERLAP:
            raise InvalidInput(
                "The overlap is out of range.", field="overlap", hint=f"0 to {MAX_OVERLAP:.0f} seconds."
            )
        now = self._clock.now()
        if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
            raise Conflict(
                f"The credential {old.identity} has ended.",
                code="revoked",
                field="identity",
                hint="Add a new one for this device.",
            )
        rotate = self._rotate_psk if old.kind == Kind.PSK else self._succeed
        new, key = await rotate(old, material, now, overlap, actor)
        (self._live.rotated if overlap else self._live.revoke)(old.identity)
        return new, key

    async def _rotate_psk(
        self, old: Credential, material: Material, now: float, overlap: float, actor: str
    ) -> tuple[Credential, bytes | None]:
        if material.identity and canonical(f"psk:{material.identity.removeprefix('psk:')}") != old.identity:
            raise InvalidInput(
                "A pre-shared key keeps its identity.",
                field="identity",
                hint="Add a second credential to change it.",
            )
        found = checked(Kind.PSK, old.endpoint, replace(material, identity=old.identity), now=now)
        key = found.key or b""
        if old.secret is not None and hmac.compare_digest(self._opened(old), key):
            raise Conflict("That is its key already.", field="key", hint="Give another key, or none.")
        new = replace(
            old,
            secret=self._sealer.seal(key, old.identity),
            previous=old.secret if overlap else None,
            previous_until=now + overlap if overlap else None,
            rotated_at=now,
            revision=old.revision + 1,
        )
        event = self._event("rotated", old, actor, overlap=overlap)
        if not await self._store.credentials.change(old, new, events=[event]):
            raise _stale(old)
        return new, None if material.key else key

    def _opened(self, credential: Credential) -> bytes:
        return self._sealer.open(credential.secret or b"", credential.identity)

    async def _succeed(
        self, old: Credential, material: Material, now: float, overlap: float, actor: str
    ) -> tuple[Credential, bytes | None]:
        found = checked(Kind(old.kind), old.endpoint, material, now=now)
        if found.identity == old.identity:
            raise Conflict("That is the credential already.", field="identity", hint="Give the new one.")
        successor = Credential(
            identity=found.identity,
            kind=old.kind,
            endpoint=old.endpoint,
            created_at=now,
            created_by=actor,
            public=found.public,
            expires_at=found.expires_at,
        )
        until = now + overlap
        ended = replace(
            old,
            expires_at=until if old.expires_at is None else min(until, old.expires_at),
            revoked_at=None if overlap else now,
            rotated_at=now,
            revision=old.revision + 1,
        )
        event = self._event("rotated", old, actor, overlap=overlap, successor=found.identity)
        if not await self._store.credentials.change(old, ended, successor=successor, events=[event]):
            raise _stale(old)
        return await self.get(found.identity), None

    async def remove(self, identity: str, *, actor: str) -> None:
        """Revoke a credential for good and end its sessions; doing it again changes nothing.

        Its key is erased; the rest stays known, to explain why the device is refused. Raises `NotFound`.
        """
        old = await self.get(identity)
        if old.revoked_at is None:
            new = replace(
                old,
                secret=None,
                previous=None,
                previous_until=None,
                revoked_at=self._clock.now(),
                revision=old.revision + 1,
            )
            if not await self._store.credentials.change(
                old, new, events=[self._event("removed", old, actor)]
            ):
                raise _stale(old)
        self._live.revoke(old.identity)

    async def import_csv(self, chunks: AsyncIterator[bytes], *, strict: bool, actor: str) -> ImportReport:
        """Add a credential a line, see docs/security.md; `strict`: all of them or none.

        Raises `InvalidInput` when the file as a whole can't be read; what is wrong with a line is in the report.
        """
        importer = Importer(self._store.credentials, self._sealer, now=self._clock.now(), actor=actor)
        return await importer.run(chunks, strict=strict)

    async def add_authority(
        self, certificate: str, *, name: str, source: Source, pattern: str, actor: str
    ) -> tuple[Authority, bool]:
        """Trust an issuer of certificates; return it and whether it is new. Raises `InvalidInput`, `Conflict`."""
        name = name.strip()
        if not name or len(name) > _MAX_NAME or not name.isprintable():
            raise InvalidInput(
                f"An authority's name has 1 to {_MAX_NAME} printable characters.", field="name"
            )
        rule = NameRule(source, pattern)
        found = certificate_of(certificate)
        now = self._clock.now()
        if not is_authority(found):
            raise InvalidInput(
                "The certificate is not that of an authority (basicConstraints CA).",
                field="certificate",
                hint="Give the issuer's; a device's own belongs to 'lwm2m credentials add --certificate'.",
            )
        if not isinstance(found.public_key(), ec.EllipticCurvePublicKey):
            raise InvalidInput(
                "The authority signs with another algorithm than ECDSA.",
                field="certificate",
                hint="Use an authority with a key on P-256 or P-384.",
            )
        if ends_at(found) <= now:
            raise InvalidInput(
                "The certificate has expired.", field="certificate", hint="Give its successor."
            )
        der = found.public_bytes(Encoding.DER)
        authority = Authority(
            id=hashlib.sha256(der).hexdigest(),
            name=name,
            certificate=der,
            source=rule.source,
            pattern=rule.pattern,
            created_at=now,
            created_by=actor,
        )
        return await self._add_authority(authority, actor)

    async def _add_authority(self, authority: Authority, actor: str) -> tuple[Authority, bool]:
        there = await self._store.authorities.all()
        known = next((each for each in there if each.id == authority.id), None)
        if known is not None:
            if (known.source, known.pattern) != (authority.source, authority.pattern):
                raise Conflict(
                    f"The authority is there with another rule ({known.source} {known.pattern}).",
                    field="pattern",
                    hint="Remove it first; the sessions of its devices end with that.",
                )
            return known, False
        if len(there) >= MAX_AUTHORITIES:
            raise Conflict(f"There are {MAX_AUTHORITIES} authorities already.", field="certificate")
        event = self._authority_event("added", authority, actor)
        is_new = await self._store.authorities.add(authority, events=[event])
        self._live.trust_changed()
        return authority, is_new

    async def authorities(self) -> tuple[Authority, ...]:
        """Return the authorities by id."""
        return tuple(await self._store.authorities.all())

    async def remove_authority(self, authority_id: str, *, actor: str) -> None:
        """Trust an issuer no longer: the sessions of devices that it vouched for end. Raises `NotFound`."""
        authority = await self._store.authorities.get(authority_id.strip().lower())
        if authority is None:
            raise NotFound(
                f"There is no authority '{authority_id[:80]}'.",
                field="authority",
                hint="See what is there: lwm2m authorities list.",
            )
        event = self._authority_event("removed", authority, actor)
        gone = await self._store.authorities.remove(authority.id, events=[event])
        self._live.trust_changed()
        for identity in gone or ():
            self._live.revoke(identity)

    def _authority_event(self, what: str, authority: Authority, actor: str) -> NewEvent:
        data: dict[str, JsonValue] = {"authority": authority.id, "name": authority.name, "by": actor}
        data |= {"source": authority.source, "pattern": authority.pattern}
        return NewEvent(kind=f"authority.{what}", at=self._clock.now(), data=data)

    def _event(self, what: str, credential: Credential, actor: str, **more: JsonValue) -> NewEvent:
        data: dict[str, JsonValue] = {"identity": credential.identity, "kind": credential.kind, "by": actor}
        return NewEvent(
            kind=f"credential.{what}", at=self._clock.now(), endpoint=credential.endpoint, data=data | more
        )


def _stale(credential: Credential) -> Conflict:
    return Conflict(
        f"The credential {credential.identity} was changed in the meantime.",
        code="stale",
        field="identity",
        hint="Look at it and try again.",
    )
