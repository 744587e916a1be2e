"""The keys whose manifests are accepted: public ones only, with roles, validity and revocation."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from lwm2m_server.clock import Clock
from lwm2m_server.errors import Conflict, InvalidInput, NotFound
from lwm2m_server.firmware.keys import KeyType, VerificationKey
from lwm2m_server.firmware.trust import Role, TrustAnchor
from lwm2m_server.services.naming import check_name
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import JsonValue, NewEvent, TrustedKey


def anchors_of(keys: Iterable[TrustedKey]) -> tuple[TrustAnchor, ...]:
    """Return stored keys as what a verifier asks of them; revoked ones among them, so that it can say so."""
    return tuple(
        TrustAnchor(
            VerificationKey.from_pem(key.public_key),
            frozenset(Role(role) for role in key.roles),
            key.not_before,
            key.not_after,
            revoked=key.revoked_at is not None,
            requires=None if key.requires is None else KeyType(key.requires),
        )
        for key in keys
    )


class KeyRing:
    """Trusted keys; a part of `ReleaseService`."""

    _store: Store
    _clock: Clock

    async def add_key(
        self,
        document: bytes,
        *,
        name: str,
        actor: str,
        roles: Iterable[str] = (Role.IMAGE_AUTHOR.value,),
        not_before: float | None = None,
        not_after: float | None = None,
        requires: str | None = None,
    ) -> tuple[TrustedKey, bool]:
        """Trust a public key (PEM); return it and whether it is new. A private key is refused and not kept.

        A key that was revoked stays revoked (`Conflict`): what it signed since can't be told from before.
        Times are seconds since 1970; `requires` is the algorithm of a second signature that must be there too.
        """
        check_name(name)
        public = VerificationKey.from_pem(document)
        now = self._clock.now()
        key = TrustedKey(
            key_id=public.key_id.hex(),
            name=name.strip(),
            algorithm=public.key_type.value,
            public_key=public.pem(),
            created_at=now,
            created_by=actor,
            roles=_roles(roles),
            not_before=not_before,
            not_after=not_after,
            requires=requires,
        )
        _check(key)
        if await self._store.trust.add(key, events=[_event("key.added", key, now, actor)]):
            return key, True
        known = await self._key(key.key_id)
        if known.revoked_at is not None:
            raise _revoked(known)
        return known, False

    async def change_key(self, key_id: str, changes: Mapping[str, Any], *, actor: str) -> TrustedKey:
        """Change name, roles, not_before, not_after or requires of a key. `NotFound`; `Conflict` when revoked.

        Ending the old key's time is how keys are rotated: both count until then.
        """
        known = await self._key(key_id.strip().lower())
        if "roles" in changes:
            changes = {**changes, "roles": _roles(changes["roles"])}
        if "name" in changes:
            check_name(changes["name"])
        key = replace(known, **changes)
        _check(key)
        event = _event("key.changed", key, self._clock.now(), actor)
        if known.revoked_at is not None or not await self._store.trust.change(key, events=[event]):
            raise _revoked(known)
        return key

    async def keys(self, *, revoked: bool = False) -> tuple[TrustedKey, ...]:
        """Return the trusted keys, those that were revoked only when asked for."""
        return tuple(await self._store.trust.all(revoked=revoked))

    async def remove_key(self, key_id: str, *, actor: str) -> None:
        """Trust a key no longer; doing it again changes nothing. Raises `NotFound`."""
        key = await self._key(key_id.strip().lower())
        now = self._clock.now()
        await self._store.trust.revoke(key.key_id, now=now, events=[_event("key.revoked", key, now, actor)])

    async def _key(self, key_id: str) -> TrustedKey:
        key = await self._store.trust.get(key_id)
        if key is None:
            raise NotFound(
                f"There is no key '{key_id}'.", field="key", hint="See what is there: lwm2m keys list."
            )
        return key


def _roles(names: Iterable[str]) -> tuple[str, ...]:
    known = [role.value for role in Role]
    wanted = set(names)
    for name in sorted(wanted - set(known)):
        raise InvalidInput(f"'{name}' is no role.", field="roles", hint=f"Roles are {', '.join(known)}.")
    if not wanted:
        raise InvalidInput("A key needs a role.", field="roles", hint=f"Roles are {', '.join(known)}.")
    return tuple(name for name in known if name in wanted)


def _check(key: TrustedKey) -> None:
    if key.not_before is not None and key.not_after is not None and key.not_before >= key.not_after:
        raise InvalidInput("The key's time is over before it begins.", field="not_after")
    if key.requires is None:
        return
    kinds = [kind.value for kind in KeyType]
    if key.requires not in kinds:
        raise InvalidInput(
            f"'{key.requires}' is no algorithm.", field="requires", hint=f"Choose one of {', '.join(kinds)}."
        )
    if Role.IMAGE_AUTHOR.value not in key.roles:
        raise InvalidInput("Only an image author's key can ask for a second signature.", field="requires")


def _event(kind: str, key: TrustedKey, now: float, actor: str) -> NewEvent:
    data: dict[str, JsonValue] = {
        "key": key.key_id,
        "name": key.name,
        "roles": list[JsonValue](key.roles),
        "not_before": key.not_before,
        "not_after": key.not_after,
        "requires": key.requires,
        "by": actor,
    }
    return NewEvent(kind=kind, at=now, data=data)


def _revoked(key: TrustedKey) -> Conflict:
    return Conflict(
        f"Key '{key.name}' ({key.key_id}) was revoked.",
        code="revoked",
        field="key",
        hint="Make a new key pair and sign with that.",
    )
