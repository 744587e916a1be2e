"""ESP-IDF applications: what esptool says of them we say too, and what breaks them is refused."""

import hashlib
import struct
import zlib
from pathlib import Path

import pytest

from firmware_files import esp_app, esp_signed, esptool, public_pem
from lwm2m_server.firmware.formats.esp_idf import CHIPS
from lwm2m_server.firmware.formats.facts import SignatureState
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.formats.refused import ImageRefused
from lwm2m_server.firmware.images import ImageFormat, inspect_image

IMAGE = esp_app()


def key(kind: str, number: int = 0) -> ImageKey:
    return ImageKey.from_pem(public_pem(kind, number))


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def refusal(data: bytes, *keys: ImageKey) -> ImageRefused:
    with pytest.raises(ImageRefused) as caught:
        inspect_image(data, keys)
    return caught.value


def test_esptool_agrees_with_what_is_found(tmp_path: Path) -> None:
    (tmp_path / "app.bin").write_bytes(IMAGE)
    said = esptool("esptool", "image-info", str(tmp_path / "app.bin"))
    info = inspect_image(IMAGE)
    facts, details = info.facts, info.facts.details
    assert (info.format, info.version) == (ImageFormat.ESP_IDF, "2.1.0")
    assert facts.content_checked
    for line in (
        f"Project name: {facts.project}",
        f"App version: {info.version}",
        f"ESP-IDF: {details['idf_version']}",
        f"Compile time: {details['compiled']}",
        f"Secure version: {facts.security_counter}",
        f"ELF file SHA256: {details['elf_sha256']}",
        f"Chip ID: 9 ({facts.chip})",
        f"Segments: {details['segments']}",
        f"Maximal chip revision: v{details['max_chip_revision']}",
    ):
        assert line in said
    assert said.count("(valid)") == 2


def test_the_chips_are_those_that_esptool_knows() -> None:
    listed = esptool("esptool", "--help").lower()
    for name in ("esp32", "esp32-s3", "esp32-c6", "esp32-p4", "esp32-h2"):
        assert name in {chip.lower() for chip in CHIPS.values()}
        assert name.replace("-", "") in listed


@pytest.mark.parametrize("kind", ["rsa-3072", "ecdsa-p256", "ecdsa-p384"])
def test_a_secure_boot_signature_of_each_kind_holds_for_its_key(kind: str, tmp_path: Path) -> None:
    data = esp_signed(tmp_path, IMAGE, [(kind, 0)])
    (found,) = inspect_image(data, [key(kind, 1), key(kind)]).facts.signatures
    assert (found.algorithm, found.state, found.key) == (kind, SignatureState.VERIFIED, key(kind).key_id)
    assert inspect_image(data).facts.signatures[0].state is SignatureState.UNKNOWN_KEY
    (tmp_path / "public.pem").write_bytes(public_pem(kind))
    if kind != "ecdsa-p384":  # the digest that goes into eFuses is the one that espsecure computes
        digest = tmp_path / "digest.bin"
        esptool(
            "espsecure",
            *("digest-sbv2-public-key", "--keyfile", str(tmp_path / "public.pem"), "--output", str(digest)),
        )
        assert inspect_image(data).facts.details["key_digests"] == [digest.read_bytes().hex()]
    # a bit of the padding, of the digest, of the key and of the signature
    for at in (len(IMAGE) + 1, len(data) - 4096 + 8, len(data) - 4096 + 60, len(data) - 4096 + 160):
        broken = changed(data, at, bytes([data[at] ^ 1]))
        assert refusal(broken, key(kind)).code in {"image-malformed", "image-digest"}


@pytest.mark.parametrize(("kind", "at"), [("rsa-3072", 900), ("ecdsa-p256", 120)])
def test_a_signature_that_does_not_hold_for_the_key_beside_it_is_refused(
    kind: str, at: int, tmp_path: Path
) -> None:
    data = esp_signed(tmp_path, IMAGE, [(kind, 0)])
    block = bytearray(data[-4096 : -4096 + 1216])
    block[at] ^= 1
    block[1196:1200] = struct.pack("<I", zlib.crc32(block[:1196]))
    assert refusal(changed(data, len(data) - 4096, bytes(block))).code == "image-signature"


