"""UF2, Intel HEX and ELF files."""

import io
import struct
from collections.abc import Sequence

from intelhex import IntelHex


def uf2(data: bytes, address: int = 0x10000000, *, family: int = 0xE48BFF56, size: int = 256) -> bytes:
    """Cut an image into blocks, as its format description says."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    blocks = (
        struct.pack(
            "<8I476sI",
            0x0A324655,
            0x9E5D5157,
            0x2000,
            address + number * size,
            len(piece),
            number,
            len(pieces),
            family,
            piece,
            0x0AB16F30,
        )
        for number, piece in enumerate(pieces)
    )
    return b"".join(blocks)


def intel_hex(*segments: tuple[int, bytes]) -> bytes:
    """Write with the intelhex library, which we did not write."""
    image = IntelHex()
    for address, data in segments:
        image.frombytes(data, offset=address)
    text = io.StringIO()
    image.write_hex_file(text)
    return text.getvalue().encode()


def elf(segments: Sequence[tuple[int, bytes]], *, machine: int = 40, kind: int = 2, bits: int = 32) -> bytes:
    """Write an executable with program headers only."""
    wide = bits == 64
    header_size, entry_size = (64, 56) if wide else (52, 32)
    offset = header_size + entry_size * len(segments)
    table, body = b"", b""
    for address, data in segments:
        if wide:
            table += struct.pack("<2I6Q", 1, 5, offset + len(body), address, address, len(data), len(data), 4)
        else:
            table += struct.pack("<8I", 1, offset + len(body), address, address, len(data), len(data), 5, 4)
        body += data
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    layout = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    header = ident + struct.pack(
        layout, kind, machine, 1, 0x8000, header_size, 0, 0, header_size, entry_size, len(segments), 0, 0, 0
    )
    return header + table + body
