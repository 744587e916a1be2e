"""Deltas in place as manifests name them, made from two images."""

import hashlib

from lwm2m_server.firmware.deltas.detools_patches import create_in_place
from lwm2m_server.firmware.inplace import NamedDelta


def make_named(old: bytes, new: bytes, *, slot_size: int, segment_size: int) -> NamedDelta:
    """Return the delta that turns a slot with `old` into one with `new`, with its content.

    The slot is worked in as far as it consists of whole segments. Raises PatchError when it is too small, or the
    delta, applied back, gives another image.
    """
    memory = slot_size - slot_size % segment_size
    content = create_in_place(old, new, memory_size=memory, segment_size=segment_size)
    digest = hashlib.sha256(content).digest()
    return NamedDelta(
        base=hashlib.sha256(old).digest(),
        base_size=len(old),
        digest=digest,
        size=len(content),
        uri=f"/fw/{digest.hex()}",
        memory=memory,
        segment=segment_size,
        content=content,
    )
