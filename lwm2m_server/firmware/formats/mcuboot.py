"""MCUboot images (docs/design.md of MCUboot): header version 1, payload, protected and unprotected TLVs.

Hashed and signed: header, payload and protected TLVs. The signature is over that hash, with Ed25519 also over the
bytes themselves ("pure"). What is not signed must therefore not say anything that we or a device rely on: such
TLVs are refused outside of the protected area, and so are bytes after the TLVs that are no padding of a slot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from lwm2m_server.firmware.formats.facts import Dependency, ImageFacts, Plain, Signature, SignatureState
from lwm2m_server.firmware.formats.keys import SAMPLE_KEYS, ImageKey
from lwm2m_server.firmware.formats.refused import ImageCode, malformed, refused
from lwm2m_server.firmware.formats.view import filled_with, part, unpack

MAGIC: Final = 0x96F3B83D
OLD_MAGIC: Final = 0x96F3B83C
HEADER_SIZE: Final = 32
MAX_SIGNATURES: Final = 4
_INFO: Final = 0x6907
_PROTECTED_INFO: Final = 0x6908
_TRAILER_MAGIC: Final = bytes.fromhex("77c295f360d2ef7f3552500f2cb67980")
_TRAILER_MAGIC_ALIGNED: Final = bytes.fromhex("2de15d29410b8d77679c110f1f8a")  # behind two bytes of alignment
_MAX_ALIGN: Final = 32
_MAX_TRAILER_FLAGS: Final = 4


class Flag(IntFlag):
    """Flags of the header."""

    PIC = 0x1
    ENCRYPTED_AES128 = 0x4
    ENCRYPTED_AES256 = 0x8
    NON_BOOTABLE = 0x10
    RAM_LOAD = 0x20
    ROM_FIXED = 0x100
    COMPRESSED_LZMA1 = 0x200
    COMPRESSED_LZMA2 = 0x400
    COMPRESSED_ARM_THUMB = 0x800


ENCRYPTED: Final = Flag.ENCRYPTED_AES128 | Flag.ENCRYPTED_AES256
COMPRESSED: Final = Flag.COMPRESSED_LZMA1 | Flag.COMPRESSED_LZMA2


class Kind(IntEnum):
    """Types of TLVs."""

    KEY_HASH = 0x01
    PUBLIC_KEY = 0x02
    SHA256 = 0x10
    SHA384 = 0x11
    SHA512 = 0x12
    RSA2048 = 0x20
    ECDSA = 0x22
    RSA3072 = 0x23
    ED25519 = 0x24
    SIGNATURE_PURE = 0x25
    ENCRYPTED_RSA2048 = 0x30
    ENCRYPTED_KEY_WRAP = 0x31
    ENCRYPTED_EC256 = 0x32
    ENCRYPTED_X25519 = 0x33
    ENCRYPTED_X25519_SHA512 = 0x34
    DEPENDENCY = 0x40
    SECURITY_COUNTER = 0x50
    BOOT_RECORD = 0x60
    DECOMPRESSED_SIZE = 0x70
    DECOMPRESSED_SHA = 0x71
    DECOMPRESSED_SIGNATURE = 0x72
    COMPRESSED_SIZE = 0x73
    VENDOR_ID = 0x74
    CLASS_ID = 0x75


_HASH: Final[dict[int, tuple[str, Callable[..., Any]]]] = {
    Kind.SHA256: ("sha256", hashlib.sha256),
    Kind.SHA384: ("sha384", hashlib.sha384),
    Kind.SHA512: ("sha512", hashlib.sha512),
}
_SIGNED_BY: Final[dict[int, tuple[str, ...]]] = {
    Kind.RSA2048: ("rsa-2048",),
    Kind.RSA3072: ("rsa-3072",),
    Kind.ECDSA: ("ecdsa-p256", "ecdsa-p384"),
    Kind.ED25519: ("ed25519",),
}
_PROTECTED_SIZES: Final = {
    Kind.DEPENDENCY: 12,
    Kind.SECURITY_COUNTER: 4,
    Kind.VENDOR_ID: 16,
    Kind.CLASS_ID: 16,
    Kind.BOOT_RECORD: None,
    Kind.DECOMPRESSED_SIZE: 4,
    Kind.DECOMPRESSED_SHA: None,
    Kind.DECOMPRESSED_SIGNATURE: None,
    Kind.COMPRESSED_SIZE: 4,
}
"""TLVs that count only where the signature covers them, with their lengths."""
_ENCRYPTED_KEYS: Final = frozenset(range(Kind.ENCRYPTED_RSA2048, Kind.ENCRYPTED_X25519_SHA512 + 1))
_UNPROTECTED: Final = frozenset({Kind.KEY_HASH, Kind.PUBLIC_KEY, Kind.SIGNATURE_PURE, *_HASH, *_SIGNED_BY})


@dataclass(frozen=True, slots=True)
class Tlv:
    """One entry; `offset` is where its value begins."""

    kind: int
    offset: int
    length: int
    field: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is. `signed` bytes from 0 are hashed; the TLVs end at `end`."""

    load_address: int
    header_size: int
    image_size: int
    flags: Flag
    version: str
    signed: int
    protected: tuple[Tlv, ...]
    unprotected: tuple[Tlv, ...]
    end: int


