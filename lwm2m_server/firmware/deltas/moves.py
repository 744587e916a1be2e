"""Where the parts of an old image went in the new one, and what a reference to them becomes."""

import heapq
import struct
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lwm2m_server.firmware.deltas.references import (
    RAM_WINDOW,
    Kind,
    Memory,
    Reference,
    branch_distance,
    encode_branch,
    is_branch,
    references,
)

_WORTH = 2  # a correction costs about as much as two references that it mends


class Segment(NamedTuple):
    """`length` bytes at `old` that are found again at `new`, about the same, and `extra` new bytes after them."""

    old: int
    new: int
    length: int
    extra: int


@dataclass(frozen=True, slots=True)
class Moves:
    """What a decoder knows: steps of the address map, corrections of it, and steps of the RAM map.

    A step is (first old address, what to add from there on), in ascending order.
    """

    memory: Memory
    steps: Sequence[tuple[int, int]]
    corrections: dict[int, int] = field(default_factory=dict)
    ram: Sequence[tuple[int, int]] = ()

    def flash(self, target: int) -> int:
        """Return where an old offset of the image is in the new one."""
        return target + _step(self.steps, target) + self.corrections.get(target, 0)

    def predict(self, piece: bytes, old: int, new: int) -> bytes:
        """Return what a piece of the old image at `old` becomes at `new`."""
        shift = new - old
        if shift % 2:
            return piece
        out = bytearray(piece)
        for at, kind, target in references(piece, old, self.memory):
            place = at - old
            if kind is Kind.BRANCH:
                word = encode_branch(self.flash(target) - (at + shift + 4), piece[place : place + 4])
                if word is not None:
                    out[place : place + 4] = word
            elif shift % 4 == 0:
                value = (
                    self.memory.flash + (self.flash(target & ~1) | (target & 1))
                    if kind is Kind.FLASH
                    else target + _step(self.ram, target)
                )
                out[place : place + 4] = struct.pack("<I", value & 0xFFFF_FFFF)
        return bytes(out)


def _step(steps: Sequence[tuple[int, int]], target: int) -> int:
    index = bisect_right(steps, target, key=lambda step: step[0]) - 1
    return steps[index][1] if index >= 0 else 0


def steps_of(segments: Iterable[Segment]) -> list[tuple[int, int]]:
    """Return the address map that segments tell of; where they overlap in the old image the longest counts."""
    ordered = sorted(segment for segment in segments if segment.length)
    edges = sorted({edge for each in ordered for edge in (each.old, each.old + each.length)})
    steps: list[tuple[int, int]] = []
    covering: list[tuple[int, int, int]] = []
    following = 0
    for edge in edges:
        while following < len(ordered) and ordered[following].old <= edge:
            each = ordered[following]
            heapq.heappush(covering, (-each.length, each.old + each.length, each.new - each.old))
            following += 1
        while covering and covering[0][1] <= edge:
            heapq.heappop(covering)
        if covering and (not steps or steps[-1][1] != covering[0][2]):
            steps.append((edge, covering[0][2]))
    return steps


def learn(new: bytes, segments: Sequence[Segment], found: Sequence[Reference], memory: Memory) -> Moves:
    """Return the moves between two images: the map, mended where references agree on something else."""
    moves = Moves(memory, steps_of(segments))
    flash: defaultdict[int, Counter[int]] = defaultdict(Counter)
    ram: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for kind, target, became in _witnesses(new, segments, found, memory):
        (ram if kind is Kind.RAM else flash)[target][became - target] += 1
    corrections = {}
    for target, votes in flash.items():
        expected = moves.flash(target) - target
        shift, count = votes.most_common(1)[0]
        if shift != expected and count - votes[expected] >= _WORTH:
            corrections[target] = shift - expected
    return Moves(memory, moves.steps, corrections, _ram_steps(ram))


def _witnesses(
    new: bytes, segments: Sequence[Segment], found: Sequence[Reference], memory: Memory
) -> Iterator[tuple[Kind, int, int]]:
    """Yield kind, old target and new target of each reference that is one in both images."""
    for segment in segments:
        shift, end = segment.new - segment.old, segment.old + segment.length
        index = bisect_left(found, segment.old, key=lambda reference: reference[0])
        while index < len(found) and found[index][0] + 4 <= end:
            at, kind, target = found[index]
            index += 1
            place = at + shift
            if kind is Kind.BRANCH:
                if shift % 2 == 0 and is_branch(new, place):
                    yield kind, target, place + 4 + branch_distance(new, place)
                continue
            if shift % 4:
                continue
            (word,) = struct.unpack_from("<I", new, place)
            if kind is Kind.FLASH and 0 <= word - memory.flash < len(new):
                yield kind, target & ~1, word - memory.flash & ~1
            elif kind is Kind.RAM and memory.ram <= word < memory.ram + RAM_WINDOW:
                yield kind, target, word


def _ram_steps(votes: dict[int, Counter[int]]) -> list[tuple[int, int]]:
    """Return the steps of the RAM map; a shift that nothing else confirms makes none."""
    seen = [(target, *counter.most_common(1)[0]) for target, counter in sorted(votes.items())]
    steps: list[tuple[int, int]] = []
    current = 0
    for index, (target, shift, count) in enumerate(seen):
        confirmed = count >= _WORTH or (index + 1 < len(seen) and seen[index + 1][1] == shift)
        if shift != current and confirmed:
            steps.append((target, shift))
            current = shift
    return steps
