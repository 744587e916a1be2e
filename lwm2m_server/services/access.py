"""Who may use the API: tokens and roles.

A token is 32 random bytes as text with a prefix that secret scanners can find. Only its SHA-256 is stored.
That is enough, and argon2 would be the wrong tool: a slow hash protects secrets that can be guessed, and 256
random bits cannot; it would only make every request cost tens of milliseconds and forbid finding the token by
its hash.
"""

import asyncio
import hashlib
import os
import secrets
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from lwm2m_server.clock import Clock
from lwm2m_server.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import JsonValue, NewEvent, Token

PREFIX = "lwm2m_"
_NAME_LENGTH = 100


class Role(StrEnum):
    """What a token may do; each role includes those before it."""

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"


_RANK = {role: rank for rank, role in enumerate(Role)}


class BadToken(Forbidden):
    """The token is missing, unknown, expired or revoked: say who you are first (401)."""

    code = "bad-token"


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a token."""

    name: str
    role: Role
    token_id: str

    def require(self, role: Role) -> None:
        """Raise `Forbidden` unless the holder has this role or a higher one."""
        if _RANK[self.role] < _RANK[role]:
            raise Forbidden(
                f"Token '{self.name}' has the role {self.role}; this needs {role}.",
                code="role",
                hint="Use a token with that role; an administrator can make one: lwm2m tokens add.",
            )


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class AccessService:
    """Tokens of the API."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def authenticate(self, text: str) -> Principal:
        """Return the holder of this token; raise `BadToken` when it is not valid (any more)."""
        token = await self._store.tokens.by_hash(_hash(text)) if text.startswith(PREFIX) else None
        now = self._clock.now()
        if token is None or token.revoked_at is not None:
            raise BadToken("The access token is not valid.", hint="Set LWM2M_TOKEN or use --token.")
        if token.expires_at is not None and token.expires_at <= now:
            raise BadToken("The access token has expired.", hint="Ask an administrator for a new one.")
        return Principal(token.name, Role(token.role), token.id)

    async def create(
        self, name: str, role: Role, *, expires_at: float | None = None, actor: str
    ) -> tuple[Token, str]:
        """Make a token; return it with its text, which is never shown again. Raises `Conflict` for a taken
        name.
        """
        name = name.strip()
        if not name or len(name) > _NAME_LENGTH or not name.isprintable():
            raise InvalidInput(f"A token's name has 1 to {_NAME_LENGTH} printable characters.", field="name")
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise InvalidInput("The token would expire before it was made.", field="expires_at")
        token, text = _new_token(name, role, now=now, expires_at=expires_at)
        await self._add(token, actor)
        return token, text

    async def list(self) -> tuple[Token, ...]:
        """Return all tokens, without their secrets, the revoked ones too."""
        return tuple(await self._store.tokens.all())

    async def revoke(self, token_id: str, *, actor: str) -> None:
        """End a token for good; doing it again changes nothing.

        Raises `NotFound`; `Conflict` for the last administrator's, after which nobody could make another.
        """
        tokens = await self._store.tokens.all()
        token = next((token for token in tokens if token.id == token_id), None)
        if token is None:
            raise NotFound(f"There is no token '{token_id}'.", field="token")
        now = self._clock.now()
        admins = {each.id for each in tokens if each.role == Role.ADMIN and _is_valid(each, now)}
        if admins == {token_id}:
            raise Conflict(
                "This is the last token of an administrator.",
                field="token",
                hint="Make another one first: lwm2m tokens add NAME --role admin.",
            )
        event = NewEvent(kind="token.revoked", at=now, data={"name": token.name, "by": actor})
        await self._store.tokens.revoke(token_id, now=now, events=[event])

    async def ensure_admin(self, file: Path) -> str | None:
        """At the first start make an administrator's token and write it to `file` (readable by its owner
        alone).

        Return the text when one was made, None when the store has tokens already.
        """
        if await self._store.tokens.all():
            return None
        token, text = _new_token("admin", Role.ADMIN, now=self._clock.now())
        # The file comes first: a token whose text nobody has would lock everybody out.
        try:
            await asyncio.to_thread(_write_secret, file, text + "\n")
        except OSError as error:
            raise Unavailable(
                f"The administrator's token can't be written to {file}: {error.strerror}.",
                field=str(file),
                hint="Make its folder writable, or set another data directory.",
            ) from error
        await self._add(token, "server")
        return text

    async def _add(self, token: Token, actor: str) -> None:
        data: dict[str, JsonValue] = {"name": token.name, "role": token.role, "by": actor}
        event = NewEvent(kind="token.created", at=token.created_at, data=data)
        await self._store.tokens.add(token, events=[event])


def _is_valid(token: Token, now: float) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)


def _new_token(name: str, role: Role, *, now: float, expires_at: float | None = None) -> tuple[Token, str]:
    """Return a token and its text, which is not in it."""
    text = PREFIX + secrets.token_urlsafe(32)
    token = Token(
        id=secrets.token_hex(8),
        name=name,
        secret_hash=_hash(text),
        role=role.value,
        created_at=now,
        expires_at=expires_at,
    )
    return token, text


def _write_secret(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # A file that is left from before may be open to others.
    file.unlink(missing_ok=True)
    with open(file, "x", encoding="utf-8", opener=partial(os.open, mode=0o600)) as secret:
        secret.write(text)
