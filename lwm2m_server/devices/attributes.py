"""The names that a filter may use: the server's own attributes of a device, and the operators'.

Each has one type for the whole fleet, so that a comparison is checked when the filter is written and not when
it meets the one device that is different.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from lwm2m_server import versions
from lwm2m_server.devices.records import (
    ApplicationFacts,
    AttributeValue,
    ComponentFacts,
    Device,
    Facts,
    Registration,
)
from lwm2m_server.errors import Conflict, InvalidInput


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
MAX_COMPONENTS = 32
MAX_APPLICATIONS = 32
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*")
COMPONENT = "component."
"""What the names of the values of components begin with: `component.modem.version`, `component.modem.digest`."""
_COMPONENT = re.compile(rf"{re.escape(COMPONENT)}(?P<name>.+)\.(?P<value>version|digest)")
APPLICATION = "software."
"""The same for applications: `software.meter.version`, `software.meter.active`."""
_APPLICATION = re.compile(rf"{re.escape(APPLICATION)}(?P<name>.+)\.(?P<value>version|active)")

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
    "firmware.sequence": (AttributeType.NUMBER, lambda d: d.facts.sequence),
    "vendor": (AttributeType.IDENTIFIER, lambda d: d.facts.vendor_id),
    "class": (AttributeType.IDENTIFIER, lambda d: d.facts.class_id),
    "manifests": (AttributeType.BOOLEAN, lambda d: d.facts.understands_manifests),
}

BUILT_IN: Mapping[str, AttributeType] = MappingProxyType(
    {name: entry[0] for name, entry in _BUILT_IN.items()}
)
"""The server's own attributes and their types."""


def type_of(name: str) -> AttributeType | None:
    """Return the type of one of the server's own attributes; None for other names."""
    if found := component_of(name):
        return AttributeType.VERSION if found[1] == "version" else AttributeType.IDENTIFIER
    if found := application_of(name):
        return AttributeType.VERSION if found[1] == "version" else AttributeType.BOOLEAN
    return BUILT_IN.get(name)


def component_of(name: str) -> tuple[str, str] | None:
    """Return component and value (`version` or `digest`) of an attribute's name; None when it is no such name."""
    found = _COMPONENT.fullmatch(name)
    return None if found is None else (found["name"], found["value"])


def application_of(name: str) -> tuple[str, str] | None:
    """Return application and value (`version` or `active`) of an attribute's name; None when it is no such name."""
    found = _APPLICATION.fullmatch(name)
    return None if found is None else (found["name"], found["value"])


def value_of(device: Device, name: str) -> Fact:
    """Return the device's value of an attribute, None when it has none."""
    entry = _BUILT_IN.get(name)
    if entry is not None:
        return entry[1](device)
    if wanted := component_of(name):
        component = device.facts.component(wanted[0])
        if component is None:
            return None
        return component.version if wanted[1] == "version" else component.digest
    if wanted := application_of(name):
        application = device.facts.application(wanted[0])
        if application is None:
            return None
        return application.version if wanted[1] == "version" else application.active
    return device.attributes.get(name)


def check_name(name: str) -> str:
    """Return `name` if an operator's attribute may be called so; `InvalidInput` otherwise."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:MAX_NAME]!r} can't be the name of an attribute",
            field="attributes",
            hint=f"use letters, digits, '_', '-' and '.', a letter first, {MAX_NAME} characters at most",
        )
    own = name in _BUILT_IN or name.startswith((COMPONENT, APPLICATION))
    if own or name.lower() in KEYWORDS:
        taken = "the server's own attribute" if own else "a word of the filter language"
        raise InvalidInput(f"{name!r} is {taken}", field=f"attributes/{name}", hint="choose another name")
    return name


def check_text(text: str, field: str) -> str:
    """Return `text` if every database can hold and compare it.

    Bounded, no control characters, valid Unicode.
    """
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"text of {len(text)} characters, {MAX_TEXT} is the limit", field=field)
    if any(_unfit(character) for character in text):
        raise InvalidInput("the text holds control characters", field=field, hint="use printable text")
    return text


def check_value(
    name: str, value: AttributeValue | None, defined: AttributeType | None
) -> AttributeType | None:
    """Return the type of an operator's attribute with this value.

    A value of None removes it and has no type. `defined` is the type that the name has in the fleet,
    None when it is new. Raises `InvalidInput`.
    """
    if value is None:
        return None
    type_ = _type_of(check_name(name), value)
    if defined is None or defined is type_:
        return type_
    field = f"attributes/{name}"
    if defined is AttributeType.VERSION and isinstance(value, str):
        versions.parse(value)
        return AttributeType.VERSION
    raise InvalidInput(
        f"{name} holds a {defined} on all devices, this is a {type_}",
        field=field,
        hint=f"write a {defined}, or choose another name",
    )


def define(name: str, type_: AttributeType, defined: AttributeType | None, *, in_use: bool) -> None:
    """Check that an operator's attribute may be of `type_` from now on.

    `defined` is its type so far, `in_use` whether a device has a value. Raises `InvalidInput`, `Conflict`.
    """
    field = f"attributes/{check_name(name)}"
    if type_ not in OPERATOR_TYPES:
        raise InvalidInput(
            f"an attribute can't be defined as {type_}",
            field=field,
            hint="use text, number, boolean or version",
        )
    if defined is not None and defined is not type_ and in_use:
        raise Conflict(
            f"{name} holds a {defined} on some devices",
            field=field,
            hint="remove it from them, or choose another name",
        )


def clean_facts(facts: Facts) -> Facts:
    """Return the facts with text that can be stored: a device may say anything of itself."""
    texts = ("manufacturer", "model", "serial", "hardware_version", "firmware_version")
    given = {name: text for name in texts if (text := getattr(facts, name)) is not None}
    cleaned: dict[str, Any] = {name: _clean(text) for name, text in given.items()}
    if facts.components is not None:
        cleaned["components"] = _clean_components(facts.components)
    if facts.applications is not None:
        cleaned["applications"] = _clean_applications(facts.applications)
    return replace(facts, **cleaned)


def _clean_components(components: tuple[ComponentFacts, ...]) -> tuple[ComponentFacts, ...]:
    """Ascending by instance; of those with the same name the first one counts, nameless ones don't."""
    found: dict[str, ComponentFacts] = {}
    for component in sorted(components, key=lambda each: each.instance):
        name = _clean(component.name)
        version = None if component.version is None else _clean(component.version)
        if name and name not in found and len(found) < MAX_COMPONENTS:
            found[name] = replace(component, name=name, version=version)
    return tuple(found.values())


def _clean_applications(applications: tuple[ApplicationFacts, ...]) -> tuple[ApplicationFacts, ...]:
    """Ascending by instance; of those with the same name the first one counts, all without a name do."""
    found: dict[str | int, ApplicationFacts] = {}
    for application in sorted(applications, key=lambda each: each.instance)[:MAX_APPLICATIONS]:
        name = _clean(application.name)
        version = None if application.version is None else _clean(application.version)
        found.setdefault(name or application.instance, replace(application, name=name, version=version))
    return tuple(found.values())


def _clean(text: str) -> str:
    return "".join(c for c in text[:MAX_TEXT] if not _unfit(c))


def _unfit(character: str) -> bool:
    return character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff"


def _type_of(name: str, value: AttributeValue) -> AttributeType:
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
