# ruff: noqa: D102  the docstrings are the ports'
"""Credentials, authorities and sessions in memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from lwm2m_server.store.memory_tables import Tables, cut
from lwm2m_server.store.records import (
    Authority,
    ClaimedSession,
    Credential,
    Grant,
    NewEvent,
    Page,
    StoredSession,
)
from lwm2m_server.store.security_rules import (
    check_successor,
    credential_taken,
    grant_of,
    is_replaceable,
    session_key,
    signed,
)


class MemoryCredentialStore:
    """See `security_ports.CredentialStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rows = tables.credentials

    async def add(self, credential: Credential, *, events: Sequence[NewEvent] = ()) -> bool:
        return self._add(credential, events)

    async def add_many(self, credentials: Sequence[tuple[Credential, NewEvent]]) -> list[bool]:
        return [self._add(credential, [event]) for credential, event in credentials]

    async def add_all(self, each: Callable[[], Iterator[tuple[Credential, NewEvent]]]) -> str | None:
        wanted = list(each())
        seen: set[str] = set()
        for credential, _ in wanted:
            if credential.identity in seen or not self._is_free(credential):
                return credential.identity
            seen.add(credential.identity)
        for credential, event in wanted:
            self._add(credential, [event])
        return None

    async def get(self, identity: str) -> Credential | None:
        return self._rows.get(identity)

    async def get_many(self, identities: Iterable[str]) -> dict[str, Credential]:
        return {identity: self._rows[identity] for identity in identities if identity in self._rows}

    async def grants(self, identities: Iterable[str]) -> dict[str, Grant]:
        return {identity: grant_of(row) for identity, row in (await self.get_many(identities)).items()}

    async def page(
        self,
        *,
        endpoint: str | None = None,
        kind: str | None = None,
        revoked: bool = False,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Credential]:
        found = (
            row
            for row in self._rows.values()
            if (endpoint is None or row.endpoint == endpoint)
            and (kind is None or row.kind == kind)
            and (revoked or row.revoked_at is None)
        )
        return cut(found, lambda row: row.identity, after, limit)

    async def change(
        self,
        old: Credential,
        new: Credential,
        *,
        successor: Credential | None = None,
        events: Sequence[NewEvent] = (),
    ) -> bool:
        check_successor(old, new)
        now = self._rows.get(old.identity)
        if now is None or now.revision != old.revision:
            return False
        if successor is not None:
            if not self._is_free(successor):
                raise credential_taken(successor.identity)
            self._add(successor, ())
        self._rows[old.identity] = new
        self._tables.append(events)
        return True

    async def due(self, *, now: float, limit: int = 1000) -> list[Credential]:
        def is_due(row: Credential) -> bool:
            former = row.previous_until is not None and row.previous_until <= now
            ended = row.expires_at is not None and row.expires_at <= now and row.revoked_at is None
            return former or ended

        return [row for row in self._rows.values() if is_due(row)][:limit]

    async def delete(self, identity: str) -> bool:
        return self._rows.pop(identity, None) is not None

    async def seal_check(self, value: bytes | None = None) -> bytes | None:
        if self._tables.seal_check is None:
            self._tables.seal_check = value
        return self._tables.seal_check

    async def forget_secrets(self, *, events: Sequence[NewEvent] = ()) -> int:
        doomed = [row.identity for row in self._rows.values() if row.kind == "psk"]
        for identity in doomed:
            del self._rows[identity]
        self._tables.sessions.clear()
        self._tables.seal_check = None
        self._tables.append(events)
        return len(doomed)

    def _is_free(self, credential: Credential) -> bool:
        there = self._rows.get(credential.identity)
        return there is None or is_replaceable(there, credential.created_at)

    def _add(self, credential: Credential, events: Sequence[NewEvent]) -> bool:
        if not self._is_free(credential):
            return False
        there = self._rows.get(credential.identity)
        revision = credential.revision if there is None else there.revision + 1
        self._rows[credential.identity] = replace(credential, revision=revision)
        self._tables.append(events)
        return True


class MemoryAuthorityStore:
    """See `security_ports.AuthorityStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rows = tables.authorities

    async def add(self, authority: Authority, *, events: Sequence[NewEvent] = ()) -> bool:
        if authority.id in self._rows:
            return False
        self._rows[authority.id] = authority
        self._tables.append(events)
        return True

    async def get(self, authority_id: str) -> Authority | None:
        return self._rows.get(authority_id)

    async def all(self) -> list[Authority]:
        return [row for _, row in sorted(self._rows.items())]

    async def remove(self, authority_id: str, *, events: Sequence[NewEvent] = ()) -> list[str] | None:
        if self._rows.pop(authority_id, None) is None:
            return None
        credentials = self._tables.credentials
        doomed = [
            row.identity
            for row in credentials.values()
            if row.authority == authority_id and row.revoked_at is None
        ]
        for identity in doomed:
            del credentials[identity]
        self._tables.append(events)
        return sorted(doomed)


class MemorySessionStore:
    """See `security_ports.SessionStore`."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.sessions

    async def save(self, sessions: Sequence[StoredSession]) -> list[bool]:
        return [self._save(session) for session in sessions]

    async def remove(self, records: Iterable[int]) -> None:
        for record in records:
            self._rows.pop(record, None)

    async def claim(self, *, since: float) -> int:
        for record, (_, generation, sealed, updated_at) in list(self._rows.items()):
            if updated_at < since:
                del self._rows[record]
            else:
                self._rows[record] = record, generation + 1, sealed, updated_at
        return len(self._rows)

    async def page(self, *, after: str | None = None, limit: int = 1000) -> Page[ClaimedSession]:
        from_ = None if after is None else session_key(after)
        rest = sorted(
            (row for row in self._rows.values() if from_ is None or signed(row[0]) > from_),
            key=lambda row: signed(row[0]),
        )
        found = tuple(ClaimedSession(*row[:3]) for row in rest[:limit])
        return Page(found, str(signed(found[-1].record)) if len(rest) > limit else None)

    def _save(self, session: StoredSession) -> bool:
        record, generation, _, _ = session
        there = self._rows.get(record)
        if there is not None and there[1] > generation:
            return False
        self._rows[record] = session
        return True
