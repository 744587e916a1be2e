"""A manifest signed by a key that never leaves a PKCS#11 token (SoftHSM), through OpenSC's pkcs11-tool."""

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from lwm2m_server.cli.commands import app

pytestmark = [pytest.mark.interop, pytest.mark.peer("softhsm")]

PIN = "1234"
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
           "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so")  # fmt: skip


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make a token with an EC key in it; return the command that works on it."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    monkeypatch.chdir(tmp_path)
    run(["softhsm2-util", "--init-token", "--free", "--label", "release", "--pin", PIN, "--so-pin", "5678"])
    module = next(path for path in MODULES if Path(path).exists())
    command = ["pkcs11-tool", "--module", module, "--token-label", "release", "--login", "--pin", PIN]
    run([*command, "--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "release"])
    return command


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, env=os.environ)


def lwm2m(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_token_signs_what_then_verifies(tool: list[str], tmp_path: Path) -> None:
    run([*tool, "--read-object", "--type", "pubkey", "--id", "01", "--output-file", "release.der"])
    public = serialization.load_der_public_key((tmp_path / "release.der").read_bytes())
    (tmp_path / "release.pub").write_bytes(
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "app.bin").write_bytes(b"firmware-version: 2.0.0\n" + bytes(100))
    lwm2m("manifest", "create", "app.bin", "--vendor", "acme.example", "--class", "m", "--sequence", "1")
    # the token signs digests only; docs/firmware.md shows this script
    (tmp_path / "token-sign").write_text(
        "#!/bin/sh\nopenssl dgst -sha256 -binary | "
        + " ".join([*tool, "--sign", "--mechanism", "ECDSA", "--id", "01", "--input-file", "/dev/stdin"])
        + "\n"
    )
    (tmp_path / "token-sign").chmod(0o755)
    lwm2m("manifest", "sign", "app.bin.suit", "--public-key", "release.pub", "--sign-with", "./token-sign")
    lwm2m("manifest", "verify", "app.bin.suit", "--key", "release.pub", "--image", "app.bin")
