"""Images made by imgtool itself, in this process."""

import functools
import tempfile
from pathlib import Path

from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from imgtool.main import imgtool

KEY_KINDS = ("rsa-2048", "rsa-3072", "ecdsa-p256", "ecdsa-p384", "ed25519")
PAYLOAD = bytes(range(256)) * 8


@functools.cache
def private_key(kind: str, number: int = 0):
    """Return a key that lives as long as the test run; another `number` is another key."""
    del number
    match kind:
        case "ecdsa-p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ecdsa-p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, int(kind.removeprefix("rsa-")))


def private_pem(kind: str, number: int = 0) -> bytes:
    return private_key(kind, number).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(kind: str, number: int = 0) -> bytes:
    return (
        private_key(kind, number)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def mcuboot(
    *options: str,
    key: str | None = None,
    number: int = 0,
    version: str = "1.2.3",
    payload: bytes = PAYLOAD,
    encrypt_for: str | None = None,
) -> bytes:
    """Run `imgtool sign` and return what it made."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in.bin").write_bytes(payload)
        arguments = ["sign", "-H", "32", "--pad-header", "-S", "0x20000", "-v", version, *options]
        if key is not None:
            (folder / "key.pem").write_bytes(private_pem(key, number))
            arguments += ["--key", str(folder / "key.pem")]
        if encrypt_for is not None:
            (folder / "encrypt.pem").write_bytes(public_pem(encrypt_for, 99))
            arguments += ["--encrypt", str(folder / "encrypt.pem")]
        result = CliRunner().invoke(imgtool, [*arguments, str(folder / "in.bin"), str(folder / "out.bin")])
        assert result.exit_code == 0, result.output
        return (folder / "out.bin").read_bytes()
