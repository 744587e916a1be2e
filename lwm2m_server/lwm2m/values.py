"""Values of resources: their types (Core TS appendix C), checks, and the way to and from users' JSON."""

import base64
import binascii
import math
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m.model import ResourceDefinition, ResourceType
from lwm2m_server.lwm2m.paths import Path

MAX_NODES = 16384
_INT64 = (-(1 << 63), (1 << 63) - 1)
_UINT64 = (0, (1 << 64) - 1)


class CodecError(InvalidInput):
    """A payload can't be decoded, or values can't be encoded; nothing was taken from it."""

    code = "malformed-content"


@dataclass(frozen=True, slots=True, order=True)
class ObjectLink:
    """A link to an object instance (type Objlnk); 65535:65535 links to nothing."""

    object: int
    instance: int

    @classmethod
    def parse(cls, text: str) -> "ObjectLink":
        """Read "3:0"; raises ValueError."""
        left, colon, right = text.partition(":")
        if not (colon and _is_id(left) and _is_id(right)):
            raise ValueError(text[:20])
        return cls(int(left), int(right))

    @classmethod
    def from_bytes(cls, data: bytes) -> "ObjectLink":
        """Read two 16-bit numbers, big endian; raises ValueError."""
        if len(data) != 4:
            raise ValueError(f"{len(data)} bytes")
        return cls(int.from_bytes(data[:2]), int.from_bytes(data[2:]))

    def __bytes__(self) -> bytes:
        return self.object.to_bytes(2) + self.instance.to_bytes(2)

    def __str__(self) -> str:
        return f"{self.object}:{self.instance}"


# Time is seconds since the epoch (int; float where a format has fractions), Corelnk is str.
Value = bool | int | float | str | bytes | ObjectLink


class Node(NamedTuple):
    """A leaf: the value of a resource (three ids) or resource instance (four ids).

    `time` is in seconds since the epoch, None when the format gave none (the time of the message).
    """

    path: Path
    value: Value
    time: float | None = None


def conform(value: Value, kind: ResourceType) -> Value:
    """Turn a decoded value into the resource's type where nothing is lost; raises ValueError with the reason.

    Formats say less than definitions: a CBOR 1 may be a Float, a SenML string an object link.
    """
    match kind:
        case ResourceType.STRING | ResourceType.CORELNK if isinstance(value, str):
            return value
        case ResourceType.OPAQUE if isinstance(value, bytes):
            return value
        case ResourceType.BOOLEAN if isinstance(value, bool):
            return value
        case ResourceType.BOOLEAN if value in (0, 1):
            return bool(value)
        case ResourceType.OBJLNK if isinstance(value, ObjectLink):
            return value
        case ResourceType.OBJLNK if isinstance(value, str):
            return ObjectLink.parse(value)
        case ResourceType.FLOAT if _is_number(value):
            return _finite(value)
        case ResourceType.INTEGER | ResourceType.UNSIGNED if _is_number(value):
            return _whole(value, _UINT64 if kind is ResourceType.UNSIGNED else _INT64)
        case ResourceType.TIME if _is_number(value):
            seconds = _finite(value)
            return seconds if seconds % 1 else _whole(value, _INT64)
        case _:
            raise ValueError(f"{_shown(value)} is not of type {kind.value or 'none (executable)'}")


def check_range(value: Value, definition: ResourceDefinition) -> None:
    """Hold a value against the definition's range; raises ValueError with the reason."""
    limits = definition.limits
    if limits is None:
        return
    if isinstance(value, str | bytes):
        size = len(value.encode() if isinstance(value, str) else value)
        if not limits.holds(size):
            raise ValueError(f"it has {size} bytes, allowed are {definition.range.strip()}")
    elif isinstance(value, int | float) and not limits.holds(value):
        raise ValueError(f"{value} is out of range, allowed is {definition.range.strip()}")


