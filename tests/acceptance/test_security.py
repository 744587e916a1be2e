"""Who is let in, who is not, and what an operator hears of it; sessions over a kill of the server. Real processes."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import DeviceKeys, Pki, ReferenceDevice, Server, Signer, image_of
from harness.server import FAST

SETTINGS = FAST + "[registration]\ngrace = 5\n"
IMAGE_SIZE = 100 * 1024


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def server(tmp_path: Path, pki: Pki) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    with Server(folder, settings=SETTINGS, keys=pki.server) as running:
        running.trust(pki.authority)
        yield running


def device(
    tmp_path: Path,
    server: Server,
    keys: DeviceKeys,
    kind: str = "psk",
    *,
    endpoint: str | None = None,
    options: tuple[str, ...] = (),
) -> ReferenceDevice:
    """Return a device that soon gives up on a server that doesn't answer it."""
    return ReferenceDevice(
        tmp_path,
        endpoint or keys.name,
        server.secure_uri,
        trust=Signer().public_file(tmp_path),
        keys=keys,
        kind=kind,
        options=("--ack-timeout", "0.2", *options),
    )


def counter(server: Server, name: str) -> int:
    metrics = server.try_call("GET", f"{server.url}/metrics").text
    line = next(line for line in metrics.splitlines() if name in line and not line.startswith("#"))
    return int(float(line.split()[-1]))


def reads(server: Server, endpoint: str) -> bool:
    answer = server.try_call("GET", f"/devices/{endpoint}/objects/3/0/0")
    return answer.is_success and answer.json()["values"][0]["value"] == "Acme"


