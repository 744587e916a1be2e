"""`firmware encrypt` and the manifest made of it, offline."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lwm2m_server.firmware.encryption import parse_encryption_info, unwrap

IMAGE = b"firmware-version: 2.1.0\n" + bytes(range(256)) * 8
KEK = b"0123456789abcdef"
MADE = ("--vendor", "acme.example", "--class", "meter-v2", "--sequence", "8", "--encrypted", "main.bin.enc")


@pytest.fixture(autouse=True)
def _files(lwm2m, tmp_path) -> None:
    (tmp_path / "main.bin").write_bytes(IMAGE)
    (tmp_path / "meters.kek").write_text(KEK.hex())
    (tmp_path / "pumps.kek").write_bytes(b"p" * 16)


def encrypt(lwm2m, *arguments: str) -> dict:
    result = lwm2m("firmware", "encrypt", "main.bin", "--key", "meters.kek", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_what_is_encrypted_comes_back_with_the_key_and_shows_nothing_without(lwm2m, tmp_path) -> None:
    made = encrypt(lwm2m, "--kid", "meters-2026")
    sent = (tmp_path / "main.bin.enc").read_bytes()
    info = parse_encryption_info((tmp_path / "main.bin.enc.info").read_bytes())
    assert unwrap(info, [KEK]).apply(0, sent) == IMAGE
    assert (made["size"], info.recipients[0].key_id) == (len(IMAGE), b"meters-2026")
    assert b"firmware-version" not in sent


def test_two_encryptions_of_an_image_share_neither_key_nor_bytes(lwm2m, tmp_path) -> None:
    encrypt(lwm2m)
    encrypt(lwm2m, "--output", "second.enc", "--key", "pumps.kek")
    assert (tmp_path / "main.bin.enc").read_bytes() != (tmp_path / "second.enc").read_bytes()
    second = parse_encryption_info((tmp_path / "second.enc.info").read_bytes())
    assert unwrap(second, [KEK]) == unwrap(second, [b"p" * 16])


def test_the_public_key_of_a_class_is_enough_to_encrypt_for_it(lwm2m, tmp_path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "class.pub.pem").write_bytes(pem)
    encrypt(lwm2m, "--key", "class.pub.pem")
    info = parse_encryption_info((tmp_path / "main.bin.enc.info").read_bytes())
    sent = (tmp_path / "main.bin.enc").read_bytes()
    assert [each.key_wrap for each in info.recipients] == ["A128KW", "ECDH-ES+A128KW"]
    assert unwrap(info, [private]).apply(0, sent) == IMAGE
    shown = lwm2m("manifest", "create", "main.bin", *MADE)
    assert "A128KW or ECDH-ES+A128KW for key" in shown.output


def test_a_private_key_is_not_taken_to_encrypt(lwm2m, tmp_path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "class.pem").write_bytes(pem)
    result = lwm2m("firmware", "encrypt", "main.bin", "--key", "class.pem")
    assert result.exit_code != 0
    assert "the public key of the class is wanted" in result.output
    assert not (tmp_path / "main.bin.enc").exists()


def test_a_manifest_is_made_shown_linted_and_verified(lwm2m) -> None:
    digest = encrypt(lwm2m, "--kid", "meters-2026")["digest"]
    made = lwm2m("manifest", "create", "main.bin", *MADE)
    assert made.exit_code == 0, made.output
    assert f"/fw/{digest}" in made.output
    assert "A128CTR, A128KW for key meters-2026" in made.output
    assert lwm2m("keys", "new", "author.pem").exit_code == 0
    assert lwm2m("manifest", "sign", "main.bin.suit", "--key", "author.pem").exit_code == 0
    linted = lwm2m("manifest", "lint", "main.bin.suit", "--vendor", "acme.example", "--class", "meter-v2",
                   "--component", "00=1.0.0", "--json")  # fmt: skip
    assert linted.exit_code == 0, linted.output
    told = json.loads(linted.stdout)
    assert (told["accepted"], told["fetched"]) == (True, [f"/fw/{digest}"])
    assert any("decrypting by A128CTR, key meters-2026" in step["step"] for step in told["steps"])
    for image in ("main.bin", "main.bin.enc"):
        held = lwm2m("manifest", "verify", "main.bin.suit", "--key", "author.pem.pub", "--image", image)
        assert held.exit_code == 0, held.output


def test_yaml_says_the_same(lwm2m, tmp_path) -> None:
    encrypt(lwm2m)
    (tmp_path / "update.yaml").write_text(
        "vendor: acme.example\nclass: meter-v2\nsequence: 8\n"
        "components:\n  - {image: main.bin, encrypted: main.bin.enc}\n"
    )
    from_file = lwm2m("manifest", "create", "--from", "update.yaml", "--json")
    from_flags = lwm2m("manifest", "create", "main.bin", *MADE, "--json")
    assert json.loads(from_file.stdout)["components"] == json.loads(from_flags.stdout)["components"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("nothing.bin", "--key", "meters.kek"), "IMAGE"),
        (("empty.bin", "--key", "meters.kek"), "IMAGE"),
        (("main.bin", "--key", "nothing.kek"), "key"),
        (("main.bin", "--key", "main.bin"), "key"),
        (("main.bin", "--key", "meters.kek", "--key", "pumps.kek", "--kid", "one"), "kid"),
        (("main.bin", "--key", "meters.kek", "--output", "pumps.kek"), "output"),
        (("main.bin", "--key", "meters.kek", "--output", "nowhere/x"), "output"),
    ],
)
def test_bad_input_names_the_field_and_leaves_nothing(lwm2m, tmp_path, arguments, field) -> None:
    (tmp_path / "empty.bin").write_bytes(b"")
    before = {file.name for file in tmp_path.iterdir()}
    result = lwm2m("firmware", "encrypt", *arguments)
    assert result.exit_code != 0
    assert field in result.output
    assert {file.name for file in tmp_path.iterdir()} == before
    assert (tmp_path / "pumps.kek").read_bytes() == b"p" * 16


def test_a_payload_of_another_image_or_without_its_info_makes_no_manifest(lwm2m, tmp_path) -> None:
    encrypt(lwm2m)
    (tmp_path / "main.bin").write_bytes(IMAGE + b"more")
    longer = lwm2m("manifest", "create", "main.bin", *MADE)
    assert longer.exit_code != 0
    assert "encrypt this very image" in longer.output
    (tmp_path / "main.bin.enc.info").unlink()
    assert lwm2m("manifest", "create", "main.bin", *MADE).exit_code != 0
