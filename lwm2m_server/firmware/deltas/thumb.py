"""The method `thumb`: what moved is predicted, and only what nobody could foresee is sent.

The encoder lets bsdiff match the two images with all references made equal. The patch tells first what moved
where; from that the decoder predicts every branch and pointer of the old code at its new place, and adds the
byte differences, which are nearly all zero.

    "LWT1"  varints: old size, new size, flash address, RAM address, segments, RAM steps, corrections,
            packed sizes of the tables and of the differences
    tables (LZMA)       by segment: length, extra, seek; by step and correction: distance, shift
    differences (LZMA)  a zero byte is followed by how many more come (varint)
    extra bytes (LZMA)

Signed numbers are zigzag. The three LZMA1 streams are raw, with lc 3, lp 0, pb 0 and 64 KiB of dictionary. A
decoder needs two of these at a time, one piece, and the tables.
"""

import lzma
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final

import bsdiff4.core

from lwm2m_server.firmware.deltas.moves import Moves, Segment, learn, steps_of
from lwm2m_server.firmware.deltas.references import Memory, guess_memory, masked, references
from lwm2m_server.firmware.deltas.streams import PIECE, Output, Packed, PatchError, Source

_MAGIC: Final = b"LWT1"
_HEADER_FIELDS: Final = 9
_HEADER_LIMIT: Final = len(_MAGIC) + 10 * _HEADER_FIELDS
_MAX_ENTRIES: Final = 1 << 16
_MAX_VARINT: Final = 10  # bytes
_FILTERS: Final = [
    {
        "id": lzma.FILTER_LZMA1,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": 1 << 16,
        "lc": 3,
        "lp": 0,
        "pb": 0,
    }
]
_RUNS = re.compile(rb"\x00+|[^\x00]+")


def create(old: bytes, new: bytes) -> bytes:
    """Return the patch that makes `new` of `old`."""
    memory = guess_memory(old)
    found = references(old, 0, memory)
    segments = _match(masked(old, found), masked(new, references(new, 0, _of_size(memory, len(new)))))
    moves = learn(new, segments, found, memory)
    tables = bytearray()
    for segment, seek in zip(segments, _seeks(segments), strict=True):
        tables += _varint(segment.length) + _varint(segment.extra) + _varint(_zigzag(seek))
    for steps in (moves.ram, sorted(moves.corrections.items())):
        last = 0
        for target, shift in steps:
            tables += _varint(target - last) + _varint(_zigzag(shift))
            last = target
    difference, extra = bytearray(), bytearray()
    for segment in segments:
        for at, length in _pieces(segment.length):
            guess = moves.predict(
                old[segment.old + at : segment.old + at + length], segment.old + at, segment.new + at
            )
            real = new[segment.new + at : segment.new + at + length]
            difference += bytes((a - b) & 0xFF for a, b in zip(real, guess, strict=True))
        end = segment.new + segment.length
        extra += new[end : end + segment.extra]
    packed = [_pack(bytes(tables)), _pack(_short(bytes(difference))), _pack(bytes(extra))]
    header = (
        len(old), len(new), memory.flash, memory.ram,
        len(segments), len(moves.ram), len(moves.corrections), len(packed[0]), len(packed[1]),
    )  # fmt: skip
    return _MAGIC + b"".join(map(_varint, header)) + b"".join(packed)


def apply(old: Source, patch: Source, output: Output) -> None:
    """Write the new image; raises PatchError. Whether it is the right one only its digest tells."""
    header, start = _header(patch)
    old_size, new_size, flash, ram, *counts, tables_size, difference_size = header
    if old_size != old.size or new_size != output.size:
        raise PatchError(
            f"The patch is for {old_size} bytes that become {new_size}, not for {old.size} that become {output.size}."
        )
    if max(counts) > _MAX_ENTRIES:
        raise PatchError("The tables of the patch are too large.")
    middle = start + tables_size
    end = middle + difference_size
    if end > patch.size:
        raise PatchError("The patch ends too early.")
    tables = _Numbers(_unpack(patch, start, middle))
    segments = list(_segments(tables, counts[0]))
    ram_steps = list(_entries(tables, counts[1]))
    corrections = dict(_entries(tables, counts[2]))
    moves = Moves(Memory(flash, ram, old_size), steps_of(segments), corrections, ram_steps)
    differences, extra = _Differences(_unpack(patch, middle, end)), _unpack(patch, end, patch.size)
    for segment in segments:
        for at, length in _pieces(segment.length):
            piece = old.piece(segment.old + at, length)
            guess = moves.predict(piece, segment.old + at, segment.new + at)
            output.write(differences.add_to(guess))
        for _, length in _pieces(segment.extra):
            output.write(extra.read(length))


