"""Contract of credentials, authorities and sessions."""

from dataclasses import replace

import pytest

from lwm2m_server.errors import Conflict
from lwm2m_server.store.records import Authority, Credential, NewEvent

PSK = Credential(
    identity="psk:meter-1", kind="psk", endpoint="meter-1", created_at=1.0, created_by="ann", secret=b"sealed"
)
RPK = Credential(identity="rpk:" + "ab" * 32, kind="rpk", endpoint="meter-1", created_at=1.0, public=b"der")
CA = Authority(
    id="ca" * 32, name="factory", certificate=b"der", source="cn", pattern="{endpoint}", created_at=1.0
)
EVENT = NewEvent(kind="credential.added", at=1.0, endpoint="meter-1")


def named(name, **changes):
    return replace(PSK, identity=f"psk:{name}", endpoint=name, **changes)


def step(old, **changes):
    return replace(old, revision=old.revision + 1, **changes)


async def events(store):
    return len(await store.events.after(0, limit=5000))


async def test_an_identity_belongs_to_one_credential(store):
    assert await store.credentials.add(PSK, events=[EVENT])
    assert not await store.credentials.add(replace(PSK, endpoint="other"), events=[EVENT])
    assert await store.credentials.get(PSK.identity) == PSK
    assert await store.credentials.get("psk:nobody") is None
    assert await events(store) == 1


async def test_an_identity_that_was_revoked_may_be_given_anew(store):
    await store.credentials.add(PSK)
    await store.credentials.change(PSK, ended := step(PSK, revoked_at=2.0))
    assert await store.credentials.add(replace(PSK, endpoint="new", created_at=3.0))
    found = await store.credentials.get(PSK.identity)
    assert (found.endpoint, found.revoked_at) == ("new", None)
    assert found.revision > ended.revision, "an edit that rests on the old one must fail"


async def test_an_identity_is_free_when_its_time_has_ended_not_before(store):
    await store.credentials.add(replace(PSK, expires_at=2.0))
    assert not await store.credentials.add(replace(PSK, created_at=1.9))
    assert await store.credentials.add(replace(PSK, created_at=2.0))


async def test_many_are_added_each_for_itself_and_in_order(store):
    twice = replace(PSK, endpoint="other")
    added = await store.credentials.add_many([(PSK, EVENT), (twice, EVENT), (RPK, EVENT)])
    assert added == [True, False, True]
    assert (await store.credentials.get(PSK.identity)).endpoint == "meter-1"
    assert await events(store) == 2


async def test_all_or_nothing(store):
    fleet = [(named(f"m-{number:04}"), EVENT) for number in range(1200)]
    await store.credentials.add(named("m-1100"))
    assert await store.credentials.add_all(lambda: iter(fleet)) == "psk:m-1100"
    assert len((await store.credentials.page(limit=10)).items) == 1
    assert await events(store) == 0
    assert await store.credentials.add_all(lambda: iter([*fleet[:3], fleet[0]])) == "psk:m-0000"
    assert await store.credentials.add_all(lambda: iter(fleet[:1100])) is None
    assert len((await store.credentials.page(limit=2000)).items) == 1101
    assert await events(store) == 1100


async def test_pages_go_by_identity_and_leave_out_what_is_not_asked_for(store):
    for credential in (PSK, RPK, named("a"), named("b", revoked_at=2.0)):
        await store.credentials.add(credential)
    page = await store.credentials.page(limit=2)
    assert [row.identity for row in page.items] == ["psk:a", "psk:meter-1"]
    rest = await store.credentials.page(limit=2, after=page.next)
    assert ([row.identity for row in rest.items], rest.next) == ([RPK.identity], None)
    assert len((await store.credentials.page(revoked=True)).items) == 4
    assert [row.kind for row in (await store.credentials.page(endpoint="meter-1")).items] == ["psk", "rpk"]
    assert (await store.credentials.page(kind="rpk")).items == (RPK,)
    assert (await store.credentials.page(kind="x509")).items == ()


async def test_a_change_counts_only_on_the_revision_that_it_rests_on(store):
    await store.credentials.add(PSK)
    rotated = step(PSK, secret=b"new", previous=b"sealed", previous_until=9.0, rotated_at=2.0)
    assert await store.credentials.change(PSK, rotated, events=[EVENT])
    assert not await store.credentials.change(PSK, step(PSK, secret=b"lost"), events=[EVENT])
    assert await store.credentials.get(PSK.identity) == rotated
    assert await events(store) == 1
    with pytest.raises(ValueError, match="revision"):
        await store.credentials.change(rotated, rotated)


