"""What the operator says of an image must agree with what it says itself, and signatures may be demanded."""

from typing import Any

import pytest

from firmware_files import elf, esp_app, mcuboot, public_pem
from lwm2m_server.errors import InvalidInput, Untrusted
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.formats.refused import MEANING, ImageCode
from lwm2m_server.firmware.image_checks import Expected, check_expected, check_signed
from lwm2m_server.firmware.images import ImageFormat, inspect_image
from lwm2m_server.firmware.suit import class_id, vendor_id

MCUBOOT = mcuboot("-s", "7", "--vid", "acme.example", "--cid", "m1", key="ecdsa-p256")
ESP = esp_app()
RAW = b"firmware-version: 1.0.0\nrest"
VENDOR = vendor_id("acme.example")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (MCUBOOT, {}),
        (MCUBOOT, {"version": "v1.2.3", "format": ImageFormat.MCUBOOT, "security_counter": 7}),
        (MCUBOOT, {"version": "1.2.3+9"}),
        (MCUBOOT, {"vendor": "acme.example", "device_class": "m1"}),
        (MCUBOOT, {"vendor": VENDOR.hex(), "device_class": class_id(VENDOR, "m1").hex()}),
        (ESP, {"version": "2.1", "project": "pump", "chip": "esp32s3", "security_counter": 3}),
        (esp_app(version="a1b2c3-dirty"), {"version": "3.0.0"}),
        (b"raw", {"version": "3.0.0", "format": ImageFormat.RAW}),
        (elf([(0, b"x")]), {"format": ImageFormat.ELF}),
    ],
)
def test_what_agrees_is_accepted(data: bytes, expected: dict[str, Any]) -> None:
    check_expected(inspect_image(data), Expected(**expected))


@pytest.mark.protection("server", "image-claims")
@pytest.mark.parametrize(
    ("data", "expected", "code", "field"),
    [
        (MCUBOOT, {"version": "1.2.4"}, "version-mismatch", "version"),
        (RAW, {"version": "1.0.1"}, "version-mismatch", "version"),
        (MCUBOOT, {"format": ImageFormat.ESP_IDF}, "format-mismatch", "format"),
        (elf([(0, b"x")]), {}, "image-container", "image"),
        (elf([(0, b"x")]), {"format": ImageFormat.RAW}, "format-mismatch", "format"),
        (ESP, {"project": "Pump"}, "project-mismatch", "project"),
        (MCUBOOT, {"project": "pump"}, "project-mismatch", "project"),
        (ESP, {"chip": "ESP32"}, "chip-mismatch", "chip"),
        (MCUBOOT, {"chip": "ESP32"}, "chip-mismatch", "chip"),
        (MCUBOOT, {"security_counter": 8}, "security-counter-mismatch", "security_counter"),
        (RAW, {"security_counter": 0}, "security-counter-mismatch", "security_counter"),
        (MCUBOOT, {"vendor": "other.example"}, "vendor-mismatch", "vendor"),
        (RAW, {"vendor": "acme.example"}, "vendor-mismatch", "vendor"),
        (MCUBOOT, {"vendor": "acme.example", "device_class": "m2"}, "class-mismatch", "class"),
    ],
)
def test_what_disagrees_is_refused_with_code_and_field(
    data: bytes, expected: dict[str, Any], code: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_expected(inspect_image(data), Expected(**expected))
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("said", "field"), [({"version": "new"}, "version"), ({"device_class": "m1"}, "class")]
)
def test_what_can_be_right_for_no_image_is_refused_before_a_byte_is_read(
    said: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        Expected(**said).check()  # type: ignore[arg-type]
    assert caught.value.field == field


def key(kind: str, number: int = 0) -> ImageKey:
    return ImageKey.from_pem(public_pem(kind, number))


def test_signed_by_a_trusted_key_passes_where_signatures_are_demanded() -> None:
    check_signed(inspect_image(MCUBOOT, [key("ecdsa-p256")]))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (RAW, "image-unsigned"),
        (ESP, "image-unsigned"),
        (mcuboot(), "image-unsigned"),
        (mcuboot(key="ecdsa-p256", number=1), "image-unknown-key"),
        (mcuboot(key="ecdsa-p256", encrypt_for="ecdsa-p256"), "image-unverifiable"),
    ],
)
def test_where_signatures_are_demanded_all_else_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Untrusted) as caught:
        check_signed(inspect_image(data, [key("ecdsa-p256")]))
    assert caught.value.code == code
    assert caught.value.hint


def test_the_published_sample_key_counts_for_nothing() -> None:
    image = mcuboot(key="rsa-2048")
    sample = bytes.fromhex("fc5701dc6135e1323847bdc40f04d2e5bee5833b23c29f93593d00018cfa9994")
    (own,) = [each for each in key("rsa-2048").fingerprints if each in image]
    with pytest.raises(Untrusted) as caught:
        check_signed(inspect_image(image.replace(own, sample)))
    assert caught.value.code == "image-sample-key"


def test_every_code_has_its_sentence() -> None:
    assert set(MEANING) == set(ImageCode)
