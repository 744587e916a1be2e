"""`lwm2m manifest`: make, sign, show and verify manifests offline; upload and list them."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lwm2m_server.cli.checking import ManifestFile, diff, lint, verify
from lwm2m_server.cli.keys import PassphraseFile
from lwm2m_server.cli.output import Column, Output, Record, moment, size
from lwm2m_server.cli.session import Session, offline, pairs, read_file, remote, unreadable
from lwm2m_server.errors import InvalidInput

if TYPE_CHECKING:
    from lwm2m_server.firmware.description import ComponentDescription

app = typer.Typer(help="Make, sign, verify and upload manifests (SUIT).", no_args_is_help=True)

MEDIA_TYPE = "application/suit-envelope+cose"
OFFLINE = "Offline"
SERVER = "On the server"
_LATEST = 253_402_300_799  # the last second that a calendar can say

Encrypted = Annotated[
    Path | None,
    typer.Option(help="What `firmware encrypt` made of IMAGE: this is fetched, and decrypted by devices."),
]
Integrated = Annotated[
    bool, typer.Option("--integrated", help="The envelope carries the image itself (small ones).")
]
InPlaceFrom = Annotated[
    list[Path] | None,
    typer.Option(
        help="An image that devices with one slot may run: a delta from it is made; may be repeated."
    ),
]
SlotSize = Annotated[
    int | None, typer.Option(min=1, help="Bytes of that slot, which the deltas rewrite in place.")
]
SegmentSize = Annotated[
    int | None,
    typer.Option(min=1, help="Bytes that it is erased by, a multiple of the device's page; else 4096."),
]
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
    ("components", lambda manifest: _components(manifest["details"])),
    ("added", lambda manifest: moment(manifest["created_at"])),
]
_FIELDS: list[Column] = [
    ("id", "id"),
    *_COLUMNS[1:6],
    ("image", "image_digest"),
    *_COLUMNS[7:9],
    ("key", "key_id"),
]


def _components(details: Record) -> str:
    """Name what a manifest installs; components without a version are payloads of others."""
    listed = details.get("components") or []
    return ", ".join(f"{each['component']} {each['version']}" for each in listed if each.get("version"))


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


@app.command("create", rich_help_panel=OFFLINE)
@offline
def create(
    out: Output,
    *,
    image: Annotated[
        Path | None,
        typer.Argument(help="Image of the first component: gives digest and size.", metavar="IMAGE"),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--from", help="Description of the update (YAML); flags go before it.")
    ] = None,
    vendor: Annotated[str | None, typer.Option(help="The vendor's domain, such as acme.example.")] = None,
    device_class: Annotated[
        str | None, typer.Option("--class", help="Class of devices, such as meter-v2.")
    ] = None,
    sequence: Annotated[
        int | None, typer.Option(min=0, help="Sequence number; devices refuse lower ones than they took.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Version of the update; else what the image says.")
    ] = None,
    manufacturer: Annotated[str, typer.Option(help="As plain devices report it (/3/0/0).")] = "",
    model: Annotated[str, typer.Option(help="As plain devices report it (/3/0/1).")] = "",
    component: Annotated[
        str, typer.Option(help="Name of the first component: words or hex parts, joined by /; else 00.")
    ] = "",
    uri: Annotated[str | None, typer.Option(help="Where to fetch it; else /fw/DIGEST on the server.")] = None,
    encrypted: Encrypted = None,
    integrated: Integrated = False,
    requires: Annotated[
        str, typer.Option(help="What the running version must fulfil, such as '>= 1.5, < 3.0'.")
    ] = "",
    in_place_from: InPlaceFrom = None,
    slot_size: SlotSize = None,
    segment_size: SegmentSize = None,
    further: Annotated[
        list[str] | None,
        typer.Option("--with", help="Another component: ID=IMAGE or ID=IMAGE@VERSION; may be repeated."),
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    text: Annotated[
        list[str] | None, typer.Option(help="The description in a language: de=WORDS; may be repeated.")
    ] = None,
    use_before: Annotated[
        str | None, typer.Option(help="Refused from then on, such as 2027-01-01T00:00:00Z.")
    ] = None,
    minimum_battery: Annotated[int | None, typer.Option(min=0, help="Charge that it takes, in mWh.")] = None,
    authorize: Annotated[
        int | None,
        typer.Option(help="Ask the device's application, with this priority; less is more urgent."),
    ] = None,
    downgrade: Annotated[
        bool,
        typer.Option("--downgrade", help="It may go back to an older version; an operator must sign too."),
    ] = False,
    install: Annotated[
        str | None,
        typer.Option(
            help="all-or-nothing, or best-effort: only the first component must succeed.", show_default=False
        ),
    ] = None,
    sever: Annotated[
        list[str] | None, typer.Option(help="Put this member (text, install) beside the manifest.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Else IMAGE.suit.")] = None,
) -> None:
    """Describe an update in a manifest, not yet signed."""
    from lwm2m_server.cli.plans import Reader, in_place, load_plan, with_flags
    from lwm2m_server.firmware.build import build_manifest
    from lwm2m_server.firmware.describe import describe
    from lwm2m_server.firmware.plan import read_plan

    named = image or plan
    if named is None:
        raise InvalidInput("there is nothing to describe", field="IMAGE", hint="give IMAGE, or --from FILE")
    flags = {
        "vendor": vendor,
        "class": device_class,
        "sequence": sequence,
        "version": version,
        "manufacturer": manufacturer or None,
        "model": model or None,
        "description": description or None,
        "text": pairs(text or [], "text") or None,
        "use_before": use_before,
        "minimum_battery": minimum_battery,
        "authorize": authorize,
        "downgrade": downgrade,
        "install": install,
        "sever": sever,
    }
    merged = with_flags(
        {} if plan is None else load_plan(plan),
        flags,
        image=image,
        component={
            "id": component,
            "uri": uri,
            "encrypted": encrypted,
            "integrated": integrated,
            "requires": requires,
            "in_place": in_place(in_place_from or [], slot_size, segment_size),
        },
        further=further or [],
    )
    folder = Path() if plan is None else plan.parent
    described = read_plan(merged, Reader(out, folder))
    envelope = build_manifest(described)
    target = output or named.with_name(named.name + ".suit")
    for described_component in described.components:
        _write_deltas(out, described_component, target)
    _write(target, envelope)
    _show(out, describe(envelope), target)
    out.note(f"next: lwm2m manifest sign {target} --key PRIVATE-KEY")


@app.command("sign", rich_help_panel=OFFLINE)
@offline
def sign(
    out: Output,
    file: ManifestFile,
    key: Annotated[Path | None, typer.Option("--key", "-k", help="Private key (PEM).")] = None,
    passphrase_file: PassphraseFile = None,
    sign_with: Annotated[
        str | None,
        typer.Option(help="Program that signs for a key that it holds: bytes on stdin, signature on stdout."),
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="The public key (PEM) that --sign-with signs for.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Else the file itself is replaced.")
    ] = None,
) -> None:
    """Sign a manifest, once more where it is signed already. The private key never leaves where it is."""
    from lwm2m_server.cli.signing import signer_of
    from lwm2m_server.firmware.describe import describe
    from lwm2m_server.firmware.envelope import sign as sign_envelope

    envelope = read_file(file, "FILE")
    signed = sign_envelope(envelope, signer_of(key, passphrase_file, sign_with, public_key))
    target = output or file
    _write(target, signed)
    _show(out, describe(signed), target)


@app.command("show", rich_help_panel=OFFLINE)
@offline
def show(out: Output, file: ManifestFile) -> None:
    """Show what is in a manifest, without trusting it."""
    from lwm2m_server.firmware.describe import describe

    _show(out, describe(read_file(file, "FILE")), file)


app.command("verify", rich_help_panel=OFFLINE)(verify)
app.command("lint", rich_help_panel=OFFLINE)(lint)
app.command("diff", rich_help_panel=OFFLINE)(diff)


def _show(out: Output, content: Record, file: Path) -> None:
    if out.as_json:
        out.record({"file": str(file), **content})
        return
    main, *others = content["components"]
    flat = {
        "file": str(file),
        "version": content["version"],
        "sequence": content["sequence_number"],
        "vendor": main["vendor_domain"],
        "vendor id": ", ".join(main["vendor_ids"]),
        "class id": ", ".join(main["class_ids"]),
        "manufacturer": main["manufacturer"],
        "model": main["model"],
        **_component(main),
    }
    told = {delta["digest"] for each in content["components"] for delta in each["deltas"]}
    for component in others:
        if component["digests"] and told.issuperset(component["digests"]):
            continue  # it only takes the deltas
        mark = f"{component['component']}: "
        flat |= {mark + name: value for name, value in _component(component).items() if name != "component"}
        flat[mark + "version"] = component["version"]
    if content["use_before"] is not None:
        flat["use before"] = datetime.fromtimestamp(min(content["use_before"], _LATEST), UTC).isoformat()
    if content["downgrade"]:
        flat["downgrade"] = "may go back to an older version, with an operator's approval"
    flat["severed"] = ", ".join(content["severed"])
    flat["carries"] = ", ".join(f"{uri} ({part['size']} bytes)" for uri, part in content["payloads"].items())
    flat["signed by"] = ", ".join(f"{s['key_id']} ({s['algorithm']})" for s in content["signatures"])
    flat["signed by"] = flat["signed by"] or "nobody yet"
    out.record({name: value for name, value in flat.items() if value or name not in ("severed", "carries")})


def _write_deltas(out: Output, component: "ComponentDescription", manifest: Path) -> None:
    """Write the deltas that a manifest names, beside it."""
    for delta in component.deltas:
        file = manifest.with_suffix(f".from-{delta.base.hex()[:8]}.delta")
        _write(file, delta.content)
        share = delta.size * 100 / component.size
        out.note(
            f"{file}: {delta.size} bytes, {share:.1f} % of the image; upload it: lwm2m firmware add {file}"
        )


def _component(component: Record) -> dict[str, Any]:
    shown = {
        "component": component["component"],
        "image digest": ", ".join(component["digests"]),
        "image size": ", ".join(f"{count} bytes" for count in component["sizes"]),
        "image URI": ", ".join(component["uris"]),
        **{f"delta from {delta['base'][:16]}": _delta(delta) for delta in component["deltas"]},
    }
    found = component["encryption"]
    if found is None:
        return shown
    keys = " or ".join(found.get("key_ids", []))
    how = found.get("unusable") or f"{found['algorithm']}, {found['key_wrap']} for key {keys}"
    decrypted = {} if found["source"] is None else {"decrypted from": f"component {found['source'] + 1}"}
    return shown | decrypted | {"encryption": how}


def _delta(delta: Record) -> str:
    return (
        f"{delta['digest']}, {delta['size']} bytes, at {delta['uri']}, "
        f"for a slot of {delta['memory']} bytes in segments of {delta['segment']}"
    )


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