def from_json(value: object, definition: ResourceDefinition | None, path: Path) -> Value:
    """Turn a user's JSON into a resource's value: Opaque is base64 (or bytes), Objlnk "3:0", Time seconds.

    Without a definition the JSON type decides. Raises InvalidInput whose `field` is the path.
    """
    try:
        taken = _from_json(value, definition)
        if definition is not None:
            check_range(taken, definition)
    except ValueError as error:
        name = f" ({definition.name})" if definition is not None else ""
        raise InvalidInput(
            f"{path}{name} can't take {_shown(value)}: {error}", field=str(path), hint=_json_hint(definition)
        ) from None
    return taken


def from_base64(text: str) -> bytes:
    """Read base64 of either alphabet, padded or not (devices send all of them); raises ValueError."""
    body = text.rstrip("=").translate(_URL_ALPHABET)
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"it is not base64: {error}") from None


_URL_ALPHABET = str.maketrans("-_", "+/")


def to_json(value: Value) -> bool | int | float | str:
    """Turn a value into JSON: bytes as base64, object links as "3:0"."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, ObjectLink) else value


def _from_json(value: object, definition: ResourceDefinition | None) -> Value:
    if not isinstance(value, str | bool | int | float | bytes):
        raise ValueError("only a string, a number, true or false is a value")  # noqa: TRY004  one error kind
    kind = definition.type if definition is not None else None
    if kind is None:
        return _finite(value) if isinstance(value, float) else value
    if kind is ResourceType.OPAQUE and isinstance(value, str):
        return from_base64(value)
    if isinstance(value, bool) and kind is not ResourceType.BOOLEAN:
        raise ValueError("a boolean is no value for it")
    if kind is ResourceType.BOOLEAN and not isinstance(value, bool):
        raise ValueError("only true or false is a value for it")
    return conform(value, kind)


_HINTS = {
    ResourceType.STRING: 'Give a string, such as "text"',
    ResourceType.CORELNK: 'Give links as a string, such as "</3/0>"',
    ResourceType.INTEGER: "Give a whole number of 64 bits",
    ResourceType.UNSIGNED: "Give a whole number from 0 to 2^64-1",
    ResourceType.FLOAT: "Give a number",
    ResourceType.BOOLEAN: "Give true or false",
    ResourceType.OPAQUE: 'Give bytes in base64, such as "AP8="',
    ResourceType.TIME: "Give seconds since 1970-01-01T00:00:00Z",
    ResourceType.OBJLNK: 'Give object:instance, such as "3:0"',
    ResourceType.NONE: "It is executable: use execute",
}


def _json_hint(definition: ResourceDefinition | None) -> str:
    if definition is None:
        return "Give a string, a number, true or false"
    limits = f" within {definition.range.strip()}" if definition.limits is not None else ""
    return _HINTS[definition.type] + limits


def _whole(value: float, bounds: tuple[int, int]) -> int:
    try:
        number = int(value)
    except (OverflowError, ValueError):
        raise ValueError(f"{value} is not a number") from None
    if number != value:
        raise ValueError(f"{value} is not a whole number")
    if not bounds[0] <= number <= bounds[1]:
        raise ValueError(f"{number} does not fit 64 bits" if number > 0 else f"{number} is too small")
    return number


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("the number is too large") from None
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a number that can be sent")
    return number


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _is_id(text: str) -> bool:
    return len(text) <= 5 and text.isascii() and text.isdecimal() and int(text) <= 0xFFFF


def fit(path: Path, value: Value, definition: ResourceDefinition | None, *, strict: bool) -> Value:
    """Give a decoded value its resource's type.

    Strict (a device taking a write) raises CodecError when type or range don't fit; otherwise (a server
    reading what a device says) the value stays as the format gave it.
    """
    if definition is None:
        return value
    try:
        typed = conform(value, definition.type)
        if strict:
            check_range(typed, definition)
    except ValueError as error:
        if strict:
            raise CodecError(
                f"{path} ({definition.name}) can't take the value: {error}", field=str(path)
            ) from None
        return value
    return typed
