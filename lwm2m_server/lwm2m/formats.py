"""Content formats: one front door to all codecs (OMA LwM2M Core TS 7.4, CoAP registry numbers).

Decoding gives a flat tuple of leaves. It is tolerant by default, as a server must be towards devices: a value
that doesn't fit its definition stays as the format gave it, an unknown format is guessed from the path.
`strict` is the device's view of a write: type and range must fit.
"""

from collections.abc import Iterable
from enum import IntEnum

from lwm2m_server.lwm2m import cbor
from lwm2m_server.lwm2m.model import Model, ResourceDefinition, ResourceType
from lwm2m_server.lwm2m.oldjson import decode_old_json
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.senml import (
    decode_senml_cbor,
    decode_senml_json,
    encode_senml_cbor,
    encode_senml_json,
)
from lwm2m_server.lwm2m.text import decode_text, encode_text
from lwm2m_server.lwm2m.tlv import decode_tlv, encode_tlv
from lwm2m_server.lwm2m.values import CodecError, Node, ObjectLink, Value, fit

MAX_PAYLOAD = 1 << 20


class ContentFormat(IntEnum):
    """CoAP content-format numbers that LwM2M uses."""

    TEXT = 0
    LINK_FORMAT = 40
    OPAQUE = 42
    CBOR = 60
    SENML_JSON = 110
    SENML_CBOR = 112
    LEGACY_TLV = 1542
    LEGACY_JSON = 1543
    TLV = 11542
    JSON = 11543


# Formats that hold one value and no name.
SINGLE_VALUE = frozenset(
    {ContentFormat.TEXT, ContentFormat.OPAQUE, ContentFormat.CBOR, ContentFormat.LINK_FORMAT}
)


def decode(
    content_format: int | None,
    payload: bytes,
    path: Path,
    model: Model | None = None,
    *,
    strict: bool = False,
    now: float | None = None,
) -> tuple[Node, ...]:
    """Read the content of `path` as leaves (resources, resource instances); raises CodecError.

    A missing or unknown `content_format` is guessed. `now` (seconds since the epoch) resolves relative SenML
    times, which otherwise stay as sent.
    """
    if len(payload) > MAX_PAYLOAD:
        raise CodecError(
            f"{len(payload)} bytes of content; at most {MAX_PAYLOAD} are decoded", field=str(path)
        )
    match content_format:
        case ContentFormat.TLV | ContentFormat.LEGACY_TLV:
            return decode_tlv(payload, path, model, strict=strict)
        case ContentFormat.SENML_JSON:
            return decode_senml_json(payload, path, model, strict=strict, now=now)
        case ContentFormat.SENML_CBOR:
            return decode_senml_cbor(payload, path, model, strict=strict, now=now)
        case ContentFormat.JSON | ContentFormat.LEGACY_JSON:
            return decode_old_json(payload, path, model, strict=strict, now=now)
        case _ if path.depth >= 3:
            return (Node(path, _single(content_format, payload, path, model, strict=strict)),)
        case ContentFormat.TEXT | ContentFormat.OPAQUE | ContentFormat.CBOR | ContentFormat.LINK_FORMAT:
            raise CodecError(
                f"Content format {content_format} holds one value, {path} has several",
                field=str(path),
                hint="Read a single resource, or ask for TLV or SenML",
            )
        case _:
            return _guessed(payload, path, model, strict=strict, now=now)


def encode(content_format: int, path: Path, nodes: Iterable[Node], model: Model | None = None) -> bytes:
    """Write leaves at or below `path`, in their definitions' types where known; raises CodecError."""
    match content_format:
        case ContentFormat.TLV | ContentFormat.LEGACY_TLV:
            return encode_tlv(path, nodes, model)
        case ContentFormat.SENML_JSON:
            return encode_senml_json(path, nodes, model)
        case ContentFormat.SENML_CBOR:
            return encode_senml_cbor(path, nodes, model)
        case ContentFormat.TEXT | ContentFormat.OPAQUE | ContentFormat.CBOR:
            return _encode_single(content_format, path, list(nodes), model)
        case _:
            raise CodecError(
                f"Content format {content_format} can't be written",
                field=str(path),
                hint="Use 0 (text), 42 (opaque), 60 (CBOR), 110 or 112 (SenML) or 11542 (TLV)",
            )


def _single(
    content_format: int | None, payload: bytes, path: Path, model: Model | None, *, strict: bool
) -> Value:
    definition = model.resource(path) if model is not None else None
    match content_format:
        case ContentFormat.TEXT | ContentFormat.LINK_FORMAT:
            return decode_text(payload, path, definition, strict=strict)
        case ContentFormat.CBOR:
            return _cbor_value(payload, path, definition, strict=strict)
        case ContentFormat.OPAQUE:
            return fit(path, payload, definition, strict=strict)
        case _ if strict:
            raise CodecError(f"Content format {content_format} is not known", field=str(path))
        case _ if definition is not None and definition.type is ResourceType.OPAQUE:
            return payload
        case _:
            # Text where it is text, else bytes: nothing is lost, nothing fails.
            return decode_text(payload, path, definition)


def _guessed(
    payload: bytes, path: Path, model: Model | None, *, strict: bool, now: float | None
) -> tuple[Node, ...]:
    if strict or not payload:
        if payload:
            raise CodecError("The content format is not known", field=str(path))
        return ()
    if payload[:1] == b"[":
        return decode_senml_json(payload, path, model, now=now)
    if payload[:1] == b"{":
        return decode_old_json(payload, path, model, now=now)
    return decode_tlv(payload, path, model)


def _cbor_value(payload: bytes, path: Path, definition: ResourceDefinition | None, *, strict: bool) -> Value:
    value = cbor.load(payload)
    if isinstance(value, bool | int | float | str | bytes):
        return fit(path, value, definition, strict=strict)
    raise CodecError("The CBOR item is not a single value", field=str(path))


def _encode_single(content_format: int, path: Path, nodes: list[Node], model: Model | None) -> bytes:
    if len(nodes) != 1 or nodes[0].path != path or path.depth < 3:
        raise CodecError(
            f"Content format {content_format} holds the value of one resource, not {len(nodes)} of {path}",
            field=str(path),
            hint="Use TLV or SenML for several values",
        )
    definition = model.resource(path) if model is not None else None
    value = fit(path, nodes[0].value, definition, strict=True)
    if content_format == ContentFormat.TEXT:
        return encode_text(value)
    if content_format == ContentFormat.CBOR:
        return cbor.dump(str(value) if isinstance(value, ObjectLink) else value)
    if isinstance(value, bytes):
        return value
    raise CodecError(f"{path} holds no bytes, so it can't be written as opaque", field=str(path))
