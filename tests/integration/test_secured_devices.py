"""Our device and our fleets before our server over coaps, with raw public keys and certificates."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Pki, ReferenceDevice, Server
from harness.process import BIN, Process

CSV = {"Content-Type": "text/csv"}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), keys=pki.server) as running:
        running.trust(pki.authority)
        yield running


@pytest.mark.parametrize("kind", ["rpk", "x509"])
def test_a_device_registers_and_is_read(server: Server, pki: Pki, tmp_path: Path, kind: str) -> None:
    keys = pki.device(f"device-{kind}")
    if kind == "rpk":
        server.credential(keys.name, kind, **keys.material(kind))
    device = ReferenceDevice(
        tmp_path, keys.name, server.secure_uri, keys=keys, kind=kind, options=("--plain",)
    )
    with device.start():
        device.process.wait_line("Registered as")
        read = server.call("GET", f"/devices/{keys.name}/objects/3/0/0")
        assert read["values"][0]["value"] == "Acme"
        identity = server.call("GET", f"/devices/{keys.name}")["registration"]["identity"]
        assert identity.startswith(f"{kind}:")


@pytest.mark.parametrize("kind", ["psk", "rpk", "x509"])
def test_a_fleet_registers_with_the_credentials_that_it_wrote_down(
    server: Server, pki: Pki, tmp_path: Path, kind: str
) -> None:
    trust = {"psk": [], "rpk": ["--server-key", str(pki.server.file("public"))]}
    trust["x509"] = ["--authority", str(pki.authority), "--server-name", "localhost"]
    command = [
        str(BIN / "lwm2m-device"),
        "fleet",
        "--security",
        kind,
        "--count",
        "10",
        "--prefix",
        f"{kind}-",
    ]
    command += ["--secret", str(tmp_path / "secret")]
    written = ["--credentials-out", str(tmp_path / "csv"), "--authority-out", str(tmp_path / "authority")]
    assert Process("fleet", [*command, *written]).wait() == 0
    content = (tmp_path / "csv").read_bytes()
    report = server.call("POST", "/credentials/import", content=content, headers=CSV)
    assert (report["added"], report["refused"]) == (10, 0)
    if kind == "x509":
        authority = (tmp_path / "authority").read_text()
        body = {"certificate": authority, "name": "fleet", "source": "none", "pattern": ""}
        server.call("POST", "/authorities", json=body)
    fleet = Process(
        "fleet", [*command, *trust[kind], "--server", server.secure_uri, "--seconds", "4", "--json"]
    )
    assert fleet.wait() == 0
    counts = json.loads(fleet.tail())
    assert (counts["registered"], counts["handshakes"], counts["refused"]) == (10, 10, 0)
