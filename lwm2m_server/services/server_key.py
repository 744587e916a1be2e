"""The key by which devices know the server, and its certificate: from files, or a key of its own making."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from lwm2m_server.config import Settings
from lwm2m_server.errors import InvalidInput
from lwm2m_server.services.public_keys import ends_at, identity_of_key
from lwm2m_server.services.sealing import write_secret


@dataclass(frozen=True, slots=True)
class ServerKey:
    """What the server presents. `private_key` is PKCS#8 (PEM), `public_key` SubjectPublicKeyInfo (DER),
    `certificate` the chain (PEM).
    """

    private_key: bytes = field(repr=False)
    public_key: bytes
    certificate: bytes | None = None

    @property
    def identity(self) -> str:
        """The identity text of the raw public key."""
        return identity_of_key(self.public_key)

    @property
    def expires_at(self) -> float | None:
        """When the certificate expires."""
        if self.certificate is None:
            return None
        return ends_at(x509.load_pem_x509_certificates(self.certificate)[0])


class ServerKeys:
    """The key that is in use."""

    def __init__(self, current: ServerKey, settings: Settings) -> None:
        self.current = current
        self._settings = settings

    @classmethod
    async def open(cls, settings: Settings) -> "ServerKeys":
        """Read or make the key, see `load_server_key`."""
        return cls(await asyncio.to_thread(load_server_key, settings), settings)

    @classmethod
    def temporary(cls, settings: Settings) -> "ServerKeys":
        """Return a new key that no file has."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(ServerKey(_private_pem(key), _public_der(key.public_key())), settings)

    async def reload(self) -> ServerKey:
        """Read it again; when that fails the present one stays. Raises as `load_server_key`."""
        self.current = await asyncio.to_thread(load_server_key, self._settings)
        return self.current


def load_server_key(settings: Settings) -> ServerKey:
    """Read key and certificate; without a setting for the key make one in the data directory. Blocking.

    Raises `InvalidInput` (code `server-key`) naming the file and the way out.
    """
    file = settings.server_key_path
    if settings.coaps.private_key is None and not file.exists():
        _make(file)
    key = _private_key(file)
    certificate = settings.coaps.certificate
    return ServerKey(
        _private_pem(key),
        _public_der(key.public_key()),
        None if certificate is None else _chain(certificate, key, file),
    )


def _private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    content = _read(file)
    if file.stat().st_mode & 0o007:
        raise _error(f"The server's key {file} may be read by everybody", file, f"chmod 600 {file}")
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise _error(
            f"The server's key {file} is encrypted", file, f"openssl pkey -in {file} writes it without"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _error(
            f"The server's key {file} is damaged or not a private key in PEM",
            file,
            "bring it back from a backup; without one, move it away: a new key is made, "
            "and devices that pinned the old one must learn it",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _error(
            f"The server's key {file} is not of the curve P-256",
            file,
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 makes one",
        )
    return key


def _chain(file: Path, key: ec.EllipticCurvePrivateKey, key_file: Path) -> bytes:
    content = _read(file)
    try:
        first = x509.load_pem_x509_certificates(content)[0]
        public = first.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise _error(
            f"The server's certificate {file} is damaged or not in PEM",
            file,
            "put the chain there, own first",
        ) from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or _public_der(public) != _public_der(
        key.public_key()
    ):
        raise _error(
            f"The server's certificate {file} does not belong to the key {key_file}",
            file,
            "name the two that belong together",
        )
    return content


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _make(file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        write_secret(file, _private_pem(key))
    except OSError as error:
        raise _error(
            f"The server's key can't be written to {file}: {error.strerror}", file, "check its folder"
        ) from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _error(
            f"{file} can't be read: {error.strerror}", file, "check the name, its owner and its permissions"
        ) from None


def _error(message: str, file: Path, hint: str) -> InvalidInput:
    return InvalidInput(message, code="server-key", field=str(file), hint=hint)
