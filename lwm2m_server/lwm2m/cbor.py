"""CBOR from devices (RFC 8949): one item, shallow, no duplicate keys, few tags."""

import io
import math

import cbor2

from lwm2m_server.lwm2m.values import CodecError

# Array, record, and a tag's array within it.
_MAX_DEPTH = 4

# Tags that the library would turn into objects on its own: they would cost memory or time out of proportion.
_LIBRARY_TAGS = (0, 2, 3, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)


def load(payload: bytes) -> object:
    """Read one CBOR item that fills the payload; raises CodecError."""
    stream = io.BytesIO(payload)
    try:
        value: object = cbor2.CBORDecoder(
            stream,
            tag_hook=_refuse,
            semantic_decoders=_SEMANTICS,
            max_depth=_MAX_DEPTH,
            allow_duplicate_keys=False,
        ).decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError) as error:
        raise CodecError(f"The CBOR can't be taken: {error.__cause__ or error}") from None
    if stream.tell() != len(payload):
        raise CodecError(f"{len(payload) - stream.tell()} bytes follow the CBOR item")
    return value


def dump(value: object) -> bytes:
    """Write one item in preferred serialisation."""
    return cbor2.dumps(value, canonical=False)


def _refuse(value: object, _immutable: bool) -> object:
    number = f" {value.tag}" if isinstance(value, cbor2.CBORTag) else ""
    raise ValueError(f"tag{number} is not taken")


def _epoch(value: object, _immutable: bool) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("tag 1 must hold seconds since the epoch")  # noqa: TRY004  one error kind
    return value


def _decimal_fraction(value: object, _immutable: bool) -> float:
    # RFC 8428, 6: numbers may be decimal fractions. By way of text, 10 to a power of 2^60 costs nothing.
    match value:
        case [int(exponent), int(mantissa)]:
            number = float(f"{mantissa}e{exponent}")
            if math.isfinite(number):
                return number
    raise ValueError("the decimal fraction is malformed or too large")


_SEMANTICS = {**dict.fromkeys(_LIBRARY_TAGS, _refuse), 1: _epoch, 4: _decimal_fraction}
