"""`lwm2m keys`: signing keys (made and kept here) and the public keys that a server trusts."""

import os
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lwm2m_server.cli.output import Column, Output, moment
from lwm2m_server.cli.session import Session, offline, read_file, remote, unreadable
from lwm2m_server.errors import Conflict, InvalidInput

app = typer.Typer(help="Make signing keys; say which a server trusts.", no_args_is_help=True)

_COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("algorithm", "algorithm"),
    ("roles", lambda key: ", ".join(key["roles"])),
    ("from", lambda key: moment(key["not_before"])),
    ("until", lambda key: moment(key["not_after"])),
    ("needs too", lambda key: key["requires"] or ""),
    ("added", lambda key: moment(key["created_at"])),
    ("revoked", lambda key: moment(key["revoked_at"])),
]


class Algorithm(StrEnum):
    """What to sign with."""

    ESP256 = "esp256"
    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"


class Role(StrEnum):
    """What a key's signature stands for."""

    IMAGE_AUTHOR = "image-author"
    OPERATOR_APPROVAL = "operator-approval"


PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="File whose first line is the passphrase; else $LWM2M_KEY_PASSPHRASE, else asked for."),
]
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
NotBefore = Annotated[datetime | None, typer.Option(formats=_TIMES, help="It counts from then on (UTC).")]
NotAfter = Annotated[datetime | None, typer.Option(formats=_TIMES, help="It counts until before then (UTC).")]
Requires = Annotated[
    Algorithm | None,
    typer.Option(help="Manifests signed by it need a signature of this algorithm too."),
]
Roles = Annotated[
    list[Role] | None, typer.Option("--role", help="What its signature stands for; may be repeated.")
]
KeyId = Annotated[str, typer.Argument(help="Its id.", metavar="ID")]


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
        bool, typer.Option("--passphrase", help="Encrypt the key with a passphrase.")
    ] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a signing key, offline. The private key stays with you and never goes to a server."""
    from lwm2m_server.cli.signing import new_passphrase
    from lwm2m_server.firmware.keys import ENTROPY_SIZE, KeyType, SigningKey

    public = file.with_name(file.name + ".pub")
    if public.exists():
        raise Conflict(
            f"{public} exists already and is not overwritten", field="FILE", hint="name another file"
        )
    password = new_passphrase(passphrase_file) if passphrase or passphrase_file else None
    key = SigningKey.generate(KeyType(algorithm.value))
    pem = key.encrypted_pem(password, os.urandom(ENTROPY_SIZE)) if password else key.pem()
    write_new(file, pem, 0o600)
    write_new(public, key.public.pem(), 0o644)
    record = {"id": key.public.key_id.hex(), "private": str(file), "public": str(public)}
    out.record(record)


@app.command("encrypt")
@offline
def encrypt(
    out: Output,
    file: Annotated[Path, typer.Argument(help="A private key.", metavar="FILE")],
    new_file: Annotated[Path, typer.Argument(help="Gets the same key, encrypted.", metavar="NEW")],
    passphrase_file: PassphraseFile = None,
    old_passphrase_file: Annotated[
        Path | None, typer.Option(help="The same for the passphrase that FILE has now.")
    ] = None,
) -> None:
    """Encrypt a private key with a passphrase, or change its passphrase, into a new file."""
    from lwm2m_server.cli.signing import load_key, new_passphrase
    from lwm2m_server.firmware.keys import ENTROPY_SIZE

    key = load_key(file, old_passphrase_file)
    password = new_passphrase(passphrase_file)
    write_new(new_file, key.encrypted_pem(password, os.urandom(ENTROPY_SIZE)), 0o600)
    out.record({"id": key.public.key_id.hex(), "private": str(new_file)})


@app.command("public")
@offline
def public(
    out: Output,
    file: Annotated[Path, typer.Argument(help="A key, public or private (PEM).", metavar="FILE")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the public key.")
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Show id and algorithm of a key; write the public half of a private one."""
    from lwm2m_server.cli.signing import load_key
    from lwm2m_server.firmware.keys import VerificationKey

    private = b"PRIVATE KEY" in read_file(file, "FILE")
    key = load_key(file, passphrase_file).public if private else VerificationKey.from_pem(file.read_bytes())
    if output is not None:
        write_new(output, key.pem(), 0o644)
    out.record({"id": key.key_id.hex(), "algorithm": key.key_type.value, "public": str(output or file)})


@app.command("add")
@remote
def add(
    session: Session,
    file: Annotated[Path, typer.Argument(help="A public key (PEM).", metavar="FILE")],
    name: Annotated[str | None, typer.Option(help="Its name; else that of the file.")] = None,
    roles: Roles = None,
    not_before: NotBefore = None,
    not_after: NotAfter = None,
    requires: Requires = None,
) -> None:
    """Trust a public key: manifests that it signed are accepted from now on."""
    document = read_file(file, "FILE")
    if b"PRIVATE KEY" in document:
        raise InvalidInput(
            f"{file} is a private key, which never goes to a server",
            field="FILE",
            hint=f"give the public key, {file}.pub if 'lwm2m keys new' made it",
        )
    key = session.client.upload(
        "/keys",
        file,
        "application/x-pem-file",
        name=name or file.stem,
        role=[role.value for role in roles or [Role.IMAGE_AUTHOR]],
        not_before=_time(not_before),
        not_after=_time(not_after),
        requires=None if requires is None else requires.value,
    )
    session.out.record(key, _COLUMNS)


@app.command("edit")
@remote
def edit(
    session: Session,
    key: KeyId,
    name: Annotated[str | None, typer.Option(help="Its name.")] = None,
    roles: Roles = None,
    not_before: NotBefore = None,
    not_after: NotAfter = None,
    requires: Requires = None,
    no_end: Annotated[bool, typer.Option("--no-end", help="It counts without an end again.")] = False,
    alone: Annotated[bool, typer.Option("--alone", help="It needs no second signature any more.")] = False,
) -> None:
    """Change a key; to rotate it, trust the new one and end the old one's time with --not-after."""
    from lwm2m_server.cli.client import segment

    given: dict[str, Any] = {
        "name": name,
        "roles": [role.value for role in roles] if roles else None,
        "not_before": _time(not_before),
        "not_after": _time(not_after),
        "requires": None if requires is None else requires.value,
    }
    changes = {what: value for what, value in given.items() if value is not None}
    changes |= {"not_after": None} if no_end else {}
    changes |= {"requires": None} if alone else {}
    if not changes:
        raise InvalidInput("nothing is changed", field="ID", hint="see lwm2m keys edit --help")
    session.out.record(session.client.patch(f"/keys/{segment(key)}", changes), _COLUMNS)


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
def remove(session: Session, key: KeyId) -> None:
    """Trust a key no longer."""
    from lwm2m_server.cli.client import segment

    session.client.delete(f"/keys/{segment(key)}")
    session.out.done(f"key {key} is trusted no longer")


def _time(given: datetime | None) -> str | None:
    return None if given is None else given.replace(tzinfo=UTC).isoformat()
