"""How an update ends: the outcome of one attempt, and what each Update Result of the device means.

Codes and suggestions follow the table of Update Results of object 5 (0..11) and object 33629 (12, 13).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lwm2m_server.firmware.refusals import FINAL, RefusalCode


class Ending(StrEnum):
    """The four ways in which an attempt ends; names of deployment states."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of an attempt.

    `reason` is a stable kebab-case code, `text` a sentence for people. `retryable` tells whether another
    attempt may help; `max_retries` bounds those attempts (`None`: as the campaign says), `retry_after` is the
    least delay in seconds.
    """

    ending: Ending
    reason: str
    text: str = ""
    retryable: bool = False
    max_retries: int | None = None
    retry_after: float = 0.0


def succeeded(reason: str, text: str = "") -> Outcome:
    """Say that the device shows the new version: the only evidence of success."""
    return Outcome(Ending.SUCCEEDED, reason, text)


def cancelled(text: str, reason: str = "aborted") -> Outcome:
    """Say that it was ended by us or by the device's own cancel; not a failure."""
    return Outcome(Ending.CANCELLED, reason, text)


def failed(reason: str, text: str, *, max_retries: int | None = None, retry_after: float = 0.0) -> Outcome:
    """Say that another attempt may overcome the failure, as soon as the retry settings allow."""
    return Outcome(
        Ending.FAILED, reason, text, retryable=True, max_retries=max_retries, retry_after=retry_after
    )


def failed_for_good(reason: str, text: str) -> Outcome:
    """Say that the same artefact would meet the failure again."""
    return Outcome(Ending.FAILED, reason, text)


def rejected(reason: str, text: str) -> Outcome:
    """Say that the device refuses this update; no attempt will change that."""
    return Outcome(Ending.REJECTED, reason, text)


BY_RESULT: dict[int, Outcome] = {
    2: failed_for_good("storage-full", "the device has not enough flash for the package"),
    3: failed(
        "out-of-memory", "the device ran out of RAM during the download", max_retries=3, retry_after=600.0
    ),
    4: failed("connection-lost", "the device lost the connection during the download"),
    5: failed("integrity", "the device found the package damaged", max_retries=1),
    6: rejected("unsupported", "the device does not support this type of package"),
    7: failed("invalid-uri", "the device could not use the package URI", max_retries=1),
    8: failed("update-failed", "the device reports that the installation failed", max_retries=1),
    9: failed_for_good("protocol", "the device supports none of the protocols offered"),
    10: cancelled("the update was cancelled on the device", "cancelled-by-device"),
    12: failed("conflicting-state", "another component of the device is being updated", max_retries=3),
    13: failed(
        "dependency-missing", "a component that this update depends on must be updated first", max_retries=1
    ),
}
"""Outcome by Update Result. Not in it: 0 (no outcome), 1 (judged by version), 11 (deferred, not final)."""


def by_result(result: int) -> Outcome:
    """Outcome of an Update Result that ends the attempt; unknown numbers are final and keep their number."""
    known = BY_RESULT.get(result)
    return known or failed_for_good(
        "unknown-result", f"the device reports Update Result {result}, which is not defined"
    )


def by_refusal(code: str, text: str) -> Outcome:
    """Outcome of a refusal that the device reports in object 42800; unknown codes count as final."""
    known = RefusalCode(code) if code in set(RefusalCode) else None
    said = text or f"the device refused the manifest: {code}"
    if known is None or known in FINAL:
        return rejected(code, said)
    if known is RefusalCode.STORAGE_FULL:
        return failed_for_good(code, said)
    if known is RefusalCode.BATTERY_LOW:
        return failed(code, said, retry_after=3600.0)
    return failed(code, said, max_retries=1 if known is not RefusalCode.FETCH_FAILED else None)
