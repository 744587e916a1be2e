"""`lwm2m credentials`, `authorities` and `certs` against the real API."""

import json
import stat

import pytest
from cryptography import x509

KEY = "00112233445566778899aabbccddeeff"


def test_a_made_key_goes_to_standard_output_alone_and_once(lwm2m) -> None:
    added = lwm2m("credentials", "add", "meter-1")
    key = added.stdout.strip()
    assert len(bytes.fromhex(key)) == 16
    assert key not in added.stderr
    assert "not shown again" in added.stderr
    for command in (
        ("list",),
        ("show", "psk:meter-1"),
        ("list", "--json"),
        ("show", "psk:meter-1", "--json"),
    ):
        assert key not in str(lwm2m("credentials", *command))
    assert lwm2m("credentials", "add", "meter-2", "--json")["key"]


def test_a_key_can_come_from_standard_input(lwm2m) -> None:
    result = lwm2m("credentials", "add", "meter-1", "--key", "-", typed=KEY + "\n")
    assert KEY not in result.stdout
    assert lwm2m("credentials", "rotate", "psk:meter-1", "--key", KEY, code=4)
    lwm2m("credentials", "add", "meter-2", "--key", "", "--identity", "psk:a b")
    assert lwm2m("credentials", "list", "--json")[0]["identity"] == "psk:a b"


def test_rotate_and_remove(lwm2m, bridge) -> None:
    lwm2m("credentials", "add", "meter-1", "--key", KEY)
    rotated = lwm2m("credentials", "rotate", "psk:meter-1", "--overlap", "7d", "--json")
    assert rotated["key"]
    assert "no duration" in lwm2m("credentials", "rotate", "psk:meter-1", "--overlap", "soon", code=2).stderr
    lwm2m("credentials", "remove", "psk:meter-1")
    assert lwm2m("credentials", "list").stderr == "no credential is there yet\n"
    assert "psk:meter-1" in lwm2m("credentials", "list", "--revoked").stdout
    lwm2m("credentials", "show", "psk:nobody", code=3)
    assert bridge.world.live.heard == [("rotated", "psk:meter-1"), ("revoke", "psk:meter-1")]


def test_an_import_reports_each_refused_line_and_ends_with_2(lwm2m, tmp_path) -> None:
    (tmp_path / "fleet.csv").write_text(f"endpoint,kind,key\nm1,psk,{KEY}\nm2,psk,bad\nm3,psk,{KEY}\n")
    strict = lwm2m("credentials", "import", "fleet.csv", "--strict", code=2)
    assert "0 added, 0 unchanged, 1 refused" in strict.stderr
    mixed = lwm2m("credentials", "import", "fleet.csv", code=2)
    assert "line 3: key: " in mixed.stderr
    assert "2 added" in mixed.stderr
    (tmp_path / "fleet.csv").write_text(f"endpoint,kind,key\nm1,psk,{KEY}\n")
    assert lwm2m("credentials", "import", "fleet.csv", "--json")["unchanged"] == 1
    lwm2m("credentials", "import", "missing.csv", code=2)


def test_the_template_is_printed_for_the_shell(lwm2m) -> None:
    assert lwm2m("credentials", "template").stdout.startswith("endpoint,kind,identity,key,")
    assert "key" in lwm2m("credentials", "template", "--json")["columns"]


def test_the_servers_key_can_be_pinned(lwm2m) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    load_pem_public_key(lwm2m("credentials", "server", "--pem").stdout.encode())
    assert lwm2m("credentials", "server", "--json")["identity"].startswith("rpk:")


@pytest.fixture
def ca(lwm2m, tmp_path):
    lwm2m("certs", "new", "ca", "--name", "lwm2m.example", "--name", "192.0.2.1", "--device", "meter-1")
    return tmp_path / "ca"


