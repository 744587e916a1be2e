"""Encrypted payloads (draft-ietf-suit-firmware-encryption-26): AES-128-CTR, its key wrapped for device classes.

The profiles are `sha256-…-a128kw-a128ctr` and `sha256-…-ecdh-a128ctr` of suit-mti-19. SUIT_Encryption_Info is a
COSE_Encrypt (tag 96) with a detached payload: a random content key encrypts one image once, and each recipient is
that key, wrapped by AES-KW (RFC 3394) under a key (KEK) that a class of devices holds, or that it derives with its
private key (`key_agreement`). AES-CTR (RFC 9459) protects nothing against changes: integrity is that of the signed
digests. In return it adds no bytes and can go on at any place, which is what a device needs that decrypts while it
writes. AES-GCM is left out: such a device lets go of the plain bytes before it has seen the tag, which is all that
GCM adds to the signed digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.key_agreement import (
    ECDH_ES_A128KW,
    EPHEMERAL,
    MAX_SALT,
    SALT,
    Agreement,
    PrivateKey,
    PublicKey,
    cose_key,
    read_cose_key,
    read_private,
    wrapping_key,
)
from lwm2m_server.firmware.refusals import Malformed, RefusalCode, refusal
from lwm2m_server.firmware.suit import ComponentId

ENCRYPT_TAG: Final = 96
A128CTR: Final = -65534
A128KW: Final = -3
KEY_SIZE: Final = 16
"""Bytes of a KEK and of a content key."""
IV: Final = bytes(16)
"""First counter block of what is made here: 0, as the draft wants it; each content key is used once."""
MAX_RECIPIENTS: Final = 16
FIELD: Final = "encryption-info"

_ALG, _CRIT, _KID, _IV = 1, 2, 4, 5
_WRAPPED_SIZE: Final = KEY_SIZE + 8
_BLOCK: Final = 16
_PAYLOAD: Final = b"encrypted"
_AGREED: Final = cbor.encode({_ALG: ECDH_ES_A128KW})

ClassKey = bytes | PrivateKey
"""What a class of devices holds: a KEK, or the private key of a pair on P-256."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """The content key (24 bytes as wrapped) for those who hold a key; `key_id` is a hint which one.

    With `ephemeral` it is wrapped under a key that was agreed upon, else under a KEK. `protected` is the header as it
    was encoded, of which the agreed key is derived, with `salt`.
    """

    wrapped: bytes
    key_id: bytes | None = None
    ephemeral: PublicKey | None = None
    protected: bytes = b""
    salt: bytes = b""

    @property
    def key_wrap(self) -> str:
        """The algorithm, by its name in COSE."""
        return "A128KW" if self.ephemeral is None else "ECDH-ES+A128KW"

    def kek_of(self, held: ClassKey) -> bytes | None:
        """Return the key to unwrap with; `None` when what the device holds is of the other kind."""
        if isinstance(held, bytes):
            return held if self.ephemeral is None else None
        if self.ephemeral is None:
            return None
        return wrapping_key(held, self.ephemeral, self.protected, self.salt)


@dataclass(frozen=True, slots=True)
class EncryptionInfo:
    """SUIT_Encryption_Info as far as it serves: `iv` is the first counter block (16 bytes)."""

    iv: bytes
    recipients: tuple[Recipient, ...]


@dataclass(frozen=True, slots=True)
class ContentCipher:
    """The key stream of one payload."""

    key: bytes
    iv: bytes

    def apply(self, offset: int, data: bytes) -> bytes:
        """Encrypt or decrypt the bytes at `offset` of the payload; the same either way."""
        counter = (int.from_bytes(self.iv) + offset // _BLOCK) % (1 << 128)
        stream = Cipher(algorithms.AES128(self.key), modes.CTR(counter.to_bytes(_BLOCK))).encryptor()
        stream.update(bytes(offset % _BLOCK))
        return stream.update(data)


def payload_component(component: ComponentId) -> ComponentId:
    """Return the component that stands for the encrypted payload of another one in a manifest.

    The draft decrypts by copy from one component into another. A device that decrypts as it writes has no
    memory behind it.
    """
    return (*component, _PAYLOAD)


def is_payload(component: ComponentId) -> bool:
    """Say whether a component is the encrypted payload of another one."""
    return len(component) > 1 and component[-1] == _PAYLOAD


def read_kek(content: bytes, field: str) -> bytes:
    """Read a key-encryption key from a file's content: 16 bytes, or 32 hex digits. `InvalidInput`."""
    if len(content) == KEY_SIZE:
        return content
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise InvalidInput(
            "the file holds no AES-128 key",
            field=field,
            hint="it has 16 random bytes, or 32 hex digits: openssl rand -hex 16",
        )
    return key


