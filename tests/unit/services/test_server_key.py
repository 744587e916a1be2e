"""The server's key: made once, read again, and every damage named with the way out."""

import stat
from pathlib import Path

import pytest

from certificates import Issuer
from lwm2m_server.cli import certs
from lwm2m_server.config import Settings
from lwm2m_server.errors import InvalidInput
from lwm2m_server.services.server_key import ServerKeys, load_server_key


@pytest.fixture
def made(tmp_path):
    """Files of a certificate and its key."""
    authority = certs._Authority(tmp_path / "ca", force=False)
    authority.make(10)
    return authority.server(["localhost"], 10)


def configured(tmp_path, key, certificate=None):
    coaps = {"private_key": key, "certificate": certificate}
    return Settings(data_dir=tmp_path / "data", coaps=coaps)


def test_the_first_start_makes_a_key_and_the_next_one_keeps_it(tmp_path):
    settings = Settings(data_dir=tmp_path / "data")
    first = load_server_key(settings)
    assert load_server_key(settings) == first
    assert stat.S_IMODE(settings.server_key_path.stat().st_mode) == 0o600
    assert first.identity.startswith("rpk:")
    assert first.certificate is None
    assert b"PRIVATE" not in repr(first).encode()


def test_key_and_certificate_come_from_files(tmp_path, made):
    key, certificate = made
    found = load_server_key(configured(tmp_path, key, certificate))
    assert found.certificate == Path(certificate).read_bytes()
    assert found.expires_at is not None


async def test_a_reload_that_fails_keeps_what_there_was(tmp_path, made):
    key, certificate = made
    keys = await ServerKeys.open(configured(tmp_path, key, certificate))
    before = keys.current
    certificate.write_text("damaged")
    with pytest.raises(InvalidInput):
        await keys.reload()
    assert keys.current == before


def _encrypt(key, _):
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    loaded = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))


def _other_curve(key, _):
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    other = ec.generate_private_key(ec.SECP384R1())
    key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda key, _: key.write_bytes(key.read_bytes()[:50]), "damaged"),
        (lambda key, _: key.unlink(), "can't be read"),
        (lambda key, _: key.chmod(0o604), "everybody"),
        (_encrypt, "encrypted"),
        (_other_curve, "P-256"),
        (lambda _, certificate: certificate.write_text("x"), "damaged or not in PEM"),
        (lambda _, certificate: certificate.unlink(), "can't be read"),
        (lambda _, certificate: certificate.write_text(Issuer().pem), "does not belong to the key"),
    ],
)
def test_what_can_not_be_used_is_named_with_the_way_out(tmp_path, made, damage, message):
    key, certificate = made
    damage(key, certificate)
    with pytest.raises(InvalidInput, match=message) as caught:
        load_server_key(configured(tmp_path, key, certificate))
    assert caught.value.code == "server-key"
    assert caught.value.field in {str(key), str(certificate)}
    assert caught.value.hint


def test_a_damaged_key_of_our_own_is_not_replaced_silently(tmp_path):
    settings = Settings(data_dir=tmp_path / "data")
    load_server_key(settings)
    settings.server_key_path.write_text("damaged")
    with pytest.raises(InvalidInput) as caught:
        load_server_key(settings)
    assert "backup" in caught.value.hint
    assert settings.server_key_path.read_text() == "damaged"