def test_strangers_are_refused_with_a_reason_and_disturb_nobody(
    tmp_path: Path, server: Server, pki: Pki, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good, unknown, revoked = pki.device("good"), pki.device("unknown"), pki.device("revoked")
    foreign = Pki(tmp_path_factory.mktemp("foreign")).device("foreign")
    server.credential("good", "psk", **good.material("psk"))
    server.credential("revoked", "psk", **revoked.material("psk"))
    server.call("DELETE", "/credentials/psk:revoked")
    with device(tmp_path, server, good):
        server.wait_registered("good")
        with device(tmp_path, server, unknown):
            assert server.refusal("unknown-identity")["data"]["identity"] == "psk:unknown"
        with device(tmp_path, server, revoked):
            assert server.refusal("revoked")["data"]["identity"] == "psk:revoked"
        with device(tmp_path, server, unknown, "rpk"):
            server.wait_until(lambda: server.refusal("unknown-identity"))
        trusts_ours = DeviceKeys(foreign.folder, "foreign", pki.server, pki.authority)
        with device(tmp_path, server, trusts_ours, "x509"):
            server.wait_until(lambda: counter(server, "dtls_failed") > 0)
        assert reads(server, "good")
        for name in ("unknown", "revoked", "foreign"):
            assert server.try_call("GET", f"/devices/{name}").status_code == 404


@pytest.mark.parametrize("kind", ["psk", "rpk", "x509"])
def test_an_identity_registers_under_its_own_name_alone(
    tmp_path: Path, server: Server, pki: Pki, kind: str
) -> None:
    keys = pki.device(f"own-{kind}")
    if kind != "x509":  # certificates by the authority's rule
        server.credential(keys.name, kind, **keys.material(kind))
    with device(tmp_path, server, keys, kind, endpoint="other") as lying:
        found = server.refusal("endpoint-not-allowed")
        assert (found["endpoint"], found["data"]["identity"].split(":")[0]) == ("other", kind)
        lying.process.wait_line("4.03")
    with device(tmp_path, server, keys, kind):
        server.wait_registered(keys.name)
        assert reads(server, keys.name)
    assert server.try_call("GET", "/devices/other").status_code == 404


def test_a_revoked_device_is_out_at_once(tmp_path: Path, server: Server, pki: Pki) -> None:
    keys = pki.device("stolen")
    server.credential("stolen", "psk", **keys.material("psk"))
    with device(tmp_path, server, keys):
        server.wait_registered("stolen")
        assert reads(server, "stolen")
        server.call("DELETE", "/credentials/psk:stolen")
        assert not reads(server, "stolen")


def test_sessions_outlive_a_kill_and_a_device_notices_nothing(
    tmp_path: Path, server: Server, pki: Pki
) -> None:
    keys = pki.device("steady")
    server.credential("steady", "psk", **keys.material("psk"))
    with device(tmp_path, server, keys) as steady:
        server.wait_registered("steady")
        # What is stored of the session is durable before anything else that the server writes now.
        server.call("PATCH", "/devices/steady/attributes", json={"attributes": {"region": "eu"}})
        server.kill()
        server.start()
        assert reads(server, "steady")
        server.call("POST", "/devices/steady/objects/1/0/8")  # Registration Update Trigger
        server.wait_until(lambda: counter(server, "updates_answered") > 0)
        assert counter(server, "dtls_handshakes") == 0
        assert steady.process.running


def test_a_damaged_session_costs_a_handshake_and_nothing_else(
    tmp_path: Path, server: Server, pki: Pki
) -> None:
    keys = pki.device("damaged")
    server.credential("damaged", "psk", **keys.material("psk"))
    # It finds out when its next Update gets no answer.
    with device(tmp_path, server, keys, options=("--lifetime", "20")):
        server.wait_registered("damaged")
        server.stop()
        with sqlite3.connect(server.folder / "data" / "lwm2m.sqlite3") as database:
            [(sealed,)] = database.execute("SELECT sealed FROM sessions")
            database.execute("UPDATE sessions SET sealed = ?", (sealed[:-1] + bytes([sealed[-1] ^ 1]),))
        database.close()
        server.start()
        server.process.wait_line("unreadable=1")
        server.wait_until(lambda: reads(server, "damaged"))
        assert counter(server, "dtls_handshakes") == 1


def test_the_whole_update_over_coaps_with_a_kill_in_the_middle(
    tmp_path: Path, server: Server, pki: Pki
) -> None:
    keys = pki.device("meter")
    server.credential("meter", "psk", **keys.material("psk"))
    signer = Signer()
    release = signer.release("2.0.0", image_of("2.0.0", IMAGE_SIZE))
    options = {"trust": signer.public_file(tmp_path), "keys": keys}
    with ReferenceDevice(tmp_path, "meter", server.secure_uri, **options):
        server.wait_registered("meter")
        campaign = server.campaign("secure", signer.publish(server, release))
        server.wait_until(lambda: server.deployment(campaign, "meter")["offset"] > IMAGE_SIZE // 4)
        server.kill()
        server.start()
        server.wait_campaign(campaign)
        assert server.deployment(campaign, "meter")["reason"] == "confirmed-digest"
        assert counter(server, "dtls_handshakes") <= 1  # the one after the reboot into the new version


def test_a_new_key_is_taken_up_and_sessions_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    first = Pki(folder)
    old = first.device("old")
    with Server(folder, settings=SETTINGS, keys=first.server) as server:
        server.credential("old", "rpk", **old.material("rpk"))
        with device(tmp_path, server, old, "rpk"):
            server.wait_registered("old")
            second = Pki(folder)  # writes over the server's files
            new = second.device("new")
            server.credential("new", "rpk", **new.material("rpk"))
            server.process.hang_up()
            server.process.wait_line("key and certificate reloaded")
            with device(tmp_path, server, new, "rpk"):
                server.wait_registered("new")
                assert reads(server, "old")
                assert counter(server, "dtls_handshakes") == 2
            second.server.file("key").write_text("damaged")
            server.process.hang_up()
            server.process.wait_line("key and certificate stay as they were")
            assert reads(server, "old")
