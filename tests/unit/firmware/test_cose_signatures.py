"""COSE_Sign1 with detached payload: what is signed, which keys and algorithms count."""

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.cose import parse_sign1, sig_structure, sign1, verify_blocks
from lwm2m_server.firmware.keys import SIGNATURE_SIZE, KeyType, SigningKey, VerificationKey
from lwm2m_server.firmware.refusals import Malformed, NotTrusted

PAYLOAD = b"\x82\x2f\x58\x20" + bytes(32)
ESP256 = SigningKey.generate(KeyType.ESP256)
ED25519 = SigningKey.generate(KeyType.ED25519)
ML_DSA = SigningKey.generate(KeyType.ML_DSA_44)
ENTROPY = bytes(range(32))


def block(
    protected: dict[int, object] | bytes, signature: bytes, *, unprotected: dict[int, object] | None = None
) -> bytes:
    head = protected if isinstance(protected, bytes) else cbor.encode(protected)
    return cbor.encode(cbor.Tag(18, [head, unprotected or {}, None, signature]))


def signed_with(key: SigningKey, algorithm: int) -> bytes:
    """A block without kid, as others write it."""
    protected = cbor.encode({1: algorithm})
    return block(protected, key.sign(sig_structure(protected, PAYLOAD)))


@pytest.mark.parametrize(("key", "algorithm"), [(ESP256, -9), (ED25519, -19), (ML_DSA, -48)])
def test_signature_names_its_algorithm_and_key_in_the_protected_header(
    key: SigningKey, algorithm: int
) -> None:
    parsed = parse_sign1(sign1(key, PAYLOAD), "x")
    assert parsed is not None
    assert (parsed.algorithm, parsed.key_id) == (algorithm, key.public.key_id)
    assert len(parsed.signature) == SIGNATURE_SIZE[key.key_type]
    assert verify_blocks([sign1(key, PAYLOAD)], PAYLOAD, [key.public]) == (key.public,)


@pytest.mark.parametrize(("key", "algorithm"), [(ESP256, -7), (ESP256, -9), (ED25519, -8), (ED25519, -19)])
def test_deprecated_algorithm_numbers_are_accepted_with_the_right_key(
    key: SigningKey, algorithm: int
) -> None:
    keys = [ESP256.public, ED25519.public]
    assert verify_blocks([signed_with(key, algorithm)], PAYLOAD, keys) == (key.public,)


@pytest.mark.parametrize(
    ("key", "algorithm"), [(ESP256, -19), (ED25519, -9), (ESP256, -8), (ED25519, -7), (ML_DSA, -9)]
)
def test_algorithm_must_fit_the_type_of_the_key(key: SigningKey, algorithm: int) -> None:
    with pytest.raises(NotTrusted):
        verify_blocks([signed_with(key, algorithm)], PAYLOAD, [key.public])


def test_signature_over_another_payload_does_not_hold() -> None:
    with pytest.raises(NotTrusted) as caught:
        verify_blocks([sign1(ESP256, PAYLOAD)], PAYLOAD + b"x", [ESP256.public])
    assert caught.value.code == "signature"


def test_stranger_is_an_unknown_key() -> None:
    with pytest.raises(NotTrusted) as caught:
        verify_blocks([sign1(ESP256, PAYLOAD)], PAYLOAD, [ED25519.public])
    assert caught.value.code == "unknown-key"


def test_one_signature_of_a_trusted_key_is_enough_among_strangers() -> None:
    blocks = [sign1(ED25519, PAYLOAD), sign1(ESP256, PAYLOAD)]
    assert verify_blocks(blocks, PAYLOAD, [ESP256.public]) == (ESP256.public,)


def test_every_trusted_signer_is_named_once_in_the_order_of_the_blocks() -> None:
    blocks = [sign1(key, PAYLOAD) for key in (ML_DSA, ESP256, ML_DSA, ED25519)]
    keys = [ESP256.public, ML_DSA.public]
    assert verify_blocks(blocks, PAYLOAD, keys) == (ML_DSA.public, ESP256.public)


def test_false_signature_under_a_trusted_name_spoils_the_rest() -> None:
    forged = block({1: -9, 4: ESP256.public.key_id}, bytes(64))
    with pytest.raises(NotTrusted) as caught:
        verify_blocks([sign1(ED25519, PAYLOAD), forged], PAYLOAD, [ESP256.public, ED25519.public])
    assert caught.value.code == "signature"


