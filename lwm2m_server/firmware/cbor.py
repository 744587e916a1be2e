"""The strict CBOR layer under SUIT and COSE (RFC 8949, section 4.2: core deterministic encoding).

Accepted is only what a deterministic encoder would have written: shortest heads, definite lengths, map keys
unique and in bytewise order, nothing behind the item; and within what SUIT needs: no floats, no simple values
but false, true and nil, tags only where the caller allows them, bounded depth and size. So decoding and
encoding again gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import cbor2

from lwm2m_server.firmware.refusals import Malformed

MAX_DEPTH: Final = 16
MAX_SIZE: Final = 64 * 1024
"""Default bound in bytes: manifests have hundreds of bytes, a few thousand with many branches."""

Tag = cbor2.CBORTag

_BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(2, 8)
_SIMPLE_VALUES: Final = frozenset({20, 21, 22})
_KEY_TYPES: Final = frozenset({0, 1, _BYTES, _TEXT, _ARRAY})


def decode(data: bytes, *, field: str, tags: Collection[int] = (), max_size: int = MAX_SIZE) -> Any:
    """One CBOR item; `Malformed` naming `field` when `data` is anything else.

    Arrays become lists (tuples inside map keys and below a tag), maps mappings, tags `Tag`.
    """
    if len(data) > max_size:
        raise Malformed(
            f"{field} has {len(data)} bytes, more than the {max_size} that are accepted", field=field
        )
    end = _Scanner(data, field, frozenset(tags)).item(0, 0)
    if end != len(data):
        raise Malformed(f"{len(data) - end} bytes follow the CBOR item of {field}", field=field)
    try:
        return cbor2.loads(
            data,
            max_depth=MAX_DEPTH + 2,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORDecodeError, ValueError) as error:
        raise Malformed(f"{field} is not valid CBOR: {error}", field=field) from error


def encode(value: Any) -> bytes:
    """Deterministic encoding of ints, bytes, text, booleans, nil, lists, tuples, mappings and `Tag`."""
    return cbor2.dumps(_ordered(value))


def bstr(content: bytes) -> bytes:
    """`content` as a CBOR byte string: head and bytes, the form over which SUIT digests are taken."""
    return cbor2.dumps(content)


def as_int(value: object, field: str, *, low: int = 0, high: int = 2**64 - 1) -> int:
    """`value` as an integer in `low..high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Malformed(f"{field} must be an integer from {low} to {high}", field=field)
    return value


def as_bytes(value: object, field: str, *, size: int | None = None) -> bytes:
    """`value` as a byte string, of `size` bytes where given."""
    if not isinstance(value, bytes):
        raise Malformed(f"{field} must be a byte string", field=field)
    if size is not None and len(value) != size:
        raise Malformed(f"{field} must have {size} bytes, not {len(value)}", field=field)
    return value


def as_text(value: object, field: str) -> str:
    """`value` as text."""
    if not isinstance(value, str):
        raise Malformed(f"{field} must be text", field=field)
    return value


def as_bool(value: object, field: str) -> bool:
    """`value` as a boolean."""
    if not isinstance(value, bool):
        raise Malformed(f"{field} must be true or false", field=field)
    return value


def as_list(value: object, field: str) -> list[Any]:
    """`value` as an array."""
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, list):
        raise Malformed(f"{field} must be an array", field=field)
    return value


def as_map(value: object, field: str) -> dict[Any, Any]:
    """`value` as a map, in a dict of its own."""
    # below a tag cbor2 gives immutable maps and tuples
    if not isinstance(value, Mapping):
        raise Malformed(f"{field} must be a map", field=field)
    return dict(value)


def _ordered(value: Any) -> Any:
    """Put the keys of every map into the bytewise order of their encodings."""
    if isinstance(value, Mapping):
        pairs = sorted(value.items(), key=lambda pair: encode(pair[0]))
        return {key: _ordered(item) for key, item in pairs}
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    if isinstance(value, Tag):
        return Tag(value.tag, _ordered(value.value))
    return value


class _Scanner:
    """Walks the bytes and refuses what `decode` does not accept; linear in the input."""

    def __init__(self, data: bytes, field: str, tags: frozenset[int]) -> None:
        self._data = data
        self._field = field
        self._tags = tags

    def item(self, at: int, depth: int) -> int:
        """Check the item that starts at `at`; return where it ends."""
        if depth > MAX_DEPTH:
            raise self._refuse(f"is nested deeper than {MAX_DEPTH} levels")
        major, argument, at = self._head(at)
        if major <= 1:
            return at
        if major in (_BYTES, _TEXT):
            if argument > len(self._data) - at:
                raise self._refuse("ends inside a string")
            return at + argument
        if major == _ARRAY:
            self._fits(argument, at)
            for _ in range(argument):
                at = self.item(at, depth + 1)
            return at
        if major == _MAP:
            return self._map(argument, at, depth)
        if major == _TAG:
            if argument not in self._tags:
                raise self._refuse(f"contains tag {argument}, which is not expected here")
            return self.item(at, depth + 1)
        return at

    def _map(self, pairs: int, at: int, depth: int) -> int:
        self._fits(2 * pairs, at)
        previous: bytes | None = None
        for _ in range(pairs):
            if at < len(self._data) and self._data[at] >> 5 not in _KEY_TYPES:
                raise self._refuse("has a map key of a type that is not accepted")
            start = at
            at = self.item(at, depth + 1)
            key = self._data[start:at]
            if previous is not None and key == previous:
                raise self._refuse("has a map key twice")
            if previous is not None and key < previous:
                raise self._refuse("has map keys out of bytewise order")
            previous = key
            at = self.item(at, depth + 1)
        return at

    def _head(self, at: int) -> tuple[int, int, int]:
        if at >= len(self._data):
            raise self._refuse("ends too early")
        major, info = self._data[at] >> 5, self._data[at] & 0x1F
        at += 1
        if info < 24:
            if major == _SIMPLE and info not in _SIMPLE_VALUES:
                raise self._refuse("contains a simple value other than false, true and nil")
            return major, info, at
        if info == 31:
            raise self._refuse("uses an indefinite length")
        if info > 27 or major == _SIMPLE:
            raise self._refuse("contains a float or a reserved value")
        width = 1 << (info - 24)
        if width > len(self._data) - at:
            raise self._refuse("ends too early")
        argument = int.from_bytes(self._data[at : at + width], "big")
        if argument < (24 if width == 1 else 1 << (width * 4)):
            raise self._refuse("contains an integer or a length that is not in its shortest form")
        return major, argument, at + width

    def _fits(self, items: int, at: int) -> None:
        # every item takes a byte: a huge count is refused before it costs anything
        if items > len(self._data) - at:
            raise self._refuse("ends too early")

    def _refuse(self, what: str) -> Malformed:
        return Malformed(f"{self._field} {what}", field=self._field)
