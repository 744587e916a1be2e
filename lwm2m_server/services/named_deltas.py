"""Deltas that a manifest names, applied to the images that are stored here before a device ever sees them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lwm2m_server.firmware.deltas import PatchError, Source
from lwm2m_server.firmware.deltas.in_place import apply, read_header
from lwm2m_server.firmware.deltas.streams import Output
from lwm2m_server.firmware.inplace import NamedDelta
from lwm2m_server.firmware.refusals import Refusal, RefusalCode, refusal


def check_result(base: Path, delta: Path, named: NamedDelta, wanted: bytes, size: int) -> None:
    """Apply a delta as a device would; raises `Refusal` when the result is not the image `wanted` (SHA-256, bytes).

    In pieces: neither file has to fit into memory. Blocks; call it in a thread.
    """
    digest = hashlib.sha256()
    try:
        with _source(base) as old, _source(delta) as patch:
            header = read_header(patch)
            if (header.memory_size, header.segment_size) != (named.memory, named.segment):
                raise _unusable(
                    named,
                    f"is for a slot of {header.memory_size} bytes in segments of {header.segment_size}, "
                    f"the manifest says {named.memory} in segments of {named.segment}",
                )
            output = Output(digest.update, size)
            apply(old, patch, output)
            output.finish()
    except PatchError as error:
        raise _unusable(named, f"can't be applied: {error.message}") from None
    if digest.digest() != wanted:
        raise _unusable(named, "does not make the image of the manifest")


def _unusable(named: NamedDelta, why: str) -> Refusal:
    return refusal(
        RefusalCode.DIGEST_MISMATCH,
        f"the delta {named.digest.hex()} for the image {named.base.hex()} {why}",
        field="in_place",
        hint="Make the manifest and its deltas from these very images: lwm2m manifest create --in-place-from.",
    )


@contextmanager
def _source(path: Path) -> Iterator[Source]:
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        yield Source(read, path.stat().st_size)
