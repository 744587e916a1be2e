"""Places for applications: what `--application NAME[=VERSION]` says of each instance of object 9."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.applications import application_component

FIELD = "application"


@dataclass(frozen=True)
class Place:
    """One instance of object 9. `name` empty: any application may come; `version` is there from the factory."""

    number: int
    name: str = ""
    version: str | None = None


def read_places(texts: Sequence[str]) -> tuple[Place, ...]:
    """Read the flags, numbered in their order; raises InvalidInput."""
    places = tuple(_place(number, text) for number, text in enumerate(texts))
    names = [place.name for place in places if place.name]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"The application {name} is given twice.", field=FIELD)
    return places


def storage_file(flash: Path, place: Place) -> Path:
    """Return the file with the flash of a place, beside that of the device."""
    return flash.with_name(f"{flash.name}.application-{place.number}")


def _place(number: int, text: str) -> Place:
    name, equals, version = text.partition("=")
    if not name and not equals:
        return Place(number)
    application_component(name, FIELD)
    return Place(number, name, versions.parse(version).text if equals else None)
