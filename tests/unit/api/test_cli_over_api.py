"""The command line against the real API: every command once, as people and as programs use it."""

import pytest

IMAGE = b"firmware-version: 2.1.0\n" + bytes(5000)


@pytest.fixture
def manifest(lwm2m, tmp_path) -> str:
    (tmp_path / "pump.bin").write_bytes(IMAGE)
    lwm2m("keys", "new", "k.pem")
    lwm2m("keys", "add", "k.pem.pub")
    lwm2m("firmware", "add", "pump.bin")
    lwm2m("manifest", "create", "pump.bin", "--vendor", "acme.example", "--class", "pump", "--sequence", "1")
    lwm2m("manifest", "sign", "pump.bin.suit", "--key", "k.pem")
    return str(lwm2m("manifest", "add", "pump.bin.suit", "--json")["id"])


def test_devices_are_listed_shown_and_given_attributes(lwm2m, bridge) -> None:
    assert lwm2m("devices", "list").stderr == "no device is known yet\n"
    for number in range(3):
        bridge.run(bridge.world.register(f"pump-{number}"))
    listed = lwm2m("devices", "list", "--limit", "2")
    assert "pump-0" in listed.stdout
    assert "pump-2" not in listed.stdout
    assert "there are more" in listed.stderr
    assert len(lwm2m("devices", "list", "--limit", "0", "--json")) == 3
    lwm2m("devices", "set", "pump-1", "region=eu", "floor=3", "hot=true", 'room="12"')
    assert lwm2m("devices", "show", "pump-1", "--json")["attributes"] == {
        "region": "eu",
        "floor": 3,
        "hot": True,
        "room": "12",
    }
    assert "region=eu" in lwm2m("devices", "show", "pump-1").stdout
    lwm2m("devices", "unset", "pump-1", "floor", "hot", "room")
    found = lwm2m("devices", "list", "-f", 'region = "eu" and firmware.version < 1.10.0', "--json")
    assert [device["endpoint"] for device in found] == ["pump-1"]
    assert "device.attributes" in lwm2m("devices", "history", "pump-1").stdout
    lwm2m("devices", "delete", "pump-1")
    lwm2m("devices", "show", "pump-1", code=3)


def test_attributes_are_listed_and_defined(lwm2m) -> None:
    lwm2m("attributes", "define", "boot.version", "version")
    listed = lwm2m("attributes", "list", "--json")
    assert {"name": "boot.version", "type": "version", "built_in": False} in listed
    assert "firmware.version" in lwm2m("attributes", "list").stdout
    lwm2m("attributes", "define", "model", "text", code=2)


def test_operations_reach_the_device(lwm2m, bridge) -> None:
    asked = bridge.world.devices.asked
    assert lwm2m("read", "pump-1", "/3/0/0").stdout == "Acme\n"
    assert "Manufacturer" in lwm2m("read", "pump-1", "3/0", "--timeout", "9").stdout
    assert lwm2m("read", "pump-1", "/3/0/9", "--json")["values"][0]["value"] == 87
    for arguments, wanted in (
        (["write", "pump-1", "/1/0/1", "60"], ("write", "pump-1", "/1/0/1", 60, False, "admin")),
        (["write", "pump-1", "/3/0/14", "+02:00"], ("write", "pump-1", "/3/0/14", "+02:00", False, "admin")),
        (
            ["write", "pump-1", "/3/0/15", "7", "--text"],
            ("write", "pump-1", "/3/0/15", "7", False, "admin"),
        ),
        (
            ["write", "pump-1", "/1/0", "1=300", "7=U", "--partial"],
            ("write", "pump-1", "/1/0", {"1": 300, "7": "U"}, True, "admin"),
        ),
        (
            ["write", "pump-1", "/3/0/6", '{"0": 1}'],
            ("write", "pump-1", "/3/0/6", {"0": 1}, False, "admin"),
        ),
        (["execute", "pump-1", "/3/0/4"], ("execute", "pump-1", "/3/0/4", "", "admin")),
        (["execute", "pump-1", "/3/0/4", "0='x'"], ("execute", "pump-1", "/3/0/4", "0='x'", "admin")),
        (
            ["create", "pump-1", "/3303", "5700=21.5", "--instance", "1"],
            ("create", "pump-1", "/3303", {"5700": 21.5}, 1, "admin"),
        ),
        (["delete", "pump-1", "/3303/1"], ("delete", "pump-1", "/3303/1", "admin")),
        (
            ["write-attributes", "pump-1", "/3/0/9", "pmin=10", "gt="],
            ("write_attributes", "pump-1", "/3/0/9", {"pmin": 10.0, "gt": None}, "admin"),
        ),
        (["observe", "pump-1", "/3/0/9"], ("observe", "pump-1", "/3/0/9", "admin")),
        (["observe", "pump-1", "/3/0/9", "--cancel"], ("cancel", "pump-1", "/3/0/9", "admin")),
    ):
        lwm2m(*arguments)
        assert asked[-1] == wanted
    assert "ver=1.1 obs" in lwm2m("discover", "pump-1", "/3/0").stdout
    assert "/3/0/9" in lwm2m("observe", "pump-1").stdout
    assert "4.04" in lwm2m("read", "pump-1", "/9/9", code=8).stderr
    lwm2m("read", "silent", "/3/0", code=6)
    lwm2m("read", "nobody", "/3/0", code=3)


