"""Numbers and small values of SUIT (draft-ietf-suit-manifest-37, trust-domains-12, update-management-14)."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.refusals import Malformed, RefusalCode, refusal

ENVELOPE_TAG: Final = 107
MANIFEST_VERSION: Final = 1
CUSTOM: Final = -256
"""Custom commands are below this number."""
ComponentId = tuple[bytes, ...]


class EnvelopeKey(IntEnum):
    """Keys of the envelope map."""

    AUTHENTICATION = 2
    MANIFEST = 3


class ManifestKey(IntEnum):
    """Keys of the manifest map; those of `SEVERABLE` may also be keys of the envelope."""

    VERSION = 1
    SEQUENCE_NUMBER = 2
    COMMON = 3
    REFERENCE_URI = 4
    COMPONENT_ID = 5
    SET_VERSION = 6
    VALIDATE = 7
    LOAD = 8
    INVOKE = 9
    COSWID = 14
    DEPENDENCY_RESOLUTION = 15
    PAYLOAD_FETCH = 16
    CANDIDATE_VERIFICATION = 18
    INSTALL = 20
    TEXT = 23
    UNINSTALL = 24


SEVERABLE: Final = (
    ManifestKey.DEPENDENCY_RESOLUTION,
    ManifestKey.PAYLOAD_FETCH,
    ManifestKey.CANDIDATE_VERIFICATION,
    ManifestKey.INSTALL,
    ManifestKey.TEXT,
)


class CommonKey(IntEnum):
    """Keys of the common block."""

    DEPENDENCIES = 1
    COMPONENTS = 2
    SHARED_SEQUENCE = 4


class ConditionCode(IntEnum):
    """Conditions: they hold or not.

    Custom commands are below -256; a processor that does not know one refuses the manifest, as it should.
    `OPERATOR_APPROVAL` is ours: it holds when a key with the role operator-approval signed the manifest too,
    and marks a manifest that may go back to an older version. `IN_PLACE` is ours too: it holds when the device
    can rewrite the component by a delta in a memory of the parameter `IN_PLACE`.
    """

    VENDOR_IDENTIFIER = 1
    CLASS_IDENTIFIER = 2
    IMAGE_MATCH = 3
    USE_BEFORE = 4
    COMPONENT_SLOT = 5
    CHECK_CONTENT = 6
    DEPENDENCY_INTEGRITY = 7
    IS_DEPENDENCY = 8
    ABORT = 14
    DEVICE_IDENTIFIER = 24
    IMAGE_NOT_MATCH = 25
    MINIMUM_BATTERY = 26
    UPDATE_AUTHORIZED = 27
    VERSION = 28
    OPERATOR_APPROVAL = -257
    IN_PLACE = -258


class DirectiveCode(IntEnum):
    """Directives: they act, or abort the update.

    `APPLY_DELTA` is ours: the delta in the source component rewrites the component in place.
    """

    PROCESS_DEPENDENCY = 11
    SET_COMPONENT_INDEX = 12
    TRY_EACH = 15
    WRITE = 18
    SET_PARAMETERS = 19
    OVERRIDE_PARAMETERS = 20
    FETCH = 21
    COPY = 22
    INVOKE = 23
    WAIT = 29
    SWAP = 31
    RUN_SEQUENCE = 32
    UNLINK = 33
    OVERRIDE_MULTIPLE = 34
    COPY_PARAMS = 35
    APPLY_DELTA = -259


class ParameterKey(IntEnum):
    """Parameters of a component. `IN_PLACE` is ours: bytes of the memory and of a segment that deltas are made for."""

    VENDOR_ID = 1
    CLASS_ID = 2
    IMAGE_DIGEST = 3
    USE_BEFORE = 4
    COMPONENT_SLOT = 5
    STRICT_ORDER = 12
    SOFT_FAILURE = 13
    IMAGE_SIZE = 14
    CONTENT = 18
    ENCRYPTION_INFO = 19
    URI = 21
    SOURCE_COMPONENT = 22
    INVOKE_ARGS = 23
    DEVICE_ID = 24
    FETCH_ARGS = 25
    MINIMUM_BATTERY = 26
    UPDATE_PRIORITY = 27
    VERSION = 28
    WAIT_INFO = 29
    IN_PLACE = -258


class WaitEvent(IntEnum):
    """What a device may be told to wait for (update-management, suit-parameter-wait-info)."""

    AUTHORIZATION = 1
    POWER = 2
    NETWORK = 3
    OTHER_DEVICE_VERSION = 4
    TIME = 5
    TIME_OF_DAY = 6
    DAY_OF_WEEK = 7
    TIME_OF_DAY_UTC = 8
    DAY_OF_WEEK_UTC = 9


class TextKey(IntEnum):
    """Keys of the text of a manifest (language level) and of a component."""

    MANIFEST_DESCRIPTION = 1
    UPDATE_DESCRIPTION = 2


class ComponentTextKey(IntEnum):
    """Keys of the text of a component."""

    VENDOR_NAME = 1
    MODEL_NAME = 2
    VENDOR_DOMAIN = 3
    MODEL_INFO = 4
    DESCRIPTION = 5
    VERSION = 6
    VERSION_REQUIRED = 7
    CURRENT_VERSION = 8


DIGEST_SHA256: Final = -16
_HASHES: Final[dict[int, Callable[[bytes], bytes]]] = {
    DIGEST_SHA256: lambda data: hashlib.sha256(data).digest(),
    -43: lambda data: hashlib.sha384(data).digest(),
    -44: lambda data: hashlib.sha512(data).digest(),
    -18: lambda data: hashlib.shake_128(data).digest(32),
    -45: lambda data: hashlib.shake_256(data).digest(64),
}


@dataclass(frozen=True, slots=True)
class Digest:
    """SUIT_Digest: `algorithm` is the COSE number (-16 is SHA-256), `value` the raw digest."""

    algorithm: int
    value: bytes

    @classmethod
    def of(cls, data: bytes, algorithm: int = DIGEST_SHA256) -> Digest:
        """Digest `data`."""
        return cls(algorithm, _hash(algorithm, "digest")(data))

    @classmethod
    def parse(cls, value: object, field: str) -> Digest:
        """From the decoded array `[algorithm, bytes]`."""
        items = cbor.as_list(value, field)
        if len(items) != 2:
            raise Malformed(f"{field} must hold an algorithm and a digest", field=field)
        algorithm = cbor.as_int(items[0], field, low=-(2**31), high=2**31)
        size = len(_hash(algorithm, field)(b""))
        return cls(algorithm, cbor.as_bytes(items[1], field, size=size))

    def matches(self, data: bytes) -> bool:
        """Whether it is the digest of `data`; in constant time."""
        return hmac.compare_digest(self.value, _hash(self.algorithm, "digest")(data))

    def to_cbor(self) -> list[int | bytes]:
        """Return the array for the encoder."""
        return [self.algorithm, self.value]

    def encode(self) -> bytes:
        """Return the encoded array, without byte string head: the detached payload of signatures."""
        return cbor.encode(self.to_cbor())


def vendor_id(domain: str) -> bytes:
    """Vendor identifier: UUID5 of the DNS namespace and the vendor's domain (section 8.4.8.2), 16 bytes."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, domain).bytes


