"""OMA TLV (Core TS 7.4.5; content format 11542, formerly 1542).

An entry is a type byte (kind, width of the id, width of the length), an id, a length and a value. Entries
nest at most three deep (object instance, multiple resource, resource instance), so there is no recursion;
their number is bounded.
"""

import math
import struct
from collections.abc import Iterable, Iterator
from itertools import groupby

from lwm2m_server.lwm2m.model import Model, ResourceDefinition, ResourceType
from lwm2m_server.lwm2m.paths import MAX_ID, Path
from lwm2m_server.lwm2m.values import MAX_NODES, CodecError, Node, ObjectLink, Value, fit

_INSTANCE, _RESOURCE_INSTANCE, _MULTIPLE, _RESOURCE = range(4)
_KINDS = ("an object instance", "a resource instance", "a multiple resource", "a resource")

_Leaf = tuple[tuple[int, ...], bytes]


def decode_tlv(
    payload: bytes, path: Path, model: Model | None = None, *, strict: bool = False
) -> tuple[Node, ...]:
    """Read the entries of `path` (object and below) as leaves; raises CodecError.

    Without a definition a value stays bytes: TLV doesn't say types.
    """
    nodes: list[Node] = []
    for ids, value in _leaves(payload, path):
        leaf = Path(ids)
        if not path.contains(leaf):
            raise CodecError(f"The TLV holds {leaf}, which is outside of {path}", field=str(path))
        definition = model.resource(leaf) if model is not None else None
        nodes.append(Node(leaf, _value(leaf, value, definition, strict=strict)))
        if len(nodes) > MAX_NODES:
            raise CodecError(f"The TLV holds more than {MAX_NODES} values", field=str(path))
    return tuple(nodes)


def encode_tlv(path: Path, nodes: Iterable[Node], model: Model | None = None) -> bytes:
    """Write leaves at or below `path` as entries, in ascending order of their paths; raises CodecError."""
    if path.depth == 0:
        raise CodecError(
            "TLV can't hold several objects", field="/", hint="Use SenML for composite operations"
        )
    ordered = sorted(nodes, key=lambda node: node.path.ids)
    for node in ordered:
        if not path.contains(node.path) or node.path.depth < 3:
            raise CodecError(f"{node.path} is not a resource within {path}", field=str(node.path))
    if path.depth == 1:
        return b"".join(
            _entry(_INSTANCE, instance, _resources(members, model))
            for instance, members in groupby(ordered, key=lambda node: node.path.ids[1])
        )
    if path.depth == 4:
        return b"".join(_entry(_RESOURCE_INSTANCE, node.path.ids[3], _bytes(node, model)) for node in ordered)
    return _resources(ordered, model)


def wrap_instance(instance: int, resources: bytes) -> bytes:
    """Put an instance's encoded resources under its id, as a Create that wants this id needs it."""
    return _entry(_INSTANCE, instance, resources)


def _leaves(payload: bytes, path: Path) -> Iterator[_Leaf]:
    # An entry of the top level says by its kind how much of the path it repeats.
    for kind, number, value in _entries(payload, path):
        if kind == _INSTANCE:
            base = path.ids[:1]
            if len(base) != 1 or path.depth > 2:
                raise _misplaced(kind, path)
            for inner_kind, inner, inner_value in _entries(value, path):
                yield from _resource((*base, number), inner_kind, inner, inner_value, path)
        elif kind == _RESOURCE_INSTANCE:
            if path.depth < 3:
                raise _misplaced(kind, path)
            yield (*path.ids[:3], number), value
        else:
            # Devices with a single-instance object may leave its instance 0 out when the object is read.
            base = path.ids[:2] if path.depth >= 2 else (*path.ids[:1], 0)
            if path.depth == 0:
                raise _misplaced(kind, path)
            yield from _resource(base, kind, number, value, path)


def _resource(base: tuple[int, ...], kind: int, number: int, value: bytes, path: Path) -> Iterator[_Leaf]:
    if kind == _RESOURCE:
        # A single value answers a read of a resource instance too.
        instance = path.ids[3:] if path.ids[2:3] == (number,) else ()
        yield (*base, number, *instance), value
    elif kind == _MULTIPLE:
        for inner_kind, inner, inner_value in _entries(value, path):
            if inner_kind != _RESOURCE_INSTANCE:
                raise _misplaced(inner_kind, path)
            yield (*base, number, inner), inner_value
    else:
        raise _misplaced(kind, path)


