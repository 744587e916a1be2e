"""Credentials of a device and of a fleet: read from files, shown in object 0, derived from one secret."""

import csv
import hashlib
import hmac
import io
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from lwm2m_device import credentials, files, fleet_security, uri
from lwm2m_device.credentials import CredentialFiles
from lwm2m_device.fleet import FleetFiles
from lwm2m_device.objects import security_object
from lwm2m_device.settings import DeviceSettings
from lwm2m_server.devices.identities import Kind
from lwm2m_server.errors import InvalidInput

SERVER = uri.parse("coaps://server.example")
SECRET = b"a secret of a whole fleet"


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def shown(tmp_path, security) -> dict[int, object]:
    """The resources of object 0."""
    node = security_object(DeviceSettings("dev", "coaps://server.example", tmp_path, security=security))
    assert node.hidden
    return {number: each.read() for number, each in node.instances[0].resources.items()}


@pytest.fixture
def made(tmp_path):
    """Files of a device on certificates: key, certificate, authority."""
    fleet = fleet_security.Credentials(Kind.X509, SECRET)
    device = fleet.device("dev")
    (tmp_path / "key").write_bytes(device.private_key)
    (tmp_path / "certificate").write_bytes(device.certificate)
    (tmp_path / "authority").write_bytes(fleet.authority.public_bytes(Encoding.PEM))
    return tmp_path


def test_plain_coap_has_no_credentials(tmp_path):
    assert CredentialFiles(psk_key="00").load(uri.parse("coap://host"), "dev") is None
    assert shown(tmp_path, None)[2] == credentials.MODE_NONE


def test_a_pre_shared_key_has_the_endpoint_for_its_identity_unless_told_otherwise(tmp_path):
    (tmp_path / "psk").write_text("00 01 02\n0a\n")
    security = CredentialFiles(psk_key_file=tmp_path / "psk").load(SERVER, "dev")
    assert security.psk == (b"dev", bytes([0, 1, 2, 10]))
    assert CredentialFiles(psk_identity="me", psk_key="0f").load(SERVER, "dev").psk == (b"me", b"\x0f")
    resources = shown(tmp_path, security)
    assert (resources[2], resources[3], resources[5]) == (credentials.MODE_PSK, b"dev", bytes([0, 1, 2, 10]))


def test_a_raw_public_key_is_shown_with_the_servers(tmp_path):
    key, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key").write_bytes(pem(key))
    (tmp_path / "server").write_bytes(public(server))
    named = CredentialFiles(key=tmp_path / "key", server_key=tmp_path / "server")
    security = named.load(SERVER, "dev")
    assert (security.private_key, security.server_public_key) == (pem(key), public(server))
    resources = shown(tmp_path, security)
    assert (resources[2], resources[3], resources[4]) == (credentials.MODE_RPK, public(key), public(server))


def test_a_certificate_trusts_the_authority_by_usage_2_and_asks_for_the_name_of_the_uri(made):
    named = CredentialFiles(key=made / "key", certificate=made / "certificate", authority=made / "authority")
    security = named.load(SERVER, "dev")
    assert (security.certificate_usage, security.server_name) == (2, "server.example")
    assert named.load(uri.parse("coaps://192.0.2.1"), "dev").server_name is None
    resources = shown(made, security)
    assert (resources[2], resources[15], resources[14]) == (credentials.MODE_X509, 2, "server.example")
    assert resources[3] == (made / "certificate").read_bytes()
    assert resources[4] == security.trust[0]


def test_a_certificate_of_the_server_is_taken_by_usage_3(made):
    named = CredentialFiles(
        key=made / "key", certificate=made / "certificate", server_certificate=made / "authority"
    )
    assert named.load(SERVER, "dev").certificate_usage == 3


def test_connection_ids_can_be_left_out():
    assert CredentialFiles(psk_key="00").load(SERVER, "dev").connection_id_length == 0
    named = CredentialFiles(psk_key="00", connection_id=False)
    assert named.load(SERVER, "dev").connection_id_length is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "psk-key-file"),
        ({"psk_key": "xyz"}, "psk-key"),
        ({"psk_key": "00", "key": "key"}, "key"),
        ({"psk_key_file": "missing"}, "psk-key-file"),
        ({"key": "missing"}, "key"),
        ({"key": "certificate", "server_key": "key"}, "key"),
        ({"key": "key"}, "server-key"),
        ({"key": "key", "server_key": "key"}, "server-key"),
        ({"key": "key", "certificate": "certificate"}, "authority"),
        ({"key": "key", "certificate": "key", "authority": "authority"}, "certificate"),
        ({"key": "key", "certificate": "certificate", "authority": "key"}, "authority"),
        (
            {
                "key": "key",
                "certificate": "certificate",
                "server_certificate": "certificate",
                "certificate_usage": 1,
            },
            "authority",
        ),
    ],
)
def test_what_can_not_be_used_is_refused_by_the_flags_name(made, given, field):
    named = {
        name: value if name in ("psk_key", "certificate_usage") else made / value
        for name, value in given.items()
    }
    with pytest.raises(InvalidInput) as refused:
        CredentialFiles(**named).load(SERVER, "dev")
    assert refused.value.field == field


def test_keys_of_a_fleet_are_hmacs_of_the_names():
    expected = hmac.digest(SECRET, b"sim-000007", hashlib.sha256)[:16]
    assert fleet_security.Credentials(Kind.PSK, SECRET).device("sim-000007").psk == expected


@pytest.mark.parametrize("kind", list(Kind))
def test_the_same_secret_gives_the_same_table_and_another_one_others(kind):
    first = fleet_security.table(fleet_security.Credentials(kind, SECRET), "sim-", 3)
    assert first == fleet_security.table(fleet_security.Credentials(kind, SECRET), "sim-", 3)
    rows = list(csv.DictReader(io.StringIO(first)))
    assert [(row["endpoint"], row["kind"]) for row in rows] == [(f"sim-{n:06}", kind.value) for n in range(3)]
    other = fleet_security.table(fleet_security.Credentials(kind, b"another secret!!"), "sim-", 3)
    assert not set(first.splitlines()[1:]) & set(other.splitlines()[1:])


def test_certificates_of_a_fleet_are_of_its_authority_and_name_the_device():
    fleet = fleet_security.Credentials(Kind.X509, SECRET)
    device = fleet.device("sim-000000")
    found = x509.load_der_x509_certificate(device.certificate)
    found.verify_directly_issued_by(fleet.authority)
    assert found.subject.rfc4514_string() == "CN=sim-000000"
    key = load_der_private_key(device.private_key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert public(key) == device.public_key
    assert found.public_key() == key.public_key()


def test_a_secret_that_is_missing_is_made_for_its_owner_alone(tmp_path):
    file = tmp_path / "secret"
    secret = fleet_security.read_secret(file)
    assert secret == fleet_security.read_secret(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("short")
    with pytest.raises(InvalidInput, match="5 bytes"):
        fleet_security.read_secret(file)


def test_secret_files_are_never_written_over(tmp_path):
    files.write_private(tmp_path / "file", "one", "out")
    with pytest.raises(InvalidInput):
        files.write_private(tmp_path / "file", "two", "out")
    assert (tmp_path / "file").read_text() == "one"


@pytest.mark.parametrize(("kind", "field"), [(Kind.RPK, "server-key"), (Kind.X509, "authority")])
def test_a_fleet_must_know_its_server(tmp_path, kind, field):
    named = FleetFiles(kind, tmp_path / "secret")
    with pytest.raises(InvalidInput) as refused:
        named.load("sim-", 2)
    assert refused.value.field == field
