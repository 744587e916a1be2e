"""What the Update Results of object 9 Software Management mean, and which of them a refusal is reported as.

They share numbers with those of object 5 and mean other things: 2 is success here. The two are never mapped onto
each other.
"""

from __future__ import annotations

from typing import Final

from lwm2m_server.firmware.outcomes import Outcome, by_refusal, failed, failed_for_good
from lwm2m_server.firmware.refusals import RefusalCode

DOWNLOADING: Final = 1
INSTALLED: Final = 2
VERIFIED: Final = 3
NO_STORAGE: Final = 50
NO_MEMORY: Final = 51
CONNECTION_LOST: Final = 52
INTEGRITY: Final = 53
PACKAGE_TYPE: Final = 54
INVALID_URI: Final = 56
DEVICE_DEFINED: Final = 57
INSTALL_FAILED: Final = 58
UNINSTALL_FAILED: Final = 59

GOOD: Final = frozenset({0, DOWNLOADING, INSTALLED, VERIFIED})
"""Results that are no failure: State and version say how far it is."""

SOFTWARE_RESULT: Final[dict[RefusalCode, int]] = (
    dict.fromkeys(RefusalCode, INTEGRITY)
    | dict.fromkeys(
        (
            RefusalCode.VENDOR_MISMATCH,
            RefusalCode.CLASS_MISMATCH,
            RefusalCode.COMPONENT_MISMATCH,
            RefusalCode.UNSUPPORTED,
        ),
        PACKAGE_TYPE,
    )
    | dict.fromkeys(
        (
            RefusalCode.SEQUENCE_ROLLBACK,
            RefusalCode.VERSION_ROLLBACK,
            RefusalCode.EXPIRED,
            RefusalCode.PRECURSOR_MISMATCH,
            RefusalCode.BATTERY_LOW,
            RefusalCode.NOT_AUTHORIZED,
            RefusalCode.REFUSED_BY_APPLICATION,
            RefusalCode.STATE_DAMAGED,
        ),
        DEVICE_DEFINED,
    )
    | {RefusalCode.STORAGE_FULL: NO_STORAGE, RefusalCode.FETCH_FAILED: CONNECTION_LOST}
)
"""Update Result (resource 9) that a device reports for each refusal. A pull answered with 4.04 is 56."""

BY_SOFTWARE_RESULT: Final[dict[int, Outcome]] = {
    NO_STORAGE: failed(
        "no-storage",
        "the device has not enough storage for the application",
        max_retries=1,
        retry_after=3600.0,
    ),
    NO_MEMORY: failed(
        "out-of-memory", "the device ran out of memory during the download", max_retries=3, retry_after=600.0
    ),
    CONNECTION_LOST: failed("connection-lost", "the device lost the connection during the download"),
    INTEGRITY: failed("integrity", "the device found the package damaged", max_retries=1),
    PACKAGE_TYPE: failed("package-type", "the device does not support this type of package", max_retries=1),
    INVALID_URI: failed("invalid-uri", "the device could not use the package URI", max_retries=1),
    DEVICE_DEFINED: failed("device-error", "the device reports an error of its own (57)", max_retries=1),
    INSTALL_FAILED: failed("update-failed", "the device reports that the installation failed", max_retries=1),
    UNINSTALL_FAILED: failed(
        "uninstall-failed", "the device could not remove what was installed before", max_retries=1
    ),
}
"""Outcome by Update Result of object 9. Not in it: what is `GOOD`, and 55, which is undefined."""


def by_software_result(result: int) -> Outcome:
    """Outcome of an Update Result of object 9 that ends the attempt; unknown ones are final and keep their number."""
    known = BY_SOFTWARE_RESULT.get(result)
    return known or failed_for_good(
        "unknown-result", f"the device reports Update Result {result} of object 9, which is not defined"
    )


def by_status_reason(result: int, reason: str) -> Outcome:
    """Outcome of a Result together with Status Reason, which may hold a refusal as `code: text`."""
    code, colon, text = reason.partition(": ")
    if colon and code in set(RefusalCode) and _fits(RefusalCode(code), result):
        return by_refusal(code, text)
    return by_software_result(result)


def _fits(code: RefusalCode, result: int) -> bool:
    return SOFTWARE_RESULT[code] == result or (code is RefusalCode.FETCH_FAILED and result == INVALID_URI)