def version_of(head: bytes | memoryview) -> str | None:
    """Read the version out of the first 28 bytes; None when there are fewer."""
    if len(head) < 28:
        return None
    return _version(*unpack("<BBHI", memoryview(head), 20, "header"))


def is_mcuboot(head: bytes | memoryview) -> bool:
    """Whether the first bytes are MCUboot's magic number, of either byte order and version."""
    raw = bytes(head[:4])
    return int.from_bytes(raw, "little") in {MAGIC, OLD_MAGIC} or int.from_bytes(raw, "big") in {
        MAGIC,
        OLD_MAGIC,
    }


def layout(view: memoryview) -> Layout:
    """Read header and TLVs. Raises `ImageRefused` (`image-malformed`, `image-unsupported`)."""
    if view[0] == MAGIC >> 24:
        raise refused(
            ImageCode.UNSUPPORTED,
            "the image is big endian, which MCUboot's own boot loaders do not take",
            field="header.magic",
            hint="sign the application with imgtool sign --endian little",
        )
    magic, address, header_size, protected_size, size, flags, *version, _pad = unpack(
        "<IIHHIIBBHII", view, 0, "header"
    )
    if magic == OLD_MAGIC:
        raise refused(
            ImageCode.UNSUPPORTED,
            "the image has MCUboot's old header, which boot loaders since 2018 do not take",
            field="header.magic",
            hint="sign the application with a current imgtool",
        )
    if header_size < HEADER_SIZE:
        raise malformed(
            f"the header says that it has {header_size} bytes, fewer than 32", "header.header_size"
        )
    payload_end = header_size + size
    if payload_end + 4 > len(view):
        raise malformed(
            f"the header says that the image has {size} bytes, and the file ends before their end",
            "header.image_size",
        )
    signed = payload_end
    protected: tuple[Tlv, ...] = ()
    if protected_size or unpack("<H", view, payload_end, "tlvs")[0] == _PROTECTED_INFO:
        protected, signed = _area(view, payload_end, _PROTECTED_INFO, "protected")
        if signed - payload_end != protected_size:
            raise malformed(
                f"the header says that there are {protected_size} bytes of protected TLVs, there are "
                f"{signed - payload_end}",
                "header.protected_size",
            )
    unprotected, end = _area(view, signed, _INFO, "tlvs")
    return Layout(
        address,
        header_size,
        size,
        Flag(flags),
        _version(*version),
        signed,
        protected,
        unprotected,
        end,
    )


def _area(view: memoryview, start: int, magic: int, name: str) -> tuple[tuple[Tlv, ...], int]:
    found, total = unpack("<HH", view, start, name)
    if found != magic:
        raise malformed(f"where the {name} should begin there is 0x{found:04x}, not 0x{magic:04x}", name)
    end = start + total
    if total < 4 or end > len(view):
        raise malformed(f"the length of the {name}, {total}, does not fit the file", name)
    entries: list[Tlv] = []
    at = start + 4
    while at < end:
        field = f"{name}[{len(entries)}]"
        if at + 4 > end:
            raise malformed(f"the {name} end within an entry", field)
        kind, length = unpack("<HH", view, at, field)
        at += 4
        if at + length > end:
            raise malformed(f"an entry of the {name} has {length} bytes and reaches over their end", field)
        entries.append(Tlv(kind, at, length, field))
        at += length
    return tuple(entries), end


