"""Object definitions: what objects and resources are, by id and version (Core TS 7 and appendix D)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

from lwm2m_server.lwm2m.links import ObjectList
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.registration import default_object_version

# The private object by which a device shows that it understands manifests (objects/42800-1.0.xml). Its id is
# of the registry's test range (42769-42800), the only one that needs no registration.
SUIT_AGENT = 42800


class ResourceType(StrEnum):
    """Data types (Core TS appendix C); NONE for executables."""

    STRING = "String"
    INTEGER = "Integer"
    UNSIGNED = "Unsigned Integer"
    FLOAT = "Float"
    BOOLEAN = "Boolean"
    OPAQUE = "Opaque"
    TIME = "Time"
    OBJLNK = "Objlnk"
    CORELNK = "Corelnk"
    NONE = ""


_NUMERIC = frozenset({ResourceType.INTEGER, ResourceType.UNSIGNED, ResourceType.FLOAT, ResourceType.TIME})


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive bounds of a number, or of the length in bytes of a String, Opaque or Corelnk."""

    low: float
    high: float

    def holds(self, number: float) -> bool:
        """Tell whether a number lies within."""
        return self.low <= number <= self.high

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}" if self.high < 1e6 else f"{self.low:.0f}..{self.high:.0f}"


@dataclass(frozen=True, slots=True)
class ResourceDefinition:
    """One resource; `operations` is a subset of "RWE", `range` and `units` are the definition's own text."""

    id: int
    name: str
    operations: str
    multiple: bool
    mandatory: bool
    type: ResourceType
    range: str = ""
    units: str = ""
    description: str = ""

    @property
    def readable(self) -> bool:
        """Read, Observe and Discover of values are allowed."""
        return "R" in self.operations

    @property
    def writable(self) -> bool:
        """Write is allowed."""
        return "W" in self.operations

    @property
    def executable(self) -> bool:
        """Execute is allowed."""
        return "E" in self.operations

    @property
    def limits(self) -> Range | None:
        """Bounds that the range text states; None where it is free text or empty."""
        if self.type in _NUMERIC and "byte" in self.range.lower():
            return None  # a width in memory, not a bound of the value
        return parse_range(self.range)


@dataclass(frozen=True, slots=True)
class ObjectDefinition:
    """One version of an object; `resources` is read-only and ascends by id."""

    id: int
    version: str
    name: str
    urn: str
    mandatory: bool
    multiple: bool
    resources: Mapping[int, ResourceDefinition] = field(hash=False)
    description: str = ""


class Model(Protocol):
    """Definitions as they hold for one device, or at large."""

    def definition(self, object_id: int) -> ObjectDefinition | None:
        """Return the object's definition, None when unknown."""
        ...

    def resource(self, path: Path) -> ResourceDefinition | None:
        """Return the definition behind a resource or resource instance path, None when unknown."""
        ...


class ObjectRegistry:
    """All known definitions; a Model in which the newest version of each object counts."""

    def __init__(self, definitions: Iterable[ObjectDefinition] = ()) -> None:
        self._versions: dict[int, dict[str, ObjectDefinition]] = {}
        for definition in definitions:
            self._versions.setdefault(definition.id, {})[definition.version] = definition

    @cached_property
    def _newest(self) -> dict[int, ObjectDefinition]:
        return {number: max(found.values(), key=_order) for number, found in self._versions.items()}

    def get(self, object_id: int, version: str | None = None) -> ObjectDefinition | None:
        """Find this version, else the nearest older of the same major, else the nearest newer, else any.

        Minor versions only add optional resources (Core TS 7.2.2), so an older minor describes what both
        know.
        """
        found = self._versions.get(object_id)
        if found is None:
            return None
        if version is None:
            return self._newest[object_id]
        if version in found:
            return found[version]
        wanted = _numbers(version)
        older = [d for d in found.values() if _order(d)[0] == wanted[0] and _order(d) < wanted]
        if older:
            return max(older, key=_order)
        newer = [d for d in found.values() if _order(d) > wanted]
        return min(newer, key=_order) if newer else self._newest[object_id]

    def definition(self, object_id: int) -> ObjectDefinition | None:
        """Return the newest definition of an object."""
        return self._newest.get(object_id)

    def resource(self, path: Path) -> ResourceDefinition | None:
        """Return a resource of the newest definition."""
        return _resource(self, path)

    def definitions(self) -> tuple[ObjectDefinition, ...]:
        """Return every version of every object, ascending by id and version."""
        every = (definition for found in self._versions.values() for definition in found.values())
        return tuple(sorted(every, key=lambda definition: (definition.id, _order(definition))))

    def overlaid(self, definitions: Iterable[ObjectDefinition]) -> "ObjectRegistry":
        """Return a registry in which these add to or replace the present ones of the same id and version."""
        return ObjectRegistry([*self.definitions(), *definitions])

    def for_device(self, objects: ObjectList, lwm2m_version: str) -> Model:
        """Return one device's view: the versions that it registered, else its LwM2M version's defaults."""
        named = {entry.id: entry.version for entry in objects.objects if entry.version is not None}
        return _DeviceModel(self, named, lwm2m_version)


class _DeviceModel:
    def __init__(self, registry: ObjectRegistry, named: Mapping[int, str], lwm2m_version: str) -> None:
        self._registry = registry
        self._named = named
        self._lwm2m_version = lwm2m_version

    def definition(self, object_id: int) -> ObjectDefinition | None:
        version = self._named.get(object_id) or default_object_version(self._lwm2m_version, object_id)
        return self._registry.get(object_id, version)

    def resource(self, path: Path) -> ResourceDefinition | None:
        # Without a version devices mean a minimum more often than the truth ("trust the actual resources over
        # it"): a resource that only a newer version defines is looked up there.
        return _resource(self, path) or self._registry.resource(path)


def frozen_resources(resources: Iterable[ResourceDefinition]) -> Mapping[int, ResourceDefinition]:
    """Return resources as the read-only mapping that ObjectDefinition holds."""
    return MappingProxyType(
        {resource.id: resource for resource in sorted(resources, key=lambda each: each.id)}
    )


_RANGE = re.compile(
    r"(?P<low>-?\d+(?:\.\d+)?)\s*(?:\.{2,3}|-|\u2013)\s*(?P<high>-?\d+(?:\.\d+)?)\s*(?:bytes?)?\Z",
    re.IGNORECASE,
)
_EXACT_BYTES = re.compile(r"(?P<size>\d+)\s*bytes?\Z", re.IGNORECASE)


def parse_range(text: str) -> Range | None:
    """Read "0..7", "0-7", "-1..1", "0.0..1.0", "0..255 bytes" or "16 bytes"; None for anything else."""
    text = text.strip()
    if len(text) > 64:
        return None
    if (match := _RANGE.match(text)) is not None:
        low, high = float(match["low"]), float(match["high"])
        return Range(low, high) if low <= high else None
    if (match := _EXACT_BYTES.match(text)) is not None:
        return Range(float(match["size"]), float(match["size"]))
    return None


def _resource(model: Model, path: Path) -> ResourceDefinition | None:
    if path.object is None or path.resource is None:
        return None
    definition = model.definition(path.object)
    return definition.resources.get(path.resource) if definition is not None else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))


def _order(definition: ObjectDefinition) -> tuple[int, ...]:
    return _numbers(definition.version)
