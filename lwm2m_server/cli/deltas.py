"""`lwm2m firmware delta` and `savings`: how much smaller an update can be sent, and was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lwm2m_server.cli.output import Column, size
from lwm2m_server.cli.session import Session, read_file, remote
from lwm2m_server.errors import InvalidInput

_COLUMNS: list[Column] = [
    ("method", "method"),
    ("size", lambda delta: size(delta["size"]) if delta["digest"] else "-"),
    ("of the image", lambda delta: f"{delta['share']:.1%}" if delta["digest"] else "-"),
    ("seconds", lambda delta: f"{delta['seconds']:.2f}"),
    ("", lambda delta: "" if delta["state"] == "ready" else delta["text"] or delta["state"]),
]


@remote
def compare(
    session: Session,
    base: Annotated[str, typer.Argument(help="The old image: digest, or a file.", metavar="FROM")],
    target: Annotated[str, typer.Argument(help="The new image: digest, or a file.", metavar="TO")],
    slot_size: Annotated[
        int | None, typer.Option(min=1, help="Of files: also in place, in one slot of so many bytes.")
    ] = None,
    segment_size: Annotated[int, typer.Option(min=1, help="Bytes that this slot is erased by.")] = 4096,
    save: Annotated[
        Path | None, typer.Option(help="Of files: keep the patches in this folder, named by method.")
    ] = None,
) -> None:
    """Compare the methods by which one image can be sent as a delta to another; files need no server."""
    files = [Path(name).is_file() for name in (base, target)]
    if not any(files):
        if slot_size is not None or save is not None:
            raise InvalidInput("--slot-size and --save are for files", field="FROM", hint="name two files")
        found = session.client.get("/deltas", base=base, target=target)
    elif not all(files):
        odd = base if not files[0] else target
        raise InvalidInput(f"{odd} is no file, but the other one is", field="FROM", hint="name two files")
    else:
        old, new = read_file(Path(base), "FROM"), read_file(Path(target), "TO")
        deltas = sorted(_made(old, new, slot_size, segment_size, save), key=lambda each: each["size"])
        found = {"size": len(new), "deltas": [each for each in deltas if each["digest"]]}
        found["deltas"] += [each for each in deltas if not each["digest"]]
    if session.out.as_json:
        session.out.record(found)
    else:
        session.out.records(found["deltas"], _COLUMNS, empty="no method could be tried on these images")


def _made(
    old: bytes, new: bytes, slot_size: int | None, segment_size: int, folder: Path | None
) -> Iterator[dict[str, Any]]:
    import tempfile

    from lwm2m_server.delta_worker import make, make_in_place
    from lwm2m_server.firmware.deltas import Method

    with tempfile.TemporaryDirectory() as scratch:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        place = folder or Path(scratch)
        for method in Method:
            yield _shown(make(method, old, new, place), len(new))
        if slot_size is not None:
            yield _shown(make_in_place(old, new, place, slot_size, segment_size), len(new))


def _shown(told: dict[str, Any], image_size: int) -> dict[str, Any]:
    """Give the worker's answer the form of the API's."""
    return {
        "method": told["method"],
        "state": "failed" if "error" in told else "ready",
        "text": told.get("error", ""),
        "digest": told.get("digest"),
        "size": told.get("size", 0),
        "share": round(told.get("size", 0) / max(1, image_size), 4),
        "seconds": told["seconds"],
        "memory": told["memory"],
    }


def saved(sums: Any) -> str:
    """Write what was saved, in bytes and as a share."""
    return f"{_signed(sums['saved_bytes'])}{_share(sums)}"


def _signed(count: int) -> str:
    return size(count) if count >= 0 else f"-{size(-count)}"


def _share(sums: Any) -> str:
    return f" ({sums['saved_bytes'] / sums['image_bytes']:.1%})" if sums["image_bytes"] else ""


_SAVINGS: list[Column] = [
    ("updates", "updates"),
    ("by a delta", "deltas"),
    ("images", lambda sums: size(sums["image_bytes"])),
    ("sent", lambda sums: size(sums["sent_bytes"])),
    ("saved", saved),
]


@remote
def savings(
    session: Session,
    campaign: Annotated[str | None, typer.Option(help="Of this campaign only: id or name.")] = None,
    device: Annotated[str | None, typer.Option(help="Of this device only.")] = None,
) -> None:
    """Show how many bytes deltas saved: of all updates that ended well, of a campaign, of a device."""
    session.out.record(session.client.get("/deltas/savings", campaign=campaign, device=device), _SAVINGS)
