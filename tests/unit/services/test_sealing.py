"""Secrets at rest: whose they are, under which master key, and what a start does when that is not the right one."""

import base64
import stat

import pytest
from pydantic import SecretStr

from lwm2m_server.config import SecuritySettings, Settings
from lwm2m_server.errors import InvalidInput
from lwm2m_server.services.sealing import VARIABLE, SealBroken, Sealer, open_sealer
from lwm2m_server.store.memory import MemoryStore

MASTER = bytes(range(32))


@pytest.fixture
def credentials():
    return MemoryStore().credentials


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data")


def test_what_is_sealed_can_be_opened_by_its_identity_alone():
    sealer = Sealer(MASTER)
    sealed = sealer.seal(b"secret key", "psk:a")
    assert b"secret" not in sealed
    assert sealer.open(sealed, "psk:a") == b"secret key"
    with pytest.raises(SealBroken):
        sealer.open(sealed, "psk:b")
    with pytest.raises(SealBroken):
        Sealer(bytes(32)).open(sealed, "psk:a")


def test_every_changed_bit_is_noticed_and_every_cut():
    sealer = Sealer(MASTER)
    sealed = sealer.seal(b"k", "psk:a")
    for at in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(SealBroken):
            sealer.open(bytes(changed), "psk:a")
    for end in range(len(sealed)):
        with pytest.raises(SealBroken):
            sealer.open(sealed[:end], "psk:a")


def test_the_same_secret_is_never_sealed_the_same_and_keys_are_told_apart():
    sealer = Sealer(MASTER)
    assert sealer.seal(b"k", "psk:a") != sealer.seal(b"k", "psk:a")
    assert len({sealer.sessions_key, sealer.check * 2, MASTER}) == 3


async def test_the_first_start_makes_a_key_for_its_owner_alone_and_the_next_one_reads_it(
    settings, credentials
):
    first = await open_sealer(settings, credentials)
    file = settings.master_key_path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(base64.b64decode(file.read_text())) == 32
    second = await open_sealer(settings, credentials)
    assert second.open(first.seal(b"k", "psk:a"), "psk:a") == b"k"


async def test_the_environment_wins_over_the_file(settings, credentials):
    given = base64.b64encode(MASTER).decode()
    settings = settings.model_copy(update={"security": SecuritySettings(master_key=SecretStr(given))})
    sealer = await open_sealer(settings, credentials)
    assert Sealer(MASTER).open(sealer.seal(b"k", "psk:a"), "psk:a") == b"k"
    assert not settings.master_key_path.exists()


def _rewrite(text):
    return lambda file: file.write_text(text)


@pytest.mark.parametrize(
    ("damage", "message", "hint"),
    [
        (lambda file: file.unlink(), "is missing", "backup"),
        (lambda file: file.chmod(0o640), "may be read by others", "chmod 600"),
        (_rewrite("short"), "not 32 bytes in base64", "backup"),
        (_rewrite(base64.b64encode(bytes(31)).decode()), "not 32 bytes in base64", "backup"),
        (_rewrite("\0\x80"), "not 32 bytes in base64", "backup"),
        (_rewrite(base64.b64encode(MASTER).decode()), "sealed with another master key", "forget-secrets"),
        (lambda file: (file.unlink(), file.mkdir(mode=0o700)), "can't be read", "permissions"),
    ],
)
async def test_a_master_key_that_is_not_right_is_named_with_the_way_out(
    settings, credentials, damage, message, hint
):
    await open_sealer(settings, credentials)
    damage(settings.master_key_path)
    with pytest.raises(InvalidInput, match=message) as caught:
        await open_sealer(settings, credentials)
    assert caught.value.code == "master-key"
    assert caught.value.field == str(settings.master_key_path)
    assert hint in caught.value.hint


async def test_a_wrong_key_in_the_environment_is_named_but_not_shown(settings, credentials):
    wrong = "bm90IGxvbmcgZW5vdWdo"
    settings = settings.model_copy(update={"security": SecuritySettings(master_key=SecretStr(wrong))})
    with pytest.raises(InvalidInput) as caught:
        await open_sealer(settings, credentials)
    assert caught.value.field == VARIABLE
    assert wrong not in repr(caught.value) + caught.value.message + str(settings)


async def test_when_the_master_key_is_lost_and_all_secrets_are_forgotten_a_new_one_is_made(
    settings, credentials
):
    await open_sealer(settings, credentials)
    settings.master_key_path.unlink()
    await credentials.forget_secrets()
    await open_sealer(settings, credentials)
    assert settings.master_key_path.exists()
