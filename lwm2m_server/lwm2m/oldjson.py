"""LwM2M 1.0 JSON (Core TS 1.0, 6.4.4; content format 11543, formerly 1543).

Decoded only: no device needs it written.
"""

import math
from collections.abc import Mapping

from lwm2m_server.lwm2m.jsontext import load_json
from lwm2m_server.lwm2m.links import link_path
from lwm2m_server.lwm2m.model import Model, ResourceType
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import MAX_NODES, CodecError, Node, ObjectLink, Value, fit, from_base64

_MAX_NAME = 128
_RELATIVE_BELOW = float(1 << 28)


def decode_old_json(
    payload: bytes, path: Path, model: Model | None = None, *, strict: bool = False, now: float | None = None
) -> tuple[Node, ...]:
    """Read `{"bn": …, "bt": …, "e": […]}` as leaves at or below `path`; raises CodecError."""
    document = load_json(payload)
    entries = document.get("e") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(entries, list):
        raise CodecError('LwM2M JSON is an object with an array "e"', field=str(path))
    if len(entries) > MAX_NODES:
        raise CodecError(f"LwM2M JSON with more than {MAX_NODES} entries", field=str(path))
    base = document.get("bn", str(path))
    base_time = document.get("bt")
    nodes = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(base, str):
            raise CodecError(f"LwM2M JSON entry {number} is malformed", field=str(path))
        leaf = _leaf(base, entry.get("n", ""), path, number)
        definition = model.resource(leaf) if model is not None else None
        value = _value(entry, path, number)
        if isinstance(value, str) and definition is not None and definition.type is ResourceType.OPAQUE:
            value = _opaque(value, path, number)
        time = _time(base_time, entry.get("t"), path, number)
        if time is not None and now is not None and time < _RELATIVE_BELOW:
            time += now
        nodes.append(Node(leaf, fit(leaf, value, definition, strict=strict), time))
    return tuple(nodes)


def _leaf(base: str, name: object, path: Path, number: int) -> Path:
    if not isinstance(name, str) or len(base) + len(name) > _MAX_NAME:
        raise CodecError(f"LwM2M JSON entry {number} has no usable name", field=str(path))
    # Names are relative to the base; the slash between them is often missing.
    leaf = link_path(f"{base}/{name}")
    if leaf is None or leaf.depth < 3 or not path.contains(leaf):
        raise CodecError(
            f"LwM2M JSON entry {number} is of {(base + name)[:40]!r}, which is no resource within {path}",
            field=str(path),
        )
    return leaf


def _value(entry: Mapping[str, object], path: Path, number: int) -> Value:
    match entry:
        case {"v": bool()}:
            pass
        case {"v": int(value)} if -(1 << 63) <= value < 1 << 64:
            return value
        case {"v": float(value)} if math.isfinite(value):
            return value
        case {"bv": bool(flag)}:
            return flag
        case {"sv": str(text)}:
            return text
        case {"ov": str(text)}:
            try:
                return ObjectLink.parse(text)
            except ValueError:
                pass
        case _:
            pass
    raise CodecError(f"LwM2M JSON entry {number} has no usable value", field=str(path))


def _opaque(text: str, path: Path, number: int) -> bytes:
    try:
        return from_base64(text)
    except ValueError:
        raise CodecError(
            f"LwM2M JSON entry {number} has no base64 where bytes belong", field=str(path)
        ) from None


def _time(base: object, own: object, path: Path, number: int) -> float | None:
    if base is None and own is None:
        return None
    total = 0.0
    for part in (base, own):
        if part is None:
            continue
        if isinstance(part, bool) or not isinstance(part, int | float) or not abs(part) < 1e15:
            raise CodecError(f"LwM2M JSON entry {number} has no usable time", field=str(path))
        total += part
    return total
