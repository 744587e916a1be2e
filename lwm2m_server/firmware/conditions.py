"""Conditions that are answered by what is known of the device, and the refusal that each one stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lwm2m_server import versions
from lwm2m_server.firmware.effects import ComponentState, DeviceFacts
from lwm2m_server.firmware.refusals import Refusal, RefusalCode, refusal
from lwm2m_server.firmware.suit import ComponentId, ConditionCode, ParameterKey, component_text
from lwm2m_server.firmware.suit_versions import VersionMatch, version_to_integers

ParameterValues = Mapping[ParameterKey, object]


def holds(
    code: ConditionCode,
    parameters: ParameterValues,
    facts: DeviceFacts,
    state: ComponentState | None,
    *,
    approved: bool,
) -> bool:
    """Whether a condition that needs no effect holds; without its parameter, or the fact, it does not."""
    match code:
        case ConditionCode.VENDOR_IDENTIFIER:
            own = None if state is None else state.vendor_ids
            return parameters.get(ParameterKey.VENDOR_ID) in (facts.vendor_ids if own is None else own)
        case ConditionCode.CLASS_IDENTIFIER:
            own = None if state is None else state.class_ids
            return parameters.get(ParameterKey.CLASS_ID) in (facts.class_ids if own is None else own)
        case ConditionCode.DEVICE_IDENTIFIER:
            wanted = parameters.get(ParameterKey.DEVICE_ID)
            return wanted is not None and wanted == facts.device_id
        case ConditionCode.COMPONENT_SLOT:
            slot = parameters.get(ParameterKey.COMPONENT_SLOT)
            return slot is not None and state is not None and slot == state.slot
        case ConditionCode.USE_BEFORE:
            until = parameters.get(ParameterKey.USE_BEFORE)
            return isinstance(until, int) and facts.now is not None and facts.now < until
        case ConditionCode.MINIMUM_BATTERY:
            least = parameters.get(ParameterKey.MINIMUM_BATTERY)
            return isinstance(least, int) and facts.battery is not None and facts.battery >= least
        case ConditionCode.VERSION:
            wanted = parameters.get(ParameterKey.VERSION)
            present = versions.try_parse(state.version) if state is not None else None
            integers = version_to_integers(present) if present is not None else None
            return isinstance(wanted, VersionMatch) and integers is not None and wanted.holds(integers)
        case ConditionCode.OPERATOR_APPROVAL:
            return approved
        case ConditionCode.IN_PLACE:
            room = None if state is None else state.in_place
            wanted = parameters.get(ParameterKey.IN_PLACE)
            return room is not None and isinstance(wanted, tuple) and room.suits(*wanted)
        case _:
            return False


def why_not(code: ConditionCode, component: ComponentId) -> Refusal:
    """Return the refusal for a condition that does not hold."""
    known, said = _REFUSALS[code]
    name = code.name.lower().replace("_", "-")
    return refusal(known, f"{said} (component {component_text(component)})", field=name)


_REFUSALS: Final = {
    ConditionCode.VENDOR_IDENTIFIER: (RefusalCode.VENDOR_MISMATCH, "the manifest is for another vendor"),
    ConditionCode.CLASS_IDENTIFIER: (
        RefusalCode.CLASS_MISMATCH,
        "the manifest is for another class of device",
    ),
    ConditionCode.DEVICE_IDENTIFIER: (RefusalCode.CLASS_MISMATCH, "the manifest is for another device"),
    ConditionCode.COMPONENT_SLOT: (RefusalCode.COMPONENT_MISMATCH, "the manifest is for another slot"),
    ConditionCode.IMAGE_MATCH: (
        RefusalCode.DIGEST_MISMATCH,
        "the image does not have the digest in the manifest",
    ),
    ConditionCode.IMAGE_NOT_MATCH: (
        RefusalCode.PRECURSOR_MISMATCH,
        "the component holds the very image that it must not hold",
    ),
    ConditionCode.CHECK_CONTENT: (RefusalCode.DIGEST_MISMATCH, "the content is not the one in the manifest"),
    ConditionCode.USE_BEFORE: (
        RefusalCode.EXPIRED,
        "the time until which the manifest may be used is over, or the device has no clock",
    ),
    ConditionCode.MINIMUM_BATTERY: (
        RefusalCode.BATTERY_LOW,
        "the battery holds less than the manifest asks for, or the device does not know its charge",
    ),
    ConditionCode.UPDATE_AUTHORIZED: (
        RefusalCode.NOT_AUTHORIZED,
        "the device's application did not authorize the update",
    ),
    ConditionCode.VERSION: (
        RefusalCode.PRECURSOR_MISMATCH,
        "the version that is running is not one that the manifest starts from",
    ),
    ConditionCode.OPERATOR_APPROVAL: (
        RefusalCode.NOT_APPROVED,
        "no key with the role operator-approval has signed the manifest",
    ),
    ConditionCode.IN_PLACE: (
        RefusalCode.UNSUPPORTED,
        "the device can't rewrite the component by a delta for a memory of that size",
    ),
    ConditionCode.ABORT: (RefusalCode.UNSUPPORTED, "the manifest has no way for this device"),
    ConditionCode.IS_DEPENDENCY: (
        RefusalCode.UNSUPPORTED,
        "dependencies on other manifests are not supported",
    ),
    ConditionCode.DEPENDENCY_INTEGRITY: (
        RefusalCode.UNSUPPORTED,
        "dependencies on other manifests are not supported",
    ),
}
