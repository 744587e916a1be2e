"""Object definitions from DDF XML, the shape of OMA's LWM2M.xsd (Core TS appendix D).

The files come from users, so the XML is hostile: document types and entities are refused before anything
expands, size, depth and counts are bounded. Every error names file, line and element, and the way out.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from xml.parsers import expat

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m.model import (
    ObjectDefinition,
    ObjectRegistry,
    ResourceDefinition,
    ResourceType,
    frozen_resources,
)
from lwm2m_server.lwm2m.paths import MAX_ID

MAX_FILE_BYTES = 1 << 20
MAX_FILES = 4096
_MAX_ELEMENTS = 65536
_MAX_DEPTH = 12

_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\Z")
_FLAGS = {"Single": False, "Multiple": True, "Mandatory": True, "Optional": False}
_OPERATIONS = frozenset({"", "R", "W", "RW", "E"})


@dataclass(slots=True)
class _Element:
    name: str
    line: int
    attributes: dict[str, str]
    children: "list[_Element]" = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.parts).split())


def load_file(file: FilePath) -> tuple[ObjectDefinition, ...]:
    """Read the object definitions of one file; raises InvalidInput (field = file:line)."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            f"{file} can't be read: {error.strerror or error}",
            field=str(file),
            hint="Check the file's name and rights",
        ) from error
    return parse_ddf(data, str(file))


def load_folder(folder: FilePath) -> ObjectRegistry:
    """Read every *.xml of a folder; two different definitions of one object version are refused."""
    return ObjectRegistry(_load_definitions(folder))


def load_registry(builtin: FilePath, user: FilePath | None = None) -> ObjectRegistry:
    """Read our own definitions, then the user's, which add to them or replace the same object and version."""
    registry = load_folder(builtin)
    return registry if user is None else registry.overlaid(_load_definitions(user))


def parse_ddf(data: bytes, source: str) -> tuple[ObjectDefinition, ...]:
    """Read the definitions in `data`; raises InvalidInput (field = source:line).

    `source` names the file in errors.
    """
    if len(data) > MAX_FILE_BYTES:
        raise _fault(
            source, 1, f"the file is larger than {MAX_FILE_BYTES} bytes", "Object definitions are far smaller"
        )
    root = _parse_xml(data, source)
    if root.name != "LWM2M":
        raise _fault(
            source,
            root.line,
            f"<{root.name}> is not an object definition",
            "The first element must be <LWM2M>; move other files out of the folder",
        )
    objects = [child for child in root.children if child.name == "Object"]
    if not objects:
        raise _fault(
            source, root.line, "<LWM2M> has no <Object>", "Add an <Object ObjectType='MODefinition'>"
        )
    return tuple(_object(element, source) for element in objects)


def _load_definitions(folder: FilePath) -> list[ObjectDefinition]:
    if not folder.is_dir():
        raise InvalidInput(
            f"{folder} is not a folder",
            field=str(folder),
            hint="Name a folder that holds object definitions (*.xml)",
        )
    files = sorted(folder.glob("*.xml"))
    if len(files) > MAX_FILES:
        raise InvalidInput(
            f"{folder} has {len(files)} files; at most {MAX_FILES} are read", field=str(folder)
        )
    found: dict[tuple[int, str], tuple[ObjectDefinition, FilePath]] = {}
    for file in files:
        for definition in load_file(file):
            key = (definition.id, definition.version)
            known = found.setdefault(key, (definition, file))
            if known[0] != definition:
                raise InvalidInput(
                    f"{file} and {known[1]} define object {key[0]} version {key[1]} differently",
                    field=str(file),
                    hint="Keep one of the two files, or give one of them another <ObjectVersion>",
                )
    return [definition for definition, _ in found.values()]


class _Builder:
    """Collects expat's events into elements, within bounds."""

    def __init__(self, source: str, parser: expat.XMLParserType) -> None:
        self.root: _Element | None = None
        self._source = source
        self._parser = parser
        self._open: list[_Element] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        line = self._parser.CurrentLineNumber
        self._count += 1
        if self._count > _MAX_ELEMENTS or len(self._open) >= _MAX_DEPTH:
            raise _fault(self._source, line, f"<{name}> is one too many or too deep", "Split the file")
        element = _Element(name, line, attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, _name: str) -> None:
        self._open.pop()

    def text(self, data: str) -> None:
        if self._open:
            self._open[-1].parts.append(data)

    def refuse(self, *_: object) -> None:
        raise _fault(
            self._source,
            self._parser.CurrentLineNumber,
            "document types and entities are not taken",
            "Remove the <!DOCTYPE …> from the file",
        )