def examine(view: memoryview, keys: Sequence[ImageKey]) -> ImageFacts:
    """Check structure, hash and signatures of an image.

    Raises `ImageRefused`: `image-malformed`, `image-unsupported`, `image-digest`, `image-signature`.
    """
    found = layout(view)
    _check_places(found)
    notes: list[str] = _trailer_notes(view, found)
    encrypted, compressed = bool(found.flags & ENCRYPTED), bool(found.flags & COMPRESSED)
    digest_name, digest, checked = _digest(view, found, encrypted=encrypted)
    signatures = _signatures(view, found, keys, digest, checked=checked)
    if digest is None:  # a pure signature alone protects the bytes, as long as somebody can check it
        checked = any(each.state is not SignatureState.UNKNOWN_KEY for each in signatures)
    if encrypted and not checked:
        notes.append(
            "The payload is encrypted: its hash is over the plain bytes, so only the device can check it."
        )
    elif encrypted:
        notes.append("The image is marked as encrypted, but its payload is plain (imgtool --clear).")
    if compressed:
        notes.append("The payload is compressed (LZMA); only boot loaders built for that take it.")
    if Flag.NON_BOOTABLE in found.flags:
        notes.append("The image is marked as not bootable: it holds data or code for another core.")
    single = _single(view, found)
    counter = single.get(Kind.SECURITY_COUNTER)
    details: dict[str, Plain] = {
        "header_size": found.header_size,
        "payload_size": found.image_size,
        "load_address": found.load_address,
        "flags": [str(flag.name).lower() for flag in Flag if flag in found.flags],
        "hash": digest_name,
        "encrypted": encrypted,
        "compressed": compressed,
    }
    if Kind.DECOMPRESSED_SIZE in single:
        details["decompressed_size"] = int.from_bytes(single[Kind.DECOMPRESSED_SIZE], "little")
    return ImageFacts(
        version=found.version,
        security_counter=None if counter is None else int.from_bytes(counter, "little"),
        vendor_id=single.get(Kind.VENDOR_ID),
        class_id=single.get(Kind.CLASS_ID),
        dependencies=_dependencies(view, found),
        signatures=signatures,
        content_checked=checked,
        details=details,
        notes=tuple(notes),
    )


def _version(major: int, minor: int, revision: int, build: int) -> str:
    return f"{major}.{minor}.{revision}" + (f"+{build}" if build else "")


def _check_places(found: Layout) -> None:
    for entry in found.protected:
        if entry.kind in _UNPROTECTED:
            raise malformed("hash, key and signature can't lie in the protected area", entry.field)
        wanted = _PROTECTED_SIZES.get(entry.kind)  # type: ignore[call-overload]  # a kind unknown to us has no size
        if wanted is not None and entry.length != wanted:
            raise malformed(
                f"{Kind(entry.kind).name.lower()} has {entry.length} bytes instead of {wanted}", entry.field
            )
    keys = any(entry.kind in _ENCRYPTED_KEYS for entry in found.unprotected)
    if found.flags & ENCRYPTED and not keys:
        raise malformed("the image is marked as encrypted and carries no key for the device", "header.flags")
    for entry in found.unprotected:
        if entry.kind in _PROTECTED_SIZES:
            name = Kind(entry.kind).name.lower()
            raise malformed(
                f"{name} lies outside of the protected area, so no signature covers it", entry.field
            )


def _trailer_notes(view: memoryview, found: Layout) -> list[str]:
    """Check what follows the TLVs: nothing, or the padding of a slot with MCUboot's trailer (imgtool --pad)."""
    rest = view[found.end :]
    if not rest:
        return []
    erased = rest[0]
    body, last = rest[: max(len(rest) - 16, 0)], bytes(rest[-16:])
    flags = body[max(len(body) - 2 * _MAX_ALIGN, 0) :]
    plain = body[: len(body) - len(flags)]
    trailer = last == _TRAILER_MAGIC or last[2:] == _TRAILER_MAGIC_ALIGNED
    written = [byte for byte in bytes(flags) if byte != erased]
    padding = erased in {0x00, 0xFF} and (
        (
            trailer
            and len(written) <= _MAX_TRAILER_FLAGS
            and set(written) <= {1}
            and filled_with(plain, erased)
        )
        or filled_with(rest, erased)
    )
    if not padding:
        raise malformed(f"{len(rest)} bytes follow the last TLV; nothing protects them", "trailer")
    return [
        f"{len(rest)} bytes at the end are padding of the slot (imgtool --pad), which every device would fetch."
    ]


def _digest(view: memoryview, found: Layout, *, encrypted: bool) -> tuple[str | None, bytes | None, bool]:
    """Compare the hash TLV with the bytes; return its name and value, and whether it fits."""
    hashes = [entry for entry in found.unprotected if entry.kind in _HASH]
    if not hashes:
        if any(entry.kind == Kind.SIGNATURE_PURE for entry in found.unprotected):
            return None, None, False
        raise malformed("the image has no hash (TLV 0x10, 0x11 or 0x12)", "tlvs")
    if len(hashes) > 1:
        raise malformed("the image has more than one hash", hashes[1].field)
    (entry,) = hashes
    name, make = _HASH[entry.kind]
    stated = part(view, entry.offset, entry.length, entry.field)
    computed = make(view[: found.signed]).digest()
    if stated == computed:
        return name, stated, True
    if encrypted and len(stated) == len(computed):
        return name, stated, False
    raise refused(
        ImageCode.DIGEST,
        f"the image says that its {name} is {stated.hex()}, it is {computed.hex()}",
        field=entry.field,
        hint="it was damaged or changed after it was signed; build and sign it again",
    )


