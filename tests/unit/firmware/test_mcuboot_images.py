"""MCUboot images as imgtool makes them: what is found, what holds, and what is refused."""

import struct

import pytest

from firmware_files import KEY_KINDS, mcuboot, public_pem
from lwm2m_server.firmware.formats import mcuboot as parser
from lwm2m_server.firmware.formats.facts import Dependency, SignatureState
from lwm2m_server.firmware.formats.keys import ImageKey
from lwm2m_server.firmware.formats.refused import BadImage, ImageRefused, UntrustedImage
from lwm2m_server.firmware.images import ImageFormat, details_of, inspect_image
from lwm2m_server.firmware.suit import class_id, vendor_id


def key(kind: str, number: int = 0) -> ImageKey:
    return ImageKey.from_pem(public_pem(kind, number))


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", kind, len(value)) + value


def area(magic: int, *entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<HH", magic, 4 + len(body)) + body


def header(
    payload: int, *, protected: int = 0, flags: int = 0, size: int = 32, magic: int = 0x96F3B83D
) -> bytes:
    return struct.pack("<IIHHIIBBHII", magic, 0, size, protected, payload, flags, 1, 2, 3, 0, 0)


def refusal(data: bytes, *keys: ImageKey) -> ImageRefused:
    with pytest.raises(ImageRefused) as caught:
        inspect_image(data, keys)
    assert caught.value.field
    return caught.value


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_signature_of_each_kind_holds_for_its_key_and_is_unknown_for_another(kind: str) -> None:
    image = mcuboot(key=kind)
    (found,) = inspect_image(image, [key(kind, 1), key(kind)]).facts.signatures
    assert (found.state, found.algorithm, found.key) == (SignatureState.VERIFIED, kind, key(kind).key_id)
    (other,) = inspect_image(image, [key(kind, 1)]).facts.signatures
    assert (other.state, other.algorithm) == (SignatureState.UNKNOWN_KEY, kind)
    assert bytes.fromhex(other.key or "") in key(kind).fingerprints


@pytest.mark.parametrize("kind", KEY_KINDS)
@pytest.mark.parametrize("options", [("--public-key-format", "full"), ()])
def test_a_changed_signature_by_a_trusted_key_is_refused(kind: str, options: tuple[str, ...]) -> None:
    image = bytearray(mcuboot(*options, key=kind))
    if options:  # a whole key instead of its hash
        assert inspect_image(bytes(image), [key(kind)]).facts.signatures[0].state is SignatureState.VERIFIED
    image[-1] ^= 1
    assert refusal(bytes(image), key(kind)).code == "image-signature"


def test_all_that_a_protected_area_says_is_found() -> None:
    image = mcuboot(
        *("-s", "7", "-d", "(1,1.2.0),(2,3.4.5+6)", "--vid", "acme.example", "--cid", "meter-v2"),
        *("--custom-tlv", "0xa1", "hello", "--boot-record", "app"),
        key="ecdsa-p256",
        version="1.2.3+4",
    )
    info = inspect_image(image, [key("ecdsa-p256")])
    facts = info.facts
    assert (info.format, info.version, facts.security_counter) == (ImageFormat.MCUBOOT, "1.2.3+4", 7)
    assert facts.dependencies == (Dependency(1, "1.2.0"), Dependency(2, "3.4.5+6"))
    vendor = vendor_id("acme.example")
    assert (facts.vendor_id, facts.class_id) == (vendor, class_id(vendor, "meter-v2"))
    assert facts.content_checked
    assert facts.notes == ()


def test_hashes_of_each_length_are_checked() -> None:
    for options, name in (((), "sha256"), (("--sha", "384"), "sha384"), (("--sha", "512"), "sha512")):
        info = inspect_image(mcuboot(*options))
        assert info.facts.details["hash"] == name
        assert info.facts.content_checked
        assert "no signature" in str(details_of(info)["notes"])


def test_a_pure_signature_is_over_the_bytes_themselves() -> None:
    image = mcuboot("--pure", key="ed25519")
    (found,) = inspect_image(image, [key("ed25519")]).facts.signatures
    assert (found.state, found.algorithm) == (SignatureState.VERIFIED, "ed25519-pure")


def test_a_pure_signature_without_a_hash_is_enough_only_when_somebody_can_check_it() -> None:
    image = mcuboot("--pure", key="ed25519")
    found = parser.layout(memoryview(image))
    kept = [entry for entry in found.unprotected if entry.kind != parser.Kind.SHA512]
    entries = [tlv(entry.kind, image[entry.offset : entry.offset + entry.length]) for entry in kept]
    bare = image[: found.signed] + area(0x6907, *entries)
    assert inspect_image(bare, [key("ed25519")]).facts.content_checked
    assert not inspect_image(bare).facts.content_checked
    changed = bytearray(bare)
    changed[100] ^= 1
    assert refusal(bytes(changed), key("ed25519")).code == "image-signature"


def test_an_encrypted_image_is_explained_and_its_signed_digest_is_verified() -> None:
    info = inspect_image(mcuboot(key="ecdsa-p256", encrypt_for="ecdsa-p256"), [key("ecdsa-p256")])
    assert info.facts.details["encrypted"] is True
    assert info.facts.content_checked is False
    assert info.facts.signatures[0].state is SignatureState.VERIFIED
    assert "encrypted" in info.facts.notes[0]
    clear = inspect_image(mcuboot("--clear", key="ecdsa-p256", encrypt_for="ecdsa-p256"))
    assert clear.facts.content_checked


def test_a_compressed_image_is_explained_and_checked_as_it_is_sent() -> None:
    info = inspect_image(
        mcuboot("--compression", "lzma2", key="ed25519", payload=bytes(5000)), [key("ed25519")]
    )
    assert (info.facts.details["compressed"], info.facts.details["decompressed_size"]) == (True, 5000)
    assert info.facts.content_checked


@pytest.mark.parametrize(
    "options",
    [("--pad",), ("--confirm",), ("--test",), ("--pad", "-R", "0"), ("--confirm", "--max-align", "32")],
)
def test_padding_of_a_slot_is_recognised_and_named(options: tuple[str, ...]) -> None:
    info = inspect_image(mcuboot(*options, key="ed25519"), [key("ed25519")])
    assert info.size == 0x20000
    assert "padding" in info.facts.notes[0]


@pytest.mark.parametrize(
    "rest", [b"\0garbage", b"x", b"\xff" * 100 + b"evil" + b"\xff" * 100, b"\xff" * 99 + b"\1"]
)
def test_bytes_after_the_tlvs_that_nothing_protects_are_refused(rest: bytes) -> None:
    error = refusal(mcuboot(key="ed25519") + rest, key("ed25519"))
    assert (error.code, error.field) == ("image-malformed", "trailer")


def test_a_padded_ecdsa_signature_of_old_boot_loaders_is_read() -> None:
    (found,) = inspect_image(mcuboot("--pad-sig", key="ecdsa-p256"), [key("ecdsa-p256")]).facts.signatures
    assert found.state is SignatureState.VERIFIED


def test_without_a_key_hash_the_trusted_keys_are_tried() -> None:
    image = mcuboot(key="ecdsa-p256")
    found = parser.layout(memoryview(image))
    kept = [entry for entry in found.unprotected if entry.kind != parser.Kind.KEY_HASH]
    entries = [tlv(entry.kind, image[entry.offset : entry.offset + entry.length]) for entry in kept]
    bare = image[: found.signed] + area(0x6907, *entries)
    states = [
        inspect_image(bare, keys).facts.signatures[0].state
        for keys in ([key("ecdsa-p256", 1), key("ecdsa-p256")], [key("ecdsa-p256", 1)])
    ]
    assert states == [SignatureState.VERIFIED, SignatureState.UNKNOWN_KEY]


def test_the_published_sample_key_is_recognised_by_its_hash() -> None:
    sample = bytes.fromhex("fc5701dc6135e1323847bdc40f04d2e5bee5833b23c29f93593d00018cfa9994")
    image = mcuboot(key="rsa-2048")
    own = next(entry for entry in parser.layout(memoryview(image)).unprotected if entry.kind == 1)
    changed = image[: own.offset] + sample + image[own.offset + 32 :]
    info = inspect_image(changed)
    assert info.facts.signatures[0].state is SignatureState.SAMPLE_KEY
    assert "anyone can sign" in str(details_of(info)["notes"])


PAYLOAD = bytes(64)
HASH = tlv(0x10, bytes(32))


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (header(64)[:20], "image-malformed", "header"),
        (header(64, magic=0x96F3B83C) + bytes(200), "image-unsupported", "header.magic"),
        (bytes.fromhex("96f3b83d") + bytes(200), "image-unsupported", "header.magic"),
        (header(64, size=16) + bytes(200), "image-malformed", "header.header_size"),
        (header(0xFFFFFFFF) + bytes(200), "image-malformed", "header.image_size"),
        (header(64) + PAYLOAD, "image-malformed", "header.image_size"),
        (header(64) + PAYLOAD + bytes(4), "image-malformed", "tlvs"),
        (header(64) + PAYLOAD + area(0x6907, HASH)[:-1], "image-malformed", "tlvs"),
        (header(64) + PAYLOAD + struct.pack("<HH", 0x6907, 3), "image-malformed", "tlvs"),
        (header(64) + PAYLOAD + area(0x6907), "image-malformed", "tlvs"),
        (header(64) + PAYLOAD + area(0x6907, HASH, HASH), "image-malformed", "tlvs[1]"),
        (
            header(64) + PAYLOAD + area(0x6907, struct.pack("<HH", 0x10, 33) + bytes(32)),
            "image-malformed",
            "tlvs[0]",
        ),
        (header(64) + PAYLOAD + area(0x6907, HASH, b"\0\0"), "image-malformed", "tlvs[1]"),
        (header(64) + PAYLOAD + area(0x6907, HASH), "image-digest", "tlvs[0]"),
        (header(64) + PAYLOAD + area(0x6907, tlv(0x10, b"")), "image-digest", "tlvs[0]"),
        (header(64) + PAYLOAD + area(0x6907, HASH, tlv(0x50, bytes(4))), "image-malformed", "tlvs[1]"),
        (header(64, protected=8) + PAYLOAD + area(0x6907, HASH), "image-malformed", "protected"),
        (header(64, flags=4) + PAYLOAD + area(0x6907, HASH), "image-malformed", "header.flags"),
        (
            header(64) + PAYLOAD + area(0x6908, tlv(0x50, bytes(4))) + area(0x6907, HASH),
            "image-malformed",
            "header.protected_size",
        ),
        (
            header(64, protected=11) + PAYLOAD + area(0x6908, tlv(0x50, bytes(3))) + area(0x6907, HASH),
            "image-malformed",
            "protected[0]",
        ),
        (
            header(64, protected=40) + PAYLOAD + area(0x6908, HASH) + area(0x6907, HASH),
            "image-malformed",
            "protected[0]",
        ),
    ],
)
def test_what_breaks_the_format_is_refused_with_the_place(data: bytes, code: str, field: str) -> None:
    error = refusal(data)
    assert (error.code, error.field) == (code, field)
    assert isinstance(error, UntrustedImage if code == "image-digest" else BadImage)


