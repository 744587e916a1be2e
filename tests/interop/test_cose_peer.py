"""COSE against the library cwt, in both directions: what it signs holds here, what we sign holds there."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lwm2m_server.firmware.cose import sign1, verify_blocks
from lwm2m_server.firmware.encryption import ContentCipher, encryption_info, parse_encryption_info, unwrap
from lwm2m_server.firmware.key_agreement import Agreement
from lwm2m_server.firmware.keys import KeyType, SigningKey
from lwm2m_server.firmware.refusals import NotTrusted
from lwm2m_server.firmware.suit import Digest

pytestmark = [pytest.mark.interop, pytest.mark.peer("cwt")]

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = Digest.of(b"a manifest").encode()
KEYS = {kind: SigningKey.generate(kind) for kind in (KeyType.ESP256, KeyType.ED25519)}


def peer(**asked: Any) -> dict[str, Any]:
    done = subprocess.run(
        [ROOT / ".cache/cwt/bin/python", ROOT / "tests/interop/cose/peer.py"],
        input=json.dumps(asked | {"payload": PAYLOAD.hex()}),
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def class_key() -> tuple[ec.EllipticCurvePrivateKey, str, str]:
    """Make the key pair of a class of devices; also as PEM, private and public."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return key, private.decode(), public.decode()


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        (KeyType.ESP256, "ES256"),
        (KeyType.ESP256, "ESP256"),
        (KeyType.ED25519, "EdDSA"),
        (KeyType.ED25519, "Ed25519"),
    ],
)
def test_what_the_peer_signs_holds_here(kind: KeyType, algorithm: str) -> None:
    key = KEYS[kind]
    block = bytes.fromhex(peer(do="sign", pem=key.pem().decode(), alg=algorithm)["block"])
    assert verify_blocks([block], PAYLOAD, [key.public]) == (key.public,)
    with pytest.raises(NotTrusted):
        verify_blocks([block], PAYLOAD + b"x", [key.public])


@pytest.mark.parametrize(("kind", "algorithm"), [(KeyType.ESP256, "ESP256"), (KeyType.ED25519, "Ed25519")])
def test_what_we_sign_holds_there(kind: KeyType, algorithm: str) -> None:
    key = KEYS[kind]
    block = sign1(key, PAYLOAD)
    asked = {
        "do": "verify",
        "pem": key.public.pem().decode(),
        "alg": algorithm,
        "kid": key.public.key_id.hex(),
    }
    assert peer(**asked, block=block.hex()) == {"holds": True}
    changed = block[:-1] + bytes([block[-1] ^ 1])
    assert peer(**asked, block=changed.hex())["holds"] is False


def test_what_the_peer_encrypts_for_a_class_is_read_here() -> None:
    key, _, public = class_key()
    made = peer(do="encrypt", pem=public)
    cipher = unwrap(parse_encryption_info(bytes.fromhex(made["info"])), [key])
    assert cipher.apply(0, bytes.fromhex(made["sent"])) == PAYLOAD


def test_what_we_encrypt_for_a_class_is_read_there() -> None:
    key, private, _ = class_key()
    cipher = ContentCipher(bytes(range(16)), bytes(16))
    info = encryption_info(cipher.key, [(Agreement.new(key.public_key()), b"meters")])
    sent = cipher.apply(0, PAYLOAD)
    assert peer(do="decrypt", pem=private, info=info.hex(), sent=sent.hex()) == {"payload": PAYLOAD.hex()}
