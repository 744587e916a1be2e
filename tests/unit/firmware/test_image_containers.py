"""UF2, Intel HEX and ELF: explained, and turned into the image where there is one way to."""

import struct

import pytest

from firmware_files import elf, esp_app, intel_hex, mcuboot, uf2
from lwm2m_server.firmware.formats.refused import ImageRefused
from lwm2m_server.firmware.images import ImageFormat, convert, inspect_image

DATA = bytes(range(256)) * 5


@pytest.mark.parametrize(
    ("file", "kind", "words"),
    [
        (uf2(DATA), ImageFormat.UF2, "UF2 for a USB drive, 5 blocks for RP2040 from address 0x10000000"),
        (intel_hex((0, DATA)), ImageFormat.INTEL_HEX, "Intel HEX"),
        (elf([(0, DATA)]), ImageFormat.ELF, "32 bits, little endian, for Arm, an executable"),
        (
            elf([(0, DATA)], bits=64, machine=62, kind=3),
            ImageFormat.ELF,
            "64 bits, little endian, for x86-64",
        ),
    ],
)
def test_a_container_is_told_by_content_and_explained_with_the_way_out(
    file: bytes, kind: ImageFormat, words: str
) -> None:
    info = inspect_image(file)
    assert info.format is kind
    assert words in (info.hint or "")
    assert "lwm2m firmware convert" in (info.hint or "")


@pytest.mark.parametrize(
    "file",
    [
        uf2(DATA, 0x8000),
        uf2(DATA, 0x8000, size=476),
        intel_hex((0x8000, DATA)),
        elf([(0x8000, DATA)]),
        elf([(0x8000, DATA[:100]), (0x8064, DATA[100:])], bits=64),
    ],
)
def test_the_image_comes_out_of_each_container_as_it_went_in(file: bytes) -> None:
    assert convert(file) == (0x8000, DATA)


def test_an_image_in_hex_comes_out_whole_and_verifies() -> None:
    image = mcuboot()
    assert convert(intel_hex((0xC200, image)))[1] == image
    assert inspect_image(convert(intel_hex((0xFFF0, image)))[1]).version == "1.2.3"


def test_small_holes_are_filled_as_erased_flash() -> None:
    assert convert(intel_hex((0, b"ab"), (16, b"cd"))) == (0, b"ab" + b"\xff" * 14 + b"cd")


def test_pieces_that_lie_far_apart_are_named_and_one_can_be_chosen() -> None:
    file = intel_hex((0, DATA), (0x10001208, b"\0\0\0\0"))
    with pytest.raises(ImageRefused) as caught:
        convert(file)
    assert caught.value.code == "image-ambiguous"
    assert "0x0-0x500, 0x10001208-0x1000120c" in caught.value.message
    assert "--range" in (caught.value.hint or "")
    assert convert(file, within=(0, 0x80000)) == (0, DATA)
    assert convert(file, within=(0x100, 0x200)) == (0x100, DATA[:256])


def two_families() -> bytes:
    return uf2(DATA[:256]) + uf2(DATA[:256], family=0xE48BFF59)


def flagged(flags: int) -> bytes:
    file = bytearray(uf2(DATA))
    struct.pack_into("<I", file, 8, flags)
    return bytes(file)


LINES = intel_hex((0, DATA)).splitlines(keepends=True)


@pytest.mark.parametrize(
    ("file", "code", "field"),
    [
        (uf2(DATA)[:-1], "image-malformed", "blocks"),
        (uf2(DATA)[:-512], "image-malformed", "blocks[0]"),
        (uf2(DATA)[:-4] + bytes(4), "image-malformed", "blocks[4]"),
        (uf2(DATA)[:16] + struct.pack("<I", 477) + uf2(DATA)[20:], "image-malformed", "blocks[0]"),
        (two_families(), "image-ambiguous", "blocks[1]"),
        (flagged(0x1000), "image-ambiguous", "blocks[0]"),
        (b"".join(LINES[:-1]), "image-malformed", "lines"),
        (b"".join([*LINES, b"x"]), "image-malformed", f"lines[{len(LINES) + 1}]"),
        (LINES[0].replace(b"00", b"01", 1) + b"".join(LINES[1:]), "image-malformed", "lines[1]"),
        (LINES[0] + b":zz\n" + b"".join(LINES[1:]), "image-malformed", "lines[2]"),
        (LINES[0] + b":0000000600FA\n", "image-malformed", "lines[2]"),
        (intel_hex((0, DATA)).replace(b":00000001FF", b""), "image-malformed", "lines[81]"),
        (b":020000040000FA\n:00000001FF\n", "image-malformed", "segments"),
        (elf([(0, DATA)])[:40], "image-malformed", "header"),
        (elf([(0, DATA)])[:-1], "image-malformed", "segments[0]"),
        (elf([(0, DATA), (100, DATA)]), "image-malformed", "segments"),
        (elf([(0, DATA)], kind=3), "image-ambiguous", "header.type"),
        (elf([]), "image-malformed", "segments"),
        (b"\x7fELF\x03\x01" + bytes(60), "image-malformed", "header"),
        (esp_app(), "format-mismatch", "FILE"),
        (b"raw", "format-mismatch", "FILE"),
    ],
)
def test_what_cant_be_turned_into_one_image_is_refused_with_the_place(
    file: bytes, code: str, field: str
) -> None:
    with pytest.raises(ImageRefused) as caught:
        convert(file)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_headers_that_name_the_same_bytes_again_and_again_are_no_work() -> None:
    file = bytearray(elf([(0x100 * number, DATA[:4]) for number in range(2000)]))
    for number in range(2000):
        struct.pack_into("<I", file, 52 + 32 * number + 4, 0)
        struct.pack_into("<I", file, 52 + 32 * number + 16, len(file))
    with pytest.raises(ImageRefused) as caught:
        convert(bytes(file))
    assert caught.value.field == "segments[1]"
