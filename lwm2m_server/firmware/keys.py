"""Keys that manifests are signed with: ECDSA on P-256, Ed25519, and ML-DSA-44 (FIPS 204, RFC 9964).

Private keys are for the CLI: the server holds none. On disk they are PKCS#8; with a passphrase encrypted by
PBES2 with scrypt (RFC 7914, RFC 8018) and AES-256-CBC. The key identifier is the first 8 bytes of SHA-256
over the DER SubjectPublicKeyInfo.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from lwm2m_server.errors import InvalidInput

KEY_ID_SIZE: Final = 8
ENTROPY_SIZE: Final = 32
"""Random bytes that an encrypted private key needs: salt and initialisation vector."""

_ECDSA_HALF: Final = 32
# 16 MiB of memory, five times over: OpenSSL opens it with its default bounds
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 5


class KeyType(StrEnum):
    """Kinds of signing keys, by the name of the algorithm they sign with."""

    ESP256 = "esp256"
    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"


SIGNATURE_SIZE: Final = {KeyType.ESP256: 64, KeyType.ED25519: 64, KeyType.ML_DSA_44: 2420}
"""Bytes of a signature in COSE: r and s for ECDSA (RFC 9053, section 2.1)."""

_Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey
_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey


def load_public_key(pem: bytes, *, field: str, hint: str) -> PublicKeyTypes:
    """Read a PEM public key of any kind; `InvalidInput` for a private one, with this hint, or none at all."""
    if b"PRIVATE KEY" in pem:
        raise InvalidInput(
            "this file holds a private key; a public key is wanted",
            code="private-key",
            field=field,
            hint=hint,
        )
    try:
        return serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput("this is not a public key in PEM form", code="invalid-key", field=field) from error


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key that manifests may be signed with."""

    public: _Public
    key_type: KeyType
    key_id: bytes

    @classmethod
    def from_pem(cls, pem: bytes, *, field: str = "key") -> VerificationKey:
        """Read a PEM public key of one of the `KeyType`s; `InvalidInput` for anything else."""
        hint = "keep the private key to yourself and give the file with the public key"
        return cls.of(load_public_key(pem, field=field, hint=hint), field=field)

    @classmethod
    def of(cls, public: object, *, field: str = "key") -> VerificationKey:
        """From a key object of `cryptography`."""
        if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
            return cls(public, KeyType.ESP256, _key_id(public))
        if isinstance(public, ed25519.Ed25519PublicKey):
            return cls(public, KeyType.ED25519, _key_id(public))
        if isinstance(public, mldsa.MLDSA44PublicKey):
            return cls(public, KeyType.ML_DSA_44, _key_id(public))
        raise InvalidInput(
            "keys of this kind are not used for manifests",
            code="invalid-key",
            field=field,
            hint="use an ECDSA key on the curve P-256, an Ed25519 key or an ML-DSA-44 key",
        )

    def pem(self) -> bytes:
        """PEM SubjectPublicKeyInfo."""
        return self.public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def holds(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (r and s for ECDSA) is valid for `message`."""
        if len(signature) != SIGNATURE_SIZE[self.key_type]:
            return False
        try:
            if isinstance(self.public, ec.EllipticCurvePublicKey):
                r = int.from_bytes(signature[:_ECDSA_HALF], "big")
                s = int.from_bytes(signature[_ECDSA_HALF:], "big")
                self.public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
            else:
                self.public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Signer(Protocol):
    """Whatever can sign: a key in memory, or a program that holds one."""

    @property
    def public(self) -> VerificationKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Signature over `message` in the form that COSE uses."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """A private key; it has no readable representation."""

    private: _Private
    key_type: KeyType

    @classmethod
    def generate(cls, key_type: KeyType = KeyType.ESP256) -> SigningKey:
        """Make a new key, from the random generator of the `cryptography` library.

        For the CLI and for tests.
        """
        if key_type is KeyType.ED25519:
            return cls(ed25519.Ed25519PrivateKey.generate(), key_type)
        if key_type is KeyType.ML_DSA_44:
            return cls(mldsa.MLDSA44PrivateKey.generate(), key_type)
        return cls(ec.generate_private_key(ec.SECP256R1()), key_type)

    @classmethod
    def from_pem(cls, pem: bytes, password: bytes | None = None, *, field: str = "key") -> SigningKey:
        """From a PEM private key; `InvalidInput` for a wrong password, a wrong kind or no key at all."""
        try:
            private = serialization.load_pem_private_key(pem, password)
        except TypeError as error:
            hint = "give the passphrase" if password is None else "leave the passphrase out"
            raise InvalidInput(
                "the key is encrypted" if password is None else "the key is not encrypted",
                code="invalid-key",
                field=field,
                hint=hint,
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidInput(
                "this is not a private key in PEM form, or the passphrase is wrong",
                code="invalid-key",
                field=field,
            ) from error
        key_type = VerificationKey.of(private.public_key(), field=field).key_type
        if not isinstance(private, _Private):
            raise InvalidInput(
                "keys of this kind are not used for manifests", code="invalid-key", field=field
            )
        return cls(private, key_type)

    def pem(self) -> bytes:
        """PEM PKCS#8, not encrypted."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def encrypted_pem(self, password: bytes, entropy: bytes) -> bytes:
        """PEM PKCS#8 that only `password` opens; `entropy` are `ENTROPY_SIZE` random bytes, never used twice."""
        if not password:
            raise InvalidInput("the passphrase is empty", field="passphrase")
        salt, iv = entropy[:16], entropy[16:ENTROPY_SIZE]
        plain = self.private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        der = _encrypted_private_key_info(plain, password, salt, iv)
        text = base64.encodebytes(der).replace(b"\n", b"")
        lines = [text[at : at + 64] for at in range(0, len(text), 64)]
        label = b"ENCRYPTED PRIVATE KEY"
        return b"\n".join([b"-----BEGIN " + label + b"-----", *lines, b"-----END " + label + b"-----", b""])

    @property
    def public(self) -> VerificationKey:
        """The public half."""
        return VerificationKey.of(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        """Signature over `message`: `SIGNATURE_SIZE` bytes, r and s for ECDSA."""
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return ecdsa_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
        return self.private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_type.value}, {self.public.key_id.hex()})"


def ecdsa_signature(der: bytes) -> bytes:
    """Turn an ECDSA signature in DER into r and s, 64 bytes; `ValueError` for anything else."""
    try:
        parts = decode_dss_signature(der)
        return b"".join(part.to_bytes(_ECDSA_HALF, "big") for part in parts)
    except OverflowError as error:
        raise ValueError("r or s do not fit the curve P-256") from error


def _key_id(public: _Public) -> bytes:
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()[:KEY_ID_SIZE]


# -- EncryptedPrivateKeyInfo (RFC 5958, section 3), which `cryptography` writes with PBKDF2 only ----------

_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT: Final = bytes.fromhex("06092b06010401da47040b")
_AES256_CBC: Final = bytes.fromhex("060960864801650304012a")


def _encrypted_private_key_info(plain: bytes, password: bytes, salt: bytes, iv: bytes) -> bytes:
    key = Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(password)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    content = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    parameters = _der(0x04, salt) + b"".join(_der_integer(n) for n in (_SCRYPT_N, _SCRYPT_R, _SCRYPT_P))
    kdf = _der(0x30, _SCRYPT + _der(0x30, parameters))
    cipher = _der(0x30, _AES256_CBC + _der(0x04, iv))
    scheme = _der(0x30, _PBES2 + _der(0x30, kdf + cipher))
    return _der(0x30, scheme + _der(0x04, content))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _der_integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))
