"""What `lwm2m-device show` says about a flash file, as plain data.

The file is only read, so a device may run on it meanwhile.
"""

from pathlib import Path
from typing import Any

from lwm2m_device.banks import component_slots
from lwm2m_device.boot_state import Phase
from lwm2m_device.bootloader import BootLoader
from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout, Region, find_geometry
from lwm2m_device.slots import Slot
from lwm2m_device.software_state import SoftwareState, SoftwareStore
from lwm2m_device.storage import read_head
from lwm2m_device.update_state import StateStore
from lwm2m_server.errors import InvalidInput


def describe(file: Path) -> dict[str, Any]:
    """Return geometry, slots, boot state and update state; raises InvalidInput when it is no flash file.

    Of an application's flash (object 9) it is the application in place of the boot state and update state.
    """
    if not file.exists():
        raise InvalidInput(f"The flash file {file} can't be read: there is none.", field="file")
    layout, _ = find_geometry(read_head(file))
    if layout is None:
        raise InvalidInput(
            f"{file} is not the flash of a reference device, or its geometry pages are damaged.",
            field="file",
            hint="Start the device on it: it keeps what is intact.",
        )
    flash = Flash(
        file, size=layout.size, page_size=layout.page_size, write_size=layout.write_size, read_only=True
    )
    try:
        software = SoftwareStore(flash, layout)
        if software.is_new or software.damaged:
            return _describe(flash, layout)
        return _describe_application(flash, layout, software.state)
    finally:
        flash.close()


def _describe(flash: Flash, layout: Layout) -> dict[str, Any]:
    # Only the device knows its trusted keys, so nothing is said of signatures here.
    loader = BootLoader(flash, layout, authorise=lambda _envelope, _header: True)
    boot = loader.state
    store = StateStore(flash, layout)
    on_trial = loader.slots[boot.slot].name if boot.phase is not Phase.NONE else None
    return {
        "flash": _geometry(layout),
        "boot": {
            "active": loader.slots[boot.active].name,
            "phase": boot.phase.name.lower(),
            "trial": on_trial,
            "attempts": boot.attempts,
            "half_done": loader.installing,
            "last_outcome": boot.outcome.name.lower().replace("_", "-"),
            "sequence_floor": loader.floor,
            "damaged": loader.damaged,
        },
        "slots": {slot.name: _slot(slot) for slot in loader.slots},
        **_components(flash, layout, store),
        "update": _update(store),
        "wear": _wear(flash, layout),
    }


def _geometry(layout: Layout) -> dict[str, Any]:
    return {
        "layout": layout.kind.value,
        "size": layout.size,
        "page_size": layout.page_size,
        "write_size": layout.write_size,
        "slot_size": layout.slot_size,
        "staging_size": layout.capacity(1),
    }


def _describe_application(flash: Flash, layout: Layout, state: SoftwareState) -> dict[str, Any]:
    slots = (Slot(flash, layout, 0), Slot(flash, layout, 1))
    return {
        "flash": _geometry(layout),
        "application": {
            "name": state.name,
            "in_place": None if state.place is None else slots[state.place].name,
            "stage": state.stage.name.lower(),
            "state": int(state.stage.state),
            "result": int(state.result),
            "sequence_floor": state.floor,
            "package": state.package,
            "package_version": state.version,
            "source": state.source,
            "refusal_code": state.code,
            "refusal_text": state.text,
        },
        "slots": {slot.name: _slot(slot) for slot in slots},
        "wear": _wear(flash, layout),
    }


def _components(flash: Flash, layout: Layout, store: StateStore) -> dict[str, Any]:
    """The components beside the main one, by instance of object 33629; nothing for a device without."""
    slots = component_slots(flash, layout)
    if not slots:
        return {}
    plan = store.record.plan
    found: dict[str, Any] = {}
    for instance, (banks, known) in enumerate(zip(slots, store.record.banks, strict=True), 1):
        state = store.record.states[instance]
        entry = None if plan is None else plan.entry(instance)
        found[f"component {instance}"] = {
            "installed": _slot(banks[known.installed]),
            "other": _slot(banks[1 - known.installed]),
            "lost": known.lost,
            "state": state.state.name.lower(),
            "result": int(state.result),
            "installing": None if entry is None else entry.phase.name.lower(),
        }
    return found


def _update(store: StateStore) -> dict[str, Any]:
    update = store.state
    return {
        "state": update.state.name.lower(),
        "result": int(update.result),
        "version": update.version,
        "size": update.size,
        "source": update.source,
        "refusal_code": update.code,
        "refusal_text": update.text,
        "damaged": store.damaged,
    }


def _wear(flash: Flash, layout: Layout) -> dict[str, Any]:
    """Erase cycles: of the most worn page of each region, and of all pages together."""
    slots = [layout.slot(index) for index in range(2 * len(layout.components) + 2)]
    regions = {
        "boot_state": layout.boot,
        "update_state": layout.update,
        "progress": layout.progress,
        "journal": layout.journal,
        "scratch": layout.scratch,
        **{
            layout.slot_name(index): Region(slot.header.start, slot.image.end - slot.header.start)
            for index, slot in enumerate(slots)
        },
    }
    size = layout.page_size
    wear = [flash.wear(page) for page in range(layout.size // size)]
    most = {
        name: max(wear[region.start // size : region.end // size])
        for name, region in regions.items()
        if region.length
    }
    return {**most, "most_worn_page": max(wear), "erase_cycles": sum(wear)}


def _slot(slot: Slot) -> dict[str, Any] | None:
    header = slot.header()
    if header is None:
        return None
    return {
        "version": header.version,
        "size": header.size,
        "digest": header.digest.hex(),
        "sequence_number": header.sequence,
        "delta_size": None if (delta := slot.delta()) is None else delta.size,
        "confirmed": slot.is_confirmed(),
        "intact": slot.is_intact(),
    }
