"""Secrets at rest: sealed with AES-256-GCM by keys that are derived from one master key (RFC 5869).

The master key comes from the environment or from a file that the first start makes. Without it neither
pre-shared keys nor sessions in the database can be read, and a copy of the database alone is worth nothing.
"""

import asyncio
import base64
import binascii
import hmac
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lwm2m_server.config import Settings
from lwm2m_server.errors import InvalidInput, Untrusted
from lwm2m_server.store.security_ports import CredentialStore

KEY_LENGTH = 32  # bytes
VARIABLE = "LWM2M_SECURITY_MASTER_KEY"
_NONCE = 12


class SealBroken(Untrusted):
    """What was sealed was changed, moved to another identity, or sealed with another key."""

    code = "seal-broken"


class Sealer:
    """Seals and opens secrets; the associated data are the identity, so that two rows can't be exchanged."""

    def __init__(self, master: bytes) -> None:
        """Derive the keys; `master` has 32 bytes."""
        self._aead = AESGCM(_derive(master, "credentials"))
        self.sessions_key = _derive(master, "sessions")
        self.check = _derive(master, "check")[:16]

    def seal(self, secret: bytes, identity: str) -> bytes:
        """Seal a secret of this identity."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._aead.encrypt(nonce, secret, identity.encode())

    def open(self, sealed: bytes, identity: str) -> bytes:
        """Return the secret. Raises `SealBroken`."""
        try:
            return self._aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], identity.encode())
        except (InvalidTag, ValueError):
            raise SealBroken(
                f"The key of {identity} can't be opened: its row was changed, or is another's.",
                field="identity",
                hint="Rotate it, or remove it and add it again.",
            ) from None


def _derive(master: bytes, label: str) -> bytes:
    return HKDF(SHA256(), KEY_LENGTH, salt=None, info=f"lwm2m-server {label} v1".encode()).derive(master)


async def open_sealer(settings: Settings, credentials: CredentialStore) -> Sealer:
    """Return the sealer of this server's master key; the very first start makes the file.

    Raises `InvalidInput` (code `master-key`) for a key that can't be used or isn't the one that the database was
    sealed with.
    """
    known = await credentials.seal_check()
    file = settings.master_key_path
    given = settings.security.master_key
    if given is not None:
        where, master = VARIABLE, _decode(given.get_secret_value(), VARIABLE)
    else:
        where, master = str(file), await asyncio.to_thread(_from_file, file, may_make=known is None)
    sealer = Sealer(master)
    known = await credentials.seal_check(sealer.check)
    if known is None or not hmac.compare_digest(known, sealer.check):
        raise _error(
            f"The database was sealed with another master key than that of {where}",
            where,
            "put the right key there; if it is lost, 'lwm2m db forget-secrets' removes what it sealed",
        )
    return sealer


def _from_file(file: Path, *, may_make: bool) -> bytes:
    try:
        if not file.exists():
            if may_make:
                return _make(file)
            raise _error(
                f"The master key {file} is missing",
                str(file),
                f"bring it back from a backup or set {VARIABLE}; if it is lost, "
                "'lwm2m db forget-secrets' removes what it sealed",
            )
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise _error(
                f"The master key {file} may be read by others (mode {mode:04o})",
                str(file),
                f"chmod 600 {file}; if others have read it, make all keys anew",
            )
        return _decode(file.read_text(encoding="ascii", errors="replace"), str(file))
    except OSError as error:
        raise _error(
            f"The master key {file} can't be read or written: {error.strerror}",
            str(file),
            "check its owner, its folder and their permissions",
        ) from None


def _make(file: Path) -> bytes:
    master = secrets.token_bytes(KEY_LENGTH)
    write_secret(file, base64.b64encode(master) + b"\n")
    return master


def write_secret(file: Path, content: bytes) -> None:
    """Write a file that must not exist, for its owner's eyes; it is on the disk afterwards. Raises `OSError`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _decode(text: str, where: str) -> bytes:
    try:
        master = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        master = b""
    if len(master) != KEY_LENGTH:
        raise _error(
            f"The master key in {where} is not {KEY_LENGTH} bytes in base64",
            where,
            "bring it back from a backup; 'openssl rand -base64 32' makes one for a new database",
        )
    return master


def _error(message: str, field: str, hint: str) -> InvalidInput:
    return InvalidInput(message, code="master-key", field=field, hint=hint)