def signed_by_nobody(*entries: bytes, protected: tuple[bytes, ...] = ()) -> bytes:
    """An image with a right hash and these entries."""
    import hashlib

    inner = area(0x6908, *protected) if protected else b""
    body = header(64, protected=len(inner)) + PAYLOAD + inner
    return body + area(0x6907, tlv(0x10, hashlib.sha256(body).digest()), *entries)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (signed_by_nobody(protected=(tlv(0x50, bytes(4)), tlv(0x50, bytes(4)))), "protected[1]"),
        (signed_by_nobody(protected=(tlv(0x40, bytes(12)),) * 256), "protected[255]"),
        (signed_by_nobody(*(tlv(0x24, bytes(64)),) * 5), "tlvs[5]"),
        (signed_by_nobody(tlv(0x22, b"")), "tlvs[1]"),
        (signed_by_nobody(tlv(0x22, b"\x30\x40" + bytes(10))), "tlvs[1]"),
        (signed_by_nobody(tlv(0x22, b"\x30\x02" + bytes(2) + b"junk")), "tlvs[1]"),
    ],
)
def test_entries_that_contradict_each_other_are_refused(data: bytes, field: str) -> None:
    error = refusal(data)
    assert (error.code, error.field) == ("image-malformed", field)


def test_signatures_by_other_kinds_of_keys_do_not_count() -> None:
    """A trusted RSA key does not make an Ed25519 signature hold, nor the other way round."""
    data = signed_by_nobody(tlv(0x24, bytes(64)))
    (found,) = inspect_image(data, [key("rsa-2048"), key("ecdsa-p256")]).facts.signatures
    assert found.state is SignatureState.UNKNOWN_KEY
