"""References in Thumb code: what changes in an image although only other parts of it moved.

Branches with link and wide branches (Armv7-M ARM A7.7.12, A7.7.18: encodings T1 and T4) hold the distance to
their target; aligned words hold addresses in flash or RAM. A word that only looks like one costs a few bytes of
the patch, never its correctness.
"""

import re
import struct
from array import array
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import Final

RAM_WINDOW: Final = 1 << 20
_RAM_BASES: Final = (0x2000_0000, 0x1000_0000, 0x0020_0000)
_PAGE_BITS: Final = 12
_VECTORS: Final = 256  # bytes at the start that nothing points to
_BRANCH = re.compile(rb"(?s)(?=.[\xf0-\xf7].[\x90-\x9f\xb0-\xbf\xd0-\xdf\xf0-\xff])")
_REACH: Final = 1 << 24
_MASKED = {"flash": b"\x11\x11\x11\x08", "ram": b"\x22\x22\x22\x20"}


class Kind(Enum):
    """What refers; `RAM` targets are addresses, the others offsets in the image."""

    BRANCH = "branch"
    FLASH = "flash"
    RAM = "ram"


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the image runs: its address in flash, the start of the RAM window, its size in bytes."""

    flash: int
    ram: int
    size: int


Reference = tuple[int, Kind, int]
"""Offset in the image, kind, target."""


def guess_memory(image: bytes) -> Memory:
    """Guess the addresses from the words of the image: the stretches that most of them point into."""
    words = _words(image)
    ram = max(_RAM_BASES, key=lambda start: sum(start <= word < start + RAM_WINDOW for word in words))
    pages = Counter(
        word >> _PAGE_BITS
        for word in words
        if word >> _PAGE_BITS and not ram <= word < ram + RAM_WINDOW and word < 0xF000_0000
    )
    keys = sorted(pages)
    sums = [0, *accumulate(pages[key] for key in keys)]
    span = len(image) >> _PAGE_BITS
    best, flash, end = 0, 0, 0
    for start, key in enumerate(keys):
        while end < len(keys) and keys[end] <= key + span:
            end += 1
        if sums[end] - sums[start] > best:
            best, flash = sums[end] - sums[start], key << _PAGE_BITS
    return Memory(flash, ram, len(image))


def references(piece: bytes, start: int, memory: Memory) -> list[Reference]:
    """Return the references in a piece of the image that begins at offset `start`, in order, none overlapping."""
    found: dict[int, Reference] = {}
    first = -start % 4
    for number, word in enumerate(_words(piece[first:])):
        at = start + first + 4 * number
        if _VECTORS <= word - memory.flash < memory.size:
            found[at] = (at, Kind.FLASH, word - memory.flash)
        elif memory.ram <= word < memory.ram + RAM_WINDOW:
            found[at] = (at, Kind.RAM, word)
    end = 0
    for match in _BRANCH.finditer(piece):
        at = start + match.start()
        if at % 2 or at < end or at & ~3 in found or (at + 2) & ~3 in found:
            continue
        found[at] = (at, Kind.BRANCH, at + 4 + branch_distance(piece, match.start()))
        end = at + 4
    return sorted(found.values(), key=lambda reference: reference[0])


def branch_distance(data: bytes, at: int) -> int:
    """Return the signed distance in bytes that the branch at `data[at:at + 4]` encodes."""
    high, low = (int(half) for half in struct.unpack_from("<HH", data, at))
    sign = high >> 10 & 1
    distance = (
        ((sign ^ (low >> 13) ^ 1) & 1) << 23
        | ((sign ^ (low >> 11) ^ 1) & 1) << 22
        | (high & 0x3FF) << 12
        | (low & 0x7FF) << 1
    )
    return distance - (sign << 24)


def is_branch(data: bytes, at: int) -> bool:
    """Say whether the four bytes encode a branch."""
    return _BRANCH.match(data, at) is not None


def encode_branch(distance: int, old: bytes) -> bytes | None:
    """Return the branch of the same kind as `old` (4 bytes) over another distance; None when it is too far."""
    if not -_REACH <= distance < _REACH:
        return None
    sign = int(distance < 0)
    high = 0xF000 | sign << 10 | distance >> 12 & 0x3FF
    low = (
        (old[2] | old[3] << 8) & 0xD000
        | ((distance >> 23 & 1) ^ sign ^ 1) << 13
        | ((distance >> 22 & 1) ^ sign ^ 1) << 11
        | distance >> 1 & 0x7FF
    )
    return struct.pack("<HH", high, low)


def masked(image: bytes, found: list[Reference]) -> bytes:
    """Return the image with every reference made equal, so that moved code is recognised as the same."""
    out = bytearray(image)
    for at, kind, _ in found:
        if kind is Kind.BRANCH:
            out[at : at + 4] = bytes((0, 0xF0, 0, image[at + 3] & 0xD0))
        else:
            out[at : at + 4] = _MASKED[kind.value]
    return bytes(out)


def _words(data: bytes) -> list[int]:
    whole = array("I", data[: len(data) & ~3])
    if struct.pack("=I", 1) != struct.pack("<I", 1):
        whole.byteswap()
    return whole.tolist()
