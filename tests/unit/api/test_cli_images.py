"""`lwm2m firmware` over the API and offline: uploads that break off, what is shown, keys, inspect and convert."""

import json
import os

import httpx
import pytest
from typer.testing import CliRunner

from firmware_files import esp_app, intel_hex, mcuboot, private_key, public_pem
from lwm2m_server.cli import client, upload
from lwm2m_server.cli.commands import app

IMAGE = mcuboot("-s", "7", "-d", "(1,1.2.0)", key="ecdsa-p256", payload=bytes(range(256)) * 400)


class Line(httpx.BaseTransport):
    """A connection that breaks: the first so many PATCHes bring a third of their bytes and then no answer."""

    def __init__(self, bridge, breaks: int, *, share: int = 3) -> None:
        self.bridge = bridge
        self.breaks = breaks
        self.share = share
        self.sent: list[int] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "PATCH":
            return self.bridge.handle_request(request)
        content = request.read()
        self.sent.append(len(content))
        if len(self.sent) > self.breaks:
            return self.bridge.handle_request(request)

        async def part():
            if self.share:
                yield content[: len(content) // self.share]

        digest = request.url.path.rsplit("/", 1)[1]
        offset = int(request.headers["upload-offset"])
        self.bridge.run(self.bridge.world.services.uploads.append(digest, offset, part(), actor="admin"))
        raise httpx.ReadError("the line is dead")


@pytest.fixture
def lwm2m(bridge, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("LWM2M_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LWM2M_URL", "http://test")
    monkeypatch.setenv("LWM2M_TOKEN", bridge.world.tokens["admin"])
    monkeypatch.setattr(upload, "pause", lambda _: None)
    (tmp_path / "image.bin").write_bytes(IMAGE)

    def run(*arguments: str, code: int = 0, line: httpx.BaseTransport = bridge):
        monkeypatch.setattr(
            client, "make_http", lambda target: httpx.Client(base_url=target.url, transport=line)
        )
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in arguments and code == 0 and result.stdout else result

    return run


def test_a_broken_connection_costs_only_the_bytes_that_were_lost(lwm2m, bridge) -> None:
    line = Line(bridge, 3)
    result = lwm2m("firmware", "add", "image.bin", line=line)
    assert "trying again" in result.stderr
    assert len(line.sent) == 4
    assert line.sent[0] == len(IMAGE)
    assert all(later == before - before // 3 for before, later in zip(line.sent, line.sent[1:], strict=False))
    assert lwm2m("firmware", "list", "--json")[0]["size"] == len(IMAGE)


def test_the_same_command_goes_on_after_it_gave_up(lwm2m, bridge) -> None:
    dead = Line(bridge, 100, share=0)
    assert "run the same command again" in lwm2m("firmware", "add", "image.bin", code=6, line=dead).stderr
    assert len(dead.sent) == upload.ATTEMPTS
    digest = upload.digest_of(upload.Path("image.bin"))

    async def part():
        yield IMAGE[:1000]

    bridge.run(bridge.world.services.uploads.append(digest, 0, part(), actor="admin"))
    line = Line(bridge, 0)
    assert "going on at byte 1000" in lwm2m("firmware", "add", "image.bin", line=line).stderr
    assert line.sent == [len(IMAGE) - 1000]
    again = Line(bridge, 0)
    assert lwm2m("firmware", "add", "image.bin", line=again).exit_code == 0
    assert again.sent == []


def test_a_server_that_is_not_there_at_the_beginning_is_said_at_once(lwm2m) -> None:
    class Nowhere(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

    assert "no server answers" in lwm2m("firmware", "add", "image.bin", code=6, line=Nowhere()).stderr


def test_what_an_image_says_is_shown(lwm2m, tmp_path) -> None:
    (tmp_path / "boot.pem").write_bytes(public_pem("ecdsa-p256"))
    key = lwm2m("firmware", "keys", "add", "boot.pem", "--json")
    assert [item["id"] for item in lwm2m("firmware", "keys", "list", "--json")] == [key["id"]]
    (tmp_path / "app.bin").write_bytes(esp_app())
    added = lwm2m("firmware", "add", "app.bin", "--expect-chip", "esp32s3", "--expect-project", "pump")
    assert "no signature" in added.stderr
    for line in ("project            pump", "chip               ESP32-S3", "idf version        v5.5.1"):
        assert line in added.stdout
    shown = lwm2m(
        "firmware", "add", "image.bin", "--version", "1.2.3", "--expect-security-counter", "7"
    ).stdout
    assert f"ecdsa-p256 verified {key['id']}" in shown
    assert "1 1.2.0" in shown
    listed = lwm2m("firmware", "list").stdout
    assert "verified" in listed
    assert "pump" in listed
    lwm2m("firmware", "keys", "remove", key["id"])
    assert lwm2m("firmware", "keys", "list").stderr == "no image key is trusted yet\n"


def test_disagreement_and_broken_signatures_have_their_exit_codes(lwm2m, tmp_path) -> None:
    assert (
        "says that its version is 1.2.3"
        in lwm2m("firmware", "add", "image.bin", "--version", "9.9.9", code=2).stderr
    )
    (tmp_path / "broken.bin").write_bytes(IMAGE[:5000] + b"?" + IMAGE[5001:])
    assert "sha256" in lwm2m("firmware", "add", "broken.bin", code=7).stderr
    assert lwm2m("firmware", "list").stderr == "no image is there yet\n"


def test_a_private_key_never_leaves_the_machine(lwm2m, tmp_path) -> None:
    from cryptography.hazmat.primitives import serialization

    (tmp_path / "key.pem").write_bytes(
        private_key("ecdsa-p256").private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    assert "never goes to a server" in lwm2m("firmware", "keys", "add", "key.pem", code=2).stderr


def test_a_file_is_inspected_offline_as_the_server_would(lwm2m, tmp_path) -> None:
    (tmp_path / "boot.pem").write_bytes(public_pem("ecdsa-p256"))
    found = lwm2m("firmware", "inspect", "image.bin", "--key", "boot.pem", "--json")
    assert (found["format"], found["version"]) == ("mcuboot", "1.2.3")
    assert found["details"]["signatures"][0]["state"] == "verified"
    lwm2m("firmware", "inspect", "image.bin", "--expect-format", "esp-idf", code=2)
    (tmp_path / "cut.bin").write_bytes(IMAGE[:-1])
    assert "tlvs" in lwm2m("firmware", "inspect", "cut.bin", code=2).stderr


def test_the_image_in_a_hex_file_is_one_command_away(lwm2m, tmp_path) -> None:
    (tmp_path / "image.hex").write_bytes(intel_hex((0xC000, IMAGE), (0x10001208, bytes(4))))
    assert "lwm2m firmware convert" in lwm2m("firmware", "add", "image.hex", code=2).stderr
    refused = lwm2m("firmware", "convert", "image.hex", "--output", "out.bin", code=2)
    assert "--range" in refused.stderr
    made = lwm2m("firmware", "convert", "image.hex", "--output", "out.bin", "--range", "0-0x100000", "--json")
    assert made == {"image": "out.bin", "size": len(IMAGE), "address": "0x0000c000"}
    assert (tmp_path / "out.bin").read_bytes() == IMAGE
    assert lwm2m("firmware", "add", "out.bin", "--json")["version"] == "1.2.3"
    lwm2m("firmware", "convert", "image.hex", "--output", "out.bin", "--range", "0-0x100000", code=4)
    lwm2m("firmware", "convert", "image.hex", "--output", "o2.bin", "--range", "9-5", code=2)
    as_it_is = lwm2m("firmware", "add", "image.hex", "--expect-format", "intel-hex", "--json")
    assert as_it_is["format"] == "intel-hex"
