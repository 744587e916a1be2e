"""`lwm2m firmware encrypt`: an image that only one class of devices can read."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwm2m_server.cli.output import Output
from lwm2m_server.cli.session import offline, read_file, unreadable
from lwm2m_server.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from lwm2m_server.firmware.encryption import ContentCipher
    from lwm2m_server.firmware.key_agreement import Agreement

_PIECE = 1 << 20


@offline
def encrypt(
    out: Output,
    image: Annotated[Path, typer.Argument(help="The image.", metavar="IMAGE")],
    key: Annotated[
        list[Path],
        typer.Option(
            "--key",
            "-k",
            help="Key of the device class: 16 bytes or hex, or its P-256 public key (PEM); repeat for several.",
        ),
    ],
    kid: Annotated[
        list[str] | None,
        typer.Option(help="Name of the key, as refusals say it; once for each --key. Else made of the key."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Else IMAGE.enc; must be new.")
    ] = None,
) -> None:
    """Encrypt an image offline: OUTPUT is what devices fetch, OUTPUT.info is for `manifest create`."""
    from lwm2m_server.firmware.encryption import IV, KEY_SIZE, MAX_RECIPIENTS, ContentCipher, encryption_info
    from lwm2m_server.firmware.plan import INFO_SUFFIX

    if kid and len(kid) != len(key):
        raise InvalidInput("each --key needs its --kid, or none has one", field="kid")
    if len(key) > MAX_RECIPIENTS:
        raise InvalidInput(f"there are at most {MAX_RECIPIENTS} keys", field="key")
    keys = [_class_key(read_file(file, "key")) for file in key]
    if kid:
        keys = [(found, name.encode()) for (found, _), name in zip(keys, kid, strict=True)]
    target = output or image.with_name(image.name + ".enc")
    info = target.with_name(target.name + INFO_SUFFIX)
    for file in (target, info):
        if file.exists():
            raise Conflict(f"{file} exists already and is not overwritten", field="output")
    # each content key is used for one image, so that the counter may begin at 0
    cipher = ContentCipher(os.urandom(KEY_SIZE), IV)
    size, digest = _write(target, _encrypted(image, cipher))
    if not size:
        target.unlink()
        raise InvalidInput(f"{image} is empty", field="IMAGE", hint="name the image itself")
    _write(info, iter([encryption_info(cipher.key, keys)]))
    out.record({"encrypted": str(target), "info": str(info), "size": size, "digest": digest})
    out.note(f"next: lwm2m manifest create {image} --encrypted {target} ...; upload {target}, never {image}")


def _class_key(content: bytes) -> "tuple[bytes | Agreement, bytes]":
    """Read the key of a class of devices, and name it by itself."""
    from lwm2m_server.firmware.encryption import kek_id, read_kek
    from lwm2m_server.firmware.key_agreement import Agreement, key_name, read_public

    if content.lstrip().startswith(b"-----BEGIN"):
        public = read_public(content, "key")
        return Agreement.new(public), key_name(public)
    kek = read_kek(content, "key")
    return kek, kek_id(kek)


def _encrypted(image: Path, cipher: "ContentCipher") -> Iterator[bytes]:
    offset = 0
    try:
        with image.open("rb") as plain:
            while piece := plain.read(_PIECE):
                yield cipher.apply(offset, piece)
                offset += len(piece)
    except OSError as error:
        raise unreadable(image, "IMAGE", error) from None


def _write(target: Path, pieces: Iterator[bytes]) -> tuple[int, str]:
    """Write a new file; return its size and SHA-256 (hex). Nothing is left of one that failed."""
    digest, size = hashlib.sha256(), 0
    try:
        with target.open("xb") as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unreadable(target, "output", error) from None
        raise
    return size, digest.hexdigest()
