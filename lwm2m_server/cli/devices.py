"""`lwm2m devices`: what the server knows of devices."""

import json
from typing import Annotated, Any

import typer

from lwm2m_server.cli.output import Column, Record, moment
from lwm2m_server.cli.session import Session, pairs, remote
from lwm2m_server.errors import InvalidInput

app = typer.Typer(help="Show devices and set their attributes.", no_args_is_help=True)

Endpoint = Annotated[str, typer.Argument(help="Endpoint client name.", metavar="ENDPOINT")]

_COLUMNS: list[Column] = [
    ("endpoint", "endpoint"),
    ("registered", "registered"),
    ("last seen", lambda device: moment((device.get("registration") or {}).get("last_seen"))),
    ("manufacturer", "manufacturer"),
    ("model", "model"),
    ("firmware", "firmware.version"),
    ("attributes", lambda device: attributes_text(device["attributes"])),
]
_FIELDS: list[Column] = [
    ("endpoint", "endpoint"),
    ("registered", "registered"),
    ("address", "registration.address"),
    ("last seen", lambda device: moment((device.get("registration") or {}).get("last_seen"))),
    ("expires", lambda device: moment((device.get("registration") or {}).get("expires_at"))),
    ("lifetime", lambda device: _seconds((device.get("registration") or {}).get("lifetime"))),
    ("LwM2M", "registration.lwm2m_version"),
    ("queue mode", "registration.queue_mode"),
    ("manufacturer", "manufacturer"),
    ("model", "model"),
    ("serial", "serial"),
    ("hardware", "hardware_version"),
    ("firmware", "firmware.version"),
    ("firmware digest", "firmware.digest"),
    ("fits", lambda device: _bytes(device["capacity"])),
    ("sequence number", "sequence"),
    ("components", lambda device: "; ".join(map(_component, device["components"]))),
    ("applications", lambda device: "; ".join(map(_application, device["applications"]))),
    ("vendor id", "vendor_id"),
    ("class id", "class_id"),
    ("takes manifests", "understands_manifests"),
    ("attributes", lambda device: attributes_text(device["attributes"])),
    ("objects", lambda device: " ".join((device.get("registration") or {}).get("objects", []))),
]


def _bytes(count: int | None) -> str:
    return "-" if count is None else f"{count} bytes"


def _component(component: Record) -> str:
    """Write a component: `modem 5.1.0 (a1b2c3d4e5f6, 65536 bytes fit)`."""
    more = [] if component["digest"] is None else [component["digest"][:12]]
    more += [] if component["capacity"] is None else [f"{component['capacity']} bytes fit"]
    return f"{component['name']} {component['version'] or '?'}" + (f" ({', '.join(more)})" if more else "")


def _application(application: Record) -> str:
    """Write an application: `meter 2.0.0`, `meter 2.0.0 (off)`, `meter (not installed)`, `(free)`."""
    if application["version"] is None:
        return f"{application['name']} (not installed)" if application["name"] else "(free)"
    return f"{application['name']} {application['version']}" + ("" if application["active"] else " (off)")


def _seconds(count: int | None) -> str:
    return "-" if count is None else f"{count} s"


def attributes_text(attributes: Record) -> str:
    """Write attributes on one line."""
    texts = (f"{name}={_plain(value)}" for name, value in sorted(attributes.items()))
    return " ".join(texts)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def attribute_value(text: str) -> Any:
    """Read a value: true, false, a number, a text in quotes as JSON; anything else is text as it stands."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


@app.command("list")
@remote
def list_devices(
    session: Session,
    wanted: Annotated[
        str, typer.Option("--filter", "-f", help="""Such as 'model = "pump" and firmware.version < 2.1'.""")
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 100,
) -> None:
    """List devices, all or those that a filter names."""
    found, more = session.client.items("/devices", limit=limit, filter=wanted or None)
    session.out.records(found, _COLUMNS, empty="no device matches" if wanted else "no device is known yet")
    if more:
        session.out.note(f"the first {limit}; there are more: --limit 0 shows all")


@app.command("show")
@remote
def show(session: Session, endpoint: Endpoint) -> None:
    """Show all that is known of a device."""
    session.out.record(session.client.get(_path(endpoint)), _FIELDS)


@app.command("set")
@remote
def set_attributes(
    session: Session,
    endpoint: Endpoint,
    values: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="true, false, number or text.")
    ],
) -> None:
    """Set attributes of a device, for filters: region=eu floor=3."""
    changes = {name: attribute_value(text) for name, text in pairs(values, "NAME=VALUE").items()}
    _change(session, endpoint, changes)


@app.command("unset")
@remote
def unset_attributes(
    session: Session, endpoint: Endpoint, names: Annotated[list[str], typer.Argument(metavar="NAME...")]
) -> None:
    """Remove attributes of a device."""
    if any("=" in name for name in names):
        raise InvalidInput(
            "give names alone, without values", field="NAME", hint="to set one: lwm2m devices set"
        )
    _change(session, endpoint, dict.fromkeys(names))


@app.command("delete")
@remote
def delete(session: Session, endpoint: Endpoint) -> None:
    """Forget a device; its history stays."""
    session.client.delete(_path(endpoint))
    session.out.done(f"{endpoint} is forgotten")


@app.command("history")
@remote
def history(
    session: Session,
    endpoint: Endpoint,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 50,
) -> None:
    """Show what happened to a device, the newest first."""
    found, _ = session.client.items(_path(endpoint) + "/events", limit=limit)
    session.out.records(found, EVENT_COLUMNS, empty="nothing has happened")


EVENT_COLUMNS: list[Column] = [
    ("time", lambda event: moment(event["at"])),
    ("event", "kind"),
    ("campaign", "campaign_id"),
    ("details", lambda event: attributes_text(event["data"])),
]


def _path(endpoint: str) -> str:
    from lwm2m_server.cli.client import segment

    return f"/devices/{segment(endpoint)}"


def _change(session: Session, endpoint: str, changes: dict[str, Any]) -> None:
    answer = session.client.patch(_path(endpoint) + "/attributes", {"attributes": changes})
    session.out.done(f"{endpoint}: {attributes_text(answer['attributes']) or 'no attributes'}", answer)