def read_class_key(content: bytes, field: str) -> ClassKey:
    """Read what a device decrypts with from a file's content: a KEK, or a PEM private key. `InvalidInput`."""
    if content.lstrip().startswith(b"-----BEGIN"):
        return read_private(content, field)
    return read_kek(content, field)


def kek_id(kek: bytes) -> bytes:
    """Return the name (8 bytes) of a KEK that was given none: the beginning of its SHA-256."""
    return hashlib.sha256(kek).digest()[:8]


def encryption_info(
    content_key: bytes, keys: Sequence[tuple[bytes | Agreement, bytes]], iv: bytes = IV
) -> bytes:
    """Make SUIT_Encryption_Info: `content_key` wrapped for each key, of which the second part is the name."""
    recipients = [_wrap(content_key, key, name) for key, name in keys]
    return cbor.encode(cbor.Tag(ENCRYPT_TAG, [b"", {_ALG: A128CTR, _IV: iv}, None, recipients]))


def _wrap(content_key: bytes, key: bytes | Agreement, name: bytes) -> list[Any]:
    if isinstance(key, bytes):
        # RFC 9459, section 4: without integrity protection nothing may stand in the protected header
        return [b"", {_ALG: A128KW, _KID: name}, aes_key_wrap(key, content_key)]
    kek = wrapping_key(key.ephemeral, key.public, _AGREED)
    sender = cose_key(key.ephemeral.public_key())
    return [_AGREED, {EPHEMERAL: sender, _KID: name}, aes_key_wrap(kek, content_key)]


def parse_encryption_info(data: bytes, field: str = FIELD) -> EncryptionInfo:
    """Read SUIT_Encryption_Info; `Refusal` (`malformed`, `unsupported`) when it can't be used here."""
    decoded = cbor.decode(data, field=field, tags={ENCRYPT_TAG})
    if not isinstance(decoded, cbor.Tag):
        raise Malformed(f"{field} is not tagged as COSE_Encrypt", field=field)
    parts = cbor.as_list(decoded.value, field)
    if len(parts) != 4:
        raise Malformed(f"{field} must have four parts", field=field)
    protected, unprotected = _headers(parts[0], parts[1], field)
    if parts[2] is not None:
        raise Malformed(f"{field} carries a payload; it must be detached", field=field)
    algorithm = cbor.as_int((protected | unprotected).get(_ALG), field, low=-(2**31), high=2**31)
    if algorithm != A128CTR:
        raise refusal(
            RefusalCode.UNSUPPORTED,
            f"the payload is encrypted with algorithm {algorithm}; only AES-128-CTR ({A128CTR}) is supported",
            field=field,
        )
    if parts[0]:
        raise Malformed(f"{field} has a protected header, which AES-CTR can't protect", field=field)
    iv = cbor.as_bytes(unprotected.get(_IV), field, size=_BLOCK)
    listed = cbor.as_list(parts[3], field)
    if not 1 <= len(listed) <= MAX_RECIPIENTS:
        raise Malformed(f"{field} must have 1 to {MAX_RECIPIENTS} recipients", field=field)
    recipients = tuple(filter(None, (_recipient(each, field) for each in listed)))
    if not recipients:
        raise refusal(
            RefusalCode.UNSUPPORTED,
            "the payload's key is wrapped neither by AES-128 key wrap nor by ECDH-ES with it",
            field=field,
        )
    return EncryptionInfo(iv, recipients)


