"""ESP-IDF application images: header, segments, checksum, SHA-256, application description, secure boot.

The layout is that of `esp_image_format.h` and `esp_app_desc.h`. Secure boot version 2 puts a sector of 4096 bytes
behind the image with up to three blocks, each a public key and a signature over everything before the sector;
version 1 (ESP32 before revision 3) has 68 bytes there.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from lwm2m_server.firmware.formats.facts import ImageFacts, Plain, Signature, SignatureState
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.formats.refused import ImageCode, malformed, refused
from lwm2m_server.firmware.formats.view import filled_with, folded, part, text, unpack

MAGIC: Final = 0xE9
APP_MAGIC: Final = 0xABCD5432
APP_OFFSET: Final = 32
MAX_SEGMENTS: Final = 16
SECTOR: Final = 4096
_HEADER: Final = "<BBBBIB3sHBHH4sB"
_APP: Final = "<II8s32s32s16s16s32s32s"
_SEED: Final = 0xEF
_BLOCK: Final = 1216
_BLOCK_MAGIC: Final = 0xE7
_MAX_BLOCKS: Final = 3
_RSA_BLOCK, _ECDSA_BLOCK = 2, 3
_SHA384_BLOCK: Final = 1
_V1_SIZE: Final = 68

CHIPS: Final = {
    0: "ESP32",
    2: "ESP32-S2",
    5: "ESP32-C3",
    9: "ESP32-S3",
    12: "ESP32-C2",
    13: "ESP32-C6",
    16: "ESP32-H2",
    18: "ESP32-P4",
    20: "ESP32-C61",
    23: "ESP32-C5",
    25: "ESP32-H21",
    28: "ESP32-H4",
    31: "ESP32-E22",
    32: "ESP32-S31",
}
"""Chip ids of the header."""
_CURVES: Final[dict[int, tuple[type[ec.EllipticCurve], int]]] = {
    1: (ec.SECP192R1, 24),
    2: (ec.SECP256R1, 32),
    3: (ec.SECP384R1, 48),
}
_ANY_REVISION: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class App:
    """The application description (`esp_app_desc_t`); texts are None where they are empty."""

    secure_version: int
    version: str | None
    project: str | None
    compiled: str | None
    idf_version: str | None
    elf_sha256: bytes


def is_esp_idf(head: bytes | memoryview) -> bool:
    """Whether the first 36 bytes are those of an application: its description tells it from other things."""
    return (
        len(head) >= APP_OFFSET + 4
        and head[0] == MAGIC
        and int.from_bytes(head[APP_OFFSET : APP_OFFSET + 4], "little") == APP_MAGIC
    )


def version_of(head: bytes | memoryview) -> str | None:
    """Read the version out of the first 80 bytes; None where there is none."""
    raw = bytes(head[48:80]).split(b"\0", 1)[0]
    return raw.decode("ascii") if len(head) >= 80 and raw.isascii() and raw.strip() else None


def examine(view: memoryview, keys: Sequence[ImageKey]) -> ImageFacts:
    """Check structure, checksum, hash and signatures of an application image.

    Raises `ImageRefused`: `image-malformed`, `image-digest`, `image-signature`.
    """
    header = unpack(_HEADER, view, 0, "header")
    count, entry, chip_id, oldest, newest, hashed = (
        header[1],
        header[4],
        header[7],
        header[9],
        header[10],
        header[12],
    )
    if not 1 <= count <= MAX_SEGMENTS:
        raise malformed(f"the header says that there are {count} segments, not 1 to 16", "header.segments")
    if hashed > 1:
        raise malformed(f"the header's flag for a hash is {hashed}, not 0 or 1", "header.hash_appended")
    end, first_length = _segments(view, count)
    app = _app(view, first_length)
    notes: list[str] = []
    if hashed:
        end = _check_hash(view, end)
    else:
        notes.append("No hash is appended: one byte of checksum is all that tells damage.")
    signatures, details = _signatures(view, end, keys, notes)
    chip = CHIPS.get(chip_id, f"chip {chip_id}")
    if chip_id not in CHIPS:
        notes.append(f"The chip id {chip_id} is unknown here.")
    about: dict[str, Plain] = {
        "chip_id": chip_id,
        "min_chip_revision": f"{oldest // 100}.{oldest % 100}",
        "max_chip_revision": None if newest == _ANY_REVISION else f"{newest // 100}.{newest % 100}",
        "entry": entry,
        "segments": count,
        "idf_version": app.idf_version,
        "compiled": app.compiled,
        "elf_sha256": app.elf_sha256.hex(),
        "hash": "sha256" if hashed else None,
        **details,
    }
    return ImageFacts(
        version=app.version,
        project=app.project,
        chip=chip,
        security_counter=app.secure_version,
        signatures=signatures,
        content_checked=True,
        details=about,
        notes=tuple(notes),
    )


def _segments(view: memoryview, count: int) -> tuple[int, int]:
    """Walk over the segments and check their checksum; return the end of it, and the first one's length."""
    at, total, first = 24, _SEED, 0
    for number in range(count):
        field = f"segments[{number}]"
        _, length = unpack("<II", view, at, field)
        at += 8
        if length % 4 or at + length > len(view):
            raise malformed(
                f"segment {number} says that it has {length} bytes, which does not fit the file", field
            )
        total ^= folded(view[at : at + length])
        first = length if number == 0 else first
        at += length
    end = at - at % 16 + 16  # the checksum is the last byte of the block of 16 that follows the data
    stated = part(view, end - 1, 1, "checksum")[0]
    if any(part(view, at, end - 1 - at, "checksum")):
        raise malformed("the bytes before the checksum are not zero", "checksum")
    if stated != total:
        raise refused(
            ImageCode.DIGEST,
            f"the checksum of the segments is 0x{total:02x}, the image says 0x{stated:02x}",
            field="checksum",
            hint="the image was damaged; build it again",
        )
    return end, first


