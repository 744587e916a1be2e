"""What the server says becomes a line on standard error and an exit code that means something."""

import errno

import httpx
import pytest

from lwm2m_server.cli import client, local, watch
from lwm2m_server.cli.commands import app
from lwm2m_server.cli.output import clean, moment, size

STATUSES = [
    (400, "malformed", 2),
    (401, "bad-token", 5),
    (403, "role", 5),
    (404, "not-found", 3),
    (409, "conflict", 4),
    (412, "stale", 4),
    (413, "too-large", 2),
    (422, "invalid", 2),
    (422, "signature", 7),
    (422, "unknown-key", 7),
    (500, "internal", 1),
    (502, "device-error", 8),
    (503, "busy", 6),
    (504, "timeout", 6),
]


@pytest.mark.parametrize(("status", "code", "expected"), STATUSES)
def test_each_kind_of_problem_has_its_exit_code(lwm2m, status, code, expected) -> None:
    lwm2m.problem(status, code, "this happened", field="that", hint="do this")
    result = lwm2m("devices", "show", "pump-1")
    assert result.exit_code == expected
    assert result.stderr == "error: that: this happened (do this)\n"
    assert result.stdout == ""


def test_an_error_without_a_problem_is_still_one_line(lwm2m) -> None:
    lwm2m.answer = lambda _: httpx.Response(502, text="<html>proxy</html>")
    result = lwm2m("devices", "list")
    assert result.stderr == "error: the server answered 502 Bad Gateway\n"


def test_something_else_that_answers_is_said_to_be_no_server(lwm2m) -> None:
    lwm2m.answer = lambda _: httpx.Response(200, text="<html>hello</html>")
    result = lwm2m("devices", "list")
    assert (result.exit_code, "not an lwm2m server" in result.stderr) == (6, True)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (httpx.ConnectError("refused"), "no server answers at http://127.0.0.1:8080"),
        (httpx.ReadTimeout("slow"), "does not answer in time"),
        (httpx.RemoteProtocolError("cut"), "broke"),
    ],
)
def test_a_server_that_can_not_be_reached_is_exit_code_6(lwm2m, error, text) -> None:
    def answer(_):
        raise error

    lwm2m.answer = answer
    result = lwm2m("devices", "list")
    assert result.exit_code == 6
    assert text in result.stderr


def test_ctrl_c_ends_quietly_with_130(lwm2m) -> None:
    def answer(_):
        raise KeyboardInterrupt

    lwm2m.answer = answer
    result = lwm2m("devices", "list")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_what_a_terminal_would_obey_is_made_visible(lwm2m) -> None:
    lwm2m.json({"path": "/3/0/0", "values": [{"path": "/3/0/0", "value": "\x1b[2Jgone"}]})
    assert lwm2m("read", "pump-1", "/3/0/0").stdout == "\\x1b[2Jgone\n"
    lwm2m.problem(404, "not-found", "no \x1b]0;x\x07")
    assert "\x1b" not in lwm2m("devices", "show", "x").stderr


def test_the_local_token_goes_to_the_local_server_only(lwm2m, tmp_path) -> None:
    folder = tmp_path / local.DATA_DIR
    folder.mkdir()
    (folder / local.TOKEN_FILE).write_text("lwm2m_secret\n")
    (folder / local.URL_FILE).write_text("http://127.0.0.1:9999\n")
    lwm2m.json({"items": [], "next": None})
    lwm2m("devices", "list")
    lwm2m("devices", "list", "--url", "http://elsewhere")
    lwm2m("devices", "list", "--token", "lwm2m_mine")
    seen = [(r.url.host, r.url.port, r.headers.get("authorization")) for r in lwm2m.requests]
    assert seen == [
        ("127.0.0.1", 9999, "Bearer lwm2m_secret"),
        ("elsewhere", None, None),
        ("127.0.0.1", 9999, "Bearer lwm2m_mine"),
    ]


def test_the_data_directory_is_found_as_the_server_finds_it(monkeypatch, tmp_path) -> None:
    from lwm2m_server.config import DEFAULT_DATA_DIR, Settings

    assert str(DEFAULT_DATA_DIR) == local.DATA_DIR
    assert Settings().token_path.name == local.TOKEN_FILE
    (tmp_path / "lwm2m.toml").write_text('data_dir = "elsewhere"')
    assert str(local.data_dir()) == "elsewhere"
    monkeypatch.setenv("LWM2M_DATA_DIR", "named")
    assert str(local.data_dir()) == "named"
    monkeypatch.delenv("LWM2M_DATA_DIR")
    (tmp_path / "lwm2m.toml").write_text("data_dir = [")
    assert str(local.data_dir()) == local.DATA_DIR


def test_names_are_quoted_in_paths(lwm2m) -> None:
    lwm2m.json({"attributes": {}})
    lwm2m("devices", "unset", "a/b c%", "x")
    assert lwm2m.asked == [("PATCH", "/devices/a%2Fb%20c%25/attributes", {"attributes": {"x": None}})]


def test_help_and_values_for_people() -> None:
    assert [size(n) for n in (10, 2048, 5 << 20, 3 << 30)] == ["10 B", "2.0 KB", "5.0 MB", "3.0 GB"]
    assert moment("2027-01-15T08:00:00.123456Z") == "2027-01-15 08:00:00Z"
    assert [clean(value) for value in (None, True, False, 2.0, 1.5, {"a": 1})] == [
        "-",
        "yes",
        "no",
        "2",
        "1.5",
        '{"a": 1}',
    ]


def test_unforeseen_errors_are_one_line_unless_a_traceback_is_asked_for(monkeypatch, capsys) -> None:
    from lwm2m_server import cli
    from lwm2m_server.cli import commands

    def broken() -> None:
        raise OSError(errno.EIO, "disk on fire")

    monkeypatch.setattr(commands, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: unexpected OSError")
    monkeypatch.setenv("LWM2M_TRACEBACK", "1")
    with pytest.raises(OSError, match="disk on fire"):
        cli.main()


def test_modules_that_take_long_are_not_loaded_for_help() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from lwm2m_server.cli.commands import app\n"
        "slow = {'httpx', 'fastapi', 'sqlalchemy', 'pydantic', 'rich', 'cryptography'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(slow)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_public_pieces_are_where_the_tests_replace_them() -> None:
    assert callable(client.make_http)
    assert callable(watch.sleep)
    assert app.info.name == "lwm2m"