async def test_a_successor_comes_with_the_change_or_not_at_all(store):
    await store.credentials.add(RPK)
    await store.credentials.add(PSK)
    successor = replace(RPK, identity="rpk:" + "cd" * 32)
    with pytest.raises(Conflict, match="already"):
        await store.credentials.change(RPK, step(RPK, expires_at=9.0), successor=PSK)
    assert await store.credentials.get(RPK.identity) == RPK
    assert not await store.credentials.change(step(RPK), step(step(RPK)), successor=successor)
    assert await store.credentials.get(successor.identity) is None
    assert await store.credentials.change(RPK, step(RPK, expires_at=9.0), successor=successor)
    assert await store.credentials.get(successor.identity) == successor


async def test_what_has_come_to_its_end_is_due(store):
    for credential in (
        PSK,
        named("former", previous=b"x", previous_until=5.0),
        named("later", previous=b"x", previous_until=5.1),
        named("ended", expires_at=4.0),
        named("gone", expires_at=4.0, revoked_at=4.0),
    ):
        await store.credentials.add(credential)
    due = await store.credentials.due(now=5.0)
    assert {row.identity for row in due} == {"psk:former", "psk:ended"}
    assert len(await store.credentials.due(now=5.0, limit=1)) == 1


async def test_many_are_found_at_once(store):
    await store.credentials.add_many([(named(f"m{number}"), EVENT) for number in range(700)])
    found = await store.credentials.get_many([f"psk:m{number}" for number in range(600, 800)])
    assert len(found) == 100
    assert found["psk:m600"].endpoint == "m600"
    assert await store.credentials.delete("psk:m600")
    assert not await store.credentials.delete("psk:m600")


async def test_the_first_check_of_the_master_key_stays_until_all_that_is_sealed_is_forgotten(store):
    assert await store.credentials.seal_check() is None
    assert await store.credentials.seal_check(b"one") == b"one"
    assert await store.credentials.seal_check(b"two") == b"one"
    await store.credentials.add_many([(PSK, EVENT), (RPK, EVENT)])
    await store.sessions.save([session(1)])
    assert await store.credentials.forget_secrets(events=[EVENT]) == 1
    assert await store.credentials.seal_check() is None
    assert [row.kind for row in (await store.credentials.page()).items] == ["rpk"]
    assert (await store.sessions.page()).items == ()


async def test_an_authority_goes_with_what_it_vouched_for(store):
    assert await store.authorities.add(CA, events=[EVENT])
    assert not await store.authorities.add(replace(CA, name="again"), events=[EVENT])
    assert await store.authorities.get(CA.id) == CA
    assert await store.authorities.all() == [CA]
    vouched = replace(RPK, identity="x509:01", kind="x509", authority=CA.id)
    revoked = replace(vouched, identity="x509:02", revoked_at=2.0)
    pinned = replace(vouched, identity="x509:03", authority=None)
    await store.credentials.add_many([(row, EVENT) for row in (vouched, revoked, pinned)])
    assert await store.authorities.remove(CA.id, events=[EVENT]) == ["x509:01"]
    assert await store.authorities.remove(CA.id, events=[EVENT]) is None
    assert await store.authorities.all() == []
    left = (await store.credentials.page(revoked=True)).items
    assert [row.identity for row in left] == ["x509:02", "x509:03"]
    assert await events(store) == 5


def session(record, generation=0, *, at=10.0, sealed=b"sealed"):
    return record, generation, sealed, at


RECORDS = (0, 1, 2**63 - 1, 2**63, 2**64 - 1)


async def test_sessions_keep_all_64_bits_of_their_record(store):
    assert await store.sessions.save([session(record) for record in RECORDS]) == [True] * 5
    found: list[int] = []
    after = None
    while True:
        page = await store.sessions.page(after=after, limit=2)
        found += [row.record for row in page.items]
        after = page.next
        if after is None:
            break
    assert sorted(found) == list(RECORDS)
    await store.sessions.remove(iter([0, 2**63, 2**64 - 1, 77]))
    assert {row.record for row in (await store.sessions.page()).items} == {1, 2**63 - 1}


async def test_the_last_export_of_a_session_counts(store):
    assert await store.sessions.save([session(1, sealed=b"a"), session(1, sealed=b"b")]) == [True, True]
    assert await store.sessions.save([session(1, sealed=b"c", at=11.0)]) == [True]
    assert (await store.sessions.page()).items == ((1, 0, b"c"),)
    assert await store.sessions.claim(since=11.0) == 1


async def test_a_claim_raises_each_generation_and_whoever_had_it_before_writes_no_more(store):
    await store.sessions.save([session(1), session(2, 7), session(3, at=1.0)])
    assert await store.sessions.claim(since=5.0) == 2
    assert [(row.record, row.generation) for row in (await store.sessions.page()).items] == [(1, 1), (2, 8)]
    assert await store.sessions.save([session(1, 0, sealed=b"stale"), session(2, 8, sealed=b"new")]) == [
        False,
        True,
    ]
    assert [row.sealed for row in (await store.sessions.page()).items] == [b"sealed", b"new"]
