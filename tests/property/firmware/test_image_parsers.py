"""Images from anywhere: any bytes give facts or one named error, and no changed bit goes unnoticed."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firmware_files import elf, esp_app, intel_hex, mcuboot, public_pem, uf2
from lwm2m_server.errors import Lwm2mError
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.formats.mcuboot import layout
from lwm2m_server.firmware.formats.refused import ImageRefused
from lwm2m_server.firmware.images import convert, details_of, image_format, image_version, inspect_image

KEYS = [ImageKey.from_pem(public_pem(kind)) for kind in ("ecdsa-p256", "ed25519", "rsa-2048")]
SMALL = bytes(range(64))
SEEDS = {
    "ecdsa": mcuboot("-s", "7", "-d", "(1,1.2.0)", "--vid", "a.example", key="ecdsa-p256", payload=SMALL),
    "ed25519": mcuboot("-s", "1", key="ed25519", payload=SMALL),
    "rsa": mcuboot(key="rsa-2048", payload=SMALL),
    "unsigned": mcuboot("-s", "1", payload=SMALL),
    "esp": esp_app(code=SMALL),
    "uf2": uf2(bytes(600)),
    "hex": intel_hex((0, SMALL)),
    "elf": elf([(0, SMALL)]),
    "elf64": elf([(0, SMALL)], bits=64),
}


def refusal_of(read: Callable[[], object]) -> Lwm2mError | None:
    """Return the refusal, if there is one; any other exception ends the test."""
    try:
        read()
    except Lwm2mError as error:
        return error
    return None


def looked_at(data: bytes) -> None:
    """All that reads foreign bytes; anything but a refusal that names the place is a failure."""
    for read in (lambda: details_of(inspect_image(data, KEYS)), lambda: convert(data)):
        error = refusal_of(read)
        assert error is None or (isinstance(error, ImageRefused) and error.field and error.message)
    image_version(data[:512], image_format(data[:512]))


@given(
    st.sampled_from([b"", *(seed[:n] for seed in SEEDS.values() for n in (4, 36, 40))]),
    st.binary(max_size=700),
)
@example(bytes.fromhex("3db8f396"), b"")
@example(b"\x7fELF\x01\x01", b"")
def test_any_bytes_behind_any_magic_give_facts_or_one_named_error(head: bytes, rest: bytes) -> None:
    looked_at(head + rest)


@settings(max_examples=10 * settings().max_examples)
@given(st.data())
def test_changed_cut_and_grown_images_give_facts_or_one_named_error(data: st.DataObject) -> None:
    """A mutation test: words and bytes overwritten with edge values, pieces cut out, doubled or added."""
    image = bytearray(SEEDS[data.draw(st.sampled_from(sorted(SEEDS)))])
    edges = st.sampled_from(
        [0, 1, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFC, 0xFFFFFFFF]
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(image)))
        match data.draw(st.sampled_from(["byte", "half", "word", "cut", "double", "grow", "end"])):
            case "byte":
                image[at : at + 1] = struct.pack("<I", data.draw(edges))[:1]
            case "half":
                image[at : at + 2] = struct.pack("<I", data.draw(edges))[:2]
            case "word":
                image[at : at + 4] = struct.pack("<I", data.draw(edges))
            case "cut":
                del image[at : at + data.draw(st.integers(1, 64))]
            case "double":
                image[at:at] = image[at : at + data.draw(st.integers(1, 64))]
            case "grow":
                image[at:at] = data.draw(st.binary(max_size=16))
            case "end":
                del image[at:]
    looked_at(bytes(image))


@pytest.mark.parametrize("name", ["ecdsa", "ed25519", "rsa", "unsigned"])
def test_a_flipped_bit_anywhere_in_the_signed_part_is_found(name: str) -> None:
    image = SEEDS[name]
    signed = layout(memoryview(image)).signed
    for bit in range(8 * signed):
        broken = bytearray(image)
        broken[bit // 8] ^= 1 << bit % 8
        if bit < 32:  # no MCUboot image any more, as the first word says
            continue
        with pytest.raises(ImageRefused):
            inspect_image(bytes(broken), KEYS)


def test_a_flipped_bit_anywhere_in_an_application_is_found() -> None:
    image = SEEDS["esp"]
    for bit in range(8 * len(image)):
        broken = bytearray(image)
        broken[bit // 8] ^= 1 << bit % 8
        if bit < 8 or 256 <= bit < 288:  # no ESP-IDF application any more, as its magic numbers say
            continue
        with pytest.raises(ImageRefused):
            inspect_image(bytes(broken), KEYS)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_key_or_one_named_error(data: bytes) -> None:
    for document in (data, b"-----BEGIN PUBLIC KEY-----\n" + data + b"\n-----END PUBLIC KEY-----\n"):
        error = refusal_of(lambda document=document: ImageKey.from_pem(document))
        assert error is None or error.field == "key"
