"""Why a manifest or an image is refused: stable codes, used by server and device alike.

Each refusal is an error for users (`lwm2m_server.errors`) whose `code` is one of `RefusalCode`; the device
reports the same text in object 42800 and the nearest Update Result in object 5.
"""

from __future__ import annotations

from enum import StrEnum

from lwm2m_server.errors import InvalidInput, Lwm2mError, Untrusted


class RefusalCode(StrEnum):
    """The stable codes; their texts never change."""

    SIGNATURE = "signature"
    UNKNOWN_KEY = "unknown-key"
    KEY_REVOKED = "key-revoked"
    KEY_EXPIRED = "key-expired"
    KEY_NOT_YET_VALID = "key-not-yet-valid"
    ROLE_MISMATCH = "role-mismatch"
    SECOND_SIGNATURE = "second-signature"
    NOT_APPROVED = "not-approved"
    MALFORMED = "malformed"
    VENDOR_MISMATCH = "vendor-mismatch"
    CLASS_MISMATCH = "class-mismatch"
    SEQUENCE_ROLLBACK = "sequence-rollback"
    VERSION_ROLLBACK = "version-rollback"
    EXPIRED = "expired"
    PRECURSOR_MISMATCH = "precursor-mismatch"
    BATTERY_LOW = "battery-low"
    NOT_AUTHORIZED = "not-authorized"
    REFUSED_BY_APPLICATION = "refused-by-application"
    COMPONENT_MISMATCH = "component-mismatch"
    NO_DECRYPTION_KEY = "no-decryption-key"
    DECRYPTION_KEY = "decryption-key"
    DIGEST_MISMATCH = "digest-mismatch"
    SIZE_MISMATCH = "size-mismatch"
    STORAGE_FULL = "storage-full"
    UNSUPPORTED = "unsupported"
    FETCH_FAILED = "fetch-failed"
    STATE_DAMAGED = "state-damaged"
    COMPONENT_FAILED = "component-failed"
    CONFLICTING_STATE = "conflicting-state"
    DEPENDENCY_MISSING = "dependency-missing"


UPDATE_RESULT = {
    RefusalCode.STORAGE_FULL: 2,
    RefusalCode.FETCH_FAILED: 4,
    RefusalCode.SIGNATURE: 5,
    RefusalCode.UNKNOWN_KEY: 5,
    RefusalCode.KEY_REVOKED: 5,
    RefusalCode.KEY_EXPIRED: 5,
    RefusalCode.KEY_NOT_YET_VALID: 5,
    RefusalCode.ROLE_MISMATCH: 5,
    RefusalCode.SECOND_SIGNATURE: 5,
    RefusalCode.NOT_APPROVED: 5,
    RefusalCode.MALFORMED: 5,
    RefusalCode.DIGEST_MISMATCH: 5,
    RefusalCode.SIZE_MISMATCH: 5,
    RefusalCode.DECRYPTION_KEY: 5,
    RefusalCode.NO_DECRYPTION_KEY: 5,
    RefusalCode.VENDOR_MISMATCH: 6,
    RefusalCode.CLASS_MISMATCH: 6,
    RefusalCode.COMPONENT_MISMATCH: 6,
    RefusalCode.UNSUPPORTED: 6,
    RefusalCode.SEQUENCE_ROLLBACK: 8,
    RefusalCode.VERSION_ROLLBACK: 8,
    RefusalCode.EXPIRED: 8,
    RefusalCode.PRECURSOR_MISMATCH: 8,
    RefusalCode.BATTERY_LOW: 8,
    RefusalCode.STATE_DAMAGED: 8,
    RefusalCode.COMPONENT_FAILED: 8,
    RefusalCode.NOT_AUTHORIZED: 10,
    RefusalCode.REFUSED_BY_APPLICATION: 10,
    RefusalCode.CONFLICTING_STATE: 12,
    RefusalCode.DEPENDENCY_MISSING: 13,
}
"""Update Result (resource 5 of object 5) that a device reports for each refusal.

A pull answered with 4.04 is 7. 12 and 13 are those of object 33629.
"""

FINAL = frozenset(RefusalCode) - {
    RefusalCode.DIGEST_MISMATCH,
    RefusalCode.SIZE_MISMATCH,
    RefusalCode.STORAGE_FULL,
    RefusalCode.FETCH_FAILED,
    RefusalCode.BATTERY_LOW,
    RefusalCode.STATE_DAMAGED,
    RefusalCode.COMPONENT_FAILED,
    RefusalCode.CONFLICTING_STATE,
    RefusalCode.DEPENDENCY_MISSING,
}
"""Refusals of the update as such.

The same manifest will never be taken. The others are failures of a transfer or of the moment.
"""


class Refusal(Lwm2mError):
    """A manifest or an image is refused; `code` is the text of a `RefusalCode`."""

    code = RefusalCode.UNSUPPORTED.value

    @property
    def update_result(self) -> int:
        """The Update Result (0..13) that a device reports for it."""
        return UPDATE_RESULT[RefusalCode(self.code)]


class Malformed(Refusal, InvalidInput):
    """The bytes are no manifest in the strict form that we accept."""

    code = RefusalCode.MALFORMED.value


class NotTrusted(Refusal, Untrusted):
    """A signature or a digest does not hold, or the signer is unknown."""

    code = RefusalCode.SIGNATURE.value


class Mismatch(Refusal, InvalidInput):
    """The manifest is genuine but not for this device, not newer, or asks for what is not supported."""


UNTRUSTED = {
    RefusalCode.SIGNATURE,
    RefusalCode.UNKNOWN_KEY,
    RefusalCode.KEY_REVOKED,
    RefusalCode.KEY_EXPIRED,
    RefusalCode.KEY_NOT_YET_VALID,
    RefusalCode.ROLE_MISMATCH,
    RefusalCode.SECOND_SIGNATURE,
    RefusalCode.NOT_APPROVED,
    RefusalCode.DIGEST_MISMATCH,
}
"""Refusals that are `NotTrusted`: it is not what it says, or not by whom it should be."""


def refusal(code: RefusalCode, message: str, *, field: str | None = None, hint: str | None = None) -> Refusal:
    """Make the refusal of the right class for `code`."""
    if code is RefusalCode.MALFORMED:
        return Malformed(message, code=code.value, field=field, hint=hint)
    if code in UNTRUSTED:
        return NotTrusted(message, code=code.value, field=field, hint=hint)
    return Mismatch(message, code=code.value, field=field, hint=hint)