def test_a_small_authority_serves_a_first_try(lwm2m, ca) -> None:
    lwm2m("certs", "device", "ca", "urn:imei:490154203237518", "meter 2")
    lwm2m("authorities", "add", "ca/ca.pem", "--source", "cn")
    authority = lwm2m("authorities", "list", "--json")[0]
    assert (authority["name"], authority["source"], authority["pattern"]) == ("ca", "cn", "{endpoint}")
    added = lwm2m("credentials", "add", "meter-1", "--certificate", "ca/devices/meter-1.pem", "--json")
    assert (added["kind"], added["key"]) == ("x509", None)
    lwm2m("authorities", "remove", authority["id"])
    assert lwm2m("authorities", "list").stderr == "no authority is trusted\n"
    lwm2m("authorities", "add", "ca/devices/meter-1.key", "--source", "none", code=2)


def test_certificates_have_the_names_and_usages_of_their_role(ca, lwm2m) -> None:
    lwm2m("certs", "device", "ca", "urn:imei:490154203237518", "urn:dev:" + "x" * 80)
    load = lambda name: x509.load_pem_x509_certificates((ca / name).read_bytes())  # noqa: E731
    (authority,) = load("ca.pem")
    server, above = load("server.pem")
    assert above == authority
    usage = {
        name: load(name)[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value[0]._name
        for name in ("server.pem", "devices/meter-1.pem")
    }
    assert list(usage.values()) == ["serverAuth", "clientAuth"]
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["lwm2m.example"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]
    device = load("devices/urn:imei:490154203237518.pem")[0]
    device.verify_directly_issued_by(authority)
    uris = device.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert uris.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:imei:490154203237518"]
    long = load(f"devices/urn:dev:{'x' * 80}.pem")[0].extensions
    assert long.get_extension_for_class(x509.SubjectAlternativeName).critical, "it is the only name"
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)


def test_keys_are_for_their_owner_and_nothing_is_overwritten_without_force(ca, lwm2m) -> None:
    for key in ("ca.key", "server.key", "devices/meter-1.key"):
        assert stat.S_IMODE((ca / key).stat().st_mode) == 0o600
    before = {file: file.read_bytes() for file in ca.rglob("*.*")}
    for command in (("new", "ca"), ("server", "ca"), ("device", "ca", "meter-1")):
        assert "--force" in lwm2m("certs", *command, code=4).stderr
    assert {file: file.read_bytes() for file in ca.rglob("*.*")} == before
    lwm2m("certs", "device", "ca", "meter-1", "--force")
    assert (ca / "devices/meter-1.key").read_bytes() != before[ca / "devices/meter-1.key"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("server", "nowhere"),
        ("new", "x", "--name", "not a name"),
        ("device", "ca", "a\nb"),
        ("device", "ca", "x y" * 30),
        ("new", "x", "--days", "0"),
    ],
)
def test_what_can_not_be_certified_is_refused(ca, lwm2m, arguments) -> None:
    lwm2m("certs", *arguments, code=2)


def test_an_authority_whose_files_do_not_fit_issues_nothing(ca, lwm2m) -> None:
    lwm2m("certs", "new", "other")
    (ca / "ca.key").write_bytes((ca.parent / "other/ca.key").read_bytes())
    assert "does not belong" in lwm2m("certs", "device", "ca", "meter-2", code=2).stderr
    (ca / "ca.key").write_text("damaged")
    assert "no authority" in lwm2m("certs", "device", "ca", "meter-2", code=2).stderr


def test_secrets_are_forgotten_only_when_that_is_confirmed(lwm2m, tmp_path) -> None:
    lwm2m("db", "forget-secrets", "--data-dir", "data", code=3)
    lwm2m("db", "upgrade", "--data-dir", "data")
    lwm2m("db", "forget-secrets", "--data-dir", "data", code=4, typed="n\n")
    done = lwm2m("db", "forget-secrets", "--data-dir", "data", "--yes", "--json")
    assert json.loads(json.dumps(done))["removed"] == 0
