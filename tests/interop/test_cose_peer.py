"""COSE against the library cwt, in both directions: what it signs holds here, what we sign holds there."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lwm2m_server.firmware.cose import sign1, verify_blocks
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
