"""What holds for every implementation of the security ports."""

from lwm2m_server.errors import Conflict
from lwm2m_server.store.records import Credential, Grant


def grant_of(credential: Credential) -> Grant:
    """Return what a handshake needs of a credential."""
    return Grant(*(getattr(credential, name) for name in Grant._fields))


def check_successor(old: Credential, new: Credential) -> None:
    """Refuse what isn't a next revision of the same credential: a mistake in the program."""
    if old.identity != new.identity or new.revision != old.revision + 1:
        raise ValueError(f"revision {new.revision} doesn't follow revision {old.revision} of the same record")


def is_replaceable(there: Credential, now: float) -> bool:
    """Whether a new credential may take the identity of this one."""
    return there.revoked_at is not None or (there.expires_at is not None and there.expires_at <= now)


def credential_taken(identity: str) -> Conflict:
    """Return the refusal of a second credential with an identity."""
    return Conflict(
        f"The identity {identity} is there already.",
        code="identity-taken",
        field="identity",
        hint="Remove that credential first, rotate it, or take another identity.",
    )


_HALF = 1 << 63
LOWEST = -_HALF
"""The signed number of the first record in the order of the store."""


def signed(record: int) -> int:
    """Return the signed number with the same 64 bits."""
    return record - 2 * _HALF if record >= _HALF else record


def unsigned(record: int) -> int:
    """Return the unsigned number with the same 64 bits."""
    return record + 2 * _HALF if record < 0 else record


def session_key(after: str) -> int:
    """Return the key in a page's `next`."""
    return int(after)
