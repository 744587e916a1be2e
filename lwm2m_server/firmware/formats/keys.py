"""Public keys that firmware images are signed with: MCUboot's kinds and ESP-IDF's (secure boot).

Other keys than those of manifests: boot loaders know RSA, and they name a key by hashes of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.keys import load_public_key

KEY_ID_SIZE: Final = 8
RSA_SIZES: Final = (2048, 3072)
_SALT: Final = 32  # both boot loaders: PSS with MGF1 and a salt as long as the hash
_HASH: Final = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}

Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True)
class ImageKey:
    """A public key; `algorithm` is `ecdsa-p256`, `ecdsa-p384`, `ed25519`, `rsa-2048` or `rsa-3072`."""

    public: Public
    algorithm: str

    @classmethod
    def from_pem(cls, pem: bytes, *, field: str = "key") -> ImageKey:
        """Read a PEM public key; `InvalidInput` for a private key, another kind, or no key at all."""
        hint = "imgtool getpub -e pem, or openssl pkey -pubout, write the public half"
        public = load_public_key(pem, field=field, hint=hint)
        algorithm = _algorithm(public)
        if algorithm is None or not isinstance(public, Public):
            raise InvalidInput(
                "keys of this kind do not sign images",
                code="invalid-key",
                field=field,
                hint="use ECDSA on P-256 or P-384, Ed25519, or RSA with 2048 or 3072 bits",
            )
        return cls(public, algorithm)

    @classmethod
    def of(cls, public: Public) -> ImageKey:
        """From a key object; a kind that is not trusted anywhere is called by its curve or size."""
        fallback = f"ecdsa-{public.curve.name}" if isinstance(public, ec.EllipticCurvePublicKey) else "rsa"
        return cls(public, _algorithm(public) or fallback)

    @cached_property
    def key_id(self) -> str:
        """The first 8 bytes of SHA-256 over the SubjectPublicKeyInfo, hex: as for keys of manifests."""
        return hashlib.sha256(self._spki).hexdigest()[: 2 * KEY_ID_SIZE]

    @cached_property
    def fingerprints(self) -> frozenset[bytes]:
        """What MCUboot's key hash TLV may hold for this key: RSA keys are hashed in their PKCS #1 form."""
        form = self._spki
        if isinstance(self.public, rsa.RSAPublicKey):
            form = self.public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
        return frozenset(make(form).digest() for make in (hashlib.sha256, hashlib.sha384, hashlib.sha512))

    @property
    def sample(self) -> bool:
        """Whether this is a key whose private half MCUboot publishes."""
        return not self.fingerprints.isdisjoint(SAMPLE_KEYS)

    def pem(self) -> bytes:
        """PEM SubjectPublicKeyInfo."""
        return self.public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def holds(self, signature: bytes, digest: bytes) -> bool:
        """Whether `signature` is valid for a hash (32, 48 or 64 bytes); ECDSA in DER, RSA as PSS.

        Ed25519 signs the hash as its message.
        """
        try:
            match self.public:
                case ed25519.Ed25519PublicKey():
                    self.public.verify(signature, digest)
                case ec.EllipticCurvePublicKey():
                    self.public.verify(signature, digest, ec.ECDSA(utils.Prehashed(_HASH[len(digest)])))
                case rsa.RSAPublicKey():
                    kind = _HASH[len(digest)]
                    pss = padding.PSS(mgf=padding.MGF1(kind), salt_length=_SALT)
                    self.public.verify(signature, digest, pss, utils.Prehashed(kind))
        except InvalidSignature:
            return False
        return True

    @cached_property
    def _spki(self) -> bytes:
        return self.public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def _algorithm(public: object) -> str | None:
    match public:
        case ed25519.Ed25519PublicKey():
            return "ed25519"
        case ec.EllipticCurvePublicKey():
            return {"secp256r1": "ecdsa-p256", "secp384r1": "ecdsa-p384"}.get(public.curve.name)
        case rsa.RSAPublicKey() if public.key_size in RSA_SIZES:
            return f"rsa-{public.key_size}"
    return None


SAMPLE_KEYS: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "e30466f6b8470c1f29070b17f1e2d3e94d445e3f608087fdc711e4382bb538b6",  # root-ec-p256
        "c1907fa4eac7fae3840a78902b6f0710b037e9968e5c6274a12a28790c7d4e3c",  # root-ed25519
        "fc5701dc6135e1323847bdc40f04d2e5bee5833b23c29f93593d00018cfa9994",  # root-rsa-2048
    )
)
"""SHA-256 of the public keys whose private halves lie in MCUboot's repository, as its key hash TLV has them."""
