"""The ports of who devices are: credentials, authorities, sessions. See `lwm2m_server.store.ports`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from lwm2m_server.store.records import (
    Authority,
    ClaimedSession,
    Credential,
    Grant,
    NewEvent,
    Page,
    StoredSession,
)


class CredentialStore(Protocol):
    """Credentials of devices by identity."""

    async def add(self, credential: Credential, *, events: Sequence[NewEvent] = ()) -> bool:
        """Add; False when the identity is there. One that is revoked or expired is replaced."""
        ...

    async def add_many(self, credentials: Sequence[tuple[Credential, NewEvent]]) -> list[bool]:
        """Add each, with its event, as `add` does; answers position by position."""
        ...

    async def add_all(self, each: Callable[[], Iterator[tuple[Credential, NewEvent]]]) -> str | None:
        """Add all in one transaction, or none: then the identity that is there already comes back.

        `each` may be called twice, and from another thread.
        """
        ...

    async def get(self, identity: str) -> Credential | None:
        """Return the credential, also when it is revoked or expired."""
        ...

    async def get_many(self, identities: Iterable[str]) -> dict[str, Credential]:
        """Return those that exist, by identity."""
        ...

    async def grants(self, identities: Iterable[str]) -> dict[str, Grant]:
        """Return what handshakes need of those that exist, by identity."""
        ...

    async def page(
        self,
        *,
        endpoint: str | None = None,
        kind: str | None = None,
        revoked: bool = False,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Credential]:
        """Return credentials by identity, the revoked ones only when asked for."""
        ...

    async def change(
        self,
        old: Credential,
        new: Credential,
        *,
        successor: Credential | None = None,
        events: Sequence[NewEvent] = (),
    ) -> bool:
        """Write `new` if the row still has the revision of `old`; else change nothing: False.

        `new.revision` must be `old.revision + 1`, the identity stays (`ValueError`). `successor` is added with
        it. Raises `Conflict` when that one's identity is there.
        """
        ...

    async def due(self, *, now: float, limit: int = 1000) -> list[Credential]:
        """Return those whose former key or whose own time has ended, and that aren't revoked."""
        ...

    async def delete(self, identity: str) -> bool:
        """Forget; False when unknown."""
        ...

    async def seal_check(self, value: bytes | None = None) -> bytes | None:
        """Return what recognises the master key; `value` becomes that when there is none."""
        ...

    async def forget_secrets(self, *, events: Sequence[NewEvent] = ()) -> int:
        """Delete all that is sealed: pre-shared keys, sessions and the check; return how many keys."""
        ...


class AuthorityStore(Protocol):
    """Issuers of certificates."""

    async def add(self, authority: Authority, *, events: Sequence[NewEvent] = ()) -> bool:
        """Add; False when it is there."""
        ...

    async def get(self, authority_id: str) -> Authority | None:
        """Return the authority, or None."""
        ...

    async def all(self) -> list[Authority]:
        """Return all of them by id."""
        ...

    async def remove(self, authority_id: str, *, events: Sequence[NewEvent] = ()) -> list[str] | None:
        """Remove it with the credentials that it vouched for, but for revoked ones; return their identities.

        None when it is unknown.
        """
        ...


class SessionStore(Protocol):
    """Exported sessions of the secure transport by record."""

    async def save(self, sessions: Sequence[StoredSession]) -> list[bool]:
        """Write each, unless a higher generation is there (False): somebody else has claimed it."""
        ...

    async def remove(self, records: Iterable[int]) -> None:
        """Forget; unknown records are ignored."""
        ...

    async def claim(self, *, since: float) -> int:
        """Forget what was saved before `since`, raise the generation of the others; return how many.

        What was exported before may be restored once after that, and never again.
        """
        ...

    async def page(self, *, after: str | None = None, limit: int = 1000) -> Page[ClaimedSession]:
        """Walk over all."""
        ...
