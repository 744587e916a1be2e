"""The components of a device beside its main one, as a TOML file describes them.

```toml
[[component]]
name = "modem"                   # the SUIT component identifier as text
version = "1.0.0"                # of the image that the factory put there
slot_size = 262144               # bytes of its largest image
program = "./modem-hook"         # what installs an image; or entry_point = "package.module:function"
hook_timeout = 600               # seconds that an installation may take
class = "meter-v2-modem"         # by default the device's class with the name behind it
vendor = "acme.example"          # by default the device's
image = "modem-1.0.0.bin"        # the factory's image; made up when left out
linked = ["sensors"]             # installed together with these when each of them holds a package
conflicting = []                 # never holds a package at the same time as these
```

Instances of object 33629 are numbered in the order of the file, from 1; instance 0 is the main component.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lwm2m_device import files
from lwm2m_device.layout import MAX_COMPONENTS
from lwm2m_device.slots import VERSION_LIMIT
from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.plan import component_id
from lwm2m_server.firmware.suit import ComponentId, component_text

FIELD = "components"
HOOK_TIMEOUT = 600.0
_NAME_LIMIT = 255  # bytes, of Component Name
_SIZE_LIMIT = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ComponentSettings:
    """One component. `vendor` and `class_name` empty: from the device's. `image` None: made up.

    Its hook is a `program` or an `entry_point` (module:function), which has `hook_timeout` seconds. `linked` and
    `conflicting` are names of others.
    """

    name: str
    identifier: ComponentId
    version: str
    slot_size: int
    vendor: str = ""
    class_name: str = ""
    program: Path | None = None
    entry_point: str | None = None
    hook_timeout: float = HOOK_TIMEOUT
    image: bytes | None = None
    linked: tuple[str, ...] = ()
    conflicting: tuple[str, ...] = ()


def read_components(file: Path, main: ComponentId) -> tuple[ComponentSettings, ...]:
    """Read the file; raises InvalidInput naming the field. `main` is the main component's identifier."""
    try:
        content: dict[str, Any] = tomllib.loads(files.read(file, FIELD).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(f"The file {file} is no TOML: {error}.", FIELD) from None
    entries = content.pop("component", None)
    if content:
        raise _wrong(f"The file {file} has more than components: {', '.join(sorted(content))}.", FIELD)
    if not isinstance(entries, list) or not entries or not all(isinstance(each, dict) for each in entries):
        raise _wrong(
            f"The file {file} lists no components.", FIELD, "Begin each one with a line [[component]]."
        )
    if len(entries) > MAX_COMPONENTS:
        raise _wrong(f"A device has at most {MAX_COMPONENTS} components beside the main one.", FIELD)
    found = tuple(_Reader(entry, number, file.parent).read() for number, entry in enumerate(entries))
    _check_names(found, main)
    return found


class _Reader:
    """Takes the values out of one table; what is left is not known."""

    def __init__(self, entry: Mapping[str, Any], number: int, folder: Path) -> None:
        self._entry = dict(entry)
        self._folder = folder
        name = entry.get("name")
        self._at = f"{FIELD}/{name if isinstance(name, str) else number}"

    def read(self) -> ComponentSettings:
        name = self._text("name")
        identifier = component_id(name, f"{self._at}/name")
        image = self._path("image")
        settings = ComponentSettings(
            name=component_text(identifier),
            identifier=identifier,
            version=self._version(),
            slot_size=int(self._number("slot_size", None, _SIZE_LIMIT)),
            vendor=self._text("vendor", ""),
            class_name=self._text("class", ""),
            program=self._path("program"),
            entry_point=self._entry_point(),
            hook_timeout=float(self._number("hook_timeout", HOOK_TIMEOUT, 86400.0)),
            image=None if image is None else files.read(image, f"{self._at}/image"),
            linked=self._names("linked"),
            conflicting=self._names("conflicting"),
        )
        if self._entry:
            unknown = min(self._entry)
            raise _wrong(f"A component has no setting {unknown!r}.", f"{self._at}/{unknown}")
        if (settings.program is None) == (settings.entry_point is None):
            raise _wrong(
                "A component has one hook: a program or an entry_point.",
                f"{self._at}/program",
                'For example program = "./modem-hook".',
            )
        if settings.image is not None and len(settings.image) > settings.slot_size:
            raise _wrong(
                f"The image has {len(settings.image)} bytes, the slot {settings.slot_size}.",
                f"{self._at}/image",
            )
        return settings

    def _version(self) -> str:
        text = self._text("version")
        try:
            version = versions.parse(text).text
        except InvalidInput as error:
            raise _wrong(error.message, f"{self._at}/version") from None
        if len(version.encode()) > VERSION_LIMIT:
            raise _wrong(f"The version's text is longer than {VERSION_LIMIT} bytes.", f"{self._at}/version")
        return version

    def _text(self, name: str, default: str | None = None) -> str:
        value = self._entry.pop(name, default)
        if value is None:
            raise _wrong(f"A component needs a {name}.", f"{self._at}/{name}")
        if not isinstance(value, str) or len(value.encode()) > _NAME_LIMIT or (default is None and not value):
            raise _wrong(f"It is a text of at most {_NAME_LIMIT} bytes.", f"{self._at}/{name}")
        return value

    def _number(self, name: str, default: float | None, limit: float) -> float:
        value = self._entry.pop(name, default)
        if value is None:
            raise _wrong(f"A component needs a {name}.", f"{self._at}/{name}")
        whole = default is None
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not fits or not 0 < value <= limit:
            raise _wrong(f"It is a number above 0 and up to {limit:g}.", f"{self._at}/{name}")
        return float(value) if not whole else int(value)

    def _path(self, name: str) -> Path | None:
        value = self._text(name, "")
        return self._folder / value if value else None

    def _entry_point(self) -> str | None:
        value = self._text("entry_point", "")
        if not value:
            return None
        module, colon, function = value.partition(":")
        if not (colon and function.isidentifier() and all(map(str.isidentifier, module.split(".")))):
            raise _wrong(
                f"{value!r} is no entry point.", f"{self._at}/entry_point", "Write package.module:function."
            )
        return value

    def _names(self, name: str) -> tuple[str, ...]:
        value = self._entry.pop(name, [])
        at = f"{self._at}/{name}"
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise _wrong("It is a list of components' names.", at)
        return tuple(dict.fromkeys(component_text(component_id(each, at)) for each in value))


def _check_names(components: tuple[ComponentSettings, ...], main: ComponentId) -> None:
    known = {component_text(main)}
    for each in components:
        if each.name in known:
            raise _wrong(f"There are two components {each.name!r}.", f"{FIELD}/{each.name}/name")
        known.add(each.name)
    for each in components:
        for name, others in (("linked", each.linked), ("conflicting", each.conflicting)):
            for other in others:
                if other not in known or other == each.name:
                    raise _wrong(f"There is no other component {other!r}.", f"{FIELD}/{each.name}/{name}")
        both = set(each.linked) & set(each.conflicting)
        if both:
            raise _wrong(
                f"{min(both)!r} can't be linked and conflicting.", f"{FIELD}/{each.name}/conflicting"
            )


@dataclass(frozen=True)
class Relations:
    """Names, links and conflicts by instance; instance 0 is the main component. Both hold in either direction."""

    names: tuple[str, ...]
    linked: tuple[frozenset[int], ...]
    conflicting: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, main: ComponentId, components: tuple[ComponentSettings, ...]) -> "Relations":
        """Return those of a device with these components beside its main one."""
        names = (component_text(main), *(each.name for each in components))

        def pairs(chosen: tuple[tuple[str, ...], ...]) -> tuple[frozenset[int], ...]:
            found: list[set[int]] = [set() for _ in names]
            for instance, others in enumerate(chosen, 1):
                for other in map(names.index, others):
                    found[instance].add(other)
                    found[other].add(instance)
            return tuple(map(frozenset, found))

        return cls(
            names,
            pairs(tuple(each.linked for each in components)),
            pairs(tuple(each.conflicting for each in components)),
        )


def _wrong(message: str, field: str, hint: str | None = None) -> InvalidInput:
    return InvalidInput(message, field=field, hint=hint)
