"""Private keys for commands: files with or without a passphrase, and programs that sign for a key they hold."""

import os
import shlex
import subprocess
from pathlib import Path

import typer

from lwm2m_server.cli.session import read_file
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.keys import (
    SIGNATURE_SIZE,
    KeyType,
    Signer,
    SigningKey,
    VerificationKey,
    ecdsa_signature,
)

PASSPHRASE = "LWM2M_KEY_PASSPHRASE"  # noqa: S105  the name of a variable
SIGNING_TIME = 120.0
"""Seconds that a program may take: somebody may have to touch a token."""


def passphrase_of(key: Path, file: Path | None) -> bytes:
    """Get a passphrase: from a file, from the environment, or by asking."""
    if file is not None:
        return _first_line(read_file(file, "passphrase-file"))
    given = os.environ.get(PASSPHRASE)
    if given:
        return given.encode()
    return str(typer.prompt(f"Passphrase of {key}", hide_input=True, err=True)).encode()


def new_passphrase(file: Path | None) -> bytes:
    """Do so for a key that is being made; typed twice."""
    if file is not None:
        return _first_line(read_file(file, "passphrase-file"))
    given = os.environ.get(PASSPHRASE)
    if given:
        return given.encode()
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)).encode()


def load_key(key: Path, passphrase_file: Path | None) -> SigningKey:
    """Read a private key, with its passphrase where it has one."""
    pem = read_file(key, "key")
    password = passphrase_of(key, passphrase_file) if b"ENCRYPTED PRIVATE KEY" in pem else None
    return SigningKey.from_pem(pem, password, field="key")


class ExternalSigner:
    """A program that holds the private key, in an HSM or wherever it likes.

    It gets the bytes to sign on its standard input (the COSE Sig_structure, not hashed), the algorithm in
    the environment as LWM2M_SIGN_ALGORITHM (esp256, ed25519, ml-dsa-44), and gives the raw signature on its
    standard output: r and s (64 bytes) or DER for ECDSA. Anything but exit code 0 is a failure.
    """

    def __init__(self, command: str, public: VerificationKey) -> None:
        self.public = public
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise InvalidInput(f"the command can't be split: {error}", field="sign-with") from None
        if not self._arguments:
            raise InvalidInput("the command is empty", field="sign-with")

    def sign(self, message: bytes) -> bytes:
        """Run the program once; `InvalidInput` when it fails or gives no signature."""
        environment = {**os.environ, "LWM2M_SIGN_ALGORITHM": self.public.key_type.value}
        try:
            done = subprocess.run(  # noqa: S603  the operator's own command
                self._arguments,
                input=message,
                capture_output=True,
                check=False,
                env=environment,
                timeout=SIGNING_TIME,
            )
        except OSError as error:
            raise InvalidInput(
                f"{self._arguments[0]} can't be run: {error.strerror or error}", field="sign-with"
            ) from None
        except subprocess.TimeoutExpired:
            raise InvalidInput(
                f"{self._arguments[0]} did not sign within {SIGNING_TIME:.0f} s", field="sign-with"
            ) from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise InvalidInput(
                f"{self._arguments[0]} failed with exit code {done.returncode}"
                + (f": {said[-1]}" if said else ""),
                field="sign-with",
            )
        return self._signature(done.stdout)

    def _signature(self, output: bytes) -> bytes:
        if len(output) == SIGNATURE_SIZE[self.public.key_type]:
            return output
        try:
            if self.public.key_type is KeyType.ESP256:
                return ecdsa_signature(output)
        except ValueError:
            pass
        raise InvalidInput(
            f"{self._arguments[0]} gave {len(output)} bytes, which are no {self.public.key_type} signature",
            field="sign-with",
            hint="it must write the raw signature, and nothing else, to its standard output",
        )


def signer_of(
    key: Path | None, passphrase_file: Path | None, sign_with: str | None, public_key: Path | None
) -> Signer:
    """Return what the options of a command say to sign with."""
    if sign_with is not None:
        if key is not None or public_key is None:
            raise InvalidInput(
                "a program signs for a public key",
                field="sign-with",
                hint="give --sign-with together with --public-key, and no --key",
            )
        return ExternalSigner(sign_with, VerificationKey.from_pem(read_file(public_key, "public-key")))
    if key is None:
        raise InvalidInput("no key is given", field="key", hint="give --key, or --sign-with and --public-key")
    return load_key(key, passphrase_file)


def _first_line(content: bytes) -> bytes:
    line = content.split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise InvalidInput("the passphrase is empty", field="passphrase-file")
    return line
