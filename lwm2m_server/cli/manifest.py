"""`lwm2m manifest`: make, sign, show and verify manifests offline; upload and list them."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lwm2m_server.cli.output import Column, Output, Record, moment, size
from lwm2m_server.cli.session import Session, offline, read_file, remote, unreadable
from lwm2m_server.errors import InvalidInput

app = typer.Typer(help="Make, sign, verify and upload manifests (SUIT).", no_args_is_help=True)

MEDIA_TYPE = "application/suit-envelope+cose"
OFFLINE = "Offline"
SERVER = "On the server"

ManifestFile = Annotated[Path, typer.Argument(help="The manifest.", metavar="FILE")]
ManifestId = Annotated[str, typer.Argument(help="Its id, or the beginning.", metavar="ID")]

_COLUMNS: list[Column] = [
    ("id", lambda manifest: manifest["id"][:16]),
    ("name", "name"),
    ("version", "version"),
    ("sequence", "sequence"),
    ("manufacturer", "manufacturer"),
    ("model", "model"),
    ("image", lambda manifest: manifest["image_digest"][:16]),
    ("size", lambda manifest: size(manifest["image_size"])),
    ("added", lambda manifest: moment(manifest["created_at"])),
]
_FIELDS: list[Column] = [
    ("id", "id"),
    *_COLUMNS[1:6],
    ("image", "image_digest"),
    _COLUMNS[7],
    ("key", "key_id"),
]


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        Path(file.name).chmod(0o666 & ~mask)
        Path(file.name).replace(path)
    except OSError as error:
        raise unreadable(path, "output", error) from None


def component_of(text: str) -> tuple[bytes, ...]:
    """Read a component identifier: parts in hex, joined by `/`, as `manifest show` prints it."""
    try:
        parts = tuple(bytes.fromhex(part) for part in text.split("/"))
    except ValueError:
        parts = ()
    if not parts or not all(parts):
        raise InvalidInput(
            f"'{text}' is not a component", field="component", hint="write hex parts, such as 00 or 00/01"
        )
    return parts


@app.command("create", rich_help_panel=OFFLINE)
@offline
def create(
    out: Output,
    *,
    image: Annotated[Path, typer.Argument(help="The image: gives digest and size.", metavar="IMAGE")],
    vendor: Annotated[str, typer.Option(help="The vendor's domain, such as acme.example.")],
    device_class: Annotated[str, typer.Option("--class", help="Class of devices, such as meter-v2.")],
    sequence: Annotated[
        int, typer.Option(min=0, help="Sequence number; devices refuse lower ones than they took.")
    ],
    version: Annotated[
        str | None, typer.Option(help="Version of the image; else what the image says.")
    ] = None,
    manufacturer: Annotated[str, typer.Option(help="As plain devices report it (/3/0/0).")] = "",
    model: Annotated[str, typer.Option(help="As plain devices report it (/3/0/1).")] = "",
    component: Annotated[str, typer.Option(help="Component identifier, hex parts joined by /.")] = "00",
    uri: Annotated[str | None, typer.Option(help="Where to fetch it; else /fw/DIGEST on the server.")] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Else IMAGE.suit.")] = None,
) -> None:
    """Describe an image in a manifest, not yet signed."""
    from lwm2m_server.firmware.build import ManifestDescription, build_manifest
    from lwm2m_server.firmware.describe import describe
    from lwm2m_server.firmware.images import inspect

    try:
        info = inspect(image)
    except OSError as error:
        raise unreadable(image, "IMAGE", error) from None
    if info.hint is not None:
        out.note(f"warning: {image}: {info.hint}")
    chosen = version or info.version
    if chosen is None:
        raise InvalidInput(f"{image} does not say its version", field="version", hint="give --version")
    envelope = build_manifest(
        ManifestDescription(
            vendor_domain=vendor,
            class_name=device_class,
            version=chosen,
            sequence_number=sequence,
            image_digest=info.digest,
            image_size=info.size,
            image_uri=uri or f"/fw/{info.digest.hex()}",
            component=component_of(component),
            manufacturer=manufacturer,
            model=model,
            description=description,
        )
    )
    target = output or image.with_name(image.name + ".suit")
    _write(target, envelope)
    _show(out, describe(envelope), target)
    out.note(f"next: lwm2m manifest sign {target} --key PRIVATE-KEY")


@app.command("sign", rich_help_panel=OFFLINE)
@offline
def sign(
    out: Output,
    file: ManifestFile,
    key: Annotated[Path, typer.Option("--key", "-k", help="Private key (PEM).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Else the file itself is replaced.")
    ] = None,
) -> None:
    """Sign a manifest. The private key never leaves this machine."""
    from lwm2m_server.firmware.cose import SigningKey
    from lwm2m_server.firmware.describe import describe
    from lwm2m_server.firmware.envelope import sign as sign_envelope

    envelope, pem = read_file(file, "FILE"), read_file(key, "key")
    password = None
    if b"ENCRYPTED PRIVATE KEY" in pem:
        password = typer.prompt(f"Passphrase of {key}", hide_input=True, err=True).encode()
    signed = sign_envelope(envelope, SigningKey.from_pem(pem, password, field="key"))
    target = output or file
    _write(target, signed)
    _show(out, describe(signed), target)


@app.command("show", rich_help_panel=OFFLINE)
@offline
def show(out: Output, file: ManifestFile) -> None:
    """Show what is in a manifest, without trusting it."""
    from lwm2m_server.firmware.describe import describe

    _show(out, describe(read_file(file, "FILE")), file)


@app.command("verify", rich_help_panel=OFFLINE)
@offline
def verify(
    out: Output,
    file: ManifestFile,
    keys: Annotated[
        list[Path], typer.Option("--key", "-k", help="Public key to trust (PEM); may be repeated.")
    ],
    image: Annotated[Path | None, typer.Option(help="Also hold this image against it.")] = None,
) -> None:
    """Check signature and digests of a manifest, and of the image where one is given."""
    from lwm2m_server.firmware.cose import VerificationKey
    from lwm2m_server.firmware.envelope import verify as verify_envelope
    from lwm2m_server.firmware.images import check_image, inspect

    envelope = read_file(file, "FILE")
    trusted = [VerificationKey.from_pem(read_file(key, "key"), field=f"key {key}") for key in keys]
    verified = verify_envelope(envelope, trusted)
    if image is not None:
        try:
            check_image(inspect(image), verified.facts)
        except OSError as error:
            raise unreadable(image, "image", error) from None
    facts = verified.facts
    key_id = verified.key_id.hex()
    out.done(
        f"{file}: genuine, version {facts.version}, sequence {facts.sequence_number}, key {key_id}",
        {
            "valid": True,
            "key_id": key_id,
            "version": facts.version,
            "sequence": facts.sequence_number,
            "image_checked": image is not None,
        },
    )


def _show(out: Output, content: Record, file: Path) -> None:
    main = content["components"][0]
    flat = {
        "file": str(file),
        "version": content["version"],
        "sequence": content["sequence_number"],
        "vendor": main["vendor_domain"],
        "vendor id": ", ".join(main["vendor_ids"]),
        "class id": ", ".join(main["class_ids"]),
        "manufacturer": main["manufacturer"],
        "model": main["model"],
        "component": main["component"],
        "image digest": ", ".join(main["digests"]),
        "image size": ", ".join(f"{count} bytes" for count in main["sizes"]),
        "image URI": ", ".join(main["uris"]),
        "signed by": ", ".join(f"{s['key_id']} ({s['algorithm']})" for s in content["signatures"])
        or "nobody yet",
    }
    out.record({"file": str(file), **content} if out.as_json else flat)


@app.command("add", rich_help_panel=SERVER)
@remote
def add(
    session: Session,
    file: ManifestFile,
    name: Annotated[str | None, typer.Option(help="Its name; else image and version.")] = None,
) -> None:
    """Upload a signed manifest; the server verifies it against its keys and images."""
    read_file(file, "FILE")
    session.out.record(session.client.upload("/manifests", file, MEDIA_TYPE, name=name), _FIELDS)


@app.command("list", rich_help_panel=SERVER)
@remote
def list_manifests(session: Session) -> None:
    """List the manifests on the server."""
    found, _ = session.client.items("/manifests")
    session.out.records(found, _COLUMNS, empty="no manifest is there yet")


@app.command("download", rich_help_panel=SERVER)
@remote
def download(
    session: Session,
    manifest: ManifestId,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")],
) -> None:
    """Download a manifest; `manifest show` and `verify` then work on it."""
    _write(output, session.client.bytes(_path(manifest) + "/envelope"))
    session.out.done(f"{output} is written", {"file": str(output)})


@app.command("remove", rich_help_panel=SERVER)
@remote
def remove(session: Session, manifest: ManifestId) -> None:
    """Remove a manifest that no campaign names."""
    session.client.delete(_path(manifest))
    session.out.done(f"manifest {manifest} is removed")


def _path(manifest: str) -> str:
    from lwm2m_server.cli.client import segment

    return f"/manifests/{segment(manifest)}"
