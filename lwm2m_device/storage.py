"""Opens the flash file: makes a new one, takes a known one, and salvages what is left of a damaged one.

A foreign file is never overwritten: it is moved aside. Damage never stops the device: every part of the
flash checks itself, and a slot with an intact image is kept whatever happened to the rest.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lwm2m_device.assembly import main_authoriser
from lwm2m_device.banks import program_components
from lwm2m_device.bootloader import Boot, BootLoader
from lwm2m_device.components import ComponentSettings
from lwm2m_device.flash import Flash, PowerSupply, check_unused
from lwm2m_device.layout import (
    PAGE_SIZE,
    SEARCHED,
    SLOT_SIZE,
    ComponentArea,
    Layout,
    LayoutKind,
    find_geometry,
)
from lwm2m_device.settings import DeviceSettings, Log
from lwm2m_device.slots import VERSION_LIMIT, ImageHeader, Slot
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.images import VERSION_LINE


@dataclass
class Storage:
    """An open flash with its layout; `damaged` when something had to be salvaged."""

    flash: Flash
    layout: Layout
    damaged: bool


def open_storage(
    file: Path,
    *,
    page_size: int | None,
    slot_size: int | None,
    log: Log,
    kind: LayoutKind | None = None,
    staging_size: int | None = None,
    components: tuple[ComponentSettings, ...] = (),
    supply: PowerSupply | None = None,
) -> Storage:
    """Open or make the file. Sizes and kind of None are those of the file, or the defaults for a new one.

    `components` are those beside the main one, which have to be the same at each start. Raises InvalidInput when
    something differs from an existing file, Conflict when another device has it open.
    """
    head = read_head(file)
    found, intact = find_geometry(head)
    if found is not None:
        _check_same(found, page_size, slot_size, kind, staging_size)
        _check_components(found, components)
        flash = _open(file, found, supply)
        if not intact:
            log("The geometry page was damaged and has been rewritten from its copy")
            with _closing(flash):
                _write_geometry(flash, found)
        return Storage(flash, found, damaged=not intact)
    try:
        layout = Layout(
            page_size or PAGE_SIZE,
            slot_size or SLOT_SIZE,
            kind or LayoutKind.AB,
            staging_size=staging_size,
            components=_areas(components),
        )
    except ValueError as error:
        raise InvalidInput(f"This flash can't be made: {error}.", field="page-size") from None
    if _is_unfinished(file, layout):
        return Storage(_format(file, layout, supply), layout, damaged=False)
    check_unused(file)
    return Storage(_salvage(file, layout, log, supply), layout, damaged=True)


def start_up(settings: DeviceSettings, storage: Storage, log: Log) -> tuple[BootLoader, Boot]:
    """Boot; a device that never had an image gets its factory image first."""
    loader = BootLoader(
        storage.flash, storage.layout, authorise=main_authoriser(settings), max_attempts=settings.max_boots
    )
    if loader.is_fresh:
        image = settings.initial_image or _factory_image(settings)
        with storage.flash.at_the_factory():
            # The main image last: without it the factory begins again.
            program_components(storage.flash, storage.layout, _first_images(settings))
            _program_factory(loader, image, settings)
        log(f"Factory image {settings.initial_version} programmed into slot {loader.slots[0].name}")
    boot = loader.boot()
    for note in boot.notes:
        log(note)
    return loader, boot


def _program_factory(loader: BootLoader, image: bytes, settings: DeviceSettings) -> None:
    capacity = loader.slots[0].capacity
    if len(image) > capacity:
        raise InvalidInput(
            f"The initial image has {len(image)} bytes, a slot {capacity}.",
            field="initial-image",
            hint="Choose a larger --slot-size for a new flash file.",
        )
    if len(settings.initial_version.encode()) > VERSION_LIMIT:
        raise InvalidInput(
            f"The version's text is longer than {VERSION_LIMIT} bytes.", field="initial-version"
        )
    digest = hashlib.sha256(image).digest()
    loader.install_factory(image, ImageHeader(settings.initial_version, digest, len(image), 0))


def _factory_image(settings: DeviceSettings) -> bytes:
    return VERSION_LINE + f"{settings.initial_version}\n{settings.manufacturer} {settings.model}\n".encode()


def _first_images(settings: DeviceSettings) -> tuple[tuple[bytes, ImageHeader], ...]:
    found: list[tuple[bytes, ImageHeader]] = []
    for each in settings.components:
        made_up = VERSION_LINE + f"{each.version}\n{settings.manufacturer} {each.name}\n".encode()
        image = each.image or made_up[: each.slot_size]
        digest = hashlib.sha256(image).digest()
        found.append((image, ImageHeader(each.version, digest, len(image), 0)))
    return tuple(found)


def read_head(file: Path, length: int = SEARCHED) -> bytes:
    """Return the beginning of a file, nothing when there is none; raises InvalidInput when it can't be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(length)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InvalidInput(f"The flash file {file} can't be read: {error.strerror}.", field="flash") from None