def _match(old: bytes, new: bytes) -> list[Segment]:
    """Let bsdiff find what is the same: its control block is triples of (length, extra, seek)."""
    control, _, _ = bsdiff4.core.diff(old, new)
    number = bsdiff4.core.decode_int64
    segments, old_at, new_at = [], 0, 0
    for at in range(0, len(control), 24):
        length, extra, seek = (number(control[at + 8 * index : at + 8 * index + 8]) for index in range(3))
        segments.append(Segment(old_at, new_at, length, extra))
        old_at, new_at = old_at + length + seek, new_at + length + extra
    return segments


def _seeks(segments: list[Segment]) -> list[int]:
    return [after.old - before.old - before.length for before, after in pairwise(segments)] + [0] * bool(
        segments
    )


def _of_size(memory: Memory, size: int) -> Memory:
    return Memory(memory.flash, memory.ram, size)


def _pieces(length: int) -> Iterable[tuple[int, int]]:
    """Cut a stretch as encoder and decoder both do: what crosses a cut is not predicted."""
    return ((at, min(PIECE, length - at)) for at in range(0, length, PIECE))


def _segments(tables: "_Numbers", count: int) -> Iterable[Segment]:
    old = new = 0
    for _ in range(count):
        length, extra, seek = tables.next(), tables.next(), tables.signed()
        yield Segment(old, new, length, extra)
        old, new = old + length + seek, new + length + extra


def _entries(tables: "_Numbers", count: int) -> Iterable[tuple[int, int]]:
    target = 0
    for _ in range(count):
        target += tables.next()
        yield target, tables.signed()


def _header(patch: Source) -> tuple[list[int], int]:
    raw = patch.read(0, min(_HEADER_LIMIT, patch.size))
    if not raw.startswith(_MAGIC):
        raise PatchError("This is no patch of the method 'thumb'.")
    at = len(_MAGIC)

    def byte() -> int:
        nonlocal at
        if at >= len(raw):
            raise PatchError("The patch ends too early.")
        at += 1
        return raw[at - 1]

    return [_read_varint(byte) for _ in range(_HEADER_FIELDS)], at


class _Numbers:
    """Varints of a packed stretch."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed

    def next(self) -> int:
        return _read_varint(lambda: self._packed.read(1)[0])

    def signed(self) -> int:
        value = self.next()
        return value >> 1 if value % 2 == 0 else -(value + 1 >> 1)


class _Differences:
    """The byte differences, their runs of zeros unpacked."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._zeros = 0

    def add_to(self, guess: bytes) -> bytes:
        """Return the guess with the differences that come next."""
        out = bytearray(guess)
        at = 0
        while at < len(out):
            if self._zeros:
                skip = min(self._zeros, len(out) - at)
                self._zeros -= skip
                at += skip
                continue
            byte = self._packed.read(1)[0]
            if byte:
                out[at] = (out[at] + byte) & 0xFF
                at += 1
            else:
                self._zeros = 1 + _read_varint(lambda: self._packed.read(1)[0])
        return bytes(out)


def _short(difference: bytes) -> bytes:
    def run(match: re.Match[bytes]) -> bytes:
        return match[0] if match[0][0] else b"\0" + _varint(len(match[0]) - 1)

    return _RUNS.sub(run, difference)


def _pack(content: bytes) -> bytes:
    return lzma.compress(content, format=lzma.FORMAT_RAW, filters=_FILTERS)


def _unpack(patch: Source, start: int, end: int) -> Packed:
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
    return Packed(patch, start, end, decompressor, (lzma.LZMAError, EOFError))


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(byte: Callable[[], int]) -> int:
    value = 0
    for shift in range(0, 7 * _MAX_VARINT, 7):
        part = byte()
        value |= (part & 0x7F) << shift
        if part < 0x80:
            return value
    raise PatchError("A number in the patch is too long.")
