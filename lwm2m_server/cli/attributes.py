"""`lwm2m attributes`: the names that filters know, and their types."""

from enum import StrEnum
from typing import Annotated

import typer

from lwm2m_server.cli.output import Column
from lwm2m_server.cli.session import Session, remote

app = typer.Typer(help="List the attributes of devices, and define types.", no_args_is_help=True)

_COLUMNS: list[Column] = [
    ("name", "name"),
    ("type", "type"),
    ("set by", lambda each: "server" if each["built_in"] else "operators"),
]


class Type(StrEnum):
    """Types that an operators' attribute may have (devices.attributes.OPERATOR_TYPES)."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    VERSION = "version"


@app.command("list")
@remote
def list_attributes(session: Session) -> None:
    """List all names that a filter may use."""
    session.out.records(session.client.get("/attributes")["items"], _COLUMNS)


@app.command("define")
@remote
def define(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as boot.version.")],
    type_: Annotated[Type, typer.Argument(metavar="TYPE", help="text, number, boolean or version.")],
) -> None:
    """Say what the values of an attribute are, before the first is set; versions are known only so."""
    from lwm2m_server.cli.client import segment

    answer = session.client.put(f"/attributes/{segment(name)}", {"type": type_.value})
    session.out.done(f"{name}: {type_.value}", answer)
