"""COSE_Sign1 with detached payload (RFC 9052, section 4.2).

Signing uses fully-specified algorithms: ESP256 (-9) and Ed25519 (-19) of RFC 9864, ML-DSA-44 (-48) of
RFC 9964. ES256 (-7) and EdDSA (-8) are accepted when the key is on P-256 or Ed25519.

Blocks that we make carry the key identifier in the *protected* header, so that every byte of a block is
either signed or the signature.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.keys import KEY_ID_SIZE, KeyType, Signer, SigningKey, VerificationKey
from lwm2m_server.firmware.refusals import Malformed, NotTrusted, RefusalCode

__all__ = [
    "KEY_ID_SIZE",
    "OTHER_TAGS",
    "SIGN1_TAG",
    "Algorithm",
    "KeyType",
    "Sign1",
    "Signer",
    "SigningKey",
    "VerificationKey",
    "parse_sign1",
    "sig_structure",
    "sign1",
    "verify_blocks",
]

SIGN1_TAG: Final = 18
OTHER_TAGS: Final = frozenset({17, 97, 98})
"""COSE_Mac0, COSE_Mac and COSE_Sign: legal in an envelope, not understood here."""

_ALG, _CRIT, _KID = 1, 2, 4


class Algorithm(IntEnum):
    """COSE algorithm numbers that are accepted."""

    ES256 = -7
    EDDSA = -8
    ESP256 = -9
    ED25519 = -19
    ML_DSA_44 = -48


_KEY_TYPE: Final = {
    Algorithm.ES256: KeyType.ESP256,
    Algorithm.ESP256: KeyType.ESP256,
    Algorithm.EDDSA: KeyType.ED25519,
    Algorithm.ED25519: KeyType.ED25519,
    Algorithm.ML_DSA_44: KeyType.ML_DSA_44,
}
_SIGN_WITH: Final = {
    KeyType.ESP256: Algorithm.ESP256,
    KeyType.ED25519: Algorithm.ED25519,
    KeyType.ML_DSA_44: Algorithm.ML_DSA_44,
}


@dataclass(frozen=True, slots=True)
class Sign1:
    """A parsed COSE_Sign1 block; `algorithm` and `key_id` are what its headers say."""

    protected: bytes
    algorithm: int
    key_id: bytes | None
    signature: bytes


def sign1(key: Signer, payload: bytes) -> bytes:
    """Make a COSE_Sign1 block (tag 18) over the detached `payload`.

    `NotTrusted` when what the signer returns is no signature of its own key: a program or a token that uses
    another key is found here, not on the devices.
    """
    public = key.public
    protected = cbor.encode({_ALG: int(_SIGN_WITH[public.key_type]), _KID: public.key_id})
    message = sig_structure(protected, payload)
    signature = key.sign(message)
    if not public.holds(signature, message):
        raise NotTrusted(
            "what was signed with does not fit the public key",
            field="key",
            hint="give the public key that belongs to the private one",
        )
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
    if _KID in headers and _KID in unprotected:
        raise Malformed(f"{field} names its key twice", field=field)
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
) -> tuple[VerificationKey, ...]:
    """Return the trusted keys whose signatures over `payload` hold, in the order of the blocks; at least one.

    Blocks of unknown kinds, algorithms and signers are passed over. A block that names a trusted key and does
    not hold ends it at once. Without a valid block: `unknown-key` when the signers are strangers, else
    `signature`.
    """
    keys, blocks = list(trusted), list(blocks)
    if not blocks:
        raise NotTrusted("the manifest is not signed", field=field, hint="sign it: lwm2m manifest sign")
    found: list[VerificationKey] = []
    anonymous = False
    for index, block in enumerate(blocks):
        parsed = parse_sign1(block, f"{field}/{index}")
        if parsed is None or parsed.algorithm not in set(Algorithm):
            continue
        candidates = [key for key in keys if parsed.key_id in (None, key.key_id)]
        anonymous = anonymous or parsed.key_id is None
        key_type = _KEY_TYPE[Algorithm(parsed.algorithm)]
        message = sig_structure(parsed.protected, payload)
        valid = next(
            (k for k in candidates if k.key_type is key_type and k.holds(parsed.signature, message)), None
        )
        if valid is None and parsed.key_id is not None and candidates:
            raise NotTrusted("the signature of the manifest does not hold", field=f"{field}/{index}")
        if valid is not None and valid not in found:
            found.append(valid)
    if found:
        return tuple(found)
    if keys and anonymous:
        raise NotTrusted("no signature of the manifest holds under a trusted key", field=field)
    raise NotTrusted(
        "the manifest is not signed by a key that is trusted here",
        code=RefusalCode.UNKNOWN_KEY.value,
        field=field,
        hint="add the signer's public key to the trusted keys, or sign with a trusted key",
    )


def sig_structure(protected: bytes, payload: bytes) -> bytes:
    """What a signature is made over (RFC 9052, section 4.4); external_aad is empty."""
    return cbor.encode(["Signature1", protected, b"", payload])
