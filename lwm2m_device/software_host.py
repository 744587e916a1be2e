"""The applications of one device: their storages, which outlive reboots, and what is made of them at each boot."""

import contextlib
from collections.abc import Iterable, Sequence

from lwm2m_device.flash import PowerSupply
from lwm2m_device.places import storage_file
from lwm2m_device.settings import DeviceSettings, Log
from lwm2m_device.software import Application
from lwm2m_device.software_judges import SoftwareJudge
from lwm2m_device.storage import Storage, open_storage
from lwm2m_server.clock import Clock


def open_places(settings: DeviceSettings, log: Log, supply: PowerSupply) -> list[Storage]:
    """Open or make the flash file of each application; raises as `open_storage`, and leaves none open then."""
    opened: list[Storage] = []
    with contextlib.ExitStack() as undo:
        for place in settings.applications:
            storage = open_storage(
                storage_file(settings.flash, place),
                page_size=settings.page_size,
                slot_size=settings.slot_size,
                log=log,
                supply=supply,
            )
            undo.callback(storage.flash.close)
            opened.append(storage)
        undo.pop_all()
    return opened


def close_places(storages: Iterable[Storage]) -> None:
    """Release the files."""
    for storage in storages:
        storage.flash.close()


def boot_applications(
    settings: DeviceSettings, storages: Sequence[Storage], clock: Clock, log: Log
) -> tuple[Application, ...]:
    """Return the applications as a boot finds them."""
    applications: list[Application] = []
    for place, storage in zip(settings.applications, storages, strict=True):
        judge = SoftwareJudge(settings, storage.layout.slot_size, clock.now)
        application = Application(storage.flash, storage.layout, place, judge)
        application.program_factory()
        applications.append(application)
    for application in applications:
        others = [each for each in applications if each is not application]
        application.others = others
        for note in application.reconcile():
            log(note)
    return tuple(applications)