def test_unknown_algorithms_and_other_structures_are_passed_over() -> None:
    unknown = block({1: -49, 4: ESP256.public.key_id}, bytes(3309))
    mac = cbor.encode(cbor.Tag(17, [b"", {}, None, bytes(32)]))
    blocks = [unknown, mac, sign1(ESP256, PAYLOAD)]
    assert verify_blocks(blocks, PAYLOAD, [ESP256.public]) == (ESP256.public,)
    with pytest.raises(NotTrusted):
        verify_blocks([unknown, mac], PAYLOAD, [ESP256.public])


@pytest.mark.parametrize(
    "bad",
    [
        block(b"", bytes(64)),
        block({4: b"x"}, bytes(64)),
        block({1: -9}, bytes(64), unprotected={1: -9}),
        block({1: -9, 2: [99]}, bytes(64)),
        block({1: -9, 4: b"k"}, bytes(64), unprotected={4: b"k"}),
        cbor.encode(cbor.Tag(18, [cbor.encode({1: -9}), {}, b"payload", bytes(64)])),
        cbor.encode(cbor.Tag(18, [cbor.encode({1: -9}), {}, None])),
        cbor.encode([cbor.encode({1: -9}), {}, None, bytes(64)]),
    ],
    ids=[
        "no-alg",
        "kid-only",
        "alg-unprotected",
        "critical",
        "two-kids",
        "attached-payload",
        "three-parts",
        "untagged",
    ],
)
def test_malformed_blocks_are_refused(bad: bytes) -> None:
    with pytest.raises(Malformed):
        verify_blocks([bad], PAYLOAD, [ESP256.public])


def test_signature_of_the_wrong_length_does_not_hold() -> None:
    assert not ESP256.public.holds(bytes(63), b"")
    assert not ESP256.public.holds(bytes(64), b"")


@pytest.mark.parametrize("key", [ESP256, ED25519, ML_DSA])
def test_keys_survive_pem_with_and_without_passphrase(key: SigningKey) -> None:
    assert SigningKey.from_pem(key.pem()).public.key_id == key.public.key_id
    encrypted = key.encrypted_pem(b"secret", ENTROPY)
    assert SigningKey.from_pem(encrypted, b"secret").key_type is key.key_type
    assert VerificationKey.from_pem(key.public.pem()).key_id == key.public.key_id


def test_encrypted_key_is_derived_by_scrypt_and_differs_with_its_entropy() -> None:
    encrypted = ESP256.encrypted_pem(b"secret", ENTROPY)
    der = base64.b64decode(b"".join(encrypted.splitlines()[1:-1]))
    assert bytes.fromhex("2b06010401da47040b") in der  # id-scrypt, RFC 7914 section 7
    assert bytes(range(16)) in der
    assert ESP256.encrypted_pem(b"secret", ENTROPY[::-1]) != encrypted
    with pytest.raises(InvalidInput, match="empty"):
        ESP256.encrypted_pem(b"", ENTROPY)


class WrongToken:
    """Signs with another key than it says."""

    public = ESP256.public

    def sign(self, message: bytes) -> bytes:
        return SigningKey.generate().sign(message)


def test_signature_by_another_key_than_named_is_found_when_it_is_made() -> None:
    with pytest.raises(NotTrusted, match="does not fit"):
        sign1(WrongToken(), PAYLOAD)


@pytest.mark.parametrize(
    ("pem", "password"),
    [
        (ESP256.encrypted_pem(b"secret", ENTROPY), None),
        (ESP256.encrypted_pem(b"secret", ENTROPY), b"wrong"),
        (ESP256.pem(), b"x"),
        (b"no key", None),
    ],
)
def test_unusable_private_keys_are_named_so(pem: bytes, password: bytes | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        SigningKey.from_pem(pem, password)
    assert caught.value.code == "invalid-key"


def test_private_key_is_not_taken_as_a_trusted_key() -> None:
    with pytest.raises(InvalidInput) as caught:
        VerificationKey.from_pem(ESP256.pem())
    assert caught.value.code == "private-key"


@pytest.mark.parametrize(
    "private", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]
)
def test_other_kinds_of_keys_are_refused(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(InvalidInput, match="not used"):
        VerificationKey.from_pem(public)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InvalidInput, match="not used"):
        SigningKey.from_pem(pem)


def test_private_key_does_not_show_itself() -> None:
    assert repr(ESP256) == f"SigningKey(esp256, {ESP256.public.key_id.hex()})"
