"""Parameters of a component as typed values (draft-ietf-suit-manifest-37, section 8.4.8; update-management-14)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.refusals import Malformed, RefusalCode, refusal
from lwm2m_server.firmware.suit import Digest, ParameterKey, WaitEvent
from lwm2m_server.firmware.suit_versions import VersionMatch

UUID_SIZE: Final = 16
PEN_TAG: Final = 112
"""Tag of a Private Enterprise Number as a vendor identifier: legal, not supported."""

WaitEvents = tuple[tuple[int, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Argument of override-parameters; `None` is "not set". `other` holds unknown ones as (number, value).

    `use_before` is seconds since 1970, `minimum_battery` mWh; of `update_priority` less is more urgent.
    `wait_info` are (`WaitEvent`, argument) pairs, `encryption_info` is the encoded COSE structure. `in_place` are
    the bytes of the memory and of a segment of it.
    """

    vendor_id: bytes | None = None
    class_id: bytes | None = None
    image_digest: Digest | None = None
    use_before: int | None = None
    component_slot: int | None = None
    strict_order: bool | None = None
    soft_failure: bool | None = None
    image_size: int | None = None
    content: bytes | None = None
    encryption_info: bytes | None = None
    uri: str | None = None
    source_component: int | None = None
    invoke_args: bytes | None = None
    device_id: bytes | None = None
    fetch_args: bytes | None = None
    minimum_battery: int | None = None
    update_priority: int | None = None
    version: VersionMatch | None = None
    wait_info: WaitEvents | None = None
    in_place: tuple[int, int] | None = None
    other: tuple[tuple[int, Any], ...] = ()

    def known(self) -> Iterator[tuple[ParameterKey, Any]]:
        """Yield the parameters that are set, by number."""
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "other" and value is not None:
                yield ParameterKey[item.name.upper()], value


_KNOWN: Final = frozenset(int(key) for key in ParameterKey)
_UNSIGNED: Final = frozenset(
    {
        ParameterKey.USE_BEFORE,
        ParameterKey.COMPONENT_SLOT,
        ParameterKey.IMAGE_SIZE,
        ParameterKey.SOURCE_COMPONENT,
        ParameterKey.MINIMUM_BATTERY,
    }
)


def parse_parameters(argument: Any, field: str) -> Parameters:
    """From the decoded map; `Refusal` (`malformed`, `unsupported`)."""
    pairs = cbor.as_map(argument, field)
    if not pairs:
        raise Malformed(f"{field} sets no parameter", field=field)
    values: dict[str, Any] = {}
    other: list[tuple[int, Any]] = []
    for key, value in pairs.items():
        number = cbor.as_int(key, field, low=-(2**63), high=2**63)
        if number in _KNOWN:
            parameter = ParameterKey(number)
            values[parameter.name.lower()] = _parse(parameter, value, f"{field}/{number}")
        else:
            other.append((number, value))
    return Parameters(**values, other=tuple(other))


def parameters_to_cbor(parameters: Parameters) -> dict[int, Any]:
    """Inverse of `parse_parameters`."""
    return {int(key): _to_cbor(key, value) for key, value in parameters.known()} | dict(parameters.other)


def _parse(key: ParameterKey, value: Any, field: str) -> Any:
    if key in _UNSIGNED:
        return cbor.as_int(value, field)
    match key:
        case ParameterKey.VENDOR_ID | ParameterKey.CLASS_ID | ParameterKey.DEVICE_ID:
            if isinstance(value, cbor.Tag):
                raise refusal(RefusalCode.UNSUPPORTED, f"{field}: only UUIDs are supported", field=field)
            return cbor.as_bytes(value, field, size=UUID_SIZE)
        case ParameterKey.IMAGE_DIGEST:
            return Digest.parse(cbor.decode(cbor.as_bytes(value, field), field=field), field)
        case ParameterKey.STRICT_ORDER | ParameterKey.SOFT_FAILURE:
            return cbor.as_bool(value, field)
        case ParameterKey.URI:
            return cbor.as_text(value, field)
        case ParameterKey.UPDATE_PRIORITY:
            return cbor.as_int(value, field, low=-(2**63), high=2**63)
        case ParameterKey.VERSION:
            return VersionMatch.parse(value, field)
        case ParameterKey.WAIT_INFO:
            return _parse_wait(cbor.as_bytes(value, field), field)
        case ParameterKey.IN_PLACE:
            return _parse_memory(value, field)
        case _:
            return cbor.as_bytes(value, field)


def _parse_memory(value: Any, field: str) -> tuple[int, int]:
    items = cbor.as_list(value, field)
    if len(items) != 2:
        raise Malformed(f"{field} must name the sizes of a memory and of its segments", field=field)
    memory, segment = (cbor.as_int(item, field, low=1) for item in items)
    return memory, segment


def _parse_wait(data: bytes, field: str) -> WaitEvents:
    events = cbor.as_map(cbor.decode(data, field=field), field)
    if not events:
        raise Malformed(f"{field} waits for nothing", field=field)
    return tuple(
        (cbor.as_int(event, field, low=-(2**63)), _parse_event(event, value, field))
        for event, value in events.items()
    )


def _parse_event(event: int, value: Any, field: str) -> Any:
    if event not in set(WaitEvent):
        return value
    if event == WaitEvent.OTHER_DEVICE_VERSION:
        items = cbor.as_list(value, field)
        if len(items) != 2:
            raise Malformed(f"{field} must name a device and its versions", field=field)
        cbor.as_bytes(items[0], field)
        for match in cbor.as_list(items[1], field):
            VersionMatch.parse(match, field)
        return value
    low = -(2**63) if event in (WaitEvent.AUTHORIZATION, WaitEvent.POWER, WaitEvent.NETWORK) else 0
    return cbor.as_int(value, field, low=low)


def _to_cbor(key: ParameterKey, value: Any) -> Any:
    if isinstance(value, Digest):
        return value.encode()
    if isinstance(value, VersionMatch):
        return value.to_cbor()
    if key is ParameterKey.IN_PLACE:
        return list(value)
    return cbor.encode(dict(value)) if key is ParameterKey.WAIT_INFO else value
