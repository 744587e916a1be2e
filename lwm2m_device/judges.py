"""Who decides what this device takes: the manifest processor, or the header of a plain image.

A plain image has to name its version itself, in one of three ways: an MCUboot header, an ESP-IDF
application descriptor, or a first line `firmware-version: 1.2.0`, which is how the demonstration's
images are made.
"""

import struct
from collections.abc import Callable

from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.refusals import RefusalCode, refusal

VERSION_LINE = b"firmware-version: "

_MCUBOOT_MAGIC = 0x96F3B83D
_MCUBOOT_VERSION_AT = 20
_ESP_MAGIC = 0xE9
_ESP_DESCRIPTOR_AT = 32
_ESP_DESCRIPTOR_MAGIC = 0xABCD5432
_ESP_VERSION_AT = 48
_HEAD = 128


def image_version(read: Callable[[int, int], bytes], size: int) -> str:
    """Return the version that an image names; raises Refusal (`unsupported`) when it names none."""
    head = read(0, min(size, _HEAD))
    version = _mcuboot(head) or _esp_idf(head) or _first_line(head)
    if version is None or versions.try_parse(version) is None:
        raise refusal(
            RefusalCode.UNSUPPORTED,
            "The image does not name its version.",
            hint="Use an MCUboot or ESP-IDF image, or begin it with a line 'firmware-version: 1.2.0'.",
        )
    return version


def newer_image(running: str | None) -> Callable[[Callable[[int, int], bytes], int], str]:
    """Return the judge for plain images: the version must be above `running` (None: any will do)."""

    def judge(read: Callable[[int, int], bytes], size: int) -> str:
        version = image_version(read, size)
        if running is not None and not _is_newer(version, running):
            raise refusal(
                RefusalCode.VERSION_ROLLBACK,
                f"Version {version} is not newer than {running}.",
                field="version",
            )
        return version

    return judge


def _is_newer(version: str, running: str) -> bool:
    try:
        return versions.compare(version, running) > 0
    except InvalidInput:
        return True  # what runs has no version that could be compared


def _mcuboot(head: bytes) -> str | None:
    if len(head) < _MCUBOOT_VERSION_AT + 8 or struct.unpack_from("<I", head)[0] != _MCUBOOT_MAGIC:
        return None
    major, minor, revision, build = struct.unpack_from("<BBHI", head, _MCUBOOT_VERSION_AT)
    return f"{major}.{minor}.{revision}" + (f"+{build}" if build else "")


def _esp_idf(head: bytes) -> str | None:
    if len(head) < _ESP_VERSION_AT + 32 or head[0] != _ESP_MAGIC:
        return None
    if struct.unpack_from("<I", head, _ESP_DESCRIPTOR_AT)[0] != _ESP_DESCRIPTOR_MAGIC:
        return None
    return head[_ESP_VERSION_AT : _ESP_VERSION_AT + 32].split(b"\0")[0].decode("ascii", "replace")


def _first_line(head: bytes) -> str | None:
    if not head.startswith(VERSION_LINE):
        return None
    line, newline, _ = head[len(VERSION_LINE) :].partition(b"\n")
    return line.decode("ascii", "replace").strip() if newline else None
