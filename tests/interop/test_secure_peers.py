"""Programs with DTLS of their own, as devices of our server and as servers of our device."""

import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import DeviceKeys, Pki, ReferenceDevice, Server
from harness.process import ROOT, Process
from harness.server import free_port

pytestmark = pytest.mark.interop

LIMIT = 30
# GET of a path that nobody has, without a zero byte and with a line's end last, so that line-wise tools send it whole.
REQUEST = b"\x40\x01\x2a\x2b\xb1\n"
NOT_FOUND = b"\x60\x84\x2a\x2b"
GNUTLS = "NORMAL:-VERS-ALL:+VERS-DTLS1.2:-CIPHER-ALL:+AES-128-CCM-8"
GNUTLS_PSK = f"{GNUTLS}:-KX-ALL:+PSK"
LINKS = "</1/0>,</3/0>"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), keys=pki.server) as running:
        running.trust(pki.authority)
        yield running


def known(server: Server, pki: Pki, endpoint: str, kind: str = "psk") -> DeviceKeys:
    keys = pki.device(endpoint)
    server.credential(endpoint, kind, **keys.material(kind))
    return keys


def answer(command: Sequence[str], wanted: bytes) -> bytes:
    """Return what a tool prints after it was given the request, up to the wanted bytes."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as tool:
        assert tool.stdin is not None
        assert tool.stdout is not None
        watchdog = Watchdog(tool)
        tool.stdin.write(REQUEST)
        said = b""
        while wanted not in said and (more := tool.stdout.read(4096)):
            said += more
        watchdog.end()
        return said


class Watchdog:
    """Ends a tool that says nothing any more."""

    def __init__(self, tool: subprocess.Popen[bytes]) -> None:
        self._tool = tool
        self._timer = threading.Timer(LIMIT, tool.kill)
        self._timer.start()

    def end(self) -> None:
        self._timer.cancel()
        self._timer.join()
        self._tool.kill()


@pytest.mark.peer("openssl")
@pytest.mark.parametrize(
    "suite",
    [
        pytest.param("PSK-AES128-CCM8", marks=pytest.mark.row("openssl-psk")),
        pytest.param("PSK-AES128-GCM-SHA256", marks=pytest.mark.row("openssl-gcm")),
    ],
)
def test_openssl_with_a_pre_shared_key(server: Server, pki: Pki, suite: str) -> None:
    keys = known(server, pki, f"openssl-{suite.lower()}")
    command = ["openssl", "s_client", "-dtls1_2", "-quiet", "-psk", keys.psk, "-psk_identity", keys.name]
    command += ["-cipher", f"{suite}@SECLEVEL=0", "-connect", f"127.0.0.1:{server.secure_port}"]
    assert NOT_FOUND in answer(command, NOT_FOUND)


@pytest.mark.peer("openssl")
@pytest.mark.row("openssl-x509")
def test_openssl_with_a_certificate_in_small_datagrams(server: Server, pki: Pki) -> None:
    keys = pki.device("openssl-x509")
    command = ["openssl", "s_client", "-dtls1_2", "-quiet", "-mtu", "256", "-verify_return_error"]
    command += ["-cert", str(keys.file("certificate")), "-key", str(keys.file("key"))]
    command += ["-CAfile", str(pki.authority), "-cipher", "ECDHE-ECDSA-AES128-CCM8@SECLEVEL=0"]
    command += ["-connect", f"127.0.0.1:{server.secure_port}"]
    assert NOT_FOUND in answer(command, NOT_FOUND)


@pytest.mark.peer("gnutls")
@pytest.mark.row("gnutls-psk")
def test_gnutls_with_a_pre_shared_key(server: Server, pki: Pki) -> None:
    keys = known(server, pki, "gnutls-psk")
    command = ["gnutls-cli", "--udp", "--pskusername", keys.name, "--pskkey", keys.psk]
    command += ["--priority", GNUTLS_PSK, "-p", str(server.secure_port), "127.0.0.1"]
    assert NOT_FOUND in answer(command, NOT_FOUND)


@pytest.mark.peer("gnutls")
@pytest.mark.row("gnutls-x509")
def test_gnutls_with_a_certificate(server: Server, pki: Pki) -> None:
    keys = pki.device("gnutls-x509")
    command = ["gnutls-cli", "--udp", "--x509cafile", str(pki.authority), "--verify-hostname", "localhost"]
    command += ["--x509certfile", str(keys.file("certificate")), "--x509keyfile", str(keys.file("key"))]
    command += ["--priority", GNUTLS, "-p", str(server.secure_port), "127.0.0.1"]
    assert NOT_FOUND in answer(command, NOT_FOUND)


@pytest.mark.peer("libcoap-dtls")
@pytest.mark.parametrize(
    "tool",
    [
        pytest.param("coap-client-openssl", marks=pytest.mark.row("libcoap-openssl")),
        pytest.param("coap-client-gnutls", marks=pytest.mark.row("libcoap-gnutls")),
    ],
)
def test_libcoap_registers(server: Server, pki: Pki, tool: str) -> None:
    # Its -k takes the key as text: one that is not in hex for the others.
    key = "0123456789abcdef"
    server.credential(tool, "psk", key=key.encode().hex())
    uri = f"{server.secure_uri}/rd?ep={tool}&lt=60&lwm2m=1.1&b=U"
    command = [tool, "-B", "20", "-u", tool, "-k", key, "-m", "post", "-t", "40", "-e", LINKS, uri]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    shown = server.call("GET", f"/devices/{tool}")
    assert shown["registered"], done.stderr


@pytest.mark.peer("libcoap-dtls")
@pytest.mark.row("libcoap-rpk")
def test_libcoap_registers_with_a_raw_public_key(server: Server, pki: Pki, tmp_path: Path) -> None:
    keys = known(server, pki, "libcoap-rpk", "rpk")
    pair = tmp_path / "pair.pem"
    pair.write_text(keys.text("public") + keys.text("key"))
    uri = f"{server.secure_uri}/rd?ep={keys.name}&lt=60&lwm2m=1.1&b=U"
    # It asks for our certificate, and has no way to pin a key: -n leaves that unchecked.
    command = ["coap-client-gnutls", "-n", "-B", "20", "-M", str(pair), "-m", "post", "-t", "40"]
    command += ["-e", LINKS, uri]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT)
    assert server.try_call("GET", f"/devices/{keys.name}").is_success, done.stdout + done.stderr


@pytest.mark.peer("tinydtls")
@pytest.mark.row("tinydtls")
def test_tinydtls_registers(server: Server, pki: Pki, tmp_path: Path) -> None:
    keys = known(server, pki, "tinydtls")
    psk = f'{{"hex": "{keys.psk}"}}'
    identity = f'{{"ascii": "{keys.name}"}}'
    (tmp_path / "credentials.json").write_text(
        f'{{"{server.secure_uri}/*": {{"dtls": {{"psk": {psk}, "client-identity": {identity}}}}}}}'
    )
    command = [str(ROOT / ".cache/tinydtls/bin/aiocoap-client"), "-m", "POST"]
    command += ["--credentials", str(tmp_path / "credentials.json"), "--payload", LINKS]
    command += ["--content-format", "40", f"{server.secure_uri}/rd?ep=tinydtls&lt=60&lwm2m=1.1&b=U"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT)
    assert server.try_call("GET", "/devices/tinydtls").is_success, done.stdout + done.stderr


@pytest.mark.peer("openssl")
def test_a_wrong_key_gets_an_alert_and_an_event(server: Server, pki: Pki) -> None:
    keys = known(server, pki, "openssl-wrong")
    command = ["openssl", "s_client", "-dtls1_2", "-psk", "00" * 16, "-psk_identity", keys.name]
    command += ["-cipher", "PSK-AES128-CCM8@SECLEVEL=0", "-connect", f"127.0.0.1:{server.secure_port}"]
    alert = b"alert decrypt error"
    assert alert in answer(command, alert)
    assert server.refusal("wrong-key")["data"]["identity"] == f"psk:{keys.name}"


def device_at(port: int, keys: DeviceKeys, folder: Path) -> ReferenceDevice:
    uri = f"coaps://127.0.0.1:{port}"
    return ReferenceDevice(folder, keys.name, uri, keys=keys, options=("--plain", "--ack-timeout", "1"))


@contextmanager
def serving(peer: Process, device: ReferenceDevice) -> Iterator[tuple[Process, ReferenceDevice]]:
    """A peer's server, and our device before it."""
    try:
        with device.start():
            yield peer, device
    except BaseException:
        print(peer.tail())
        raise
    finally:
        if peer.running:
            peer.kill()


