"""Applications as SUIT components: `app/<name>` is the application that object 9 shows under that PkgName."""

from __future__ import annotations

from typing import Final

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.suit import ComponentId, component_of, component_text

PREFIX: Final = "app/"
NAME_LIMIT: Final = 64
"""Bytes of an application's name."""


def application_in(component: str) -> str | None:
    """Return the application's name in a component's name (`component_text`), None for another component."""
    head, slash, name = component.partition("/")
    return name if head + slash == PREFIX and _is_name(name) else None


def application_name(component: ComponentId) -> str | None:
    """Return the name of the application that the component is, None for another component."""
    return application_in(component_text(component))


def application_component(name: str, field: str = "application") -> ComponentId:
    """Return the component of the application with this name; raises InvalidInput for what can't be a name."""
    found = component_of(PREFIX + name) if _is_name(name) else None
    if found is None:
        raise InvalidInput(
            f"'{name}' is no name of an application",
            field=field,
            hint=f"a letter, then letters, digits, '.', '_' and '-', at most {NAME_LIMIT} in all",
        )
    return found


def _is_name(name: str) -> bool:
    return 0 < len(name.encode("utf-8", "surrogatepass")) <= NAME_LIMIT and "/" not in name
