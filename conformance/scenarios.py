"""What a kit plays: the server's rules, the faults, and what must hold; docs/conformance.md describes the form."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FORMAT = 1

Scenario = dict[str, Any]

_RESET = {"when": {"state": [0, 1, 2], "result": list(range(2, 14))}, "send": {"put": "/5/0/1", "text": ""}}
_INSTALL = {"when": {"state": [2]}, "send": {"post": "/5/0/2"}}
_UPDATED = {"when": {"version": "2.0.0", "state": [0]}, "do": "end"}
_TAKEN = {"when": {"version": "2.0.0"}, "do": "end"}
_PUSH = {"when": {"state": [0], "result": [0]}, "send": {"put": "/5/0/0", "package": "genuine.suit"}}
_PULL = {"when": {"state": [0], "result": [0]}, "send": {"put": "/5/0/1", "uri": "/manifest"}}
_PULL_IMAGE = {"when": {"state": [0], "result": [0]}, "send": {"put": "/5/0/1", "uri": "/image"}}

_DONE = {"version": "2.0.0", "state": 0, "shown_versions": ["1.0.0", "2.0.0"], "never_back": True}
_REFUSALS = {
    "foreign-vendor": ("a manifest for another vendor", [6]),
    "foreign-class": ("a manifest for another class of device", [6]),
    "unknown-signer": ("a manifest signed by a key that the device does not trust", [5]),
    "changed": ("a manifest with one changed bit", [5]),
    "truncated": ("a manifest without its last byte", [5]),
    "older": ("a manifest for an older version", [8]),
    "other-digest": ("an image that is not the one in its manifest", [5]),
    "shorter": ("an image that is longer than its manifest says", [5]),
}


@dataclass(frozen=True)
class Sizes:
    """Bytes of the image, and how many datagrams and flash operations get a fault in turn.

    `slot` and `segment` are the bytes of the one slot that a delta in place is made for, and of its segments;
    `staging` are whole segments that the delta fits into.
    """

    image: int
    datagrams: int
    operations: int
    slot: int
    staging: int
    segment: int


def all_scenarios(sizes: Sizes, seed: int) -> list[Scenario]:
    """Return the scenarios of a kit."""
    return [
        *_untroubled(),
        *_refusals(),
        *_other_bytes(),
        *_revert(),
        *_datagrams(sizes),
        *_power_by_datagram(sizes, seed),
        *_power_by_operation(sizes, seed),
        *_in_place(sizes, seed),
    ]


def _scenario(name: str, title: str, **parts: Any) -> Scenario:
    """Fill up with what most scenarios have: a manifest that is pushed, no fault, and the update succeeds."""
    return {
        "format": FORMAT,
        "id": name,
        "title": title,
        "needs": ["manifest"],
        "server": [_UPDATED, _RESET, _PUSH, _INSTALL],
        "serves": {"/manifest": ["genuine.suit"], "/image": ["new.bin"]},
        "faults": [],
        "within": 120,
        "holds": _DONE,
        **parts,
    }


def _untroubled() -> Iterator[Scenario]:
    yield _scenario("update-by-push", "The manifest is pushed, the device fetches the image.")
    yield _scenario(
        "update-by-pull",
        "The device fetches the manifest and then the image.",
        server=[_UPDATED, _RESET, _PULL, _INSTALL],
    )
    yield _scenario(
        "plain-update-by-pull",
        "A device that knows no manifests fetches the image.",
        needs=["plain"],
        server=[_UPDATED, _RESET, _PULL_IMAGE, _INSTALL],
    )


def _refusals() -> Iterator[Scenario]:
    for name, (what, results) in _REFUSALS.items():
        offer = {"when": {"state": [0], "result": [0]}, "send": {"put": "/5/0/0", "package": f"{name}.suit"}}
        yield _scenario(
            f"refuse-{name}",
            f"The device refuses {what}, says so by Update Result, and goes on with its version.",
            server=[_TAKEN, {"when": {"state": [0], "result": results}, "do": "end"}, offer, _INSTALL],
            holds={"version": "1.0.0", "state": 0, "result": results, "shown_versions": ["1.0.0"]},
        )


def _other_bytes() -> Iterator[Scenario]:
    yield _scenario(
        "changed-etag",
        "The bytes behind the URI change in the middle, and the ETag with them: the download starts over.",
        serves={"/manifest": ["genuine.suit"], "/image": ["other.bin", "new.bin"]},
        faults=[{"at": {"image_bytes": 3000}, "do": "serve-next", "path": "/image"}],
    )


def _revert() -> Iterator[Scenario]:
    yield _scenario(
        "revert",
        "The new image never reaches the server: the old one comes back and says that the update failed.",
        needs=["manifest", "bad-boot"],
        flags={"bad-boot": {}},
        server=[{"when": {"state": [0], "result": [8]}, "do": "end"}, _PUSH, _INSTALL],
        holds={"version": "1.0.0", "state": 0, "result": [8], "shown_versions": ["1.0.0"]},
    )


def _datagrams(sizes: Sizes) -> Iterator[Scenario]:
    for way in ("to-device", "to-server"):
        for number in range(1, sizes.datagrams + 1):
            for what, more in (("lose", {}), ("duplicate", {}), ("delay", {"seconds": 5.0})):
                yield _scenario(
                    f"{what}-{way}-{number:03}",
                    f"Datagram {number} {way.replace('-', ' the ')}: {what}.",
                    faults=[{"at": {"datagram": number, "way": way}, "do": what, **more}],
                )


def _power_by_datagram(sizes: Sizes, seed: int) -> Iterator[Scenario]:
    chance = random.Random(seed)
    for number in range(1, sizes.datagrams + 1):
        cut = {"at": {"datagram": number, "way": "to-device"}, "do": "cut-power", "seconds": 1.0}
        again = {**cut, "at": {"datagram": number + chance.randrange(1, 12), "way": "to-device"}}
        for name, faults in (("power-cut", [cut]), ("two-power-cuts", [cut, again])):
            yield _scenario(
                f"{name}-at-datagram-{number:03}",
                f"The power is cut when datagram {number} goes to the device, and comes back after a second.",
                faults=faults,
                holds={**_DONE, "fetched_again": 4096},
            )


def _power_by_operation(sizes: Sizes, seed: int) -> Iterator[Scenario]:
    for number in range(1, sizes.operations + 1):
        flags = {"cut-power": {"operation": number, "seed": seed + number}}
        yield _scenario(
            f"power-cut-at-operation-{number:03}",
            f"The power is cut in the middle of flash operation {number} of the client's first life.",
            needs=["manifest", "cut-power"],
            flags=flags,
            holds={**_DONE, "fetched_again": 4096},
        )


def _in_place(sizes: Sizes, seed: int) -> Iterator[Scenario]:
    """A client with one slot, which begins with the image that the delta starts from."""
    one_slot = {
        "slot": sizes.slot,
        "staging": sizes.staging,
        "page": sizes.segment,
        "image": "old.bin",
    }
    serves = {"/manifest": ["in-place.suit"], "/delta": ["old-to-new.delta"], "/image": ["new.bin"]}
    push = {"when": {"state": [0], "result": [0]}, "send": {"put": "/5/0/0", "package": "in-place.suit"}}
    parts: Scenario = {"server": [_UPDATED, _RESET, push, _INSTALL], "serves": serves}
    yield _scenario(
        "in-place",
        "A device with one slot rewrites its image by the delta that the manifest names for it.",
        needs=["manifest", "one-slot"],
        flags={"one-slot": one_slot},
        **parts,
    )
    for number in range(1, sizes.operations + 1):
        yield _scenario(
            f"in-place-power-cut-at-operation-{number:03}",
            f"The same, and the power is cut in the middle of flash operation {number} of its first life.",
            needs=["manifest", "one-slot", "cut-power"],
            flags={"one-slot": one_slot, "cut-power": {"operation": number, "seed": seed + number}},
            **parts,
        )
