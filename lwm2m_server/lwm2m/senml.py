"""SenML-JSON (110) and SenML-CBOR (112) after RFC 8428, with LwM2M's object links (Core TS 7.4.4).

Records are resolved: base name, base time and base value apply to all that follow them, whatever record they
stand in and in whatever order the members come; the resulting name is normalised to a path. Times below 2^28
are relative to now (RFC 8428, 4.5.3).
"""

import base64
import math
from collections.abc import Iterable, Mapping

from lwm2m_server.lwm2m import cbor
from lwm2m_server.lwm2m.jsontext import load_json, write_json
from lwm2m_server.lwm2m.links import link_path
from lwm2m_server.lwm2m.model import Model
from lwm2m_server.lwm2m.paths import MAX_DEPTH, Path
from lwm2m_server.lwm2m.values import MAX_NODES, CodecError, Node, ObjectLink, Value, fit, from_base64

_RELATIVE_BELOW = float(1 << 28)
_VERSION = 10
_MAX_NAME = 128

# RFC 8428, table 4 (CBOR labels); LwM2M's object link keeps its text label in CBOR.
_LABELS: dict[object, str] = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
_NUMBERS = {name: number for number, name in _LABELS.items()}
_VALUES = ("v", "vs", "vb", "vd", "vlo")


def decode_senml_json(
    payload: bytes, path: Path, model: Model | None = None, *, strict: bool = False, now: float | None = None
) -> tuple[Node, ...]:
    """Read a SenML-JSON pack as leaves at or below `path`; raises CodecError."""
    return _resolve(load_json(payload), path, model, strict=strict, now=now)


def decode_senml_cbor(
    payload: bytes, path: Path, model: Model | None = None, *, strict: bool = False, now: float | None = None
) -> tuple[Node, ...]:
    """Read a SenML-CBOR pack as leaves at or below `path`; raises CodecError."""
    pack = cbor.load(payload)
    if not isinstance(pack, list):
        raise CodecError("SenML is an array of records")
    return _resolve([_named(record) for record in pack[: MAX_NODES + 1]], path, model, strict=strict, now=now)


def encode_senml_json(path: Path, nodes: Iterable[Node], model: Model | None = None) -> bytes:
    """Write leaves at or below `path`, one record each, the base name in the first; raises CodecError."""
    return write_json(_records(path, nodes, model, binary=False))


def encode_senml_cbor(path: Path, nodes: Iterable[Node], model: Model | None = None) -> bytes:
    """Write leaves at or below `path`, one record each, the base name in the first; raises CodecError."""
    return cbor.dump(
        [
            {_NUMBERS.get(name, name): value for name, value in record.items()}
            for record in _records(path, nodes, model, binary=True)
        ]
    )


def _named(record: object) -> object:
    if not isinstance(record, dict):
        return record
    named: dict[object, object] = {}
    for key, value in record.items():
        name = key if isinstance(key, bool | float) else _LABELS.get(key, key)
        if name in named:
            raise CodecError(f"SenML member {name!r} is there twice")
        named[name] = value
    return named


def _resolve(
    pack: object, path: Path, model: Model | None, *, strict: bool, now: float | None
) -> tuple[Node, ...]:
    if not isinstance(pack, list):
        raise CodecError("SenML is an array of records", field=str(path))
    if len(pack) > MAX_NODES:
        raise CodecError(f"SenML with more than {MAX_NODES} records", field=str(path))
    base_name, base_time, base_value = "", 0.0, 0.0
    timed = False
    nodes = []
    for number, record in enumerate(pack):
        if not isinstance(record, dict):
            raise _fault(path, number, "is not a map")
        _check_members(record, path, number)
        base_name = _text(record, "bn", base_name, path, number)
        timed = timed or "bt" in record
        base_time = _number(record, "bt", base_time, path, number)
        base_value = _number(record, "bv", base_value, path, number)
        value = _value(record, base_value, path, number)
        if value is None:
            continue  # bases alone, an empty instance, or a name asked for in a composite read
        leaf = _leaf(base_name + _text(record, "n", "", path, number), path, number)
        time = base_time + _number(record, "t", 0.0, path, number) if timed or "t" in record else None
        if time is not None and now is not None and time < _RELATIVE_BELOW:
            time += now
        definition = model.resource(leaf) if model is not None else None
        nodes.append(Node(leaf, fit(leaf, value, definition, strict=strict), time))
    return tuple(nodes)