def _app(view: memoryview, first_length: int) -> App:
    if first_length < 256:
        raise malformed("the first segment is too short for the application description", "app")
    magic, secure_version, _, version, project, time, date, idf, elf = unpack(_APP, view, APP_OFFSET, "app")
    if magic != APP_MAGIC:
        raise malformed("the application description is missing", "app")
    compiled = " ".join(filter(None, (text(date, "app.date"), text(time, "app.time")))) or None
    return App(
        secure_version,
        text(version, "app.version"),
        text(project, "app.project"),
        compiled,
        text(idf, "app.idf_version"),
        elf,
    )


def _check_hash(view: memoryview, end: int) -> int:
    stated = part(view, end, 32, "hash")
    computed = hashlib.sha256(view[:end]).digest()
    if stated != computed:
        raise refused(
            ImageCode.DIGEST,
            f"the image says that its SHA-256 is {stated.hex()}, it is {computed.hex()}",
            field="hash",
            hint="it was damaged or changed after it was built; build it again",
        )
    return end + 32


def _signatures(
    view: memoryview, end: int, keys: Sequence[ImageKey], notes: list[str]
) -> tuple[tuple[Signature, ...], dict[str, Plain]]:
    """Verify what stands behind the image; anything else there is refused, as nothing protects it."""
    rest = view[end:]
    if not rest:
        return (), {"secure_boot": None}
    if len(view) % SECTOR == 0 and len(rest) >= SECTOR and rest[len(rest) - SECTOR] == _BLOCK_MAGIC:
        content = view[: len(view) - SECTOR]
        if not filled_with(content[end:], 0xFF):
            raise malformed("between the image and its signature there is more than padding", "trailer")
        return _sector(view, content, keys)
    if len(rest) == _V1_SIZE and rest[:4] == bytes(4):
        return (_version_1(view[:end], bytes(rest[4:]), keys),), {"secure_boot": 1}
    if filled_with(rest, 0xFF):
        notes.append(f"{len(rest)} bytes at the end are padding, which every device would fetch.")
        return (), {"secure_boot": None}
    raise malformed(f"{len(rest)} bytes follow the image; nothing protects them", "trailer")


def _version_1(content: memoryview, raw: bytes, keys: Sequence[ImageKey]) -> Signature:
    """Verify a signature of secure boot 1, which names no key: ours can only be tried."""
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    digest = hashlib.sha256(content).digest()
    for key in keys:
        if key.algorithm == "ecdsa-p256" and key.holds(signature, digest):
            return Signature("ecdsa-p256", SignatureState.VERIFIED, key.key_id)
    return Signature("ecdsa-p256", SignatureState.UNKNOWN_KEY)