def _check_same(
    layout: Layout,
    page_size: int | None,
    slot_size: int | None,
    kind: LayoutKind | None,
    staging_size: int | None,
) -> None:
    for name, wanted, present in (
        ("page-size", page_size, layout.page_size),
        ("slot-size", slot_size, layout.slot_size),
        ("layout", kind, layout.kind),
        ("staging-size", staging_size, layout.staging_size or layout.slot_size),
    ):
        if wanted is not None and wanted != present:
            raise InvalidInput(
                f"The flash file was made with a {name} of {present}, not {wanted}.",
                field=name,
                hint=f"Leave --{name} out, or name a new flash file.",
            )


def _areas(components: tuple[ComponentSettings, ...]) -> tuple[ComponentArea, ...]:
    return tuple(ComponentArea.of(each.name, each.slot_size) for each in components)


def _check_components(layout: Layout, components: tuple[ComponentSettings, ...]) -> None:
    if layout.components == _areas(components):
        return
    if not layout.components:
        message = "The flash file was made for a device with one component."
    elif not components:
        message = f"The flash file was made for {len(layout.components)} components beside the main one."
    else:
        message = "The flash file was made for other components, for others' sizes, or in another order."
    raise InvalidInput(
        message, field="components", hint="Name the --components that it was made with, or a new flash file."
    )


def _open(file: Path, layout: Layout, supply: PowerSupply | None) -> Flash:
    return Flash(
        file, size=layout.size, page_size=layout.page_size, write_size=layout.write_size, supply=supply
    )


def _is_unfinished(file: Path, layout: Layout) -> bool:
    """Say whether there is no file, or one whose making was interrupted: nothing in it but half a geometry."""
    content = read_head(file, layout.size + 1)
    begun = layout.geometry.length if len(content) > layout.size else 0
    return not content[begun : layout.size].strip(b"\xff")


def _format(file: Path, layout: Layout, supply: PowerSupply | None) -> Flash:
    flash = _open(file, layout, supply)
    with _closing(flash), flash.at_the_factory():
        flash.erase(0, layout.size)
        _write_geometry(flash, layout)
    return flash


@contextmanager
def _closing(flash: Flash) -> Iterator[None]:
    """Release the file if what is done to it fails."""
    try:
        yield
    except BaseException:
        flash.close()
        raise


def _write_geometry(flash: Flash, layout: Layout) -> None:
    region = layout.geometry
    # The second copy first: whatever is cut short, one of them was there before or is there now.
    for start in range(region.end - layout.page_size, region.start - 1, -layout.page_size):
        flash.erase(start, layout.page_size)
        flash.write(start, layout.encode_geometry())
        flash.sync()


def _salvage(file: Path, layout: Layout, log: Log, supply: PowerSupply | None) -> Flash:
    """Keep a flash with damaged geometry pages if a slot holds an image; move anything else aside."""
    if _has_image(file, layout):
        log(f"The flash file {file} is damaged: its geometry is written anew, the images are kept")
        flash = _open(file, layout, supply)
        with _closing(flash):
            _write_geometry(flash, layout)
        return flash
    aside = _free_name(file)
    file.rename(aside)
    log(f"{file} is no flash file of this device, or too damaged: kept as {aside}, a new one is made")
    return _format(file, layout, supply)


def _has_image(file: Path, layout: Layout) -> bool:
    flash = Flash(file, size=layout.size, page_size=layout.page_size, read_only=True)
    try:
        return any(Slot(flash, layout, index).is_intact() for index in (0, 1))
    finally:
        flash.close()


def _free_name(file: Path) -> Path:
    number = 1
    while (candidate := file.with_name(f"{file.name}.unusable-{number}")).exists():
        number += 1
    return candidate
