"""Who may sign what: trust anchors with roles, validity and revocation, and the rules for several signatures.

A signature that holds says who signed; this module says whether that is enough. An image author makes a
manifest acceptable. An operator's approval is a second role, needed besides where a manifest goes back to an
older version (`preflight.check_approval`). An anchor may ask for a second signature of another algorithm
(`requires`): a manifest from which the block of ML-DSA-44 was cut is then refused, not taken as a weaker one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lwm2m_server.firmware.keys import KeyType, VerificationKey
from lwm2m_server.firmware.refusals import Refusal, RefusalCode, refusal


class Role(StrEnum):
    """What a key's signature stands for."""

    IMAGE_AUTHOR = "image-author"
    OPERATOR_APPROVAL = "operator-approval"


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """A public key and what it may be used for.

    Times are seconds since 1970, `None` is without bound; `not_after` is the first moment at which the key
    counts no longer. `requires` is the algorithm with which a second image author must have signed too.
    """

    key: VerificationKey
    roles: frozenset[Role] = frozenset({Role.IMAGE_AUTHOR})
    not_before: float | None = None
    not_after: float | None = None
    revoked: bool = False
    requires: KeyType | None = None


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signatures count: the image author's, the operator's where one approved, and all that held."""

    author: VerificationKey
    approver: VerificationKey | None = None
    all: tuple[VerificationKey, ...] = ()


def anchors_of(trusted: Iterable[VerificationKey | TrustAnchor]) -> tuple[TrustAnchor, ...]:
    """A bare key is an image author without an end."""
    return tuple(item if isinstance(item, TrustAnchor) else TrustAnchor(item) for item in trusted)


def judge(
    signers: Sequence[VerificationKey], anchors: Iterable[TrustAnchor], now: float | None, *, field: str
) -> Signers:
    """Whether keys whose signatures hold make a manifest acceptable at `now`.

    Refusals in this order: `key-revoked`, `key-expired`, `key-not-yet-valid` (no signer's key counts),
    `role-mismatch` (none may author images), `second-signature`. Without a clock (`now` is None) a key with
    bounds in time does not count.
    """
    by_id = {anchor.key.key_id: anchor for anchor in anchors}
    usable: list[TrustAnchor] = []
    refusals: list[Refusal] = []
    for key in signers:
        anchor = by_id[key.key_id]
        refused = _why_not(anchor, now, field)
        if refused is None:
            usable.append(anchor)
        else:
            refusals.append(refused)
    if not usable:
        raise min(refusals, key=lambda refused: _ORDER.index(RefusalCode(refused.code)))
    authors = [anchor for anchor in usable if Role.IMAGE_AUTHOR in anchor.roles]
    if not authors:
        raise refusal(
            RefusalCode.ROLE_MISMATCH,
            "the manifest is signed, but by no key that may author images",
            field=field,
            hint="have the image author sign too",
        )
    complete = [anchor for anchor in authors if _has_second(anchor, authors)]
    if not complete:
        wanted = authors[0].requires
        raise refusal(
            RefusalCode.SECOND_SIGNATURE,
            f"the manifest lacks the second signature ({wanted}) that its key's policy asks for",
            field=field,
            hint=f"sign it with a trusted {wanted} key too",
        )
    author = complete[0].key
    approver = next(
        (a.key for a in usable if Role.OPERATOR_APPROVAL in a.roles and a.key != author),
        None,
    )
    return Signers(author, approver, tuple(signers))


_ORDER = (RefusalCode.KEY_REVOKED, RefusalCode.KEY_EXPIRED, RefusalCode.KEY_NOT_YET_VALID)


def _has_second(anchor: TrustAnchor, authors: Iterable[TrustAnchor]) -> bool:
    wanted = anchor.requires
    return wanted is None or any(
        other.key != anchor.key and other.key.key_type is wanted for other in authors
    )


def _why_not(anchor: TrustAnchor, now: float | None, field: str) -> Refusal | None:
    name = anchor.key.key_id.hex()
    if anchor.revoked:
        return refusal(
            RefusalCode.KEY_REVOKED,
            f"the manifest is signed by key {name}, which was revoked",
            field=field,
            hint="sign it with a key that is trusted now",
        )
    if anchor.not_after is not None and (now is None or now >= anchor.not_after):
        return refusal(
            RefusalCode.KEY_EXPIRED,
            f"the manifest is signed by key {name}, whose time is over or can't be told without a clock",
            field=field,
            hint="sign it with a key that is valid now",
        )
    if anchor.not_before is not None and (now is None or now < anchor.not_before):
        return refusal(
            RefusalCode.KEY_NOT_YET_VALID,
            f"the manifest is signed by key {name}, whose time has not come or can't be told without a clock",
            field=field,
            hint="wait, or sign it with a key that is valid now",
        )
    return None