@pytest.mark.peer("openssl")
@pytest.mark.row("openssl-server")
def test_our_device_registers_at_an_openssl_server(tmp_path: Path, pki: Pki) -> None:
    port = free_port(socket.SOCK_DGRAM)
    keys = pki.device("at-openssl")
    command = ["openssl", "s_server", "-dtls1_2", "-psk", keys.psk, "-psk_identity", keys.name, "-nocert"]
    command += ["-cipher", "PSK-AES128-CCM8@SECLEVEL=0", "-accept", f"127.0.0.1:{port}"]
    with serving(Process("s_server", command), device_at(port, keys, tmp_path)) as (peer, device):
        peer.wait_line("CIPHER is PSK-AES128-CCM8", deadline=LIMIT)
        # What has come stands in a line of its own when the association ends.
        device.stop()
        peer.wait_line("ep=at-openssl", deadline=LIMIT)


@pytest.mark.peer("gnutls")
@pytest.mark.row("gnutls-server")
def test_our_device_registers_at_a_gnutls_server(tmp_path: Path, pki: Pki) -> None:
    port = free_port(socket.SOCK_DGRAM)
    keys = pki.device("at-gnutls")
    (tmp_path / "psk").write_text(f"at-gnutls:{keys.psk}\n")
    command = ["gnutls-serv", "--udp", "--echo", "-p", str(port), "--pskpasswd", str(tmp_path / "psk")]
    command += ["--priority", GNUTLS_PSK]
    with serving(Process("gnutls-serv", command), device_at(port, keys, tmp_path)) as (peer, _):
        peer.wait_line("ep=at-gnutls", deadline=LIMIT)


@pytest.mark.peer("libcoap-dtls")
@pytest.mark.row("libcoap-server")
def test_our_device_is_answered_by_a_libcoap_server(tmp_path: Path, pki: Pki) -> None:
    key = "0123456789abcdef"
    keys = pki.device("at-libcoap")
    keys.file("psk", "hex").write_text(key.encode().hex())
    port = free_port(socket.SOCK_DGRAM)
    command = ["coap-server-openssl", "-A", "127.0.0.1", "-p", str(port - 1), "-k", key]
    with serving(Process("coap-server", command), device_at(port, keys, tmp_path)) as (_, device):
        device.process.wait_line("Register was refused: 4.0", deadline=LIMIT)
