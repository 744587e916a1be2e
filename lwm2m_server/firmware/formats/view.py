"""Bounded reading of an image's bytes."""

from __future__ import annotations

import struct
from typing import Any, Final

from lwm2m_server.firmware.formats.refused import malformed

CHUNK: Final = 1 << 16


def unpack(layout: str, view: memoryview, offset: int, field: str) -> tuple[Any, ...]:
    """Unpack a structure; `malformed` names `field` when it reaches over the end."""
    if offset < 0 or offset + struct.calcsize(layout) > len(view):
        raise malformed(f"the file ends within {field}", field)
    return struct.unpack_from(layout, view, offset)


def part(view: memoryview, offset: int, length: int, field: str) -> bytes:
    """Copy a small part; `malformed` names `field` when it reaches over the end."""
    if offset < 0 or length < 0 or offset + length > len(view):
        raise malformed(f"the file ends within {field}", field)
    return bytes(view[offset : offset + length])


def text(raw: bytes, field: str) -> str | None:
    """Read a text that a NUL ends; None when it is empty, `malformed` when it can't be shown."""
    try:
        found = raw.split(b"\0", 1)[0].decode("utf-8").strip()
    except UnicodeDecodeError:
        raise malformed(f"{field} is no text", field) from None
    if not found.isprintable():
        raise malformed(f"{field} has characters that can't be shown", field)
    return found or None


def filled_with(view: memoryview, byte: int) -> bool:
    """Whether every byte is this one."""
    return all(
        chunk.count(byte) == len(chunk)
        for chunk in (bytes(view[at : at + CHUNK]) for at in range(0, len(view), CHUNK))
    )


def folded(view: memoryview) -> int:
    """XOR of all bytes; whole chunks at a time, since a loop over bytes takes a second for 10 MB."""
    total = 0
    for at in range(0, len(view), CHUNK):
        total ^= int.from_bytes(view[at : at + CHUNK], "little")
    width = CHUNK
    while width > 1:
        width //= 2
        total = (total >> (8 * width)) ^ (total & ((1 << (8 * width)) - 1))
    return total
