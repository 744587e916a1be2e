"""`lwm2m keys`: signing keys (made and kept here) and the public keys that a server trusts."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lwm2m_server.cli.output import Column, Output, moment
from lwm2m_server.cli.session import Session, offline, read_file, remote, unreadable
from lwm2m_server.errors import Conflict, InvalidInput

app = typer.Typer(help="Make signing keys; say which a server trusts.", no_args_is_help=True)

_COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("algorithm", "algorithm"),
    ("added", lambda key: moment(key["created_at"])),
    ("revoked", lambda key: moment(key["revoked_at"])),
]


class Algorithm(StrEnum):
    """What to sign with."""

    ESP256 = "esp256"
    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
    except FileExistsError:
        raise Conflict(
            f"{path} exists already and is not overwritten", field="FILE", hint="name another file"
        ) from None
    except OSError as error:
        raise unreadable(path, "FILE", error) from None


@app.command("new")
@offline
def new(
    out: Output,
    file: Annotated[
        Path, typer.Argument(help="Gets the private key; FILE.pub gets the public one.", metavar="FILE")
    ],
    algorithm: Annotated[Algorithm, typer.Option(help="ESP256 is ECDSA on P-256.")] = Algorithm.ESP256,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase and encrypt the key with it.")
    ] = False,
) -> None:
    """Make a signing key, offline. The private key stays with you and never goes to a server."""
    from lwm2m_server.firmware.keys import ENTROPY_SIZE, KeyType, SigningKey

    public = file.with_name(file.name + ".pub")
    if public.exists():
        raise Conflict(
            f"{public} exists already and is not overwritten", field="FILE", hint="name another file"
        )
    password = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if passphrase else None
    key = SigningKey.generate(KeyType(algorithm.value))
    pem = key.encrypted_pem(password.encode(), os.urandom(ENTROPY_SIZE)) if password else key.pem()
    write_new(file, pem, 0o600)
    write_new(public, key.public.pem(), 0o644)
    record = {"id": key.public.key_id.hex(), "private": str(file), "public": str(public)}
    out.record(record)


@app.command("add")
@remote
def add(
    session: Session,
    file: Annotated[Path, typer.Argument(help="A public key (PEM).", metavar="FILE")],
    name: Annotated[str | None, typer.Option(help="Its name; else that of the file.")] = None,
) -> None:
    """Trust a public key: manifests that it signed are accepted from now on."""
    document = read_file(file, "FILE")
    if b"PRIVATE KEY" in document:
        raise InvalidInput(
            f"{file} is a private key, which never goes to a server",
            field="FILE",
            hint=f"give the public key, {file}.pub if 'lwm2m keys new' made it",
        )
    key = session.client.upload("/keys", file, "application/x-pem-file", name=name or file.stem)
    session.out.record(key, _COLUMNS)


@app.command("list")
@remote
def list_keys(
    session: Session,
    revoked: Annotated[bool, typer.Option("--revoked", help="Also those trusted no longer.")] = False,
) -> None:
    """List the keys that the server trusts."""
    found = session.client.get("/keys", revoked=str(revoked).lower())["items"]
    session.out.records(found, _COLUMNS, empty="no key is trusted yet")


@app.command("remove")
@remote
def remove(session: Session, key: Annotated[str, typer.Argument(help="Its id.", metavar="ID")]) -> None:
    """Trust a key no longer."""
    from lwm2m_server.cli.client import segment

    session.client.delete(f"/keys/{segment(key)}")
    session.out.done(f"key {key} is trusted no longer")
