"""The methods without a base: the whole image, compressed."""

import lzma
from typing import Final

from heatshrink2.core import Encoder, Reader, Writer

from lwm2m_server.firmware.deltas.streams import PIECE, Output, Packed, PatchError, Source

_LZMA: Final = [{"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 15}]
_MEMORY_LIMIT: Final = 16 << 20  # bytes, of what a patch may ask for
_WINDOW: Final = 11
_LOOKAHEAD: Final = 4
_FEED: Final = 256


def create_lzma(new: bytes) -> bytes:
    """Return the image as an .lzma file with 32 KiB of dictionary."""
    return lzma.compress(new, format=lzma.FORMAT_ALONE, filters=_LZMA)


def apply_lzma(patch: Source, output: Output) -> None:
    """Write the image; raises PatchError."""
    try:
        decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=_MEMORY_LIMIT)
        packed = Packed(patch, 0, patch.size, decompressor, (lzma.LZMAError, EOFError))
        while output.written < output.size:
            output.write(packed.read(min(PIECE, output.size - output.written)))
    except lzma.LZMAError:
        raise PatchError("A compressed part of the patch is damaged.") from None


def create_heatshrink(new: bytes) -> bytes:
    """Return the image packed by heatshrink, window 2^11, lookahead 2^4, without a header."""
    encoder = Encoder(Writer(window_sz2=_WINDOW, lookahead_sz2=_LOOKAHEAD))
    return bytes(encoder.fill(new) + encoder.finish())


def apply_heatshrink(patch: Source, output: Output) -> None:
    """Write the image; raises PatchError."""
    decoder = Encoder(Reader(window_sz2=_WINDOW, lookahead_sz2=_LOOKAHEAD))
    for at in range(0, patch.size, _FEED):
        output.write(bytes(decoder.fill(patch.piece(at, min(_FEED, patch.size - at)))))
    try:
        output.write(bytes(decoder.finish()))
    except (ValueError, RuntimeError, EOFError):
        raise PatchError("The patch ends too early.") from None
