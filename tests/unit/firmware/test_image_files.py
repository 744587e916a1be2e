"""Image files: digest and size in one pass, format and version by content, agreement with the manifest."""

import hashlib
import struct
from pathlib import Path

import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.facts import ComponentFacts, ManifestFacts
from lwm2m_server.firmware.images import (
    ImageFormat,
    ImageInfo,
    ImageReader,
    check_image,
    inspect,
    inspect_image,
)

MCUBOOT = struct.pack("<IIHHIIBBHII", 0x96F3B83D, 0, 32, 0, 100, 0, 1, 2, 3, 4, 0) + bytes(100)
ESP = bytes([0xE9]) + bytes(31) + struct.pack("<III8s", 0xABCD5432, 0, 0, b"") + bytes(4)
ESP = ESP[:48] + b"v5.1-dirty".ljust(32, b"\0") + bytes(100)


@pytest.mark.parametrize(
    ("data", "kind", "version"),
    [
        (b"just bytes", ImageFormat.RAW, None),
        (b"\0", ImageFormat.RAW, None),
        (b"firmware-version: 1.2.3\nrest", ImageFormat.RAW, "1.2.3"),
        (b"firmware-version: 1.2.3", ImageFormat.RAW, None),
        (MCUBOOT, ImageFormat.MCUBOOT, "1.2.3+4"),
        (MCUBOOT[:10], ImageFormat.MCUBOOT, None),
        (ESP, ImageFormat.ESP_IDF, "v5.1-dirty"),
        (bytes([0xE9]) + bytes(10), ImageFormat.RAW, None),
        (b"UF2\n" + bytes(508), ImageFormat.UF2, None),
        (b"\x7fELF" + bytes(60), ImageFormat.ELF, None),
        (b":020000040000FA\r\n", ImageFormat.INTEL_HEX, None),
        (b":not a hex file", ImageFormat.RAW, None),
    ],
)
def test_format_and_version_are_found_by_content(data: bytes, kind: ImageFormat, version: str | None) -> None:
    info = inspect_image(data)
    assert (info.format, info.version) == (kind, version)
    assert (info.digest, info.size) == (hashlib.sha256(data).digest(), len(data))
    assert bool(info.hint) == (kind in (ImageFormat.UF2, ImageFormat.ELF, ImageFormat.INTEL_HEX))


@pytest.mark.parametrize("size", [1, 7, 511, 513])
def test_size_of_the_pieces_does_not_matter(size: int) -> None:
    data = MCUBOOT * 20
    reader = ImageReader()
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
    assert reader.finish() == inspect_image(data)


def test_file_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(MCUBOOT)
    assert inspect(path) == inspect_image(MCUBOOT)


def test_empty_image_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        inspect_image(b"")
    assert caught.value.code == "empty-image"


FACTS = ManifestFacts(
    1,
    "1.2.3",
    (ComponentFacts((b"\0",), digests=(hashlib.sha256(MCUBOOT).digest(),), sizes=(len(MCUBOOT),)),),
)
INFO = inspect_image(MCUBOOT)


def test_image_that_the_manifest_names_is_accepted() -> None:
    check_image(INFO, FACTS)


@pytest.mark.parametrize(
    ("info", "facts", "code"),
    [
        (ImageInfo(INFO.digest, 1, ImageFormat.RAW), FACTS, "size-mismatch"),
        (ImageInfo(bytes(32), INFO.size, ImageFormat.RAW), FACTS, "digest-mismatch"),
        (INFO, ManifestFacts(1, "1.2.4", FACTS.components), "version-mismatch"),
        (INFO, ManifestFacts(1, "1.2.3", (ComponentFacts((b"\0",)),)), "malformed"),
    ],
)
def test_image_that_differs_from_its_manifest_is_refused(
    info: ImageInfo, facts: ManifestFacts, code: str
) -> None:
    with pytest.raises(InvalidInput if code != "digest-mismatch" else Exception) as caught:
        check_image(info, facts)
    assert caught.value.code == code
    assert caught.value.field
