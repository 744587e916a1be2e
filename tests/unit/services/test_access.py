"""Tokens: made once, shown once, checked by role and time, and the first one."""

import stat
from pathlib import Path
from typing import Any

import pytest

from lwm2m_server.clock import ManualClock
from lwm2m_server.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from lwm2m_server.services.access import PREFIX, AccessService, BadToken, Principal, Role
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.memory import MemoryStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def access(store: MemoryStore, clock: ManualClock) -> AccessService:
    return AccessService(store, clock)


async def test_a_token_names_its_holder_and_is_kept_as_a_hash_only(
    access: AccessService, store: MemoryStore
) -> None:
    token, text = await access.create(" ci ", Role.OPERATOR, actor="ann")
    assert text.startswith(PREFIX)
    assert await access.authenticate(text) == Principal("ci", Role.OPERATOR, token.id)
    assert text not in repr(await store.tokens.all())
    (event,) = await store.events.after(0)
    assert (event.kind, event.data["by"]) == ("token.created", "ann")
    assert text not in repr(event)


@pytest.mark.parametrize("text", ["", "lwm2m_", "lwm2m_" + "x" * 43, "admin", "Bearer x", "lwm2m_\x00"])
async def test_what_is_no_token_opens_nothing(access: AccessService, text: str) -> None:
    await access.create("ci", Role.ADMIN, actor="ann")
    with pytest.raises(BadToken) as caught:
        await access.authenticate(text)
    assert caught.value.code == "bad-token"
    assert not text or text not in caught.value.message


async def test_a_token_ends_at_its_time(access: AccessService, clock: ManualClock) -> None:
    _, text = await access.create("ci", Role.READER, expires_at=clock.now() + 60, actor="ann")
    clock.advance(59.9)
    await access.authenticate(text)
    clock.advance(0.1)
    with pytest.raises(BadToken, match="expired"):
        await access.authenticate(text)


async def test_a_revoked_token_ends_at_once_and_stays_listed(access: AccessService) -> None:
    token, text = await access.create("ci", Role.READER, actor="ann")
    await access.revoke(token.id, actor="bob")
    await access.revoke(token.id, actor="bob")
    with pytest.raises(BadToken):
        await access.authenticate(text)
    (listed,) = await access.list()
    assert listed.revoked_at is not None
    with pytest.raises(NotFound):
        await access.revoke("nobody", actor="bob")


async def test_the_last_administrator_stays(access: AccessService, clock: ManualClock) -> None:
    ann, _ = await access.create("ann", Role.ADMIN, actor="server")
    bob, _ = await access.create("bob", Role.ADMIN, expires_at=clock.now() + 60, actor="ann")
    await access.create("ci", Role.OPERATOR, actor="ann")
    clock.advance(60)
    with pytest.raises(Conflict) as caught:
        await access.revoke(ann.id, actor="ann")
    assert caught.value.field == "token"
    await access.revoke(bob.id, actor="ann")  # it counts no longer anyway
    await access.create("eve", Role.ADMIN, actor="ann")
    await access.revoke(ann.id, actor="eve")


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\x1b[2J"])
async def test_a_bad_name_makes_nothing(access: AccessService, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await access.create(name, Role.READER, actor="ann")
    assert caught.value.field == "name"
    assert await access.list() == ()


async def test_a_name_is_taken_once(access: AccessService) -> None:
    await access.create("ci", Role.READER, actor="ann")
    with pytest.raises(Conflict):
        await access.create("ci", Role.ADMIN, actor="ann")


async def test_a_token_that_ends_before_it_begins_is_refused(
    access: AccessService, clock: ManualClock
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await access.create("ci", Role.READER, expires_at=clock.now(), actor="ann")
    assert caught.value.field == "expires_at"


@pytest.mark.parametrize("has", list(Role))
@pytest.mark.parametrize("needs", list(Role))
def test_each_role_includes_those_before_it(has: Role, needs: Role) -> None:
    principal = Principal("p", has, "id")
    if list(Role).index(has) >= list(Role).index(needs):
        principal.require(needs)
    else:
        with pytest.raises(Forbidden) as caught:
            principal.require(needs)
        assert caught.value.code == "role"


async def test_the_first_start_makes_an_administrator_whose_token_only_its_owner_reads(
    access: AccessService, tmp_path: Path
) -> None:
    file = tmp_path / "data" / "admin.token"
    text = await access.ensure_admin(file)
    assert text is not None
    assert file.read_text() == text + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (await access.authenticate(text)).role is Role.ADMIN
    assert await access.ensure_admin(file) is None, "only once"
    assert file.read_text() == text + "\n"


async def test_a_file_from_before_does_not_show_the_token_to_others(
    access: AccessService, tmp_path: Path
) -> None:
    file = tmp_path / "admin.token"
    file.write_text("old")
    file.chmod(0o644)
    await access.ensure_admin(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_token_that_cant_be_written_down_is_not_made(access: AccessService, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, where a folder should be")
    with pytest.raises(Unavailable) as caught:
        await access.ensure_admin(tmp_path / "data" / "admin.token")
    assert caught.value.hint
    assert await access.list() == (), "the next start tries again"


async def test_a_store_that_fails_leaves_the_next_start_its_chance(
    access: AccessService, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> Any:
        raise StoreError("the disk is full")

    file = tmp_path / "admin.token"
    with monkeypatch.context() as patch:
        patch.setattr(store.tokens, "add", fails)
        with pytest.raises(StoreError):
            await access.ensure_admin(file)
    text = await access.ensure_admin(file)
    assert text is not None
    assert (await access.authenticate(file.read_text().strip())).role is Role.ADMIN
