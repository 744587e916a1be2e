"""The decoder of detools' in-place patches: the new image piece by piece, from the patch and the memory it rewrites.

Such a patch is for one slot of `memory_size` bytes that is erased in segments of `segment_size`. The old image is
moved up by `shift_size`, then the new one is written from the front, segment by segment; what a segment is made of
lies behind that segment. So the content of a segment stays the same however often it is computed, until the next
one is written, and the whole image can be computed from the old one before anything is written.

    u8 0x14 (in place, packed by heatshrink), five sizes, u8 window and lookahead, then packed, for each segment:
    size of a prediction (0), and until the segment is full: length, differences, length, new bytes, adjustment
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from heatshrink2.core import Encoder, Reader

from lwm2m_server.firmware.deltas.streams import PIECE, Output, PatchError, Read, Source, added

_TYPE: Final = 0x14
_MAX_SIZE_BYTES: Final = 6  # of one number: more than any memory has
_MAX_WINDOW: Final = 11  # 2^11 bytes of RAM
_FEED: Final = 64


@dataclass(frozen=True, slots=True)
class InPlaceHeader:
    """What a patch says of itself, in bytes; `start` is where its packed part begins."""

    memory_size: int
    segment_size: int
    shift_size: int
    from_size: int
    to_size: int
    start: int

    @property
    def kept(self) -> int:
        """Bytes of the old image that are left after it was moved up."""
        return min(self.from_size, self.memory_size - self.shift_size)


def read_header(patch: Source) -> InPlaceHeader:
    """Read and check the header; raises PatchError."""
    if patch.read(0, min(1, patch.size)) != bytes([_TYPE]):
        raise PatchError("This is no patch of the method 'detools-in-place'.")
    head = _Bytes(patch, 1)
    memory, segment, shift, old, new = (_size(head) for _ in range(5))
    if segment <= 0 or memory % segment or shift % segment or not segment <= shift <= memory:
        raise PatchError("The patch is for a memory that can't be.")
    if not (0 < old <= memory and 0 < new <= memory):
        raise PatchError("The patch is for images that its memory does not hold.")
    return InPlaceHeader(memory, segment, shift, old, new, head.position)


def pieces(patch: Source, memory: Read) -> Iterator[bytes]:
    """Yield the new image, at most 4 KiB at a time, no piece reaching into two segments; raises PatchError.

    `memory` reads the slot (address, length), with the old image at `shift_size`. It is asked only for what lies
    behind the segment under way. Which image it is only its digest tells.
    """
    header = read_header(patch)
    packed = _Unpacked(patch, header.start)
    for to_offset in range(0, header.to_size, header.segment_size):
        first = max(to_offset + header.segment_size, header.shift_size)
        window = _Window(memory, first, header.shift_size + header.kept)
        yield from _segment(packed, window, min(header.segment_size, header.to_size - to_offset))
    packed.finish()


def apply(old: Source, patch: Source, output: Output) -> None:
    """Compute the new image without writing over the old one; raises PatchError."""
    header = read_header(patch)
    if old.size != header.from_size:
        raise PatchError(
            f"The patch is made from an image of {header.from_size} bytes, this one has {old.size}."
        )
    for piece in pieces(patch, lambda address, length: old.piece(address - header.shift_size, length)):
        output.write(piece)


def _segment(packed: "_Unpacked", window: "_Window", size: int) -> Iterator[bytes]:
    if _size(packed) != 0:
        raise PatchError("The patch predicts by a data format, which is not supported.")
    written, position = 0, window.first
    while written < size:
        before = written
        length = _size(packed)
        for part in _parts(length, size - written):
            yield added(window.read(position, part), packed.read(part))
            position += part
        written += length
        length = _size(packed)
        for part in _parts(length, size - written):
            yield packed.read(part)
        written += length
        moved = _size(packed)
        position += moved
        if written == before and not moved:
            raise PatchError("The patch has an impossible step.")


def _parts(length: int, room: int) -> Iterator[int]:
    if not 0 <= length <= room:
        raise PatchError("The patch has an impossible step.")
    for at in range(0, length, PIECE):
        yield min(PIECE, length - at)


@dataclass(frozen=True, slots=True)
class _Window:
    """What is left of the old image, from address `first` up to `end`."""

    memory: Read
    first: int
    end: int

    def read(self, address: int, length: int) -> bytes:
        if address < self.first or address + length > self.end:
            raise PatchError(f"The patch refers to bytes {address} to {address + length} of its memory.")
        return self.memory(address, length)


class _Bytes:
    """A stretch of the patch as it is."""

    def __init__(self, patch: Source, position: int) -> None:
        self._patch = patch
        self.position = position

    def read(self, length: int) -> bytes:
        data = self._patch.piece(self.position, length)
        self.position += length
        return data


class _Unpacked:
    """The packed part, unpacked as it is read."""

    def __init__(self, patch: Source, start: int) -> None:
        window, lookahead = divmod(patch.piece(start, 1)[0], 16)
        window, lookahead = window + 4, lookahead + 3
        if window > _MAX_WINDOW or lookahead >= window:
            raise PatchError("The patch needs more memory to be unpacked than devices have.")
        self._decoder = Encoder(Reader(window_sz2=window, lookahead_sz2=lookahead))
        self._patch = patch
        self._position = start + 1
        self._ready = bytearray()
        self._ended = False

    def read(self, length: int) -> bytes:
        """Return exactly so many bytes; raises PatchError when there are fewer."""
        while len(self._ready) < length:
            if self._ended:
                raise PatchError("The patch ends too early.")
            self._more()
        data = bytes(self._ready[:length])
        del self._ready[:length]
        return data

    def finish(self) -> None:
        """Raise PatchError when something is left."""
        while not self._ended:
            self._more()
            if self._ready:
                break
        if self._ready:
            raise PatchError("The patch goes on behind the image.")

    def _more(self) -> None:
        length = min(_FEED, self._patch.size - self._position)
        try:
            if length:
                self._ready += self._decoder.fill(self._patch.piece(self._position, length))
                self._position += length
            else:
                self._ended = True
                self._ready += self._decoder.finish()
        except (ValueError, RuntimeError, EOFError):
            raise PatchError("A compressed part of the patch is damaged.") from None


def _size(stream: "_Bytes | _Unpacked") -> int:
    """Read a number: sign and six bits, then seven bits each, as long as the highest bit is set."""
    byte = stream.read(1)[0]
    negative, value, shift = byte & 0x40, byte & 0x3F, 6
    for _ in range(_MAX_SIZE_BYTES):
        if not byte & 0x80:
            return -value if negative else value
        byte = stream.read(1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
    raise PatchError("The patch has an impossible number.")
