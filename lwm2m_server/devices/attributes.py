"""The names that a filter may use: the server's own attributes of a device, and the operators'.

Each has one type for the whole fleet, so that a comparison is checked when the filter is written and not when
it meets the one device that is different.
"""

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

from lwm2m_server.devices.records import AttributeValue, Device, Registration
from lwm2m_server.errors import InvalidInput


class AttributeType(StrEnum):
    """What a value is and how two are compared."""

    TEXT = "text"  # by code point, letter case counts
    NUMBER = "number"
    BOOLEAN = "boolean"
    VERSION = "version"  # text, ordered as semantic versions
    TIME = "time"  # seconds since the epoch
    IDENTIFIER = "identifier"  # raw bytes, written as hex


OPERATOR_TYPES = frozenset(
    {AttributeType.TEXT, AttributeType.NUMBER, AttributeType.BOOLEAN, AttributeType.VERSION}
)
"""Types that an operator's attribute may have."""

Fact = str | int | float | bool | bytes | None
_Getter = Callable[[Device], Fact]

MAX_NAME = 64
MAX_TEXT = 1024  # characters of a text value
MAX_NUMBER = 2**53  # integers up to here are exact as double, in every database
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*")

KEYWORDS = frozenset(
    {"all", "and", "or", "not", "in", "like", "starts", "with", "exists", "true", "false", "ago"}
)


def _registration(get: Callable[[Registration], Fact]) -> _Getter:
    return lambda device: None if device.registration is None else get(device.registration)


_BUILT_IN: dict[str, tuple[AttributeType, _Getter]] = {
    "endpoint": (AttributeType.TEXT, lambda d: d.endpoint),
    "created": (AttributeType.TIME, lambda d: d.created_at),
    "registered": (AttributeType.BOOLEAN, lambda d: d.registered),
    "registered_at": (AttributeType.TIME, _registration(lambda r: r.registered_at)),
    "last_seen": (AttributeType.TIME, _registration(lambda r: r.last_seen)),
    "address": (AttributeType.TEXT, _registration(lambda r: r.address)),
    "lwm2m": (AttributeType.VERSION, _registration(lambda r: r.lwm2m_version)),
    "lifetime": (AttributeType.NUMBER, _registration(lambda r: r.lifetime)),
    "binding": (AttributeType.TEXT, _registration(lambda r: r.binding)),
    "queue": (AttributeType.BOOLEAN, _registration(lambda r: r.queue_mode)),
    "manufacturer": (AttributeType.TEXT, lambda d: d.facts.manufacturer),
    "model": (AttributeType.TEXT, lambda d: d.facts.model),
    "serial": (AttributeType.TEXT, lambda d: d.facts.serial),
    "hardware.version": (AttributeType.VERSION, lambda d: d.facts.hardware_version),
    "firmware.version": (AttributeType.VERSION, lambda d: d.facts.firmware_version),
    "firmware.digest": (AttributeType.IDENTIFIER, lambda d: d.facts.running_digest),
    "vendor": (AttributeType.IDENTIFIER, lambda d: d.facts.vendor_id),
    "class": (AttributeType.IDENTIFIER, lambda d: d.facts.class_id),
    "manifests": (AttributeType.BOOLEAN, lambda d: d.facts.understands_manifests),
}

BUILT_IN: Mapping[str, AttributeType] = MappingProxyType(
    {name: entry[0] for name, entry in _BUILT_IN.items()}
)
"""The server's own attributes and their types."""


def value_of(device: Device, name: str) -> Fact:
    """Return the device's value of an attribute, None when it has none."""
    entry = _BUILT_IN.get(name)
    return device.attributes.get(name) if entry is None else entry[1](device)


def check_name(name: str) -> str:
    """Return `name` if an operator's attribute may be called so; `InvalidInput` otherwise."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:MAX_NAME]!r} can't be the name of an attribute",
            field="attributes",
            hint=f"use letters, digits, '_', '-' and '.', a letter first, {MAX_NAME} characters at most",
        )
    if name in _BUILT_IN or name.lower() in KEYWORDS:
        taken = "the server's own attribute" if name in _BUILT_IN else "a word of the filter language"
        raise InvalidInput(f"{name!r} is {taken}", field=f"attributes/{name}", hint="choose another name")
    return name


def check_text(text: str, field: str) -> str:
    """Return `text` if every database can hold and compare it.

    Bounded, no control characters, valid Unicode.
    """
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"text of {len(text)} characters, {MAX_TEXT} is the limit", field=field)
    if any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput("the text holds control characters", field=field, hint="use printable text")
    return text


def type_of(name: str, value: AttributeValue) -> AttributeType:
    """Return the type that a value of an operator's attribute gives it.

    `InvalidInput` when it is out of bounds.
    """
    field = f"attributes/{name}"
    if isinstance(value, bool):
        return AttributeType.BOOLEAN
    if isinstance(value, str):
        check_text(value, field)
        return AttributeType.TEXT
    if not math.isfinite(value) or abs(value) > MAX_NUMBER:
        raise InvalidInput(
            f"{name} can't hold this number",
            field=field,
            hint=f"numbers go from -{MAX_NUMBER} to {MAX_NUMBER}",
        )
    return AttributeType.NUMBER
