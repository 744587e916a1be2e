"""The method `bsdiff`: patches of Colin Percival's program (BSDIFF40, bzip2), applied in pieces.

A decoder of bzip2 needs up to 4 MB, and three run side by side: for devices with an operating system.
"""

import bz2
import struct
from typing import Final

import bsdiff4
import bsdiff4.core

from lwm2m_server.firmware.deltas.streams import PIECE, Output, Packed, PatchError, Source, added

_MAGIC: Final = b"BSDIFF40"
_HEADER_SIZE: Final = 32


def create(old: bytes, new: bytes) -> bytes:
    """Return the patch that makes `new` of `old`."""
    patch: bytes = bsdiff4.diff(old, new)
    return patch


def apply(old: Source, patch: Source, output: Output) -> None:
    """Write the new image; raises PatchError. Whether it is the right one only its digest tells."""
    header = patch.read(0, min(_HEADER_SIZE, patch.size))
    if len(header) < _HEADER_SIZE or not header.startswith(_MAGIC):
        raise PatchError("This is no patch of the method 'bsdiff'.")
    control_size, difference_size, size = (_number(header[at : at + 8]) for at in (8, 16, 24))
    middle, end = _HEADER_SIZE + control_size, _HEADER_SIZE + control_size + difference_size
    if control_size < 0 or difference_size < 0 or end > patch.size:
        raise PatchError("The patch ends too early.")
    if size != output.size:
        raise PatchError(f"The patch makes {size} bytes, the image has {output.size}.")
    control, difference, extra = (
        Packed(patch, start, stop, bz2.BZ2Decompressor(), (OSError, EOFError))
        for start, stop in ((_HEADER_SIZE, middle), (middle, end), (end, patch.size))
    )
    position = 0
    while output.written < size:
        triple = control.read(24)
        add, insert, seek = (_number(triple[at : at + 8]) for at in (0, 8, 16))
        if add < 0 or insert < 0 or add + insert > size - output.written or not (add or insert or seek):
            raise PatchError("The patch has an impossible step.")
        for at in range(0, add, PIECE):
            length = min(PIECE, add - at)
            base = _padded(old, position + at, length)
            output.write(added(base, difference.read(length)))
        for at in range(0, insert, PIECE):
            output.write(extra.read(min(PIECE, insert - at)))
        position += add + seek


def _number(raw: bytes) -> int:
    """Read sign and magnitude (little-endian)."""
    (value,) = struct.unpack("<Q", raw)
    return -(value & (1 << 63) - 1) if value >> 63 else int(value)


def _padded(old: Source, start: int, length: int) -> bytes:
    """Read the old image; beyond its ends are zeros, as in the original program."""
    first, last = max(0, start), max(0, min(start + length, old.size))
    inside = old.read(first, last - first) if last > first else b""
    left = min(length, first - start) if last > first else length
    return (bytes(left) + inside).ljust(length, b"\0")