def _check_members(record: Mapping[object, object], path: Path, number: int) -> None:
    for name in record:
        # RFC 8428, 4.4: members that end in '_' must be understood.
        if isinstance(name, str) and name.endswith("_"):
            raise _fault(path, number, f"has the unknown member {name[:20]!r}")
    if record.get("bver", _VERSION) != _VERSION:
        raise _fault(path, number, "is of another SenML version")
    if sum(name in record for name in _VALUES) > 1:
        raise _fault(path, number, "has more than one value")


def _leaf(name: str, path: Path, number: int) -> Path:
    leaf = link_path(name) if len(name) <= _MAX_NAME else None
    if leaf is None or leaf.depth < 3:
        raise _fault(path, number, f"has the name {name[:40]!r}, which is no resource")
    if not path.contains(leaf):
        raise _fault(path, number, f"is of {leaf}, which is outside of {path}")
    return leaf


def _value(record: Mapping[str, object], base: float, path: Path, number: int) -> Value | None:
    if "v" in record:
        value = record["v"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise _fault(path, number, "has no number in v")
        return value + base if base else value
    if "vs" in record:
        return _text(record, "vs", "", path, number)
    if "vb" in record:
        flag = record["vb"]
        if not isinstance(flag, bool):
            raise _fault(path, number, "has no boolean in vb")
        return flag
    if "vd" in record:
        return _data(record["vd"], path, number)
    if "vlo" in record:
        try:
            return ObjectLink.parse(_text(record, "vlo", "", path, number))
        except ValueError:
            raise _fault(path, number, "has no object link in vlo") from None
    return None


def _data(value: object, path: Path, number: int) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise _fault(path, number, "has no data in vd")
    try:
        return from_base64(value)
    except ValueError:
        raise _fault(path, number, "has no base64 in vd") from None


def _records(
    path: Path, nodes: Iterable[Node], model: Model | None, *, binary: bool
) -> list[dict[str, object]]:
    # The base is the path itself, or one level up for a resource, so that names are never empty.
    base = path if path.depth < 3 else path.parent
    prefix = "/" if base.depth == 0 else f"{base}/"
    records: list[dict[str, object]] = []
    for node in nodes:
        if not path.contains(node.path) or not 3 <= node.path.depth <= MAX_DEPTH:
            raise CodecError(f"{node.path} is not a resource within {path}", field=str(node.path))
        record: dict[str, object] = {} if records else {"bn": prefix}
        record["n"] = "/".join(map(str, node.path.ids[base.depth :]))
        definition = model.resource(node.path) if model is not None else None
        value = fit(node.path, node.value, definition, strict=True)
        if isinstance(value, bool):
            record["vb"] = value
        elif isinstance(value, str):
            record["vs"] = value
        elif isinstance(value, bytes):
            record["vd"] = value if binary else base64.urlsafe_b64encode(value).rstrip(b"=").decode()
        elif isinstance(value, ObjectLink):
            record["vlo"] = str(value)
        else:
            record["v"] = value
        if node.time is not None:
            record["t"] = node.time
        records.append(record)
    return records


def _text(record: Mapping[str, object], name: str, default: str, path: Path, number: int) -> str:
    value = record.get(name, default)
    if not isinstance(value, str):
        raise _fault(path, number, f"has no text in {name}")
    return value


def _number(record: Mapping[str, object], name: str, default: float, path: Path, number: int) -> float:
    value = record.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
        raise _fault(path, number, f"has no number in {name}")
    return value


def _finite(value: float) -> bool:
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 64
    return math.isfinite(value)


def _fault(path: Path, number: int, what: str) -> CodecError:
    return CodecError(f"SenML record {number} {what}", field=str(path))
