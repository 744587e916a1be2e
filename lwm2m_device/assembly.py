"""Puts the parts of an update together, for a device with one component or with several."""

from lwm2m_device.bootloader import Authorise, Boot, BootLoader
from lwm2m_device.component_judge import ComponentJudge, component_authoriser
from lwm2m_device.component_updater import ComponentUpdater
from lwm2m_device.components import Relations
from lwm2m_device.flash import Flash
from lwm2m_device.judges import authoriser, judges_for, staging_beside
from lwm2m_device.layout import Layout
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.updater import Updater
from lwm2m_server.clock import Clock


def main_authoriser(settings: DeviceSettings) -> Authorise:
    """Return what the boot loader asks before each start."""
    if settings.components:
        return component_authoriser(settings, settings.component)
    return authoriser(settings)


def make_updater(
    settings: DeviceSettings, flash: Flash, layout: Layout, loader: BootLoader, boot: Boot, clock: Clock
) -> Updater:
    """Return the updater of a device that runs `boot`."""
    judges = judges_for(
        settings, boot, lambda: loader.floor, layout.slot_size, clock.now, staging_beside(layout, boot)
    )
    if not settings.components:
        return Updater(flash, layout, loader, boot, judges=judges, clock=clock)
    judge = ComponentJudge(settings, boot, lambda: updater.floor, layout.slot_size, clock.now)
    updater = ComponentUpdater(
        flash,
        layout,
        loader,
        boot,
        judges=judges,
        clock=clock,
        judge=judge,
        authorise=tuple(component_authoriser(settings, each.identifier) for each in settings.components),
        relations=Relations.of(settings.component, settings.components),
    )
    return updater
