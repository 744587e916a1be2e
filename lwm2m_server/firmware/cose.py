"""COSE_Sign1 with detached payload (RFC 9052, section 4.2) and the keys for it.

Signing uses the fully-specified algorithms of RFC 9864: ESP256 (-9) and Ed25519 (-19). Their predecessors
ES256 (-7) and EdDSA (-8) are accepted when the key is on P-256 or Ed25519. Private keys are for the CLI: the
server holds none.

The key identifier is the first 8 bytes of SHA-256 over the DER SubjectPublicKeyInfo. We write it into the
*protected* header, so that every byte of a block is either signed or the signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.refusals import Malformed, NotTrusted, RefusalCode

SIGN1_TAG: Final = 18
OTHER_TAGS: Final = frozenset({17, 97, 98})
"""COSE_Mac0, COSE_Mac and COSE_Sign: legal in an envelope, not understood here."""
KEY_ID_SIZE: Final = 8
SIGNATURE_SIZE: Final = 64

_ALG, _CRIT, _KID = 1, 2, 4


class KeyType(StrEnum):
    """Kinds of signing keys, by the name of the algorithm they sign with."""

    ESP256 = "esp256"
    ED25519 = "ed25519"


class Algorithm(IntEnum):
    """COSE algorithm numbers that are accepted."""

    ES256 = -7
    EDDSA = -8
    ESP256 = -9
    ED25519 = -19


_KEY_TYPE: Final = {
    Algorithm.ES256: KeyType.ESP256,
    Algorithm.ESP256: KeyType.ESP256,
    Algorithm.EDDSA: KeyType.ED25519,
    Algorithm.ED25519: KeyType.ED25519,
}
_SIGN_WITH: Final = {KeyType.ESP256: Algorithm.ESP256, KeyType.ED25519: Algorithm.ED25519}

_Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key that manifests may be signed with."""

    public: _Public
    key_type: KeyType
    key_id: bytes

    @classmethod
    def from_pem(cls, pem: bytes, *, field: str = "key") -> VerificationKey:
        """Read a PEM public key (P-256 or Ed25519); `InvalidInput` for anything else."""
        if b"PRIVATE KEY" in pem:
            raise InvalidInput(
                "this file holds a private key; a public key is wanted",
                code="private-key",
                field=field,
                hint="keep the private key to yourself and give the file with the public key",
            )
        try:
            public = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidInput(
                "this is not a public key in PEM form", code="invalid-key", field=field
            ) from error
        return cls.of(public, field=field)

    @classmethod
    def of(cls, public: object, *, field: str = "key") -> VerificationKey:
        """From a key object of `cryptography`."""
        if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
            return cls(public, KeyType.ESP256, _key_id(public))
        if isinstance(public, ed25519.Ed25519PublicKey):
            return cls(public, KeyType.ED25519, _key_id(public))
        raise InvalidInput(
            "keys of this kind are not used for manifests",
            code="invalid-key",
            field=field,
            hint="use an ECDSA key on the curve P-256 or an Ed25519 key",
        )

    def pem(self) -> bytes:
        """PEM SubjectPublicKeyInfo."""
        return self.public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def holds(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes: r and s for ECDSA) is valid for `message`."""
        if len(signature) != SIGNATURE_SIZE:
            return False
        try:
            if isinstance(self.public, ec.EllipticCurvePublicKey):
                half = SIGNATURE_SIZE // 2
                r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
                self.public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
            else:
                self.public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


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
        if not isinstance(private, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise InvalidInput(
                "keys of this kind are not used for manifests", code="invalid-key", field=field
            )
        return cls(private, key_type)

    def pem(self, password: bytes | None = None) -> bytes:
        """PEM PKCS#8, encrypted when `password` is given."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            encryption = serialization.BestAvailableEncryption(password)
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    @property
    def public(self) -> VerificationKey:
        """The public half."""
        return VerificationKey.of(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        """Signature over `message`: 64 bytes, r and s for ECDSA."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(message)
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(SIGNATURE_SIZE // 2, "big") + s.to_bytes(SIGNATURE_SIZE // 2, "big")

    def __repr__(self) -> str:
        return f"SigningKey({self.key_type.value}, {self.public.key_id.hex()})"


@dataclass(frozen=True, slots=True)
class Sign1:
    """A parsed COSE_Sign1 block; `algorithm` and `key_id` are what its headers say."""

    protected: bytes
    algorithm: int
    key_id: bytes | None
    signature: bytes


def sign1(key: SigningKey, payload: bytes) -> bytes:
    """Make a COSE_Sign1 block (tag 18) over the detached `payload`."""
    protected = cbor.encode({_ALG: int(_SIGN_WITH[key.key_type]), _KID: key.public.key_id})
    signature = key.sign(_sig_structure(protected, payload))
    return cbor.encode(cbor.Tag(SIGN1_TAG, [protected, {}, None, signature]))


def parse_sign1(block: bytes, field: str) -> Sign1 | None:
    """Read one authentication block; `None` for a COSE structure other than Sign1."""
    decoded = cbor.decode(block, field=field, tags={SIGN1_TAG, *OTHER_TAGS})
    if not isinstance(decoded, cbor.Tag):
        raise Malformed(f"{field} is not tagged as a COSE structure", field=field)
    if decoded.tag != SIGN1_TAG:
        return None
    parts = cbor.as_list(decoded.value, field)
    if len(parts) != 4:
        raise Malformed(f"{field} must have four parts", field=field)
    protected = cbor.as_bytes(parts[0], field)
    unprotected = cbor.as_map(parts[1], field)
    if parts[2] is not None:
        raise Malformed(f"{field} carries a payload; it must be detached", field=field)
    headers = cbor.as_map(cbor.decode(protected, field=field), field) if protected else {}
    if _CRIT in headers or _CRIT in unprotected:
        raise Malformed(f"{field} has critical headers, which are not understood", field=field)
    algorithm = cbor.as_int(headers.get(_ALG), field, low=-(2**31), high=2**31)
    if _ALG in unprotected:
        raise Malformed(f"{field} names an algorithm outside the protected header", field=field)
    key_id = headers.get(_KID, unprotected.get(_KID))
    if key_id is not None:
        key_id = cbor.as_bytes(key_id, field)
    return Sign1(protected, algorithm, key_id, cbor.as_bytes(parts[3], field))


def verify_blocks(
    blocks: Iterable[bytes],
    payload: bytes,
    trusted: Iterable[VerificationKey],
    *,
    field: str = "authentication",
) -> VerificationKey:
    """Return the first trusted key whose signature over `payload` holds.

    Blocks of unknown kinds, algorithms and signers are passed over. A block that names a trusted key and does
    not hold ends it at once. Without a valid block: `unknown-key` when the signers are strangers, else
    `signature`.
    """
    keys, blocks = list(trusted), list(blocks)
    if not blocks:
        raise NotTrusted("the manifest is not signed", field=field, hint="sign it: lwm2m manifest sign")
    found: VerificationKey | None = None
    anonymous = False
    for index, block in enumerate(blocks):
        parsed = parse_sign1(block, f"{field}/{index}")
        if parsed is None or parsed.algorithm not in set(Algorithm):
            continue
        candidates = [key for key in keys if parsed.key_id in (None, key.key_id)]
        anonymous = anonymous or parsed.key_id is None
        key_type = _KEY_TYPE[Algorithm(parsed.algorithm)]
        message = _sig_structure(parsed.protected, payload)
        valid = next(
            (k for k in candidates if k.key_type is key_type and k.holds(parsed.signature, message)), None
        )
        if valid is None and parsed.key_id is not None and candidates:
            raise NotTrusted("the signature of the manifest does not hold", field=f"{field}/{index}")
        found = found or valid
    if found is not None:
        return found
    if keys and anonymous:
        raise NotTrusted("no signature of the manifest holds under a trusted key", field=field)
    raise NotTrusted(
        "the manifest is not signed by a key that is trusted here",
        code=RefusalCode.UNKNOWN_KEY.value,
        field=field,
        hint="add the signer's public key to the trusted keys, or sign with a trusted key",
    )


def _key_id(public: _Public) -> bytes:
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()[:KEY_ID_SIZE]


def _sig_structure(protected: bytes, payload: bytes) -> bytes:
    # RFC 9052 section 4.4; external_aad is empty
    return cbor.encode(["Signature1", protected, b"", payload])
