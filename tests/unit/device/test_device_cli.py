"""`lwm2m-device`: wrong use is told with the flag and the way out; `show` reads what is there."""

import json
import sys

import pytest

from lwm2m_device.cli import main
from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_server.firmware.cose import SigningKey


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command; return exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lwm2m-device", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def flags(tmp_path, *more: str) -> list[str]:
    key = tmp_path / "trust.pem"
    key.write_bytes(SigningKey.generate().public.pem())
    common = [
        "run",
        "--endpoint",
        "dev",
        "--flash",
        str(tmp_path / "flash"),
        "--server",
        "coap://127.0.0.1:1",
    ]
    return [*common, "--vendor", "acme.example", "--class", "M1", "--trust", str(key), *more]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--server", "http://host"], "server"),
        (["--server", "host:5683"], "server"),
        (["--server", "coaps://host"], "psk-key-file"),
        (["--server", "coaps://host", "--psk-key", "no"], "psk-key"),
        (["--server", "coaps://host", "--certificate-usage", "4"], "certificate-usage"),
        (["--endpoint", ""], "endpoint"),
        (["--lifetime", "-1"], "lifetime"),
        (["--lwm2m-version", "2.0"], "lwm2m-version"),
        (["--delivery", "pigeon"], "delivery"),
        (["--block-size", "1000"], "block-size"),
        (["--bind", "nowhere"], "bind"),
        (["--initial-version", "one"], "version"),
        (["--initial-image", "/nonexistent/image"], "initial-image"),
        (["--trust", "/nonexistent/key.pem"], "trust"),
        (["--trust", "/dev/null"], "trust"),
        (["--flash", "/nonexistent/flash"], "flash"),
        (["--slot-size", "0"], "slot-size"),
        (["--page-size", "8"], "page-size"),
        (["--die-at-percent", "0"], "die-at-percent"),
        (["--max-boots", "0"], "max-boots"),
        (["--colour", "red"], "colour"),
    ],
)
def test_a_wrong_flag_is_named_and_nothing_is_made(call, tmp_path, more, named):
    code, out, err = call(*flags(tmp_path, *more))
    assert code == 2
    assert named in err
    assert out == ""
    assert not (tmp_path / "flash").exists()


@pytest.mark.parametrize("missing", ["--vendor", "--class", "--trust"])
def test_a_device_for_manifests_needs_its_identity(call, tmp_path, missing):
    given = flags(tmp_path)
    at = given.index(missing)
    code, _, err = call(*given[:at], *given[at + 2 :])
    assert code == 2
    assert missing in err
    assert "--plain" in err


def test_a_private_key_is_no_trust_anchor(call, tmp_path):
    key = tmp_path / "private.pem"
    key.write_bytes(SigningKey.generate().pem())
    code, _, err = call(*flags(tmp_path, "--trust", str(key)))
    assert code == 2
    assert "private" in err


def test_a_flash_in_use_is_a_conflict(call, tmp_path):
    for content in (Layout().encode_geometry(), b"something that is damaged"):
        (tmp_path / "flash").write_bytes(content)
        holder = Flash(tmp_path / "flash", size=4096, page_size=4096)
        code, _, err = call(*flags(tmp_path))
        holder.close()
        assert code == 4
        assert "in use" in err


def test_an_initial_image_above_the_slot_is_refused(call, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(5000))
    code, _, err = call(*flags(tmp_path, "--initial-image", str(image), "--slot-size", "4096"))
    assert code == 2
    assert "5000" in err


def test_show_tells_the_flash_of_a_device(call, bench, tmp_path):
    code, out, _ = call("show", str(bench.file), "--json")
    assert code == 0
    found = json.loads(out)
    assert found["slots"]["A"]["version"] == "1.0.0"
    assert found["slots"]["A"]["confirmed"]
    assert found["slots"]["B"] is None
    assert found["update"]["state"] == "idle"
    assert found["boot"]["active"] == "A"
    code, out, _ = call("show", str(bench.file))
    assert code == 0
    assert "version 1.0.0" in out


@pytest.mark.parametrize("content", [None, b"", b"no flash"])
def test_show_refuses_what_is_no_flash_file(call, tmp_path, content):
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    code, _, err = call("show", str(file))
    assert code == 2
    assert str(file) in err


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--server", "http://host"], "server"),
        (["--server", "coap://no-such-host.invalid"], "no-such-host.invalid"),
        (["--server", "coap://127.0.0.1:5683", "--count", "0"], "count"),
        (["--server", "coap://127.0.0.1:5683", "--failing", "2"], "failing"),
        (["--server", "coap://127.0.0.1:5683", "--version", "x"], "version"),
        (["--server", "coaps://127.0.0.1:5684"], "secret"),
        (["--server", "coaps://127.0.0.1:5684", "--security", "none"], "security"),
    ],
)
def test_a_fleet_that_can_not_be_is_refused(call, more, named):
    code, out, err = call("fleet", *more)
    assert code == 2
    assert named in err
    assert out == ""


def test_a_fleets_credentials_are_written_for_the_import_and_nothing_runs(call, tmp_path):
    secret, table, authority = (tmp_path / name for name in ("secret", "fleet.csv", "authority.pem"))
    flags = ["--security", "x509", "--count", "2", "--prefix", "m-", "--secret", str(secret)]
    code, _, err = call("fleet", *flags, "--credentials-out", str(table), "--authority-out", str(authority))
    assert (code, err) == (0, "")
    header, *rows = table.read_text().splitlines()
    assert header == "endpoint,kind,identity,key,public_key,certificate"
    assert [row.split(",")[:2] for row in rows] == [["m-000000", "x509"], ["m-000001", "x509"]]
    assert authority.read_text().startswith("-----BEGIN CERTIFICATE-----")
