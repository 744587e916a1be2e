"""What must hold of a device at every boot, whatever happened to it before."""

import hashlib
from dataclasses import dataclass, field

from lwm2m_server import versions


@dataclass(frozen=True)
class Sight:
    """What is seen at a boot. `content` are the bytes that run; None: the recovery of the boot loader runs.
    `confirmed`: the image bears the mark of having reached the server.
    """

    content: bytes | None
    version: str
    digest: bytes
    trial: bool
    confirmed: bool
    floor: int


@dataclass(frozen=True)
class Seen:
    """What was seen before: the highest version that ran for good, the highest floor."""

    version: str = "0"
    floor: int = 0


@dataclass(frozen=True)
class Rules:
    """`authorised` are the images by version. `may_recover`: with one slot a bad image leaves no other."""

    authorised: dict[str, bytes] = field(default_factory=dict)
    may_recover: bool = False


def check_invariants(before: Seen, now: Sight, rules: Rules) -> Seen:
    """Check a boot against the rules and all boots before; return what is known from now on."""
    assert now.floor >= before.floor, "the sequence counter went down"
    if now.content is None:
        assert rules.may_recover, "no image is bootable"
        return Seen(before.version, now.floor)
    assert now.version in rules.authorised, "an unauthorised version runs"
    assert now.content == rules.authorised[now.version], "an image runs that nobody authorised"
    assert hashlib.sha256(now.content).digest() == now.digest, (
        "an image runs with another digest than it says"
    )
    if now.trial:
        return Seen(before.version, now.floor)
    assert now.confirmed, "an image that never reached the server runs for good"
    assert versions.compare(now.version, before.version) >= 0, "a confirmed image gave way to an older one"
    return Seen(now.version, now.floor)
