"""`lwm2m manifest verify`, `lint` and `diff`: what is to be said of manifests, offline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwm2m_server.cli.keys import Algorithm
from lwm2m_server.cli.output import Output
from lwm2m_server.cli.session import offline, pairs, read_file, unreadable

if TYPE_CHECKING:
    from lwm2m_server.firmware.facts import ManifestFacts
    from lwm2m_server.firmware.trust import TrustAnchor

ManifestFile = Annotated[Path, typer.Argument(help="The manifest.", metavar="FILE")]
ApprovalKeys = Annotated[
    list[Path] | None, typer.Option("--approval-key", help="Operator's public key (PEM); may be repeated.")
]
SecondSignature = Annotated[
    Algorithm | None, typer.Option("--requires", help="A signature of this algorithm must be there too.")
]


@offline
def verify(
    out: Output,
    file: ManifestFile,
    keys: Annotated[
        list[Path], typer.Option("--key", "-k", help="Image author's public key (PEM); may be repeated.")
    ],
    approval_keys: ApprovalKeys = None,
    requires: SecondSignature = None,
    images: Annotated[
        list[Path] | None, typer.Option("--image", help="Also hold this image against it; may be repeated.")
    ] = None,
) -> None:
    """Check signatures and digests of a manifest, and of images where they are given."""
    from time import time

    from lwm2m_server.firmware.envelope import verify as verify_envelope
    from lwm2m_server.firmware.preflight import check_approval

    envelope = read_file(file, "FILE")
    verified = verify_envelope(envelope, _anchors(keys, approval_keys, requires), now=time())
    check_approval(verified)
    for image in images or []:
        _hold_against(image, verified.facts)
    facts = verified.facts
    signers = [key_id.hex() for key_id in verified.signer_ids]
    out.done(
        f"{file}: genuine, version {facts.version}, sequence {facts.sequence_number}, "
        f"key{'s' if len(signers) > 1 else ''} {', '.join(signers)}",
        {
            "valid": True,
            "key_id": verified.key_id.hex(),
            "approved_by": verified.approver_id.hex() if verified.approver_id else None,
            "signers": signers,
            "version": facts.version,
            "sequence": facts.sequence_number,
            "image_checked": bool(images),
        },
    )


@offline
def lint(
    out: Output,
    file: ManifestFile,
    *,
    vendor: Annotated[str, typer.Option(help="The device's vendor, such as acme.example.")],
    device_class: Annotated[str, typer.Option("--class", help="Its class, such as meter-v2.")],
    components: Annotated[
        list[str] | None,
        typer.Option(
            "--component", help="A component that it has, and its version: 00=1.2.0; else all, unknown."
        ),
    ] = None,
    slots: Annotated[
        list[str] | None, typer.Option("--slot-size", help="Bytes that fit into a component: 00=524288.")
    ] = None,
    installed: Annotated[
        list[str] | None, typer.Option(help="SHA-256 of what a component holds: 00=HEX.")
    ] = None,
    in_place: Annotated[
        list[str] | None,
        typer.Option(
            "--in-place",
            help="A component that deltas rewrite, bytes of its slot and of a page: 00=65536/4096; else none.",
        ),
    ] = None,
    sequence: Annotated[int, typer.Option(min=0, help="Highest sequence number that it took.")] = 0,
    battery: Annotated[int | None, typer.Option(min=0, help="Its charge in mWh; else it knows none.")] = None,
    no_clock: Annotated[bool, typer.Option("--no-clock", help="It does not know the time.")] = False,
    refuses: Annotated[bool, typer.Option("--refuses", help="Its application does not authorize.")] = False,
    fails: Annotated[
        list[str] | None, typer.Option(help="A component that can't be installed; may be repeated.")
    ] = None,
    keys: Annotated[
        list[Path] | None,
        typer.Option("--key", "-k", help="Key that it trusts; else signatures are not looked at."),
    ] = None,
    approval_keys: ApprovalKeys = None,
    requires: SecondSignature = None,
) -> None:
    """Show step by step what a device of some class and versions would do with a manifest."""
    from lwm2m_server.cli.linting import Described, show
    from lwm2m_server.firmware.lint import lint as lint_manifest

    described = Described(
        envelope=read_file(file, "FILE"),
        vendor=vendor,
        device_class=device_class,
        versions=pairs(components or [], "component"),
        slots=pairs(slots or [], "slot-size"),
        installed=pairs(installed or [], "installed"),
        in_place=pairs(in_place or [], "in-place"),
        sequence=sequence,
        battery=battery,
        clock=not no_clock,
        authorizes=not refuses,
        fails=fails or [],
        anchors=_anchors(keys, approval_keys, requires) if keys else None,
    )
    show(out, lint_manifest(described.verified(), described.facts(), described.assumptions()))


@offline
def diff(
    out: Output,
    one: Annotated[Path, typer.Argument(help="A manifest.", metavar="ONE")],
    two: Annotated[Path, typer.Argument(help="Another one.", metavar="TWO")],
) -> None:
    """Show where two manifests differ, without trusting them."""
    from lwm2m_server.firmware.describe import describe
    from lwm2m_server.firmware.lint import difference

    first, second = describe(read_file(one, "ONE")), describe(read_file(two, "TWO"))
    found = [{"where": where, "one": a, "two": b} for where, a, b in difference(first, second)]
    out.records(found, [("where", "where"), ("one", "one"), ("two", "two")], empty="no difference")


def _anchors(
    keys: list[Path], approval: list[Path] | None, requires: Algorithm | None
) -> "list[TrustAnchor]":
    """Anchors of key files; the same key may be given in both roles."""
    from lwm2m_server.firmware.keys import KeyType, VerificationKey
    from lwm2m_server.firmware.trust import Role, TrustAnchor

    held: dict[bytes, tuple[VerificationKey, set[Role]]] = {}
    for role, paths in ((Role.IMAGE_AUTHOR, keys), (Role.OPERATOR_APPROVAL, approval or [])):
        for path in paths:
            key = VerificationKey.from_pem(read_file(path, "key"), field=f"key {path}")
            held.setdefault(key.key_id, (key, set()))[1].add(role)
    second = None if requires is None else KeyType(requires.value)
    return [
        TrustAnchor(key, frozenset(roles), requires=None if key.key_type is second else second)
        for key, roles in held.values()
    ]


def _hold_against(image: Path, facts: "ManifestFacts") -> None:
    """Hold an image against the component whose digest it has, else against the first one."""
    from dataclasses import replace

    from lwm2m_server.firmware.images import check_image, inspect

    try:
        info = inspect(image)
    except OSError as error:
        raise unreadable(image, "image", error) from None
    for component in facts.components[1:]:
        if info.digest in component.digests:
            facts = replace(facts, components=(component,), version=component.version)
            break
    check_image(info, facts)
