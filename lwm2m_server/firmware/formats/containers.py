"""UF2, Intel HEX and ELF: files that hold an image in pieces with addresses.

Boot loaders take the image itself. The server refuses these files, since what it stored, signed and offered would
not be what a device flashes; `flatten` makes the image of them where there is only one way to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from lwm2m_server.firmware.formats.refused import ImageCode, malformed, refused
from lwm2m_server.firmware.formats.view import part, unpack

UF2_MAGIC: Final = 0x0A324655
MAX_IMAGE: Final = 64 << 20
"""Bytes of an image that is made out of a container."""
MAX_GAP: Final = 1 << 20
"""A larger hole tells that the pieces belong to different memories."""
_UF2_SECOND: Final = 0x9E5D5157
_UF2_END: Final = 0x0AB16F30
_UF2_NOT_MAIN, _UF2_FILE, _UF2_FAMILY = 0x1, 0x1000, 0x2000
_UF2_PAYLOAD: Final = 476
_HEX_LINE: Final = re.compile(rb":([0-9A-Fa-f]{10,520})[ \t]*\r?\n?")
_HEX_KINDS: Final = {1: 0, 2: 2, 3: 4, 4: 2, 5: 4}  # record types with the length of their data
_LOADABLE: Final = 1
_EXECUTABLE: Final = 2

UF2_FAMILIES: Final = {
    0xE48BFF56: "RP2040",
    0xE48BFF59: "RP2350",
    0xADA52840: "nRF52840",
    0x68ED2B88: "SAMD21",
    0x55114460: "SAMD51",
    0x57755A57: "STM32F4",
    0x1C5F21B0: "ESP32",
    0xBFDD4EEE: "ESP32-S2",
    0xC47E5767: "ESP32-S3",
    0xD42BA06C: "ESP32-C3",
}
"""Families that are met often, by their numbers in the UF2 registry."""
MACHINES: Final = {
    3: "x86",
    40: "Arm",
    62: "x86-64",
    94: "Xtensa",
    183: "AArch64",
    243: "RISC-V",
}
"""ELF machines."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes that belong at an address."""

    address: int
    data: bytes

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.address + len(self.data)


def is_uf2(head: bytes | memoryview) -> bool:
    """Whether the first bytes are those of UF2."""
    return int.from_bytes(bytes(head[:4]), "little") == UF2_MAGIC


def is_elf(head: bytes | memoryview) -> bool:
    """Whether the first bytes are those of ELF."""
    return bytes(head[:4]) == b"\x7fELF"


def is_hex(head: bytes | memoryview) -> bool:
    """Whether the first bytes are those of Intel HEX: a colon, then hex digits."""
    first = bytes(head[:9])
    return len(head) >= 11 and re.fullmatch(rb":[0-9A-Fa-f]{8}", first) is not None


def describe_uf2(view: memoryview) -> str:
    """Say in words what the first block tells."""
    _, second, flags, address, _, _, count, family = unpack("<8I", view, 0, "blocks[0]")
    if second != _UF2_SECOND:
        raise malformed("the second magic number of UF2 is missing", "blocks[0]")
    named = f" for {UF2_FAMILIES.get(family, f'family 0x{family:08x}')}" if flags & _UF2_FAMILY else ""
    return f"UF2 for a USB drive, {count} blocks{named} from address 0x{address:08x}"


def describe_elf(view: memoryview) -> str:
    """Say in words what the header tells."""
    kind, machine, bits, order = _elf_ident(view)
    what = "an executable" if kind == _EXECUTABLE else "no executable with fixed addresses"
    endian = "little" if order == "<" else "big"
    name = MACHINES.get(machine, f"machine {machine}")
    return f"ELF, the linker's output: {bits} bits, {endian} endian, for {name}, {what}"


def describe_hex(_view: memoryview) -> str:
    """Say in words what Intel HEX is."""
    return "Intel HEX, a text with addresses"


def uf2_segments(view: memoryview) -> list[Segment]:
    """Read all blocks. Raises `image-malformed`; `image-ambiguous` for several families."""
    if len(view) % 512:
        raise malformed(f"a UF2 file has blocks of 512 bytes; {len(view) % 512} bytes are over", "blocks")
    found: list[Segment] = []
    families: set[int | None] = set()
    total = len(view) // 512
    misplaced: str | None = None
    for number in range(total):
        field, at = f"blocks[{number}]", number * 512
        first, second, flags, address, size, index, count, family = unpack("<8I", view, at, field)
        (end,) = unpack("<I", view, at + 508, field)
        if (first, second, end) != (UF2_MAGIC, _UF2_SECOND, _UF2_END):
            raise malformed(f"block {number} lacks UF2's magic numbers", field)
        if size > _UF2_PAYLOAD or index >= count:
            raise malformed(f"block {number} has {size} bytes as number {index} of {count}", field)
        if flags & _UF2_NOT_MAIN:
            continue
        if flags & _UF2_FILE:
            raise _ambiguous("the UF2 file holds files for a drive, no image", field)
        families.add(family if flags & _UF2_FAMILY else None)
        if len(families) > 1:
            raise _ambiguous("the UF2 file holds images for several families of chips", field)
        if (index, count) != (number, total):
            misplaced = misplaced or field
        found.append(Segment(address, part(view, at + 32, size, field)))
    if misplaced:
        raise malformed(f"the file has {total} blocks, but they are numbered otherwise", misplaced)
    return found


