"""`lwm2m serve` as a process: how it starts, what it leaves for the CLI beside it, how it ends."""

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from harness.process import BIN
from harness.server import Server


def lwm2m(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of the server, without flags or environment that name it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LWM2M_")}
    return subprocess.run(
        [str(BIN / "lwm2m"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path) as running:
        yield running


def test_the_first_token_is_made_once_for_its_owner_alone_and_the_cli_finds_it(server, tmp_path) -> None:
    token = tmp_path / "data/admin-token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    before = token.read_text()
    found = lwm2m(tmp_path, "tokens", "list", "--json")
    assert found.returncode == 0, found.stderr
    assert [item["name"] for item in json.loads(found.stdout)] == ["admin"]
    server.kill()
    server.start()
    assert token.read_text() == before
    assert lwm2m(tmp_path, "devices", "list").stderr == "no device is known yet\n"


def test_its_definitions_health_and_metrics_are_served(server, tmp_path) -> None:
    numbers = {item["id"] for item in json.loads(lwm2m(tmp_path, "objects", "list", "--json").stdout)}
    assert {0, 1, 2, 3, 4, 5, 6, 7, 9, 3303, 33629} <= numbers
    ready = server.try_call("GET", f"{server.url}/health/ready").json()
    assert set(ready["parts"].values()) == {"ok"}
    assert "# TYPE" in server.try_call("GET", f"{server.url}/metrics").text


def test_events_arrive_as_they_happen(server) -> None:
    events = server.events()
    assert next(filter(None, events))["kind"] == "token.created"
    server.call("POST", "/tokens", json={"name": "second"})
    event = next(filter(None, events))
    assert (event["kind"], event["data"]["name"]) == ("token.created", "second")
    events.close()


def test_it_ends_cleanly_when_asked_also_while_somebody_follows_events(server) -> None:
    events = server.events()
    next(events)
    process = server.process._process
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, server.process.tail()


def test_a_port_in_use_is_named_and_nothing_else_happens(server, tmp_path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    port = server.url.rpartition(":")[2]
    result = lwm2m(other, "serve", "--api-port", port, "--listen", "127.0.0.1:0")
    assert result.returncode == 6
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: api.port: ")
    assert port in line


def test_a_second_server_on_the_port_of_the_devices_is_refused(server, tmp_path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    result = lwm2m(
        other,
        "serve",
        "--api-port",
        "0",
        "--listen",
        "127.0.0.1:0",
        "--listen-coap",
        f"127.0.0.1:{server.port}",
    )
    assert result.returncode != 0
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert str(server.port) in line


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("[api]\nprot = 1\n", "api.prot"),
        ('objects = ["missing"]\n', "missing"),
        ("[log]\nlevel = 3\n", "log.level"),
    ],
)
def test_bad_settings_keep_it_from_starting_and_make_nothing(tmp_path, content, field) -> None:
    (tmp_path / "lwm2m.toml").write_text(content)
    result = lwm2m(tmp_path, "serve")
    assert result.returncode == 2, result.stderr
    assert field in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "lwm2m-data/lwm2m.sqlite3").exists()
