"""`lwm2m firmware`: images on the server."""

from pathlib import Path
from typing import Annotated

import typer

from lwm2m_server.cli.output import Column, moment, size
from lwm2m_server.cli.session import Session, remote, unreadable
from lwm2m_server.errors import InvalidInput

app = typer.Typer(help="Upload and show firmware images.", no_args_is_help=True)

Digest = Annotated[str, typer.Argument(help="SHA-256 in hex, or its beginning.", metavar="DIGEST")]

_COLUMNS: list[Column] = [
    ("digest", lambda image: image["digest"][:16]),
    ("name", "name"),
    ("version", "version"),
    ("size", lambda image: size(image["size"])),
    ("format", "format"),
    ("added", lambda image: moment(image["created_at"])),
]


@app.command("add")
@remote
def add(
    session: Session,
    file: Annotated[Path, typer.Argument(help="The image.", metavar="FILE")],
    name: Annotated[str | None, typer.Option(help="Its name; else that of the file.")] = None,
    version: Annotated[str | None, typer.Option(help="Its version, if the image does not say.")] = None,
) -> None:
    """Upload an image. The same bytes again are recognised."""
    try:
        length = file.stat().st_size
        with file.open("rb"):
            pass
    except OSError as error:
        raise unreadable(file, "FILE", error) from None
    if not file.is_file() or length == 0:
        raise InvalidInput(f"{file} is empty or not a file", field="FILE", hint="name the image itself")
    with session.out.progress(file.name, length) as advance:
        image = session.client.upload(
            "/firmware",
            file,
            "application/octet-stream",
            advance=advance,
            name=name or file.name,
            version=version,
        )
    session.out.record(image, _COLUMNS_FULL)


_COLUMNS_FULL: list[Column] = [
    ("digest", "digest"),
    ("name", "name"),
    ("version", "version"),
    ("size", lambda image: f"{image['size']} bytes"),
    ("format", "format"),
    ("added", lambda image: moment(image["created_at"])),
    ("by", "created_by"),
]


@app.command("list")
@remote
def list_images(session: Session) -> None:
    """List the images."""
    found, _ = session.client.items("/firmware")
    session.out.records(found, _COLUMNS, empty="no image is there yet")


@app.command("show")
@remote
def show(session: Session, digest: Digest) -> None:
    """Show an image."""
    session.out.record(session.client.get(_path(digest)), _COLUMNS_FULL)


@app.command("remove")
@remote
def remove(session: Session, digest: Digest) -> None:
    """Remove an image that no manifest names."""
    session.client.delete(_path(digest))
    session.out.done(f"image {digest} is removed")


def _path(digest: str) -> str:
    from lwm2m_server.cli.client import segment

    return f"/firmware/{segment(digest)}"