def hex_segments(view: memoryview) -> list[Segment]:
    """Read all records. Raises `image-malformed` naming the line."""
    found: list[Segment] = []
    base, at, line, run, start = 0, 0, 0, bytearray(), 0
    ended = False
    while at < len(view) and not ended:
        line += 1
        match = _HEX_LINE.match(view, at)
        if match is None:
            raise malformed(f"line {line} is no record of Intel HEX", f"lines[{line}]")
        at = match.end()
        kind, address, payload = _hex_record(match[1], line)
        if kind == 0:
            if not run or start + len(run) != base + address:
                found += [Segment(start, bytes(run))] if run else []
                run, start = bytearray(), base + address
            run += payload
        elif kind in {2, 4}:
            base = int.from_bytes(payload, "big") << (4 if kind == 2 else 16)
        ended = kind == 1
    if not ended:
        raise malformed("the record that ends the file is missing: it is cut off", "lines")
    if bytes(view[at:]).strip():
        raise malformed("something follows the record that ends the file", f"lines[{line + 1}]")
    return found + ([Segment(start, bytes(run))] if run else [])


def _hex_record(digits: bytes, line: int) -> tuple[int, int, bytes]:
    field = f"lines[{line}]"
    if len(digits) % 2:
        raise malformed(f"line {line} has half a byte", field)
    raw = bytes.fromhex(digits.decode("ascii"))
    kind, payload = raw[3], raw[4:-1]
    if raw[0] != len(payload):
        raise malformed(f"line {line} says {raw[0]} bytes and has {len(payload)}", field)
    if sum(raw) % 256:
        raise malformed(f"the checksum of line {line} does not fit", field)
    if kind != 0 and _HEX_KINDS.get(kind) != len(payload):
        raise malformed(f"line {line} is a record of an unknown type {kind}, or of the wrong length", field)
    return kind, int.from_bytes(raw[1:3], "big"), payload


def elf_segments(view: memoryview) -> list[Segment]:
    """Read what is loaded, at its physical address. Raises `image-malformed`, `image-ambiguous`."""
    kind, _, bits, order = _elf_ident(view)
    if kind != _EXECUTABLE:
        raise _ambiguous("the ELF file is no executable with fixed addresses", "header.type")
    if bits == 32:
        table, size, count = unpack(order + "28xI10xHH", view, 0, "header")
        layout, pick = order + "8I", (0, 1, 3, 4)
    else:
        table, size, count = unpack(order + "32xQ14xHH", view, 0, "header")
        layout, pick = order + "2I6Q", (0, 2, 4, 5)
    wanted = 32 if bits == 32 else 56
    if size != wanted and count:
        raise malformed(f"a program header has {size} bytes, not {wanted}", "header.phentsize")
    found: list[Segment] = []
    left = len(view)
    for number in range(count):
        field = f"segments[{number}]"
        header = unpack(layout, view, table + number * size, field)
        use, offset, address, length = (header[index] for index in pick)
        if use != _LOADABLE or not length:
            continue
        left -= length
        if left < 0:
            raise malformed("the segments have more bytes than the file", field)
        found.append(Segment(address, part(view, offset, length, field)))
    return found


def _elf_ident(view: memoryview) -> tuple[int, int, int, str]:
    wide, order_code = part(view, 4, 2, "header")
    if wide not in {1, 2} or order_code not in {1, 2}:
        raise malformed("the ELF header names no class or byte order", "header")
    order = "<" if order_code == 1 else ">"
    kind, machine = unpack(order + "16xHH", view, 0, "header")
    return kind, machine, 32 * wide, order


def flatten(segments: Sequence[Segment], *, fill: int = 0xFF) -> tuple[int, bytes]:
    """Join segments to one image; return where it begins, and it. Holes are filled as erased flash is.

    Raises `image-malformed` for overlaps and for nothing at all, `image-ambiguous` for large holes.
    """
    ordered = sorted((each for each in segments if each.data), key=lambda each: each.address)
    if not ordered:
        raise malformed("the file holds no bytes of an image", "segments")
    for left, right in pairwise(ordered):
        if right.address < left.end:
            raise malformed(f"two pieces overlap at 0x{right.address:08x}", "segments")
        if right.address - left.end > MAX_GAP:
            raise _ambiguous(
                f"the file holds pieces that lie far apart: {_ranges(ordered)}",
                "segments",
                hint="name the one that you want: --range 0x0-0x80000",
            )
    start, end = ordered[0].address, ordered[-1].end
    if end - start > MAX_IMAGE:
        raise malformed(f"the image would have {end - start} bytes", "segments")
    image = bytearray([fill]) * (end - start)
    for each in ordered:
        image[each.address - start : each.end - start] = each.data
    return start, bytes(image)


def within(segments: Sequence[Segment], first: int, behind: int) -> list[Segment]:
    """Return what lies in this range of addresses."""
    return [
        Segment(max(each.address, first), each.data[max(first - each.address, 0) : behind - each.address])
        for each in segments
        if each.address < behind and each.end > first
    ]


def _ranges(ordered: Sequence[Segment]) -> str:
    joined: list[tuple[int, int]] = []
    for each in ordered:
        if joined and each.address - joined[-1][1] <= MAX_GAP:
            joined[-1] = (joined[-1][0], each.end)
        else:
            joined.append((each.address, each.end))
    shown = ", ".join(f"0x{first:x}-0x{behind:x}" for first, behind in joined[:8])
    return shown + (" …" if len(joined) > 8 else "")


def _ambiguous(
    message: str, field: str, *, hint: str = "take the binary that the build makes beside it"
) -> Exception:
    return refused(ImageCode.AMBIGUOUS, message, field=field, hint=hint)
