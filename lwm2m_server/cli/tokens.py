"""`lwm2m tokens`: who may use the server."""

from enum import StrEnum
from typing import Annotated

import typer

from lwm2m_server.cli.campaigns import zoned
from lwm2m_server.cli.output import Column, moment
from lwm2m_server.cli.session import Session, remote

app = typer.Typer(help="Make and revoke access tokens.", no_args_is_help=True)

_COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("role", "role"),
    ("created", lambda token: moment(token["created_at"])),
    ("expires", lambda token: moment(token["expires_at"])),
    ("revoked", lambda token: moment(token["revoked_at"])),
]


class Role(StrEnum):
    """As in services.access: each includes those before it."""

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"


@app.command("add")
@remote
def add(
    session: Session,
    name: Annotated[str, typer.Argument(help="Whose it is.", metavar="NAME")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = Role.READER,
    expires: Annotated[str | None, typer.Option(help="Until when, such as 2026-12-31.")] = None,
) -> None:
    """Make a token. It is printed this once and never again."""
    body = {"name": name, "role": role.value, "expires_at": zoned(expires)}
    token = session.client.post("/tokens", body)
    if session.out.as_json:
        session.out.record(token)
        return
    print(token["token"])
    session.out.note(
        f"token '{token['name']}' ({token['role']}, id {token['id']}); keep it, it is not shown again"
    )


@app.command("list")
@remote
def list_tokens(session: Session) -> None:
    """List the tokens, without their secrets."""
    session.out.records(session.client.get("/tokens")["items"], _COLUMNS)


@app.command("remove")
@remote
def remove(session: Session, token_id: Annotated[str, typer.Argument(help="Its id.", metavar="ID")]) -> None:
    """Revoke a token."""
    from lwm2m_server.cli.client import segment

    session.client.delete(f"/tokens/{segment(token_id)}")
    session.out.done(f"token {token_id} is revoked")
