"""Requests of the device management interface (Core TS 6.3, Transport TS 6.4.4) and their answers.

Builders check what is wrong with any device; `check` what the object definition forbids, so that callers may
leave it out for devices that know better.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lwm2m_server.errors import DeviceError, InvalidInput
from lwm2m_server.lwm2m.attributes import Attributes, Discovered, parse_discover
from lwm2m_server.lwm2m.formats import ContentFormat, decode, encode
from lwm2m_server.lwm2m.model import Model, ResourceDefinition, ResourceType
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.tlv import wrap_instance
from lwm2m_server.lwm2m.values import Node

_GET, _POST, _PUT, _DELETE = 1, 2, 3, 4
_CONTINUE = 95
_MAX_ARGUMENTS = 1024
_NUMERIC = frozenset({ResourceType.INTEGER, ResourceType.UNSIGNED, ResourceType.FLOAT})

# Core TS 6.3.5: arglist = arg *("," arg); arg = DIGIT ["=" "'" *CHAR "'"]; CHAR is "!" / %x23-26 / %x28-5B /
# %x5D-7E.
_ARGUMENT = re.compile(r"([0-9])(?:='([!\x23-\x26\x28-\x5b\x5d-\x7e]*)')?(,|\Z)")


@dataclass(frozen=True, slots=True)
class Operation:
    """A request ready for the transport; `leaves` are the resources that a write or create sets.

    `kind` is read, write, execute, discover, write-attributes, observe, create or delete.
    """

    kind: str
    target: Path
    code: int
    path: tuple[str, ...]
    query: tuple[str, ...] = ()
    payload: bytes = b""
    content_format: int | None = None
    accept: int | None = None
    leaves: tuple[Path, ...] = ()


def read(path: Path, *, accept: int | None = None, root: tuple[str, ...] = ()) -> Operation:
    """Read an object, instance, resource or resource instance."""
    _need(path, 1, 4, "Read", "/3, /3/0 or /3/0/9")
    return Operation("read", path, _GET, root + path.segments, accept=accept)


def observe(path: Path, *, accept: int | None = None, root: tuple[str, ...] = ()) -> Operation:
    """Observe an object, instance, resource or resource instance; the transport adds the Observe option."""
    _need(path, 1, 4, "Observe", "/3, /3/0 or /3/0/9")
    return Operation("observe", path, _GET, root + path.segments, accept=accept)


def discover(path: Path, *, root: tuple[str, ...] = ()) -> Operation:
    """Discover what an object, instance or resource has, and its attributes."""
    _need(path, 1, 3, "Discover", "/3, /3/0 or /3/0/9")
    return Operation("discover", path, _GET, root + path.segments, accept=int(ContentFormat.LINK_FORMAT))


def write(
    path: Path,
    nodes: Iterable[Node],
    content_format: int,
    *,
    replace: bool = True,
    model: Model | None = None,
    root: tuple[str, ...] = (),
) -> Operation:
    """Write values at or below `path`: replacing what is there (PUT), or only what is named (POST).

    Raises InvalidInput (CodecError for values that their types or the format don't take).
    """
    _need(path, 2, 4 if replace else 3, "Write", "/1/0 or /1/0/1")
    members = tuple(nodes)
    payload = encode(content_format, path, members, model)
    return Operation(
        "write",
        path,
        _PUT if replace else _POST,
        root + path.segments,
        payload=payload,
        content_format=int(content_format),
        leaves=tuple(node.path for node in members),
    )


def execute(path: Path, arguments: str = "", *, root: tuple[str, ...] = ()) -> Operation:
    """Execute a resource with arguments such as `0='text',1` (some devices refuse any: rather send none)."""
    _need(path, 3, 3, "Execute", "/5/0/2")
    parse_arguments(arguments)
    return Operation(
        "execute",
        path,
        _POST,
        root + path.segments,
        payload=arguments.encode(),
        content_format=int(ContentFormat.TEXT) if arguments else None,
    )


def write_attributes(path: Path, attributes: Attributes, *, root: tuple[str, ...] = ()) -> Operation:
    """Write notification attributes to an object, instance, resource or resource instance."""
    _need(path, 1, 4, "Write-Attributes", "/3303/0/5700")
    if attributes.has_thresholds and path.depth < 3:
        raise InvalidInput(
            f"gt, lt and st are for resources, {path} is none",
            field="path",
            hint="Write them to a numeric resource, such as /3303/0/5700",
        )
    return Operation("write-attributes", path, _PUT, root + path.segments, query=attributes.query())


def create(
    path: Path,
    nodes: Iterable[Node],
    content_format: int,
    *,
    model: Model | None = None,
    root: tuple[str, ...] = (),
) -> Operation:
    """Create an instance: `path` is the object (the device picks the id) or the instance that is wanted.

    Nodes lie below the wanted instance; below instance 0 where the device picks. Raises InvalidInput.
    """
    _need(path, 1, 2, "Create", "/9 or /9/1")
    members = tuple(nodes)
    target = Path(path.ids[:1])
    tlv = content_format in {ContentFormat.TLV, ContentFormat.LEGACY_TLV}
    if not tlv and (path.depth == 1 or not members):
        raise InvalidInput(
            "Only TLV can create an instance without an id or without resources",
            field="path",
            hint=f"Name the instance, such as {target}/1, and at least one resource",
        )
    if tlv:
        payload = encode(content_format, path if path.depth == 2 else path.child(0), members, model)
        if path.instance is not None:
            payload = wrap_instance(path.instance, payload)
    else:
        payload = encode(content_format, path, members, model)
    return Operation(
        "create",
        path,
        _POST,
        root + target.segments,
        payload=payload,
        content_format=int(content_format),
        leaves=tuple(node.path for node in members),
    )


def delete(path: Path, *, root: tuple[str, ...] = ()) -> Operation:
    """Delete an instance, or a resource instance (LwM2M 1.2)."""
    if path.depth != 4:
        _need(path, 2, 2, "Delete", "/9/1")
    return Operation("delete", path, _DELETE, root + path.segments)


def parse_arguments(text: str) -> tuple[tuple[int, str | None], ...]:
    """Split the arguments of an Execute into (digit, value or None); raises InvalidInput."""
    arguments = []
    position = 0
    if len(text) > _MAX_ARGUMENTS:
        raise InvalidInput(f"The arguments have more than {_MAX_ARGUMENTS} characters", field="arguments")
    while position < len(text):
        match = _ARGUMENT.match(text, position)
        if match is None or (match[3] == "," and match.end() == len(text)):
            raise InvalidInput(
                f"The arguments break at character {position}: {text[position : position + 20]!r}",
                field="arguments",
                hint="Write digits with or without a value, such as 0='text',1, and no blanks",
            )
        arguments.append((int(match[1]), match[2]))
        position = match.end()
    return tuple(arguments)


def check(operation: Operation, model: Model) -> None:
    """Refuse what the object definition forbids; raises InvalidInput (field = path). Unknown objects pass."""
    path = operation.target
    resource = model.resource(path)
    match operation.kind:
        case "read" | "observe" if resource is not None and not resource.readable:
            raise _forbidden(
                path, resource, "read", "Execute it" if resource.executable else "It can only be written"
            )
        case "execute" if resource is not None and not resource.executable:
            raise _forbidden(path, resource, "executed", "Read or write it")
        case "write" | "create":
            _check_leaves(operation, model)
        case "write-attributes" if resource is not None and any(
            query.partition("=")[0] in {"gt", "lt", "st"} for query in operation.query
        ):
            if resource.type not in _NUMERIC:
                raise _forbidden(path, resource, "given gt, lt or st", "They are for numbers only")
        case _:
            pass
    if path.resource is not None and resource is None and model.definition(path.ids[0]) is not None:
        definition = model.definition(path.ids[0])
        name = definition.name if definition is not None else ""
        raise InvalidInput(
            f"Object {path.object} ({name}) has no resource {path.resource}",
            field=str(path),
            hint="Discover the device's resources, or load the object's newer definition",
        )


def expect(operation: Operation, code: int, payload: bytes = b"") -> None:
    """Raise DeviceError when an answer is no success; every 2.xx is (Awa says 2.00), except 2.31."""
    if 64 <= code < 96 and code != _CONTINUE:
        return
    dotted = f"{code >> 5}.{code & 31:02d}"
    diagnostic = "".join(
        char for char in payload[:200].decode(errors="replace") if char.isprintable()
    ).strip()
    raise DeviceError(
        f"The device answered {dotted}{_MEANING.get(code, '')} to {operation.kind} {operation.target}"
        + (f": {diagnostic}" if diagnostic else ""),
        code=dotted,
        field=str(operation.target),
        hint=_HINTS.get(code),
    )


def nodes_of(
    operation: Operation,
    code: int,
    content_format: int | None,
    payload: bytes,
    model: Model | None = None,
    *,
    now: float | None = None,
) -> tuple[Node, ...]:
    """Interpret the answer to a Read or Observe, or a notification; raises DeviceError or CodecError."""
    expect(operation, code, payload)
    return decode(content_format, payload, operation.target, model, now=now)


def discovered_of(
    operation: Operation, code: int, payload: bytes, root: tuple[str, ...] = ()
) -> tuple[Discovered, ...]:
    """Interpret the answer to a Discover; raises DeviceError, or InvalidInput when it isn't link format."""
    expect(operation, code, payload)
    return parse_discover(payload, root)


_MEANING = {
    128: " (bad request)",
    129: " (unauthorized)",
    132: " (not found)",
    133: " (method not allowed)",
    134: " (not acceptable)",
    136: " (request entity incomplete)",
    141: " (request entity too large)",
    143: " (unsupported content format)",
    160: " (internal server error)",
    161: " (not implemented)",
    163: " (service unavailable)",
}
_HINTS = {
    128: "Check the value and its type",
    129: "The device's access control forbids it to this server",
    132: "Discover what the device has",
    133: "The resource doesn't allow it, or not in the device's present state",
    134: "Ask for another content format",
    141: "Send less, or let the device fetch it",
    143: "Send another content format",
    161: "The device doesn't implement the operation",
    163: "The device is busy; try again later",
}


def _check_leaves(operation: Operation, model: Model) -> None:
    definition = model.definition(operation.target.ids[0])
    single = definition is not None and not definition.multiple
    if operation.kind == "create" and single and operation.target.instance not in {None, 0}:
        raise InvalidInput(
            f"Object {operation.target.object} has one instance at most, and that is 0",
            field=str(operation.target),
            hint=f"Create /{operation.target.object}/0",
        )
    for leaf in operation.leaves:
        resource = model.resource(leaf)
        if resource is None:
            continue
        # Create sets read-only resources too (Core TS 6.3.6); execute has no value in any case.
        if resource.executable or (operation.kind == "write" and not resource.writable):
            hint = "Execute it" if resource.executable else "It can only be read"
            raise _forbidden(leaf, resource, "written", hint)
        if leaf.depth == 4 and not resource.multiple:
            raise _forbidden(leaf, resource, "given several values", f"Write {leaf.parent}")


def _forbidden(path: Path, resource: ResourceDefinition, what: str, hint: str) -> InvalidInput:
    return InvalidInput(
        f"{path} ({resource.name}) can't be {what}", code="not-allowed", field=str(path), hint=hint
    )


def _need(path: Path, least: int, most: int, what: str, example: str) -> None:
    if not least <= path.depth <= most:
        levels = ("the root", "an object", "an instance", "a resource", "a resource instance")
        raise InvalidInput(
            f"{what} can't go to {levels[path.depth]} ({path})", field="path", hint=f"Write {example}"
        )