def _signatures(
    view: memoryview, found: Layout, keys: Sequence[ImageKey], digest: bytes | None, *, checked: bool
) -> tuple[Signature, ...]:
    pure = any(entry.kind == Kind.SIGNATURE_PURE for entry in found.unprotected)
    fingerprint: bytes | None = None
    done: list[Signature] = []
    for entry in found.unprotected:
        if entry.kind == Kind.KEY_HASH:
            fingerprint = part(view, entry.offset, entry.length, entry.field)
        elif entry.kind == Kind.PUBLIC_KEY:
            fingerprint = hashlib.sha256(part(view, entry.offset, entry.length, entry.field)).digest()
        elif entry.kind in _SIGNED_BY:
            if len(done) == MAX_SIGNATURES:
                raise malformed(f"the image has more than {MAX_SIGNATURES} signatures", entry.field)
            done.append(_signature(view, found, entry, fingerprint, keys, digest, pure=pure, checked=checked))
            fingerprint = None
    return tuple(done)


def _signature(
    view: memoryview,
    found: Layout,
    entry: Tlv,
    fingerprint: bytes | None,
    keys: Sequence[ImageKey],
    digest: bytes | None,
    *,
    pure: bool,
    checked: bool,
) -> Signature:
    kinds = _SIGNED_BY[entry.kind]
    name = kinds[0] if len(kinds) == 1 else _ecdsa_name(entry)
    if pure:
        name += "-pure"
    named = [key for key in keys if fingerprint is not None and fingerprint in key.fingerprints]
    # Without a key hash the boot loader has one key, and which of ours that is can only be tried.
    candidates = named if fingerprint is not None else [key for key in keys if key.algorithm in kinds]
    raw = part(view, entry.offset, entry.length, entry.field)
    if entry.kind == Kind.ECDSA:
        raw = _without_padding(raw, entry.field)
    shown = fingerprint.hex() if fingerprint else None
    if pure and found.flags & ENCRYPTED and not checked:
        return Signature(name, SignatureState.UNKNOWN_KEY, shown)
    for key in candidates:
        if key.algorithm in kinds and _holds(key, raw, view[: found.signed], digest, pure=pure):
            state = SignatureState.SAMPLE_KEY if key.sample else SignatureState.VERIFIED
            return Signature(name, state, key.key_id)
    if named:
        raise refused(
            ImageCode.SIGNATURE,
            f"the image says that the key {named[0].key_id} signed it, but that signature does not hold",
            field=entry.field,
            hint="sign it again; if nobody changed it, something did on the way",
        )
    sample = fingerprint in SAMPLE_KEYS
    return Signature(name, SignatureState.SAMPLE_KEY if sample else SignatureState.UNKNOWN_KEY, shown)


def _holds(key: ImageKey, signature: bytes, signed: memoryview, digest: bytes | None, *, pure: bool) -> bool:
    if not pure:
        return digest is not None and key.holds(signature, digest)
    if not isinstance(key.public, ed25519.Ed25519PublicKey):
        return False
    try:
        key.public.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _ecdsa_name(entry: Tlv) -> str:
    """Tell the curve from the length: 72 bytes at most with P-256 (two more as padding), 104 with P-384."""
    return "ecdsa-p256" if entry.length <= 74 else "ecdsa-p384"


def _without_padding(signature: bytes, field: str) -> bytes:
    """Drop the up to two NUL bytes that old boot loaders wanted behind an ECDSA signature (imgtool --pad-sig)."""
    if len(signature) < 2 or signature[0] != 0x30:
        raise malformed("an ECDSA signature begins with 0x30 (DER)", field)
    length = 2 + signature[1]
    if length > len(signature) or len(signature) - length > 2 or signature[length:].strip(b"\0"):
        raise malformed("the length of the ECDSA signature does not fit", field)
    return signature[:length]


def _single(view: memoryview, found: Layout) -> dict[int, bytes]:
    """Return the protected values that may stand there once."""
    values: dict[int, bytes] = {}
    for entry in found.protected:
        if entry.kind not in _PROTECTED_SIZES or entry.kind == Kind.DEPENDENCY:
            continue
        if entry.kind in values:
            raise malformed(f"{Kind(entry.kind).name.lower()} stands there twice", entry.field)
        values[entry.kind] = part(view, entry.offset, entry.length, entry.field)
    return values


def _dependencies(view: memoryview, found: Layout) -> tuple[Dependency, ...]:
    entries = [entry for entry in found.protected if entry.kind == Kind.DEPENDENCY]
    if len(entries) > 255:
        raise malformed("the image depends on more than 255 images", entries[255].field)
    done = []
    for entry in entries:
        image, *version = unpack("<B3xBBHI", view, entry.offset, entry.field)
        done.append(Dependency(image, _version(*version)))
    return tuple(done)
