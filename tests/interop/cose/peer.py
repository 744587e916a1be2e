"""Signs and verifies COSE_Sign1 with the library cwt, in an environment of its own (it wants an older cbor2).

Reads one JSON object from standard input and writes one: `sign` {pem, alg, payload} gives {block}, `verify`
{pem, block, payload} gives {holds}. Bytes are hex.
"""

import json
import sys

import cbor2
from cwt import COSE, COSEKey


def main() -> None:
    asked = json.load(sys.stdin)
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
