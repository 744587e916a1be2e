"""What `lwm2m-device show` says about a flash file, as plain data.

The file is only read, so a device may run on it meanwhile.
"""

from pathlib import Path
from typing import Any

from lwm2m_device.bootloader import BootLoader
from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout, decode_geometry
from lwm2m_device.slots import Slot
from lwm2m_device.update_state import StateStore
from lwm2m_server.errors import InvalidInput

_HEAD = 64


def describe(file: Path) -> dict[str, Any]:
    """Return geometry, slots, boot state and update state; raises InvalidInput when it is no flash file."""
    try:
        with file.open("rb") as stream:
            layout = decode_geometry(stream.read(_HEAD))
    except OSError as error:
        raise InvalidInput(f"The flash file {file} can't be read: {error.strerror}.", field="file") from None
    if layout is None:
        raise InvalidInput(
            f"{file} is not the flash of a reference device, or its geometry page is damaged.",
            field="file",
            hint="Start the device on it: it keeps what is intact.",
        )
    flash = Flash(file, size=layout.size, page_size=layout.page_size, read_only=True)
    try:
        return _describe(flash, layout)
    finally:
        flash.close()


def _describe(flash: Flash, layout: Layout) -> dict[str, Any]:
    loader = BootLoader(flash, layout)
    boot = loader.state
    store = StateStore(flash, layout)
    update = store.state
    wear = [flash.wear(page) for page in range(layout.size // layout.page_size)]
    return {
        "flash": {
            "size": layout.size,
            "page_size": layout.page_size,
            "slot_size": layout.slot_size,
            "most_worn_page": max(wear),
            "erase_cycles": sum(wear),
        },
        "boot": {
            "active": loader.slots[boot.active].name,
            "trial": None if boot.trial is None else loader.slots[boot.trial].name,
            "attempts": boot.attempts,
            "last_outcome": boot.outcome.name.lower().replace("_", "-"),
            "sequence_floor": loader.floor,
            "damaged": loader.damaged,
        },
        "slots": {slot.name: _slot(slot) for slot in loader.slots},
        "update": {
            "state": update.state.name.lower(),
            "result": int(update.result),
            "version": update.version,
            "size": update.size,
            "source": update.source,
            "refusal_code": update.code,
            "refusal_text": update.text,
            "damaged": store.damaged,
        },
    }


def _slot(slot: Slot) -> dict[str, Any] | None:
    header = slot.header()
    if header is None:
        return None
    return {
        "version": header.version,
        "size": header.size,
        "digest": header.digest.hex(),
        "sequence_number": header.sequence,
        "confirmed": slot.is_confirmed(),
        "intact": slot.is_intact(),
    }
