"""Settings: which source wins, and what a mistake looks like."""

from pathlib import Path

import pytest

from lwm2m_server.config import ConfigurationError, Settings, load_settings, split_address


def lines(error: pytest.ExceptionInfo[ConfigurationError]) -> list[str]:
    return str(error.value).splitlines()


def test_defaults_are_valid_and_read_nothing(monkeypatch) -> None:
    monkeypatch.setenv("LWM2M_API_PORT", "1")
    settings = Settings()
    assert (settings.api.host, settings.api.port) == ("127.0.0.1", 8080)
    assert settings.coaps.listeners == [("0.0.0.0", 5684)]
    assert settings.coap.listeners == []


def test_flags_win_over_environment_over_file_over_defaults(monkeypatch, tmp_path) -> None:
    file = tmp_path / "lwm2m.toml"
    file.write_text('data_dir = "f"\n[api]\nport = 1\nhost = "::1"\n[engine]\nnstart = 2\n')
    monkeypatch.setenv("LWM2M_API_PORT", "2")
    monkeypatch.setenv("LWM2M_DATA_DIR", "e")
    settings = load_settings(None, {"api": {"port": 3}})
    assert settings.api.port == 3
    assert (settings.api.host, settings.data_dir, settings.engine.nstart) == ("::1", Path("e"), 2)
    assert settings.engine.max_retransmit == 4


def test_lists_in_the_environment_are_separated_by_commas(monkeypatch) -> None:
    monkeypatch.setenv("LWM2M_COAP_LISTEN", "127.0.0.1:1, [::1]:2")
    monkeypatch.setenv("LWM2M_OBJECTS", "a,b")
    settings = load_settings()
    assert settings.coap.listeners == [("127.0.0.1", 1), ("::1", 2)]
    assert settings.objects == [Path("a"), Path("b")]


def test_unknown_names_are_errors_with_the_nearest_one(monkeypatch, tmp_path) -> None:
    (tmp_path / "lwm2m.toml").write_text("datadir = 1\n[engine]\nack_timout = 2\n[zzz]\n")
    monkeypatch.setenv("LWM2M_API_PROT", "1")
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    assert [line.split("; ")[0] for line in lines(error)] == [
        "lwm2m.toml: unknown setting 'datadir'",
        "lwm2m.toml: unknown setting 'engine.ack_timout'",
        "lwm2m.toml: unknown setting 'zzz'",
        "environment: unknown variable LWM2M_API_PROT",
    ]
    assert "did you mean ack_timeout?" in lines(error)[1]
    assert "known are" in lines(error)[2]


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ("[api]\nport = 70000", "lwm2m.toml: api.port = 70000: "),
        ("[api]\nport = true", "lwm2m.toml: api.port = True: "),
        ('[coap]\nlisten = ["localhost:1"]', "lwm2m.toml: coap.listen = 'localhost:1': "),
        ('[coap]\npublic_uri = "http://x"', "lwm2m.toml: coap.public_uri = 'http://x': "),
        ("[engine]\nblock_size = 100", "lwm2m.toml: engine.block_size = 100: "),
        ("[update]\noffer_timeout = -1", "lwm2m.toml: update.offer_timeout = -1: "),
        ("[update]\noffer_timeout = nan", "lwm2m.toml: update.offer_timeout = nan: "),
        ("[retry]\ninitial = 10\nmaximum = 5", "lwm2m.toml: retry: initial must not be above maximum"),
        (
            '[coaps]\nsuites = ["TLS_NULL"]',
            "lwm2m.toml: coaps.suites = 'TLS_NULL': Input should be 'TLS_PSK_WITH_",
        ),
        ("[coaps]\nsuites = []", "lwm2m.toml: coaps.suites = []: "),
        ("api = 3", "lwm2m.toml: api = 3: "),
        ("[api", "lwm2m.toml: not valid TOML: "),
    ],
)
def test_a_bad_value_is_one_line_with_place_name_and_value(tmp_path, content, start) -> None:
    (tmp_path / "lwm2m.toml").write_text(content)
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    (line,) = lines(error)
    assert line.startswith(start)


def test_mistakes_in_flags_and_environment_say_so(monkeypatch) -> None:
    monkeypatch.setenv("LWM2M_API_PORT", "many")
    with pytest.raises(ConfigurationError) as error:
        load_settings(None, {"log": {"level": "loud"}, "max_image_size": 0})
    assert [line.split(":")[0] for line in lines(error)] == ["flags", "environment", "flags"]
    assert "LWM2M_API_PORT = 'many'" in str(error.value)


@pytest.mark.parametrize("text", ["1.2.3.4", "1.2.3.4:99999", "::1:5683", "[1.2.3.4]:1", "[x]:1", "", ":1"])
def test_addresses_that_are_none(text) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        split_address(text)


def test_a_file_that_can_not_be_read_is_named(tmp_path) -> None:
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    for name in ("bad.toml", "."):
        with pytest.raises(ConfigurationError, match="can't be read"):
            load_settings(Path(name))


def test_the_engine_takes_its_settings_as_they_are() -> None:
    from lwm2m_server._engine import Engine

    engine = Engine(**Settings().engine.model_dump())
    engine.close()
