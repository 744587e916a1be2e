"""The methods by which an image can be sent as less than itself, one door for all: `create`, `apply`, `choose`."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lwm2m_server.firmware.deltas import bsdiff, thumb, whole
from lwm2m_server.firmware.deltas.streams import Output, PatchError, Source, Write


class Method(StrEnum):
    """The names that device and server use; they never change their meaning."""

    THUMB = "thumb"
    BSDIFF = "bsdiff"
    HDIFFPATCH = "hdiffpatch"
    DETOOLS = "detools-heatshrink"
    LZMA = "lzma"
    HEATSHRINK = "heatshrink"

    @property
    def needs_base(self) -> bool:
        """Whether the device must still have the image that the patch was made from."""
        return self not in (Method.LZMA, Method.HEATSHRINK)


STREAMED: Final = frozenset(Method) - {Method.HDIFFPATCH}
"""Methods whose application needs neither image in memory."""
DEFAULT_THRESHOLD: Final = 0.7
"""A patch above this share of the image is not worth its risk and its energy."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A patch that could be sent: its method, its SHA-256, its bytes."""

    method: Method
    digest: bytes
    size: int


def create(method: Method, old: bytes, new: bytes) -> bytes:
    """Return the patch that makes `new` of `old`, which methods without a base leave alone."""
    # Libraries are imported where they are used: a server makes its deltas elsewhere, and should start at once.
    match method:
        case Method.THUMB:
            return thumb.create(old, new)
        case Method.BSDIFF:
            return bsdiff.create(old, new)
        case Method.HDIFFPATCH:
            import hdiffpatch

            return hdiffpatch.diff(old, new, "lzma2", validate=False)
        case Method.DETOOLS:
            from lwm2m_server.firmware.deltas import detools_patches

            return detools_patches.create(old, new)
        case Method.LZMA:
            return whole.create_lzma(new)
        case Method.HEATSHRINK:
            return whole.create_heatshrink(new)


def apply(method: Method, old: Source, patch: Source, write: Write, *, size: int) -> None:
    """Write the `size` bytes of the new image piece by piece; raises PatchError, then what was written is void.

    No method tells every damaged patch from a good one: compare the digest of the result.
    """
    output = Output(write, size)
    match method:
        case Method.THUMB:
            thumb.apply(old, patch, output)
        case Method.BSDIFF:
            bsdiff.apply(old, patch, output)
        case Method.HDIFFPATCH:
            output.write(_hdiffpatch(old, patch))
        case Method.DETOOLS:
            from lwm2m_server.firmware.deltas import detools_patches

            detools_patches.apply(old, patch, output)
        case Method.LZMA:
            whole.apply_lzma(patch, output)
        case Method.HEATSHRINK:
            whole.apply_heatshrink(patch, output)
    output.finish()


def verify(method: Method, old: bytes, patch: bytes, new: bytes) -> None:
    """Apply a patch back; raises PatchError when the result is not `new`."""
    digest = hashlib.sha256()
    apply(method, Source.of(old), Source.of(patch), digest.update, size=len(new))
    if digest.digest() != hashlib.sha256(new).digest():
        raise PatchError("The patch, applied back, gives another image.")


def choose(
    candidates: Iterable[Candidate],
    *,
    size: int,
    understood: Collection[str],
    failed: Collection[bytes] = (),
    threshold: float = DEFAULT_THRESHOLD,
) -> Candidate | None:
    """Return the smallest patch for an image of `size` bytes; None: the whole image is the better way.

    `understood` are the method names of the device, `failed` the digests of patches that it could not use.
    """
    fit = [
        each
        for each in candidates
        if each.method.value in understood and each.digest not in failed and each.size <= threshold * size
    ]
    return min(fit, key=lambda each: (each.size, each.method.value), default=None)


def _hdiffpatch(old: Source, patch: Source) -> bytes:
    """Apply in memory: the library has no other way, and devices that use it have the room."""
    import hdiffpatch

    try:
        return hdiffpatch.apply(old.read(0, old.size), patch.read(0, patch.size))
    except (hdiffpatch.HDiffPatchError, ValueError, MemoryError) as error:
        raise PatchError(f"The patch can't be applied: {error}.") from None