def test_a_release_is_made_offline_and_published(lwm2m, manifest, tmp_path) -> None:
    image = lwm2m("firmware", "list", "--json")[0]
    assert (image["size"], image["version"]) == (len(IMAGE), "2.1.0")
    assert lwm2m("firmware", "show", image["digest"][:8], "--json") == image
    assert "already" not in lwm2m("firmware", "add", "pump.bin").stderr
    lwm2m("firmware", "remove", image["digest"], code=4)
    assert [item["id"] for item in lwm2m("manifest", "list", "--json")] == [manifest]
    lwm2m("manifest", "download", manifest[:8], "-o", "again.suit")
    assert (tmp_path / "again.suit").read_bytes() == (tmp_path / "pump.bin.suit").read_bytes()
    key = lwm2m("keys", "list", "--json")[0]
    lwm2m("keys", "remove", key["id"])
    assert lwm2m("keys", "list").stderr == "no key is trusted yet\n"
    assert key["id"] in lwm2m("keys", "list", "--revoked").stdout
    lwm2m("manifest", "create", "pump.bin", "--vendor", "x.example", "--class", "y", "--sequence", "2")
    lwm2m("manifest", "sign", "pump.bin.suit", "-k", "k.pem")
    assert "was revoked" in lwm2m("manifest", "add", "pump.bin.suit", code=7).stderr
    lwm2m("manifest", "remove", manifest)
    lwm2m("firmware", "remove", image["digest"])


def test_a_campaign_is_created_steered_and_looked_at(lwm2m, bridge, manifest) -> None:
    made = lwm2m(
        *("campaigns", "create", "pumps", "-m", manifest[:10], "-f", 'model = "pump"', "--limit", "5"),
        *("--retries", "1", "--stop", "failures > 1", "--start-at", "2030-01-01T00:00Z", "--json"),
        *("--severity", "critical", "--max-defer", "3600"),
    )
    assert (made["manifest_id"], made["limit"], made["retries"]) == (manifest, 5, 1)
    assert made["start_at"] == "2030-01-01T00:00:00Z"
    assert (made["severity"], made["max_defer"]) == ("critical", 3600)
    assert "failures > 1" in lwm2m("campaigns", "show", "pumps").stdout
    for action, state in (
        ("start", "scheduled"),
        ("start", "running"),
        ("pause", "paused"),
        ("resume", "running"),
        ("abort", "aborted"),
        ("archive", "archived"),
    ):
        assert lwm2m("campaigns", action, "pumps").stderr == f"pumps is {state}\n"
    lwm2m("campaigns", "pause", "pumps", code=4)
    assert lwm2m("campaigns", "list").stderr == "no campaign is there yet\n"
    assert "archived" in lwm2m("campaigns", "list", "--archived").stdout
    lwm2m("campaigns", "create", "other", "-m", manifest)
    lwm2m("campaigns", "delete", "other")
    lwm2m("campaigns", "create", "other", "-m", "ffff", code=3)


def test_statistics_and_deployments_are_shown(lwm2m, bridge, manifest) -> None:
    campaign = lwm2m("campaigns", "create", "pumps", "-m", manifest, "--start", "--json")
    assert campaign["state"] == "running"
    for endpoint, state, reason in (("pump-1", "failed", "digest-mismatch"), ("pump-2", "downloading", "")):
        bridge.run(bridge.world.register(endpoint))
        bridge.run(bridge.world.deploy(campaign["id"], endpoint, state, reason))
    statistics = lwm2m("campaigns", "statistics", "pumps")
    assert "digest-mismatch 1" in statistics.stdout
    assert statistics.stderr == "1 of 2 devices came to an end\n"
    assert lwm2m("campaigns", "statistics", "pumps", "--json")["totals"]["failed"] == 1
    failed = lwm2m("campaigns", "deployments", "pumps", "--state", "failed", "--json")
    assert [item["endpoint"] for item in failed] == ["pump-1"]
    assert "50 % of 2.0 KB" in lwm2m("campaigns", "deployments", "pumps").stdout
    assert "there are more" in lwm2m("campaigns", "deployments", "pumps", "--limit", "1").stderr
    one = lwm2m("campaigns", "deployments", "pumps", "pump-1")
    assert "digest-mismatch" in one.stdout
    lwm2m("campaigns", "abort", "pumps")


def test_filters_objects_and_tokens(lwm2m, bridge) -> None:
    for number in range(3):
        bridge.run(bridge.world.register(f"pump-{number}"))
    assert lwm2m("filters", "check", 'model = "pump"', "--sample", "1").stdout == "3 devices\n  pump-0\n  …\n"
    assert lwm2m("filters", "check", 'model = "pump"', "--json")["count"] == 3
    wrong = lwm2m("filters", "check", "model == pump", code=2).stderr.splitlines()
    assert wrong[:2] == ["model == pump", "         ^"]
    assert "Device" in lwm2m("objects", "list").stdout
    assert "Battery Level" in lwm2m("objects", "show", "3").stdout
    assert lwm2m("objects", "show", "3", "--json")["id"] == 3
    token = lwm2m("tokens", "add", "ci", "--role", "operator", "--expires", "2030-01-01", "--json")
    assert token["token"].startswith("lwm2m_")
    shown = lwm2m("tokens", "add", "other").stdout
    assert shown.startswith("lwm2m_")
    assert "operator" in lwm2m("tokens", "list").stdout
    lwm2m("tokens", "remove", token["id"])
    lwm2m("devices", "list", "--token", token["token"], code=5)
