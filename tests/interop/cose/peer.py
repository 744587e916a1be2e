"""COSE_Sign1 and COSE_Encrypt with the library cwt, in an environment of its own (it wants an older cbor2).

Reads one JSON object from standard input and writes one: `sign` {pem, alg, payload} gives {block}, `verify`
{pem, block, payload} gives {holds}; `encrypt` {pem, payload} gives {info, sent} and `decrypt` {pem, info, sent} gives
{payload}, both for ECDH-ES+A128KW with A128CTR. Bytes are hex.
"""

import json
import sys

import cbor2
from cwt import COSE, COSEKey, Recipient

_CONTEXT = {
    "alg": "A128KW",
    "supp_pub": {
        "key_data_length": 128,
        "protected": {"alg": "ECDH-ES+A128KW"},
        "other": "SUIT Payload Encryption",
    },
}


def encrypt(pem: str, payload: bytes) -> dict[str, str]:
    """Encrypt for whoever has the private half of `pem`."""
    content = COSEKey.generate_symmetric_key(alg="A128CTR")
    recipient = Recipient.new(
        protected={"alg": "ECDH-ES+A128KW"},
        recipient_key=COSEKey.from_pem(pem, alg="ECDH-ES+A128KW"),
        context=_CONTEXT,
    )
    whole = COSE.new().encode_and_encrypt(
        payload,
        content,
        unprotected={"alg": "A128CTR", "iv": content.generate_nonce()},
        recipients=[recipient],
        enable_non_aead=True,
    )
    protected, unprotected, sent, recipients = cbor2.loads(whole).value
    info = cbor2.dumps(cbor2.CBORTag(96, [protected, unprotected, None, recipients]), canonical=True)
    return {"info": info.hex(), "sent": sent.hex()}


def decrypt(pem: str, info: bytes, sent: bytes) -> dict[str, str]:
    """Decrypt with the private key `pem`."""
    key = COSEKey.from_pem(pem, alg="ECDH-ES+A128KW", kid=b"meters")
    payload = COSE.new().decode(
        info, keys=[key], context=_CONTEXT, detached_payload=sent, enable_non_aead=True
    )
    return {"payload": payload.hex()}


def main() -> None:
    asked = json.load(sys.stdin)
    if asked["do"] == "encrypt":
        json.dump(encrypt(asked["pem"], bytes.fromhex(asked["payload"])), sys.stdout)
        return
    if asked["do"] == "decrypt":
        found = decrypt(asked["pem"], bytes.fromhex(asked["info"]), bytes.fromhex(asked["sent"]))
        json.dump(found, sys.stdout)
        return
    payload = bytes.fromhex(asked["payload"])
    if asked["do"] == "sign":
        key = COSEKey.from_pem(asked["pem"], alg=asked["alg"])
        signed = cbor2.loads(COSE.new(alg_auto_inclusion=True).encode(payload, key))
        protected, unprotected, _, signature = signed.value
        block = cbor2.dumps(cbor2.CBORTag(18, [protected, unprotected, None, signature]))
        json.dump({"block": block.hex()}, sys.stdout)
        return
    try:
        key = COSEKey.from_pem(asked["pem"], alg=asked["alg"], kid=bytes.fromhex(asked["kid"]))
        COSE.new(verify_kid=True).decode(bytes.fromhex(asked["block"]), key, detached_payload=payload)
    except Exception as error:  # noqa: BLE001  whatever it raises means that it does not hold
        json.dump({"holds": False, "why": str(error)}, sys.stdout)
        return
    json.dump({"holds": True}, sys.stdout)


if __name__ == "__main__":
    main()
