"""Image files: format and version by content, digest, and agreement with the manifest."""

import hashlib
from pathlib import Path

import pytest

from firmware_files import elf, esp_app, intel_hex, mcuboot, uf2
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.facts import ComponentFacts, ManifestFacts
from lwm2m_server.firmware.images import ImageFormat, ImageInfo, check_image, inspect, inspect_image
from lwm2m_server.firmware.suit import class_id, vendor_id

MCUBOOT = mcuboot("--vid", "acme.example", "--cid", "m1", version="1.2.3+4")
VENDOR = vendor_id("acme.example")


@pytest.mark.parametrize(
    ("data", "kind", "version"),
    [
        (b"just bytes", ImageFormat.RAW, None),
        (b"\0", ImageFormat.RAW, None),
        (b"firmware-version: 1.2.3\nrest", ImageFormat.RAW, "1.2.3"),
        (b"firmware-version: 1.2.3", ImageFormat.RAW, None),
        (b"firmware-version: 1\x1b[2J\nrest", ImageFormat.RAW, None),
        (MCUBOOT, ImageFormat.MCUBOOT, "1.2.3+4"),
        (esp_app(version="v5.1-dirty"), ImageFormat.ESP_IDF, "v5.1-dirty"),
        (bytes([0xE9]) + bytes(10), ImageFormat.RAW, None),
        (uf2(b"abc"), ImageFormat.UF2, None),
        (elf([(0, b"abc")]), ImageFormat.ELF, None),
        (intel_hex((0, b"abc")), ImageFormat.INTEL_HEX, None),
        (b":not a hex file", ImageFormat.RAW, None),
    ],
)
def test_format_and_version_are_found_by_content(data: bytes, kind: ImageFormat, version: str | None) -> None:
    info = inspect_image(data)
    assert (info.format, info.version) == (kind, version)
    assert (info.digest, info.size) == (hashlib.sha256(data).digest(), len(data))
    assert bool(info.hint) == (kind in (ImageFormat.UF2, ImageFormat.ELF, ImageFormat.INTEL_HEX))


def test_the_name_of_a_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image.uf2"
    path.write_bytes(MCUBOOT)
    assert inspect(path) == inspect_image(MCUBOOT)


def test_an_empty_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for read in (lambda: inspect_image(b""), lambda: inspect(tmp_path / "empty")):
        with pytest.raises(InvalidInput) as caught:
            read()
        assert (caught.value.code, caught.value.field) == ("empty", "image")


INFO = inspect_image(MCUBOOT)


def facts(version: str | None = "1.2.3", **component: object) -> ManifestFacts:
    named = {"digests": (INFO.digest,), "sizes": (INFO.size,), **component}
    return ManifestFacts(1, version, (ComponentFacts((b"\0",), **named),))  # type: ignore[arg-type]


def test_image_that_the_manifest_names_is_accepted() -> None:
    check_image(INFO, facts())
    check_image(INFO, facts(vendor_ids=(VENDOR,), class_ids=(class_id(VENDOR, "m1"),)))
    check_image(
        inspect_image(b"raw"),
        facts(vendor_ids=(VENDOR,), digests=(hashlib.sha256(b"raw").digest(),), sizes=(3,)),
    )


@pytest.mark.parametrize(
    ("info", "manifest", "code"),
    [
        (ImageInfo(INFO.digest, 1, ImageFormat.RAW), facts(), "size-mismatch"),
        (ImageInfo(bytes(32), INFO.size, ImageFormat.RAW), facts(), "digest-mismatch"),
        (INFO, facts("1.2.4"), "version-mismatch"),
        (INFO, facts(digests=()), "malformed"),
        (INFO, facts(vendor_ids=(vendor_id("other.example"),)), "vendor-mismatch"),
        (INFO, facts(class_ids=(class_id(VENDOR, "m2"),)), "class-mismatch"),
    ],
)
def test_image_that_differs_from_its_manifest_is_refused(
    info: ImageInfo, manifest: ManifestFacts, code: str
) -> None:
    with pytest.raises(InvalidInput if code != "digest-mismatch" else Exception) as caught:
        check_image(info, manifest)
    assert caught.value.code == code
    assert caught.value.field
