"""Leshan on coaps, both ways: its device before our server through a whole update, its server before our device."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import DeviceKeys, LeshanDevice, Pki, ReferenceDevice, Server, Signer, image_of
from harness.devices import LESHAN
from harness.process import Process
from harness.server import free_port
from lwm2m_device.fleet_security import Credentials
from lwm2m_server.devices.identities import Kind

pytestmark = [pytest.mark.interop, pytest.mark.peer("leshan")]

IMAGE_SIZE = 60 * 1024
LIMIT = 60


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), keys=pki.server) as running:
        running.trust(pki.authority)
        yield running


@pytest.fixture(scope="module")
def manifest(server: Server) -> str:
    image = image_of("2.0.0", IMAGE_SIZE)
    signer = Signer()
    return signer.publish(server, signer.release("2.0.0", image, manufacturer="Leshan", model="Library"))


@pytest.mark.parametrize(
    ("kind", "delivery", "cid"),
    [
        pytest.param("psk", "pull", "on", marks=pytest.mark.row("leshan-psk")),
        pytest.param("psk", "push", "on", marks=pytest.mark.row("leshan-psk")),
        pytest.param("psk", "push", "off", marks=pytest.mark.row("leshan-psk-plain")),
        pytest.param("rpk", "pull", "on", marks=pytest.mark.row("leshan-rpk")),
        pytest.param("x509", "pull", "on", marks=pytest.mark.row("leshan-x509")),
    ],
)
def test_its_device_is_updated_over_coaps(
    server: Server, pki: Pki, manifest: str, tmp_path: Path, kind: str, delivery: str, cid: str
) -> None:
    keys = pki.device(f"leshan-{kind}-{delivery}-{cid}")
    if kind != "x509":
        server.credential(keys.name, kind, **keys.material(kind))
    # It compares the name in the URI with that in the server's certificate.
    uri = f"coaps://localhost:{server.secure_port}" if kind == "x509" else server.secure_uri
    properties = {**keys.properties(kind), "cid": cid}
    with LeshanDevice(tmp_path, keys.name, uri, delivery=delivery, properties=properties) as device:
        server.wait_registered(keys.name)
        campaign = server.campaign(keys.name, manifest, filter=f'endpoint = "{keys.name}"')
        statistics = server.wait_campaign(campaign)
        assert statistics["totals"]["succeeded"] == 1, server.deployment(campaign, keys.name)
        assert device.image.stat().st_size == IMAGE_SIZE


def leshan_server(secure_port: int, properties: dict[str, object]) -> Process:
    command = ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    command += [f"-D{name}={value}" for name, value in properties.items()]
    command += ["-cp", f"{LESHAN / 'peers.jar'}:{LESHAN / 'lib'}/*", "LeshanServer"]
    return Process("LeshanServer", [*command, str(free_port(socket.SOCK_DGRAM)), str(secure_port)])


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("psk", marks=pytest.mark.row("leshan-server-psk")),
        pytest.param("rpk", marks=pytest.mark.row("leshan-server-rpk")),
    ],
)
def test_our_device_registers_at_its_server_and_is_read(pki: Pki, tmp_path: Path, kind: str) -> None:
    keys = pki.device(f"at-leshan-{kind}")
    properties = serving_psk(keys, tmp_path) if kind == "psk" else serving_rpk(keys)
    port = free_port(socket.SOCK_DGRAM)
    peer = leshan_server(port, properties)
    try:
        peer.wait_line("listening", deadline=LIMIT)
        uri = f"coaps://127.0.0.1:{port}"
        options = ("--plain", "--manufacturer", "Seen")
        with ReferenceDevice(tmp_path, keys.name, uri, keys=keys, kind=kind, options=options) as device:
            device.process.wait_line("Registered as", deadline=LIMIT)
            peer.write(f"read {keys.name}")
            peer.wait_line("Seen", deadline=LIMIT)
    finally:
        print(peer.tail())
        peer.kill()


def serving_psk(keys: DeviceKeys, folder: Path) -> dict[str, object]:
    """The server derives a device's key from a secret, so the device gets that one."""
    secret = b"a secret of the Leshan server"
    (folder / "secret").write_bytes(secret)
    keys.file("psk", "hex").write_text(Credentials(Kind.PSK, secret).device(keys.name).psk.hex())
    return {"psk.secret": folder / "secret"}


def serving_rpk(keys: DeviceKeys) -> dict[str, object]:
    server = keys.server
    return {
        "server.key": server.file("key", "der"),
        "server.public": server.file("public", "der"),
        "public": keys.file("public", "der"),
    }