def _entries(data: bytes, path: Path) -> Iterator[tuple[int, int, bytes]]:
    position, end = 0, len(data)
    while position < end:
        head = data[position]
        id_width = 2 if head & 0x20 else 1
        length_width = head >> 3 & 3
        start = position + 1 + id_width + length_width
        number = int.from_bytes(data[position + 1 : position + 1 + id_width])
        length = int.from_bytes(data[position + 1 + id_width : start]) if length_width else head & 7
        if start + length > end:
            raise CodecError(
                f"The TLV entry at byte {position} wants {start + length - end} bytes more than there are",
                field=str(path),
            )
        if number > MAX_ID:
            raise CodecError(f"The TLV entry at byte {position} has the id {number}", field=str(path))
        yield head >> 6, number, data[start : start + length]
        position = start + length


def _value(path: Path, data: bytes, definition: ResourceDefinition | None, *, strict: bool) -> Value:
    if definition is None:
        return data
    try:
        value = _typed(data, definition.type)
    except ValueError as error:
        if strict:
            raise CodecError(
                f"{path} ({definition.name}) can't take the value: {error}", field=str(path)
            ) from None
        return data  # what the device meant is for people to see
    return fit(path, value, definition, strict=strict)


def _typed(data: bytes, kind: ResourceType) -> Value:
    match kind:
        case ResourceType.STRING | ResourceType.CORELNK:
            return data.decode()
        case ResourceType.INTEGER | ResourceType.TIME if 1 <= len(data) <= 8:
            return int.from_bytes(data, signed=True)
        case ResourceType.UNSIGNED if 1 <= len(data) <= 8:
            return int.from_bytes(data)
        case ResourceType.FLOAT if len(data) in {4, 8}:
            number: float = struct.unpack(">f" if len(data) == 4 else ">d", data)[0]
            if not math.isfinite(number):
                raise ValueError(f"{number} is no value")
            return number
        case ResourceType.BOOLEAN if data in {b"\0", b"\1"}:
            return data == b"\1"
        case ResourceType.OBJLNK:
            return ObjectLink.from_bytes(data)
        case ResourceType.OPAQUE | ResourceType.NONE:
            return data
        case _:
            raise ValueError(f"{len(data)} bytes are no {kind.value}")


def _resources(nodes: Iterable[Node], model: Model | None) -> bytes:
    parts = []
    for number, group in groupby(nodes, key=lambda node: node.path.ids[2]):
        members = list(group)
        if members[0].path.depth == 3:
            if len(members) > 1:
                raise CodecError(f"{members[0].path} has more than one value", field=str(members[0].path))
            parts.append(_entry(_RESOURCE, number, _bytes(members[0], model)))
        else:
            inner = (_entry(_RESOURCE_INSTANCE, node.path.ids[3], _bytes(node, model)) for node in members)
            parts.append(_entry(_MULTIPLE, number, b"".join(inner)))
    return b"".join(parts)


def _entry(kind: int, number: int, value: bytes) -> bytes:
    length = len(value)
    if length >= 1 << 24:
        raise CodecError(f"A value of {length} bytes does not fit a TLV", hint="Values have less than 16 MiB")
    length_width = 0 if length < 8 else 1 if length < 256 else 2 if length < 65536 else 3
    head = (
        kind << 6 | (0x20 if number > 255 else 0) | length_width << 3 | (length if length_width == 0 else 0)
    )
    return (
        bytes((head,))
        + number.to_bytes(2 if number > 255 else 1)
        + (length.to_bytes(length_width) if length_width else b"")
        + value
    )


def _bytes(node: Node, model: Model | None) -> bytes:
    definition = model.resource(node.path) if model is not None else None
    kind = definition.type if definition is not None else None
    value = fit(node.path, node.value, definition, strict=True)
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, ObjectLink):
        return bytes(value)
    if isinstance(value, bool):
        return b"\1" if value else b"\0"
    if isinstance(value, float) and kind is ResourceType.TIME:
        value = int(value)  # TLV times have whole seconds
    if isinstance(value, float):
        return struct.pack(">d", value)
    return _integer(value, node.path, signed=kind is not ResourceType.UNSIGNED)


def _integer(value: int, path: Path, *, signed: bool) -> bytes:
    for width in (1, 2, 4, 8):
        try:
            return value.to_bytes(width, signed=signed)
        except OverflowError:
            continue
    raise CodecError(f"{value} does not fit 64 bits", field=str(path))


def _misplaced(kind: int, path: Path) -> CodecError:
    return CodecError(f"The TLV holds {_KINDS[kind]} where {path} can't have one", field=str(path))
