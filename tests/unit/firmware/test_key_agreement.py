"""ECDH-ES + A128KW for encrypted payloads: the draft's own example, what is refused, and which key opens what."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.encryption import (
    A128CTR,
    ContentCipher,
    describe_encryption,
    encryption_info,
    parse_encryption_info,
    read_class_key,
    unwrap,
)
from lwm2m_server.firmware.key_agreement import Agreement, cose_key, key_name, read_private, read_public
from lwm2m_server.firmware.refusals import Refusal

# the example of draft-ietf-suit-firmware-encryption for ECDH-ES + A128KW; there the payload is under AES-GCM
CLASS_KEY = ec.derive_private_key(
    0x60FE6DD6D85D5740A5349B6F91267EEAC5BA81B8CB53EE249E4B4EB102C476B3, ec.SECP256R1()
)
SENDER = {
    1: 2,
    -1: 1,
    -2: bytes.fromhex("FF6E266DABAF51B7207569E31CF72646183E94CEE64FCDC8695AD9A505AEFDEA"),
    -3: bytes.fromhex("5FBC4A29844450B3AC22AB30C7F7004BB59D8BD60D7997734A9FA0124B650895"),
}
WRAPPED = bytes.fromhex("B0E21628283F3E409F8158D8FFCA567F340E379AC39E49C9")
PAYLOAD = bytes.fromhex(
    "344FA2D5AD2F43F6F363DA6FF2C337FE69E33E3D63714D23985BF02499EB0E8B231D45C378245DA3611C160CC511"
)
PAYLOAD_IV = bytes.fromhex("DAE613B2E0DC55F4322BE38BDBA9DC68")
AGREED = cbor.encode({1: -29})

IMAGE = bytes(range(256)) * 3
CONTENT_KEY = bytes(range(16))
KEK = b"k" * 16


def structure(
    protected: bytes = AGREED, wrapped: object = WRAPPED, more: object = None, **header: object
) -> bytes:
    """Encode a SUIT_Encryption_Info with one recipient, with what a test wants to be wrong with it."""
    sender = header.get("sender", SENDER)
    unprotected = {-1: sender, 4: b"kid-2", **({} if more is None else more)}
    return cbor.encode(
        cbor.Tag(96, [b"", {1: A128CTR, 5: bytes(16)}, None, [[protected, unprotected, wrapped]]])
    )


def pair() -> tuple[ec.EllipticCurvePrivateKey, Agreement]:
    private = ec.generate_private_key(ec.SECP256R1())
    return private, Agreement.new(private.public_key())


def test_the_content_key_of_the_drafts_example_comes_out() -> None:
    cipher = unwrap(parse_encryption_info(structure()), [CLASS_KEY])
    encrypted_header = cbor.encode(["Encrypt", cbor.encode({1: 1}), b""])
    assert (
        AESGCM(cipher.key).decrypt(PAYLOAD_IV, PAYLOAD, encrypted_header) == b"This is a real firmware image."
    )


def test_the_sign_of_y_is_enough() -> None:
    short = SENDER | {-3: bool(SENDER[-3][-1] & 1)}
    assert unwrap(parse_encryption_info(structure(sender=short)), [CLASS_KEY]) == unwrap(
        parse_encryption_info(structure()), [CLASS_KEY]
    )


def test_a_class_with_a_key_pair_and_one_with_a_kek_read_the_same_image() -> None:
    private, agreement = pair()
    info = encryption_info(CONTENT_KEY, [(agreement, b"meters"), (KEK, b"pumps")])
    for held in ([private], [KEK], [b"x" * 16, private], [ec.generate_private_key(ec.SECP256R1()), KEK]):
        assert unwrap(parse_encryption_info(info), held) == ContentCipher(CONTENT_KEY, bytes(16))
    assert describe_encryption(info) == {
        "algorithm": "A128CTR",
        "key_wrap": "ECDH-ES+A128KW or A128KW",
        "key_ids": ["meters", "pumps"],
    }


def test_the_other_key_of_either_kind_opens_nothing() -> None:
    private, agreement = pair()
    for_pair = parse_encryption_info(encryption_info(CONTENT_KEY, [(agreement, b"meters")]))
    for_kek = parse_encryption_info(encryption_info(CONTENT_KEY, [(KEK, b"meters")]))
    for info, held in (
        (for_pair, KEK),
        (for_pair, ec.generate_private_key(ec.SECP256R1())),
        (for_pair, agreement.ephemeral),
        (for_kek, private),
    ):
        with pytest.raises(Refusal, match="for key meters") as caught:
            unwrap(info, [held])
        assert caught.value.code == "decryption-key"


def test_two_images_for_one_class_share_no_wrapping_key() -> None:
    private, _ = pair()
    made = [encryption_info(CONTENT_KEY, [(Agreement.new(private.public_key()), b"m")]) for _ in range(2)]
    first, second = (parse_encryption_info(each).recipients[0].kek_of(private) for each in made)
    assert first != second


def test_the_protected_header_and_the_salt_are_part_of_the_key() -> None:
    private, agreement = pair()
    sender = cose_key(agreement.ephemeral.public_key())
    info = parse_encryption_info(encryption_info(CONTENT_KEY, [(agreement, b"m")]))
    wrapped = info.recipients[0].wrapped
    for changed in (
        structure(wrapped=wrapped, sender=sender, more={-20: b"salt"}),
        structure(protected=cbor.encode({1: -29, 3: 0}), wrapped=wrapped, sender=sender),
    ):
        with pytest.raises(Refusal) as caught:
            unwrap(parse_encryption_info(changed), [private])
        assert caught.value.code == "decryption-key"
    assert (
        unwrap(parse_encryption_info(structure(wrapped=wrapped, sender=sender)), [private]).key == CONTENT_KEY
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (structure(protected=b"", more={1: -29}), "malformed"),
        (structure(sender=None), "malformed"),
        (structure(sender=SENDER | {-3: SENDER[-2]}), "malformed"),
        (structure(sender=SENDER | {-3: b""}), "malformed"),
        (structure(sender=SENDER | {-2: bytes(32), -3: bytes(32)}), "malformed"),
        (structure(sender=SENDER | {-2: b"\xff" * 32}), "malformed"),
        (structure(wrapped=WRAPPED[:16]), "malformed"),
        (structure(more={-20: bytes(65)}), "malformed"),
        (structure(more={-20: 1}), "malformed"),
        (structure(sender={1: 1, -1: 4, -2: bytes(32)}), "unsupported"),  # X25519
        (structure(sender=SENDER | {-1: 2}), "unsupported"),  # P-384
    ],
)
def test_what_is_no_agreement_on_this_curve_is_refused_by_name(data: bytes, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_encryption_info(data)
    assert (str(caught.value.code), caught.value.field) == (code, "encryption-info")


def _pem(key: object) -> tuple[bytes, bytes]:
    private = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public


def test_key_files_are_told_apart_by_their_content() -> None:
    private, public = _pem(CLASS_KEY)
    read = read_class_key(private, "key")
    assert not isinstance(read, bytes)
    assert key_name(read.public_key()) == key_name(read_public(public, "key"))
    assert read_class_key(KEK, "key") == KEK


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()]
)
def test_keys_of_other_kinds_are_refused(key: object) -> None:
    private, public = _pem(key)
    for read, content in ((read_private, private), (read_public, public), (read_class_key, private)):
        with pytest.raises(InvalidInput, match="P-256") as caught:
            read(content, "key")
        assert caught.value.field == "key"


def test_a_private_key_is_not_taken_where_the_public_one_is_wanted_nor_the_other_way_round() -> None:
    private, public = _pem(CLASS_KEY)
    with pytest.raises(InvalidInput, match="private key") as caught:
        read_public(private, "key")
    assert caught.value.code == "private-key"
    with pytest.raises(InvalidInput, match="no key on the curve"):
        read_class_key(public, "key")
    locked = CLASS_KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(InvalidInput, match="no key on the curve"):
        read_class_key(locked, "key")
