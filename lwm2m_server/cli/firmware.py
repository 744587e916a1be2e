"""`lwm2m firmware`: images on the server, and what can be said of a file without it."""

import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lwm2m_server.cli import deltas, encrypting
from lwm2m_server.cli.keys import write_new
from lwm2m_server.cli.output import Column, Output, moment, size
from lwm2m_server.cli.session import Session, offline, read_file, remote, unreadable
from lwm2m_server.errors import InvalidInput

app = typer.Typer(help="Upload and show firmware images.", no_args_is_help=True)
keys = typer.Typer(help="Say which keys may have signed images (MCUboot, ESP-IDF).", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.command("delta")(deltas.compare)
app.command("encrypt")(encrypting.encrypt)
app.command("savings")(deltas.savings)


class Format(StrEnum):
    """As `firmware.images.ImageFormat`, which takes long to import."""

    RAW = "raw"
    MCUBOOT = "mcuboot"
    ESP_IDF = "esp-idf"
    UF2 = "uf2"
    ELF = "elf"
    INTEL_HEX = "intel-hex"


Digest = Annotated[str, typer.Argument(help="SHA-256 in hex, or its beginning.", metavar="DIGEST")]
Version = Annotated[
    str | None, typer.Option(help="Its version; must agree with the image where that names one.")
]
ExpectFormat = Annotated[
    Format | None,
    typer.Option(help="Refuse another format; uf2, elf and intel-hex let such a file in as it is."),
]
ExpectProject = Annotated[str | None, typer.Option(help="Refuse another project (ESP-IDF).")]
ExpectChip = Annotated[str | None, typer.Option(help="Refuse an image for another chip, such as esp32s3.")]
ExpectCounter = Annotated[
    int | None,
    typer.Option(
        "--expect-security-counter", help="Refuse another security counter or secure version.", min=0
    ),
]
ExpectVendor = Annotated[str | None, typer.Option(help="Refuse another vendor (domain or UUID; MCUboot).")]
ExpectClass = Annotated[str | None, typer.Option(help="Refuse another class (name or UUID; MCUboot).")]


def _signed(image: Any) -> str:
    found = image["details"].get("signatures", [])
    states = [str(each["state"]) for each in found]
    return "verified" if "verified" in states else states[0] if states else "-"


_COLUMNS: list[Column] = [
    ("digest", lambda image: image["digest"][:16]),
    ("name", "name"),
    ("version", "version"),
    ("project", lambda image: image["details"].get("project")),
    ("size", lambda image: size(image["size"])),
    ("format", "format"),
    ("signature", _signed),
    ("added", lambda image: moment(image["created_at"])),
]


def _claims(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


@app.command("add")
@remote
def add(
    session: Session,
    file: Annotated[Path, typer.Argument(help="The image.", metavar="FILE")],
    name: Annotated[str | None, typer.Option(help="Its name; else that of the file.")] = None,
    version: Version = None,
    expect_format: ExpectFormat = None,
    expect_project: ExpectProject = None,
    expect_chip: ExpectChip = None,
    expect_counter: ExpectCounter = None,
    expect_vendor: ExpectVendor = None,
    expect_class: ExpectClass = None,
) -> None:
    """Upload an image. The same bytes again are recognised; an upload that broke off goes on."""
    from lwm2m_server.cli.upload import send

    length = _length(file)
    claims = _claims(
        {
            "name": name or file.name,
            "version": version,
            "format": expect_format,
            "project": expect_project,
            "chip": expect_chip,
            "security_counter": expect_counter,
            "vendor": expect_vendor,
            "class": expect_class,
        }
    )
    with session.out.progress(file.name, length) as advance:
        image = send(session.client, file, claims, advance=advance, note=session.out.note)
    for note in image["details"].get("notes", []):
        session.out.note(f"note: {note}")
    session.out.record(image, _fields(image))


def _length(file: Path) -> int:
    try:
        length = file.stat().st_size
        with file.open("rb"):
            pass
    except OSError as error:
        raise unreadable(file, "FILE", error) from None
    if not file.is_file() or length == 0:
        raise InvalidInput(f"{file} is empty or not a file", field="FILE", hint="name the image itself")
    return length


def _fields(image: Any) -> list[Column]:
    """What there is to show of this image: what it does not say is left out."""
    shown = [
        ("digest", image["digest"]),
        ("name", image.get("name")),
        ("version", image["version"]),
        ("size", f"{image['size']} bytes"),
        ("format", image["format"]),
        ("added", moment(image["created_at"]) if "created_at" in image else None),
        ("by", image.get("created_by")),
        *_details(image["details"]),
    ]
    return [(title, _constant(str(text))) for title, text in shown if text is not None]


def _constant(text: str) -> Callable[[Any], str]:
    return lambda _: text


def _details(details: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in details.items():
        title = "note" if name == "notes" else name.replace("_", " ")
        if isinstance(value, dict):
            yield from _details(value)
        elif isinstance(value, list):
            for each in value:
                yield title, " ".join(str(part) for part in each.values()) if isinstance(each, dict) else each
        else:
            yield title, ("yes" if value else "no") if isinstance(value, bool) else value


@app.command("list")
@remote
def list_images(session: Session) -> None:
    """List the images."""
    found, _ = session.client.items("/firmware")
    session.out.records(found, _COLUMNS, empty="no image is there yet")


@app.command("show")
@remote
def show(session: Session, digest: Digest) -> None:
    """Show an image and what it says of itself."""
    image = session.client.get(_path(digest))
    session.out.record(image, _fields(image))


@app.command("remove")
@remote
def remove(session: Session, digest: Digest) -> None:
    """Remove an image that no manifest names."""
    session.client.delete(_path(digest))
    session.out.done(f"image {digest} is removed")


@app.command("inspect")
@offline
def inspect_file(
    out: Output,
    file: Annotated[Path, typer.Argument(help="The image.", metavar="FILE")],
    key: Annotated[
        list[Path] | None, typer.Option(help="A public key (PEM) to verify signatures with; may be repeated.")
    ] = None,
    version: Version = None,
    expect_format: ExpectFormat = None,
    expect_project: ExpectProject = None,
    expect_chip: ExpectChip = None,
    expect_counter: ExpectCounter = None,
    expect_vendor: ExpectVendor = None,
    expect_class: ExpectClass = None,
) -> None:
    """Check a file as the server would, offline."""
    from lwm2m_server.firmware.formats.keys import ImageKey
    from lwm2m_server.firmware.image_checks import Expected, check_expected
    from lwm2m_server.firmware.images import ImageFormat, details_of, inspect

    _length(file)
    expected = Expected(
        version=version,
        format=None if expect_format is None else ImageFormat(expect_format.value),
        project=expect_project,
        chip=expect_chip,
        security_counter=expect_counter,
        vendor=expect_vendor,
        device_class=expect_class,
    )
    expected.check()
    info = inspect(file, [ImageKey.from_pem(read_file(each, "key")) for each in key or []])
    check_expected(info, expected)
    record: dict[str, Any] = {
        "digest": info.digest.hex(),
        "size": info.size,
        "version": version or info.version,
        "format": info.format.value,
        "details": details_of(info),
    }
    out.record(record, _fields(record))


@app.command("convert")
@offline
def convert_file(
    out: Output,
    file: Annotated[Path, typer.Argument(help="UF2, Intel HEX or ELF.", metavar="FILE")],
    output: Annotated[Path, typer.Option(help="Gets the image; must not exist yet.")],
    only: Annotated[
        str | None, typer.Option("--range", help="Take what lies there, such as 0x0-0x80000.")
    ] = None,
) -> None:
    """Make the image out of a file that holds it in pieces, offline. Holes are filled with 0xFF."""
    from lwm2m_server.firmware.images import convert

    address, image = convert(read_file(file, "FILE"), within=None if only is None else _range(only))
    write_new(output, image, 0o644)
    out.record({"image": str(output), "size": len(image), "address": f"0x{address:08x}"})


def _range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(0x[0-9a-fA-F]{1,16}|\d{1,19})-(0x[0-9a-fA-F]{1,16}|\d{1,19})", text.strip())
    first, behind = (int(match[1], 0), int(match[2], 0)) if match else (0, 0)
    if first >= behind:
        raise InvalidInput(f"'{text}' is no range of addresses", field="range", hint="such as 0x0-0x80000")
    return first, behind


_KEY_COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("algorithm", "algorithm"),
    ("added", lambda key: moment(key["created_at"])),
]


@keys.command("add")
@remote
def add_key(
    session: Session,
    file: Annotated[Path, typer.Argument(help="A public key (PEM).", metavar="FILE")],
    name: Annotated[str | None, typer.Option(help="Its name; else that of the file.")] = None,
) -> None:
    """Verify images with a boot loader's public key from now on."""
    document = read_file(file, "FILE")
    if b"PRIVATE KEY" in document:
        raise InvalidInput(
            f"{file} is a private key, which never goes to a server",
            field="FILE",
            hint="give the public key: imgtool getpub -e pem, or openssl pkey -pubout",
        )
    key = session.client.upload("/firmware/keys", file, "application/x-pem-file", name=name or file.stem)
    session.out.record(key, _KEY_COLUMNS)


@keys.command("list")
@remote
def list_keys(session: Session) -> None:
    """List the keys that images are verified with."""
    found = session.client.get("/firmware/keys")["items"]
    session.out.records(found, _KEY_COLUMNS, empty="no image key is trusted yet")


@keys.command("remove")
@remote
def remove_key(session: Session, key: Annotated[str, typer.Argument(help="Its id.", metavar="ID")]) -> None:
    """Verify no further images with a key."""
    from lwm2m_server.cli.client import segment

    session.client.delete(f"/firmware/keys/{segment(key)}")
    session.out.done(f"image key {key} is trusted no longer")


def _path(digest: str) -> str:
    from lwm2m_server.cli.client import segment

    return f"/firmware/{segment(digest)}"
