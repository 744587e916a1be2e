"""`lwm2m objects`: the object definitions that the server has."""

from typing import Annotated

import typer

from lwm2m_server.cli.output import Column
from lwm2m_server.cli.session import Session, remote

app = typer.Typer(help="Show object definitions.", no_args_is_help=True)

_COLUMNS: list[Column] = [
    ("object", "id"),
    ("version", "version"),
    ("name", "name"),
    ("multiple", "multiple"),
    ("urn", "urn"),
]
_RESOURCES: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("operations", "operations"),
    ("type", "type"),
    ("multiple", "multiple"),
    ("mandatory", "mandatory"),
    ("range", "range"),
    ("units", "units"),
]


@app.command("list")
@remote
def list_objects(session: Session) -> None:
    """List the objects."""
    session.out.records(session.client.get("/objects")["items"], _COLUMNS)


@app.command("show")
@remote
def show(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="OBJECT", min=0, max=65535, help="Its id.")],
    version: Annotated[str | None, typer.Option(help="Else the newest.")] = None,
) -> None:
    """Show an object and its resources."""
    found = session.client.get(f"/objects/{number}", version=version)
    if session.out.as_json:
        session.out.record(found)
        return
    session.out.record(found, [*_COLUMNS, ("description", "description")])
    print()
    session.out.records(found["resources"], _RESOURCES)
