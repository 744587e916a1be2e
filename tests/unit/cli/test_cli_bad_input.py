"""Bad input to every group of commands: one line that names the field and the way out, an exit code, nothing sent."""

import pytest

OFFLINE = [
    (["devices", "set", "pump-1", "region"], "NAME=VALUE"),
    (["devices", "set", "pump-1", "a=1", "a=2"], "a"),
    (["devices", "unset", "pump-1", "a=1"], "NAME"),
    (["read", "pump-1", "3/x"], "PATH"),
    (["read", "pump-1", "/3/0/1/2/3"], "PATH"),
    (["write", "pump-1", "/3/0", "60"], "VALUE"),
    (["execute", "pump-1", "/3/0"], "PATH"),
    (["discover", "pump-1", "x"], "PATH"),
    (["create", "pump-1", "/3303/1"], "PATH"),
    (["create", "pump-1", "/3303", "5700"], "ID=VALUE"),
    (["delete", "pump-1", "//x"], "PATH"),
    (["write-attributes", "pump-1", "/3/0/9", "pmin=soon"], "pmin"),
    (["observe", "pump-1", "--cancel"], "PATH"),
    (["observe", "pump-1", "x"], "PATH"),
    (["keys", "add", "missing.pem"], "missing.pem"),
    (["firmware", "add", "missing.bin"], "missing.bin"),
    (["firmware", "add", "empty.bin"], "empty.bin"),
    (["firmware", "add", "."], "."),
    (["manifest", "add", "missing.suit"], "missing.suit"),
    (["manifest", "show", "missing.suit"], "missing.suit"),
    (["manifest", "show", "empty.bin"], "envelope"),
    (["manifest", "sign", "empty.bin", "--key", "missing.pem"], "missing.pem"),
    (["manifest", "verify", "empty.bin", "--key", "empty.bin"], "key"),
    (["campaigns", "create", "c", "-m", "00ff", "--start-at", "soon"], "time"),
    (["tokens", "add", "ci", "--expires", "soon"], "time"),
    (["db", "upgrade", "--config", "missing.toml"], "missing.toml"),
    (["serve", "--config", "missing.toml"], "missing.toml"),
    (["serve", "--listen", "everywhere"], "coaps.listen"),
    (["serve", "--listen-coap", "everywhere"], "coap.listen"),
    (["serve", "--api-port", "99999"], "api.port"),
    (["serve", "--log-level", "loud"], "log.level"),
    (["devices", "list", "--url", "gopher://x"], "gopher"),
]


@pytest.mark.parametrize(("arguments", "field"), OFFLINE, ids=[" ".join(case[0]) for case in OFFLINE])
def test_bad_input_is_one_line_that_names_the_field(lwm2m, tmp_path, arguments, field) -> None:
    (tmp_path / "empty.bin").touch()
    lwm2m.json({"id": "00ff" * 16, "items": []})
    if "gopher://x" in arguments:
        lwm2m.problem(422, "invalid", "gopher is not a scheme")
    result = lwm2m(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert field in line
    assert all(request.method == "GET" for request in lwm2m.requests)


USAGE = [
    ["nonsense"],
    ["devices", "list", "--limit", "-1"],
    ["devices", "show"],
    ["keys", "new", "k.pem", "--algorithm", "rsa"],
    ["manifest", "create", "image.bin", "--sequence", "x"],
    ["manifest", "verify", "m.suit"],
    ["campaigns", "create", "c"],
    ["campaigns", "deployments", "c", "--state", "lost"],
    ["campaigns", "watch", "c", "--interval", "0"],
    ["objects", "show", "70000"],
    ["tokens", "add", "x", "--role", "god"],
    ["filters", "check"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_usage_is_exit_code_2_and_reaches_no_server(lwm2m, arguments) -> None:
    result = lwm2m(*arguments)
    assert result.exit_code == 2
    assert "Error" in result.stderr
    assert lwm2m.requests == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["devices", "--help"], ["campaigns", "watch", "-h"]]
)
def test_help_is_there(lwm2m, arguments) -> None:
    result = lwm2m(*arguments)
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_every_setting_that_is_wrong_has_its_line(lwm2m, tmp_path) -> None:
    (tmp_path / "lwm2m.toml").write_text('[api]\nport = "x"\n[log]\nlevel = "loud"\n')
    result = lwm2m("serve")
    assert result.exit_code == 2
    assert [line.split(" = ")[0] for line in result.stderr.splitlines()] == [
        "error: lwm2m.toml: api.port",
        "error: lwm2m.toml: log.level",
    ]
