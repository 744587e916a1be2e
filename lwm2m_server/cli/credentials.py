"""`lwm2m credentials` and `lwm2m authorities`: what proves to a server who a device is."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from lwm2m_server.cli.exits import ExitCode
from lwm2m_server.cli.output import Column, Output, moment
from lwm2m_server.cli.session import Session, offline, read_file, remote, unreadable
from lwm2m_server.devices.identities import Kind, Source
from lwm2m_server.errors import InvalidInput

app = typer.Typer(help="Say by which keys and certificates devices prove who they are.", no_args_is_help=True)
authorities = typer.Typer(help="Trust issuers of devices' certificates.", no_args_is_help=True)

Identity = Annotated[str, typer.Argument(help="Such as psk:meter-1.", metavar="IDENTITY")]
Key = Annotated[
    str,
    typer.Option("--key", help="Pre-shared key in hex; - reads it from standard input; else one is made."),
]
PublicKey = Annotated[Path | None, typer.Option("--public-key", help="File with a public key (PEM, DER).")]
Certificate = Annotated[
    Path | None, typer.Option("--certificate", help="File with a device's certificate (PEM, DER).")
]

_COLUMNS: list[Column] = [
    ("identity", "identity"),
    ("endpoint", "endpoint"),
    ("added", lambda each: moment(each["created_at"])),
    ("rotated", lambda each: moment(each["rotated_at"])),
    ("expires", lambda each: moment(each["expires_at"])),
    ("removed", lambda each: moment(each["revoked_at"])),
]
_AUTHORITY: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("subject", "subject"),
    ("source", "source"),
    ("pattern", "pattern"),
    ("expires", lambda each: moment(each["expires_at"])),
]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(text: str) -> float:
    """Read a duration such as 90, 30m, 12h or 7d."""
    match = re.fullmatch(r"(\d{1,9})([smhdw]?)", text.strip())
    if match is None:
        raise InvalidInput(f"'{text}' is no duration", field="--overlap", hint="such as 90, 30m, 12h or 7d")
    return float(int(match[1]) * _UNITS[match[2] or "s"])


def _document(file: Path | None, field: str) -> str:
    """Read PEM as it is, DER as hex."""
    if file is None:
        return ""
    content = read_file(file, field)
    return content.decode("ascii", "replace") if content.isascii() else content.hex()


def _material(key: str, public_key: Path | None, certificate: Path | None) -> dict[str, str]:
    given = {
        "key": typer.get_text_stream("stdin").readline().strip() if key == "-" else key,
        "public_key": _document(public_key, "--public-key"),
        "certificate": _document(certificate, "--certificate"),
    }
    return {name: text for name, text in given.items() if text}


def _path(identity: str, *more: str) -> str:
    from lwm2m_server.cli.client import segment

    return "/".join(["/credentials", segment(identity), *more])


def _made(session: Session, made: dict[str, Any], what: str) -> None:
    if session.out.as_json:
        session.out.record(made)
        return
    if made["key"] is not None:
        print(made["key"])
        session.out.note(
            f"{what} {made['identity']} for {made['endpoint']}; this is its key, which is not shown again"
        )
    else:
        session.out.note(f"{what} {made['identity']} for {made['endpoint']}")


@app.command("add")
@remote
def add(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="Endpoint name of the device.", metavar="ENDPOINT")],
    kind: Annotated[Kind | None, typer.Option(help="Else as what is given says; psk without it.")] = None,
    identity: Annotated[
        str, typer.Option(help="Of a pre-shared key, else the endpoint name; or rpk: or x509: and a SHA-256.")
    ] = "",
    key: Key = "",
    public_key: PublicKey = None,
    certificate: Certificate = None,
) -> None:
    """Add a credential. A key that the server makes is printed this once and never again."""
    guessed = _guess(identity, public_key, certificate)
    body = {"endpoint": endpoint, "kind": (kind or guessed).value, "identity": identity}
    body |= _material(key, public_key, certificate)
    _made(session, session.client.post("/credentials", body), "added")


def _guess(identity: str, public_key: Path | None, certificate: Path | None) -> Kind:
    if public_key is not None or identity.startswith("rpk:"):
        return Kind.RPK
    return Kind.X509 if certificate is not None or identity.startswith("x509:") else Kind.PSK


@app.command("list")
@remote
def list_credentials(
    session: Session,
    endpoint: Annotated[str | None, typer.Option(help="Of this device.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Of this kind.")] = None,
    revoked: Annotated[bool, typer.Option("--revoked", help="Also those that were removed.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 0,
) -> None:
    """List credentials, without keys."""
    found, more = session.client.items(
        "/credentials",
        limit=limit,
        endpoint=endpoint,
        kind=None if kind is None else kind.value,
        revoked=str(revoked).lower(),
    )
    session.out.records(found, _COLUMNS, empty="no credential is there yet")
    if more:
        session.out.note("there are more; --limit 0 shows all")


@app.command("show")
@remote
def show(session: Session, identity: Identity) -> None:
    """Show a credential; a pre-shared key is never shown."""
    session.out.record(session.client.get(_path(identity)))


@app.command("rotate")
@remote
def rotate(
    session: Session,
    identity: Identity,
    overlap: Annotated[
        str,
        typer.Option(help="How long the old one counts beside it: 90, 30m, 12h, 7d; 0 ends its sessions."),
    ] = "1d",
    key: Key = "",
    public_key: PublicKey = None,
    certificate: Certificate = None,
) -> None:
    """Give a device a new key; a public key or a certificate gets a new identity with it."""
    body: dict[str, Any] = {"overlap": seconds(overlap)}
    body |= _material(key, public_key, certificate)
    _made(session, session.client.post(_path(identity, "rotate"), body), "rotated")


@app.command("remove")
@remote
def remove(session: Session, identity: Identity) -> None:
    """Take a credential no longer and end its sessions at once."""
    session.client.delete(_path(identity))
    session.out.done(f"{identity} is removed; its sessions have ended")


@app.command("import")
@remote
def import_credentials(
    session: Session,
    file: Annotated[Path, typer.Argument(help="CSV, see 'lwm2m credentials template'.", metavar="FILE")],
    strict: Annotated[bool, typer.Option("--strict", help="Import all lines or none.")] = False,
) -> None:
    """Add a credential a line. Exit code 2: lines were refused, each is named; the same file may be sent again."""
    try:
        length = file.stat().st_size
        with file.open("rb"):
            pass
    except OSError as error:
        raise unreadable(file, "FILE", error) from None
    with session.out.progress(file.name, length) as advance:
        report = session.client.upload(
            "/credentials/import", file, "text/csv", advance=advance, strict=str(strict).lower()
        )
    if session.out.as_json:
        session.out.record(report)
    else:
        for each in report["refusals"]:
            session.out.note(f"line {each['line']}: {each['field']}: {each['detail']}")
        session.out.note(
            f"{report['added']} added, {report['unchanged']} unchanged, {report['refused']} refused"
        )
    if report["refused"]:
        raise typer.Exit(ExitCode.INVALID)


@app.command("template")
@offline
def template(out: Output) -> None:
    """Print an example of the CSV that 'import' reads."""
    from lwm2m_server.services.credential_import import COLUMNS, TEMPLATE

    if out.as_json:
        out.record({"columns": list(COLUMNS), "template": TEMPLATE})
    else:
        print(TEMPLATE, end="")


@app.command("server")
@remote
def server(
    session: Session,
    pem: Annotated[bool, typer.Option("--pem", help="Print the public key in PEM alone.")] = False,
) -> None:
    """Show the server's own public key, which devices pin, and its certificate."""
    found = session.client.get("/server-key")
    if pem:
        body = found["public_key"]
        lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
        print(f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----")
        return
    session.out.record(found)


@authorities.command("add")
@remote
def add_authority(
    session: Session,
    file: Annotated[Path, typer.Argument(help="Certificate of the issuer (PEM, DER).", metavar="FILE")],
    source: Annotated[
        Source, typer.Option(help="Names with the endpoint name; none: only known fingerprints.")
    ],
    pattern: Annotated[
        str | None, typer.Option(help="Where it stands in them, such as 'urn:imei:{endpoint}'.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name; else that of the file.")] = None,
) -> None:
    """Take certificates that this issuer has signed itself, for the endpoint names that stand in them."""
    body = {
        "name": name or file.stem,
        "certificate": _document(file, "FILE"),
        "source": source.value,
        "pattern": pattern if pattern is not None else ("" if source is Source.NONE else "{endpoint}"),
    }
    session.out.record(session.client.post("/authorities", body), _AUTHORITY)


@authorities.command("list")
@remote
def list_authorities(session: Session) -> None:
    """List the issuers that are trusted."""
    session.out.records(
        session.client.get("/authorities")["items"], _AUTHORITY, empty="no authority is trusted"
    )


@authorities.command("remove")
@remote
def remove_authority(
    session: Session, authority: Annotated[str, typer.Argument(help="Its id.", metavar="ID")]
) -> None:
    """Trust an issuer no longer and end the sessions of its devices at once."""
    from lwm2m_server.cli.client import segment

    session.client.delete(f"/authorities/{segment(authority)}")
    session.out.done(f"authority {authority} is trusted no longer; the sessions of its devices have ended")