def unwrap(info: EncryptionInfo, keys: Iterable[ClassKey], field: str = FIELD) -> ContentCipher:
    """Find the content key with the keys that a device holds.

    `Refusal`: `no-decryption-key` without any, `decryption-key` when none of them is the right one.
    """
    held = list(keys)
    if not held:
        raise refusal(
            RefusalCode.NO_DECRYPTION_KEY,
            f"the image is encrypted for key {_names(info)} and the device has none",
            field=field,
            hint="give the device the key of its class",
        )
    for key in held:
        for recipient in info.recipients:
            kek = recipient.kek_of(key)
            if kek is None:
                continue
            try:
                return ContentCipher(aes_key_unwrap(kek, recipient.wrapped), info.iv)
            except InvalidUnwrap:
                continue
    raise refusal(
        RefusalCode.DECRYPTION_KEY,
        f"the image is encrypted for key {_names(info)}, which is not the device's",
        field=field,
        hint="encrypt the image with the key of this class of devices",
    )


def describe_encryption(data: bytes) -> dict[str, Any]:
    """Return algorithms and key names as plain values; `Refusal` when it can't be read."""
    info = parse_encryption_info(data)
    return {
        "algorithm": "A128CTR",
        "key_wrap": " or ".join(dict.fromkeys(each.key_wrap for each in info.recipients)),
        "key_ids": [_name(each) for each in info.recipients],
    }


def _headers(protected: object, unprotected: object, field: str) -> tuple[dict[Any, Any], dict[Any, Any]]:
    inside = cbor.as_bytes(protected, field)
    first = cbor.as_map(cbor.decode(inside, field=field), field) if inside else {}
    second = cbor.as_map(unprotected, field)
    if _CRIT in first or _CRIT in second:
        raise Malformed(f"{field} has critical headers, which are not understood", field=field)
    if first.keys() & second.keys():
        raise Malformed(f"{field} says the same twice", field=field)
    return first, second


def _recipient(value: object, field: str) -> Recipient | None:
    """Read one; `None` for other ways to bring a key, which are for other devices."""
    parts = cbor.as_list(value, field)
    if len(parts) not in (3, 4):
        raise Malformed(f"{field} has a recipient that is none", field=field)
    protected, unprotected = _headers(parts[0], parts[1], field)
    algorithm = (protected | unprotected).get(_ALG)
    if algorithm not in (A128KW, ECDH_ES_A128KW):
        return None
    if len(parts) != 3 or (protected and algorithm == A128KW):
        raise Malformed(f"{field} has a recipient with more than AES key wrap knows", field=field)
    name = unprotected.get(_KID)
    key_id = None if name is None else cbor.as_bytes(name, field)
    wrapped = cbor.as_bytes(parts[2], field, size=_WRAPPED_SIZE)
    if algorithm == A128KW:
        return Recipient(wrapped, key_id)
    if _ALG not in protected:
        raise Malformed(f"{field} has a key agreement whose algorithm is not protected", field=field)
    both = protected | unprotected
    salt = cbor.as_bytes(both.get(SALT, b""), field)
    if len(salt) > MAX_SALT:
        raise Malformed(f"{field} has a salt of more than {MAX_SALT} bytes", field=field)
    ephemeral = read_cose_key(both.get(EPHEMERAL), field)
    return None if ephemeral is None else Recipient(wrapped, key_id, ephemeral, bytes(parts[0]), salt)


def _names(info: EncryptionInfo) -> str:
    return " or ".join(dict.fromkeys(_name(each) for each in info.recipients))


def _name(recipient: Recipient) -> str:
    """Show a key's name: in its words where it has some, else in hex."""
    if recipient.key_id is None:
        return "without a name"
    if recipient.key_id and all(0x20 < byte < 0x7F for byte in recipient.key_id):
        return recipient.key_id.decode("ascii")
    return recipient.key_id.hex()