def _sector(
    view: memoryview, content: memoryview, keys: Sequence[ImageKey]
) -> tuple[tuple[Signature, ...], dict[str, Plain]]:
    sector = view[len(content) :]
    trusted = {key.key_id for key in keys}
    done: list[Signature] = []
    digests: list[Plain] = []
    hashes: dict[str, bytes] = {}
    for number in range(_MAX_BLOCKS):
        block = bytes(sector[number * _BLOCK : (number + 1) * _BLOCK])
        if block[0] != _BLOCK_MAGIC:
            if number == 0 or not filled_with(sector[number * _BLOCK :], 0xFF):
                raise malformed("the signature sector is neither blocks nor padding", f"signature[{number}]")
            break
        signature, key_digest = _block(block, number, content, trusted, hashes)
        done.append(signature)
        digests.append(key_digest.hex())
    if not filled_with(sector[_MAX_BLOCKS * _BLOCK :], 0xFF):
        raise malformed("behind the signature blocks there is more than padding", "signature")
    return tuple(done), {"secure_boot": 2, "key_digests": digests}


def _block(
    block: bytes, number: int, content: memoryview, trusted: set[str], hashes: dict[str, bytes]
) -> tuple[Signature, bytes]:
    """Verify one block with the key that it carries; return whose that is and the digest that eFuses hold."""
    field = f"signature[{number}]"
    if int.from_bytes(block[1196:1200], "little") != zlib.crc32(block[:1196]):
        raise malformed("the block's checksum (CRC) does not fit", field)
    if any(block[1200:]):
        raise malformed("the bytes behind the block's checksum are not zero", field)
    wide = block[1] == _ECDSA_BLOCK and block[2] == _SHA384_BLOCK
    name, size = ("sha384", 48) if wide else ("sha256", 32)
    if name not in hashes:
        hashes[name] = hashlib.new(name, content).digest()
    digest = hashes[name]
    if block[4 : 4 + size] != digest:
        raise refused(
            ImageCode.DIGEST,
            f"the signature is for an image with the {name} {block[4 : 4 + size].hex()}, this one has {digest.hex()}",
            field=field,
            hint="the image was changed after it was signed; sign it again",
        )
    if block[1] == _RSA_BLOCK:
        key, signature, key_digest = _rsa(block, field)
    elif block[1] == _ECDSA_BLOCK:
        key, signature, key_digest = _ecdsa(block, field, wide=wide)
    else:
        raise malformed(f"a signature block of version {block[1]} is unknown", field)
    if not key.holds(signature, digest):
        raise refused(
            ImageCode.SIGNATURE,
            "the signature does not hold for the key that stands beside it",
            field=field,
            hint="sign the image again",
        )
    known = key.key_id in trusted
    state = SignatureState.VERIFIED if known else SignatureState.UNKNOWN_KEY
    return Signature(key.algorithm, state, key.key_id), key_digest


def _rsa(block: bytes, field: str) -> tuple[ImageKey, bytes, bytes]:
    modulus, exponent = int.from_bytes(block[36:420], "little"), int.from_bytes(block[420:424], "little")
    try:
        public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise malformed("the block's RSA key is none", field) from None
    # Derived from the modulus for the chip's multiplier; with other values its boot ROM refuses the image.
    helper, inverse = int.from_bytes(block[424:808], "little"), int.from_bytes(block[808:812], "little")
    if public.key_size != 3072 or modulus % 2 == 0:
        raise malformed(f"the block's RSA key has {public.key_size} bits, not 3072", field)
    if helper != (1 << 6144) % modulus or (inverse * modulus + 1) % (1 << 32):
        raise malformed("the constants beside the RSA key do not fit it", field)
    return ImageKey.of(public), block[812:1196][::-1], hashlib.sha256(block[36:812]).digest()


def _ecdsa(block: bytes, field: str, *, wide: bool) -> tuple[ImageKey, bytes, bytes]:
    start, room = (52, 96) if wide else (36, 64)
    curve_id = block[start]
    if curve_id not in _CURVES or (curve_id == 3) != wide:
        raise malformed(f"the curve {curve_id} does not fit the block", field)
    curve, size = _CURVES[curve_id]
    point, raw = block[start + 1 : start + 1 + room], block[start + 1 + room : start + 1 + 2 * room]
    x, y, r, s = (
        int.from_bytes(half, "little")
        for source in (point, raw)
        for half in (source[:size], source[size : 2 * size])
    )
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
    except ValueError:
        raise malformed("the block's key is no point of its curve", field) from None
    key_digest = hashlib.sha256(block[start : start + 1 + room]).digest()
    return ImageKey.of(public), encode_dss_signature(r, s), key_digest