def test_constants_that_the_chip_would_stumble_over_are_refused(tmp_path: Path) -> None:
    data = esp_signed(tmp_path, IMAGE, [("rsa-3072", 0)])
    block = bytearray(data[-4096 : -4096 + 1216])
    block[424] ^= 1
    block[1196:1200] = struct.pack("<I", zlib.crc32(block[:1196]))
    error = refusal(changed(data, len(data) - 4096, bytes(block)))
    assert (error.code, error.field) == ("image-malformed", "signature[0]")


def test_several_signatures_each_have_their_state(tmp_path: Path) -> None:
    data = esp_signed(tmp_path, IMAGE, [("rsa-3072", 0), ("rsa-3072", 1)])
    states = [each.state for each in inspect_image(data, [key("rsa-3072", 1)]).facts.signatures]
    assert states == [SignatureState.UNKNOWN_KEY, SignatureState.VERIFIED]


def test_secure_boot_1_is_verified_with_the_trusted_keys(tmp_path: Path) -> None:
    data = esp_signed(tmp_path, IMAGE, [("ecdsa-p256", 0)], version=1)
    (found,) = inspect_image(data, [key("ecdsa-p256")]).facts.signatures
    assert found.state is SignatureState.VERIFIED
    (found,) = inspect_image(data, [key("ecdsa-p256", 1)]).facts.signatures
    assert found.state is SignatureState.UNKNOWN_KEY


def test_padding_behind_an_unsigned_image_is_named() -> None:
    info = inspect_image(IMAGE + b"\xff" * 100)
    assert "100 bytes at the end are padding" in info.facts.notes[0]


def test_without_a_hash_the_checksum_is_all_and_that_is_said() -> None:
    info = inspect_image(esp_app(hashed=False))
    assert "checksum" in info.facts.notes[0]


def test_a_chip_that_is_new_is_shown_by_its_number() -> None:
    assert inspect_image(esp_app(chip=77)).facts.chip == "chip 77"


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (changed(IMAGE, 1, b"\0"), "image-malformed", "header.segments"),
        (changed(IMAGE, 1, b"\x11"), "image-malformed", "header.segments"),
        (changed(IMAGE, 23, b"\2"), "image-malformed", "header.hash_appended"),
        (changed(IMAGE, 28, struct.pack("<I", 513)), "image-malformed", "segments[0]"),
        (changed(IMAGE, 28, struct.pack("<I", 0xFFFFFFFC)), "image-malformed", "segments[0]"),
        (changed(IMAGE, 1, b"\3"), "image-malformed", "segments[2]"),
        (changed(IMAGE, 600, bytes([IMAGE[600] ^ 1])), "image-digest", "checksum"),
        (changed(IMAGE, len(IMAGE) - 1, bytes([IMAGE[-1] ^ 1])), "image-digest", "hash"),
        (changed(IMAGE, 12, b"\5"), "image-digest", "hash"),
        (IMAGE[:-1], "image-malformed", "hash"),
        (IMAGE[:40], "image-malformed", "segments[0]"),
        (IMAGE + b"x", "image-malformed", "trailer"),
        (IMAGE + bytes(68)[:-1], "image-malformed", "trailer"),
    ],
)
def test_what_breaks_an_application_is_refused_with_the_place(data: bytes, code: str, field: str) -> None:
    error = refusal(data)
    assert (error.code, error.field) == (code, field)


def test_a_first_segment_without_room_for_the_description_is_refused() -> None:
    body = bytearray(IMAGE[:24] + struct.pack("<II", 0, 128) + IMAGE[32:160])
    body[1] = 1
    checksum = 0xEF
    for byte in body[32:]:
        checksum ^= byte
    body += bytes(15 - len(body) % 16) + bytes([checksum])
    assert refusal(bytes(body) + hashlib.sha256(body).digest()).field == "app"


def test_a_text_that_cant_be_shown_is_refused() -> None:
    assert refusal(esp_app(project="a\x07b")).field == "app.project"
    assert inspect_image(esp_app(project="")).facts.project is None