def _parse_xml(data: bytes, source: str) -> _Element:
    parser = expat.ParserCreate()
    builder = _Builder(source, parser)
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.EntityDeclHandler = builder.refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise _fault(
            source, error.lineno, f"not well-formed XML: {reason}", "Correct the line and load again"
        ) from None
    except (
        LookupError,
        ValueError,
    ) as error:  # an encoding that Python doesn't have, or that has several bytes
        raise _fault(source, 1, f"unknown encoding: {error}", "Save the file as UTF-8") from None
    if builder.root is None:
        raise _fault(source, 1, "the file is empty", "Write an <LWM2M> element")
    return builder.root


def _object(element: _Element, source: str) -> ObjectDefinition:
    kind = element.attributes.get("ObjectType")
    if kind != "MODefinition":
        raise _fault(
            source,
            element.line,
            f"<Object ObjectType={kind!r}> is not an object definition",
            "ObjectType must be MODefinition; move files of reusable resources out of the folder",
        )
    number = _number(_child(element, "ObjectID", source), _child(element, "ObjectID", source).text, source)
    version = _optional(element, "ObjectVersion", source)
    text = version.text if version is not None else ""
    if text and not _VERSION.match(text):
        line = version.line if version is not None else element.line
        raise _fault(source, line, f"<ObjectVersion> {text!r} is not a version", "Write it like 1.0")
    resources: dict[int, ResourceDefinition] = {}
    for item in _child(element, "Resources", source).children:
        if item.name != "Item":
            raise _fault(source, item.line, f"<{item.name}> stands where only <Item> may", "Remove it")
        resource = _resource(item, source)
        if resource.id in resources:
            raise _fault(
                source, item.line, f"<Item ID='{resource.id}'> is there twice", "Remove one of the two"
            )
        resources[resource.id] = resource
    urn = _optional(element, "ObjectURN", source)
    description = _optional(element, "Description1", source)
    return ObjectDefinition(
        id=number,
        version=text or "1.0",
        name=_required_text(element, "Name", source),
        urn=urn.text if urn is not None else "",
        mandatory=_flag(element, "Mandatory", source),
        multiple=_flag(element, "MultipleInstances", source),
        resources=frozen_resources(resources.values()),
        description=description.text if description is not None else "",
    )


def _resource(item: _Element, source: str) -> ResourceDefinition:
    operations = _child(item, "Operations", source)
    if operations.text not in _OPERATIONS:
        raise _fault(
            source,
            operations.line,
            f"<Operations> {operations.text!r} is unknown",
            "Write R, W, RW, E or nothing",
        )
    kind = _child(item, "Type", source)
    try:
        resource_type = ResourceType(kind.text)
    except ValueError:
        names = ", ".join(each.value for each in ResourceType if each)
        raise _fault(source, kind.line, f"<Type> {kind.text!r} is unknown", f"Write one of {names}") from None

    def text(name: str) -> str:
        element = _optional(item, name, source)
        return element.text if element is not None else ""

    return ResourceDefinition(
        id=_number(item, item.attributes.get("ID", ""), source),
        name=_required_text(item, "Name", source),
        operations=operations.text,
        multiple=_flag(item, "MultipleInstances", source),
        mandatory=_flag(item, "Mandatory", source),
        type=resource_type,
        range=text("RangeEnumeration"),
        units=text("Units"),
        description=text("Description"),
    )


def _optional(element: _Element, name: str, source: str) -> _Element | None:
    found = [child for child in element.children if child.name == name]
    if len(found) > 1:
        raise _fault(
            source, found[1].line, f"<{name}> is there twice in <{element.name}>", "Remove one of the two"
        )
    return found[0] if found else None


def _child(element: _Element, name: str, source: str) -> _Element:
    found = _optional(element, name, source)
    if found is None:
        raise _fault(source, element.line, f"<{element.name}> lacks <{name}>", f"Add <{name}> to it")
    return found


def _required_text(element: _Element, name: str, source: str) -> str:
    found = _child(element, name, source)
    if not found.text:
        raise _fault(source, found.line, f"<{name}> is empty", "Write the name into it")
    return found.text


def _flag(element: _Element, name: str, source: str) -> bool:
    choices = ("Single", "Multiple") if name == "MultipleInstances" else ("Mandatory", "Optional")
    found = _child(element, name, source)
    if found.text not in choices:
        raise _fault(
            source, found.line, f"<{name}> {found.text!r} is unknown", f"Write {choices[0]} or {choices[1]}"
        )
    return _FLAGS[found.text]


def _number(element: _Element, text: str, source: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > MAX_ID:
        raise _fault(
            source,
            element.line,
            f"<{element.name}> has the id {text[:20]!r}",
            f"Ids are whole numbers from 0 to {MAX_ID}",
        )
    return int(text)


def _fault(source: str, line: int, what: str, hint: str) -> InvalidInput:
    return InvalidInput(f"{source}, line {line}: {what}", field=f"{source}:{line}", hint=hint)
