"""Keys and manifests without a server; the database; settings."""

import json
import stat

import pytest

from lwm2m_server.store.migrate import head

IMAGE = b"firmware-version: 2.1.0\n" + bytes(1000)
CREATE = ["manifest", "create", "pump.bin", "--vendor", "acme.example", "--class", "pump", "--sequence", "7"]


@pytest.fixture
def signed(lwm2m, tmp_path):
    (tmp_path / "pump.bin").write_bytes(IMAGE)
    for arguments in (
        ["keys", "new", "k.pem"],
        CREATE,
        ["manifest", "sign", "pump.bin.suit", "--key", "k.pem"],
    ):
        result = lwm2m(*arguments)
        assert result.exit_code == 0, result.output
    return tmp_path / "pump.bin.suit"


@pytest.mark.parametrize("algorithm", ["esp256", "ed25519"])
def test_a_new_private_key_is_for_its_owner_alone_and_never_overwritten(lwm2m, tmp_path, algorithm) -> None:
    result = lwm2m("keys", "new", "k.pem", "--algorithm", algorithm, "--json")
    made = json.loads(result.stdout)
    private, public = tmp_path / made["private"], tmp_path / made["public"]
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" in private.read_bytes()
    assert b"PUBLIC KEY" in public.read_bytes()
    before = private.read_bytes()
    assert lwm2m("keys", "new", "k.pem").exit_code == 4
    public.unlink()
    assert lwm2m("keys", "new", "k.pem").exit_code == 4
    assert private.read_bytes() == before
    assert not public.exists()
    assert lwm2m("keys", "new", "nowhere/k.pem").exit_code == 2


def test_a_key_with_a_passphrase_signs_with_it_only(lwm2m, tmp_path) -> None:
    (tmp_path / "pump.bin").write_bytes(IMAGE)
    assert lwm2m("keys", "new", "k.pem", "--passphrase", typed="secret\nsecret\n").exit_code == 0
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes()
    lwm2m(*CREATE)
    sign = ["manifest", "sign", "pump.bin.suit", "--key", "k.pem"]
    assert lwm2m(*sign, typed="wrong\n").exit_code == 2
    assert lwm2m(*sign, typed="secret\n").exit_code == 0


def test_a_manifest_takes_version_digest_and_size_from_the_image(lwm2m, signed) -> None:
    shown = json.loads(lwm2m("manifest", "show", str(signed), "--json").stdout)
    main = shown["components"][0]
    assert (shown["version"], shown["sequence_number"], main["sizes"]) == ("2.1.0", 7, [len(IMAGE)])
    assert main["uris"] == [f"/fw/{main['digests'][0]}"]
    assert len(shown["signatures"]) == 1


def test_verify_holds_signature_and_image_against_the_manifest(lwm2m, signed, tmp_path) -> None:
    verify = ["manifest", "verify", str(signed), "--key", "k.pem.pub"]
    good = lwm2m(*verify, "--image", "pump.bin", "--json")
    assert json.loads(good.stdout)["valid"] is True
    (tmp_path / "other.bin").write_bytes(IMAGE[:-1] + b"x")
    wrong = lwm2m(*verify, "--image", "other.bin")
    assert (wrong.exit_code, "digest" in wrong.stderr) == (7, True)
    lwm2m("keys", "new", "stranger.pem")
    stranger = lwm2m("manifest", "verify", str(signed), "--key", "stranger.pem.pub")
    assert stranger.exit_code == 7
    private = lwm2m("manifest", "verify", str(signed), "--key", "k.pem")
    assert (private.exit_code, "private key" in private.stderr) == (2, True)
    flipped = bytearray(signed.read_bytes())
    flipped[-10] ^= 1
    signed.write_bytes(flipped)
    assert lwm2m(*verify).exit_code in {2, 7}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (["--vendor", "not a domain"], "vendor"),
        (["--class", " "], "class"),
        (["--version", "new"], "version"),
        (["--component", "z z"], "component"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_not_written(lwm2m, tmp_path, change, field) -> None:
    (tmp_path / "pump.bin").write_bytes(IMAGE)
    result = lwm2m(*CREATE, *change)
    assert result.exit_code == 2
    assert field in result.stderr
    assert not (tmp_path / "pump.bin.suit").exists()


def test_an_image_without_a_version_needs_one_and_containers_are_warned_of(lwm2m, tmp_path) -> None:
    (tmp_path / "pump.bin").write_text(":0400000001020304F2\n:00000001FF\n")
    result = lwm2m(*CREATE)
    assert (result.exit_code, "version" in result.stderr) == (2, True)
    result = lwm2m(*CREATE, "--version", "1.0.0", "-o", "m.suit")
    assert (result.exit_code, "warning: " in result.stderr) == (0, True)
    assert lwm2m(*CREATE[:2], "missing.bin", *CREATE[3:]).exit_code == 2


def test_signing_leaves_nothing_behind_and_can_write_elsewhere(lwm2m, signed, tmp_path) -> None:
    before = signed.read_bytes()
    assert lwm2m("manifest", "sign", str(signed), "-k", "k.pem", "-o", "twice.suit").exit_code == 0
    assert signed.read_bytes() == before
    assert lwm2m("manifest", "sign", str(signed), "-k", "k.pem", "-o", "nowhere/m.suit").exit_code == 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["k.pem", "k.pem.pub", "pump.bin", "pump.bin.suit", "twice.suit"]


def test_the_database_is_made_and_checked(lwm2m, tmp_path) -> None:
    missing = lwm2m("db", "check", "--data-dir", "data")
    assert (missing.exit_code, "there is no database" in missing.stderr) == (3, True)
    made = json.loads(lwm2m("db", "upgrade", "--data-dir", "data", "--json").stdout)
    assert (made["before"], made["after"]) == (None, head())
    again = lwm2m("db", "upgrade", "--data-dir", "data")
    assert "already" in again.stderr
    assert json.loads(lwm2m("db", "check", "--data-dir", "data", "--json").stdout)["schema"] == head()


def test_a_damaged_or_old_database_is_told_apart(lwm2m, tmp_path) -> None:
    import sqlite3

    lwm2m("db", "upgrade", "--data-dir", "data")
    path = tmp_path / "data/lwm2m.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = 'old'")
    connection.commit()
    connection.close()
    old = lwm2m("db", "check", "--data-dir", "data")
    assert (old.exit_code, "lwm2m db upgrade" in old.stderr) == (4, True)
    path.write_bytes(b"no database at all" * 100)
    assert lwm2m("db", "check", "--data-dir", "data").exit_code == 2
