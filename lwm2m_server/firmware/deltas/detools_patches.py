"""The methods `detools-heatshrink` and `detools-in-place`: patches of detools, for the smallest devices.

The first needs 640 bytes of RAM on the device (heatshrink window 2^8, lookahead 2^7) and a readable old image. The
second rewrites the one slot that there is from front to back: it destroys its base, so it can't fall back to the
whole image by itself, and is named in the manifest by the digest of its base. `in_place` is the decoder.
"""

import io
from typing import Final

import detools
from detools.apply import apply_patch_sequential
from detools.errors import Error as DetoolsError

from lwm2m_server.firmware.deltas import in_place
from lwm2m_server.firmware.deltas.streams import Output, PatchError, Source, SourceFile

_FAULTS: Final = (
    DetoolsError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    OSError,
    EOFError,
    MemoryError,
)
"""What the library raises for damaged patches; it does not promise less."""
_SEQUENTIAL: Final = b"\x04"


class _OutputFile(io.RawIOBase):
    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        return self._output.write(bytes(data))


def create(old: bytes, new: bytes) -> bytes:
    """Return the sequential patch that makes `new` of `old`."""
    patch = io.BytesIO()
    detools.create_patch(io.BytesIO(old), io.BytesIO(new), patch, compression="heatshrink", use_mmap=False)
    return patch.getvalue()


def apply(old: Source, patch: Source, output: Output) -> None:
    """Write the new image; raises PatchError. Whether it is the right one only its digest tells."""
    if patch.read(0, min(1, patch.size)) != _SEQUENTIAL:
        raise PatchError("This is no patch of the method 'detools-heatshrink'.")
    try:
        apply_patch_sequential(SourceFile(old), SourceFile(patch), _OutputFile(output))
    except _FAULTS as error:
        raise PatchError(f"The patch can't be applied: {error}.") from None


def create_in_place(old: bytes, new: bytes, *, memory_size: int, segment_size: int) -> bytes:
    """Return the patch for a slot of `memory_size` bytes that is erased in segments of `segment_size`.

    Raises PatchError when the slot is too small to work in, or the patch, applied back, gives another image.
    """
    if max(len(old), len(new)) > memory_size or segment_size <= 0 or memory_size % segment_size:
        raise PatchError(
            f"A slot of {memory_size} bytes in segments of {segment_size} can't hold both images."
        )
    patch = io.BytesIO()
    try:
        detools.create_patch(
            io.BytesIO(old),
            io.BytesIO(new),
            patch,
            compression="heatshrink",
            patch_type="in-place",
            memory_size=memory_size,
            segment_size=segment_size,
            use_mmap=False,
        )
    except DetoolsError as error:
        raise PatchError(
            f"No in-place patch for a slot of {memory_size} bytes in segments of {segment_size}: {error}."
        ) from None
    made = bytearray()
    output = Output(made.extend, len(new))
    in_place.apply(Source.of(old), Source.of(patch.getvalue()), output)
    output.finish()
    if bytes(made) != new:
        raise PatchError("The in-place patch, applied back, gives another image.")
    return patch.getvalue()
