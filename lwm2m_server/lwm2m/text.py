"""text/plain values (Core TS 7.4.2): numbers in ASCII, Boolean 0 or 1, Opaque in base64, Objlnk as 3:0."""

import base64
import math
import re
from decimal import Decimal

from lwm2m_server.lwm2m.model import ResourceDefinition, ResourceType
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import CodecError, ObjectLink, Value, fit, from_base64

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}\Z")
_FLOAT = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?\Z")
_BOOLEANS = {"0": False, "1": True, "false": False, "true": True}


def decode_text(
    payload: bytes, path: Path, definition: ResourceDefinition | None = None, *, strict: bool = False
) -> Value:
    """Read the one value of a resource.

    Without a definition it is str, or bytes where it isn't UTF-8. What doesn't fit its type is kept as that
    too, unless `strict` asks for a CodecError.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        if strict:
            raise CodecError(
                f"{path}: the text is not UTF-8 at byte {error.start}", field=str(path)
            ) from None
        return payload
    if definition is None:
        return text
    try:
        value = _typed(text, definition.type)
    except ValueError:
        if strict:
            raise CodecError(
                f"{path} ({definition.name}) can't take {text[:40]!r} as {definition.type.value}",
                field=str(path),
            ) from None
        return payload if definition.type is ResourceType.OPAQUE else text
    return fit(path, value, definition, strict=strict)


def encode_text(value: Value) -> bytes:
    """Write one value."""
    if isinstance(value, bool):
        return b"1" if value else b"0"
    if isinstance(value, bytes):
        return base64.b64encode(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CodecError(f"{value} is not a number that can be sent")
        # Positional notation: small devices don't read exponents.
        return (repr(value) if "e" not in repr(value) else format(Decimal(repr(value)), "f")).encode()
    return str(value).encode()


def _typed(text: str, kind: ResourceType) -> Value:
    bare = text.strip(" \t\r\n\0")
    match kind:
        case ResourceType.INTEGER | ResourceType.UNSIGNED if _INTEGER.match(bare):
            return int(bare)
        case ResourceType.TIME if _INTEGER.match(bare):
            return int(bare)
        case ResourceType.FLOAT | ResourceType.TIME if _FLOAT.match(bare):
            number = float(bare)
            if not math.isfinite(number):
                raise ValueError(bare)
            return number
        case ResourceType.BOOLEAN if bare in _BOOLEANS:
            return _BOOLEANS[bare]
        case ResourceType.OBJLNK:
            return ObjectLink.parse(bare)
        case ResourceType.OPAQUE:
            return from_base64(bare)
        case ResourceType.STRING | ResourceType.CORELNK | ResourceType.NONE:
            return text
        case _:
            raise ValueError(bare)
