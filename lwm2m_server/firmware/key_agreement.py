"""Keys that a class of devices agrees on with the author of an image (RFC 9053, section 6.4): ECDH-ES + A128KW.

The class has a key pair on P-256. Whoever encrypts makes a key pair for this one image, and both sides derive the
key-encryption key of the image from the shared secret, by HKDF with SHA-256 over COSE_KDF_Context (RFC 9053, section
5.2), in which draft-ietf-suit-firmware-encryption-26 says what the key is for. So the operator needs the class's
public key alone, and nothing that lies with him opens what he encrypted before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.refusals import Malformed

ECDH_ES_A128KW: Final = -29
EPHEMERAL: Final = -1
"""Header of a recipient: the sender's public key, a COSE_Key."""
SALT: Final = -20
MAX_SALT: Final = 64

_A128KW, _KEY_BITS = -3, 128
_PURPOSE: Final = b"SUIT Payload Encryption"
_KTY, _CRV, _X, _Y = 1, -1, -2, -3
_EC2, _P256 = 2, 1
_HALF: Final = 32

PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, repr=False)
class Agreement:
    """The public key of a class of devices, and a key pair that is used for one image and forgotten."""

    public: PublicKey
    ephemeral: PrivateKey

    @classmethod
    def new(cls, public: PublicKey) -> Agreement:
        """Make the key pair, from the random generator of the `cryptography` library. For the CLI and for tests."""
        return cls(public, ec.generate_private_key(ec.SECP256R1()))


def wrapping_key(own: PrivateKey, other: PublicKey, protected: bytes, salt: bytes = b"") -> bytes:
    """Derive the key (16 bytes) that the content key is wrapped with; the same on both sides.

    `protected` is the recipient's protected header as it is encoded.
    """
    nobody = [None, None, None]
    context = cbor.encode([_A128KW, nobody, nobody, [_KEY_BITS, protected, _PURPOSE]])
    derive = HKDF(algorithm=hashes.SHA256(), length=_KEY_BITS // 8, salt=salt or None, info=context)
    return derive.derive(own.exchange(ec.ECDH(), other))


def cose_key(public: PublicKey) -> dict[int, Any]:
    """Return a public key as COSE_Key (RFC 9053, section 7.1.1)."""
    point = public.public_numbers()
    return {_KTY: _EC2, _CRV: _P256, _X: point.x.to_bytes(_HALF), _Y: point.y.to_bytes(_HALF)}


def read_cose_key(value: object, field: str) -> PublicKey | None:
    """Read a public key; `None` when it is on another curve, `Malformed` for what is none, or no point of P-256."""
    found = cbor.as_map(value, field)
    if found.get(_KTY) != _EC2 or found.get(_CRV) != _P256:
        return None
    x, y = cbor.as_bytes(found.get(_X), field, size=_HALF), found.get(_Y)
    # RFC 9053 allows the sign of y alone
    rest = b"" if isinstance(y, bool) else cbor.as_bytes(y, field, size=_HALF)
    form = 2 + y if isinstance(y, bool) else 4
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes([form]) + x + rest)
    except ValueError:
        raise Malformed(f"{field} has an ephemeral key that is no point of P-256", field=field) from None


def read_public(pem: bytes, field: str) -> PublicKey:
    """Read the PEM public key of a class of devices; `InvalidInput`."""
    if b"PRIVATE KEY" in pem:
        raise InvalidInput(
            "this file holds a private key; the public key of the class is wanted",
            code="private-key",
            field=field,
            hint="openssl pkey -in FILE -pubout",
        )
    try:
        found = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise _no_key(field) from None
    if isinstance(found, PublicKey) and isinstance(found.curve, ec.SECP256R1):
        return found
    raise _no_key(field)


def read_private(pem: bytes, field: str) -> PrivateKey:
    """Read the PEM private key of a class of devices, not encrypted; `InvalidInput`."""
    try:
        found = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _no_key(field) from None
    if isinstance(found, PrivateKey) and isinstance(found.curve, ec.SECP256R1):
        return found
    raise _no_key(field)


def key_name(public: PublicKey) -> bytes:
    """Return the name (8 bytes) of a key that was given none: the beginning of its SHA-256, as for signing keys."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()[:8]


def _no_key(field: str) -> InvalidInput:
    return InvalidInput(
        "the file holds no key on the curve P-256 that can be used",
        code="invalid-key",
        field=field,
        hint="openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256, without a passphrase",
    )