def class_id(vendor: bytes, class_name: str) -> bytes:
    """Class identifier: UUID5 of the vendor identifier and the class-specific text, 16 bytes."""
    return uuid.uuid5(uuid.UUID(bytes=vendor), class_name).bytes


def component_text(component: ComponentId) -> str:
    """Return a component identifier as the text that is its name everywhere: parts joined by `/`.

    A part is a word (`modem`) where its bytes are one and can't be read as hex digits, else hex (`00`).
    """
    return "/".join(part.decode() if _is_word(part) else part.hex() for part in component)


def component_of(text: str) -> ComponentId | None:
    """Return the identifier with this name (`component_text`), None when the text is no name."""
    parts = tuple(_part(part) for part in text.split("/"))
    return parts if all(parts) else None


_WORD: Final = re.compile(rb"[A-Za-z][A-Za-z0-9._-]*")
_HEX: Final = re.compile(rb"(?:[0-9A-Fa-f]{2})+")


def _is_word(part: bytes) -> bool:
    return _WORD.fullmatch(part) is not None and _HEX.fullmatch(part) is None


def _part(text: str) -> bytes:
    part = text.encode("utf-8", "surrogatepass")
    if _HEX.fullmatch(part):
        return bytes.fromhex(text)
    return part if _is_word(part) else b""


def _hash(algorithm: int, field: str) -> Callable[[bytes], bytes]:
    found = _HASHES.get(algorithm)
    if found is None:
        raise refusal(RefusalCode.UNSUPPORTED, f"{field} uses digest algorithm {algorithm}", field=field)
    return found
