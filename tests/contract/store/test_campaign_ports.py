"""Contract of images, manifests, keys, tokens, campaigns, deployments and events."""

import asyncio
from dataclasses import replace

import pytest

from lwm2m_server.campaigns.records import (
    Campaign,
    CampaignState,
    Deployment,
    DeploymentState,
    Severity,
    StateCount,
)
from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.errors import Conflict, InvalidInput, NotFound
from lwm2m_server.store.records import NewEvent, StoredImage, StoredManifest, Token, TrustedKey

DIGEST = b"\xab" * 32
IMAGE = StoredImage(
    digest=DIGEST, size=1000, name="app.bin", created_at=1.0, version="2.0", data={"a": [1, None]}
)
MANIFEST = StoredManifest(
    id="m1",
    name="release 2.0",
    envelope=b"\xd8k",
    key_id="ff",
    vendor_id=b"v" * 16,
    class_id=b"c" * 16,
    sequence=7,
    version="2.0",
    image_digest=DIGEST,
    image_size=1000,
    created_at=2.0,
)
CAMPAIGN = Campaign(
    id="c1", name="first", manifest_id="m1", created_at=3.0, updated_at=3.0, filter="all",
    severity=Severity.CRITICAL, max_defer=2**32 - 1,
)  # fmt: skip
EVENT = NewEvent(kind="test.happened", at=4.0, campaign_id="c1", data={"n": 1, "text": '„ä"'})
S = DeploymentState


def deployment(endpoint, state=S.PENDING, **changes):
    return Deployment(
        **{"campaign_id": "c1", "endpoint": endpoint, "created_at": 5.0, "updated_at": 5.0, "state": state}
        | changes
    )


def step(old, **changes):
    return replace(old, revision=old.revision + 1, **changes)


@pytest.fixture
async def full(store):
    await store.images.add(IMAGE)
    await store.manifests.add(MANIFEST)
    await store.campaigns.add(CAMPAIGN)
    return store


async def count_events(store):
    return len(await store.events.after(0))


async def test_an_image_is_added_once(store):
    assert await store.images.add(IMAGE, events=[EVENT])
    assert not await store.images.add(replace(IMAGE, name="other"), events=[EVENT])
    assert await store.images.get(DIGEST) == IMAGE
    assert await store.images.get(b"\0" * 32) is None
    assert await count_events(store) == 1
    assert await store.images.delete(DIGEST)
    assert not await store.images.delete(DIGEST)


async def test_images_are_paged_by_digest(store):
    for n in (3, 1, 2):
        await store.images.add(replace(IMAGE, digest=bytes([n]) * 32))
    page = await store.images.page(limit=2)
    assert [image.digest[0] for image in page.items] == [1, 2]
    rest = await store.images.page(after=page.next)
    assert ([image.digest[0] for image in rest.items], rest.next) == ([3], None)
    with pytest.raises(InvalidInput):
        await store.images.page(after="nonsense")


async def test_what_is_in_use_stays(full):
    with pytest.raises(Conflict):
        await full.images.delete(DIGEST, events=[EVENT])
    with pytest.raises(Conflict):
        await full.manifests.delete("m1", events=[EVENT])
    assert await full.campaigns.delete(CAMPAIGN)
    assert await full.manifests.delete("m1")
    assert await full.images.delete(DIGEST)
    assert await count_events(full) == 0


async def test_a_manifest_needs_its_image(store):
    with pytest.raises(NotFound):
        await store.manifests.add(MANIFEST)
    await store.images.add(IMAGE)
    assert await store.manifests.add(MANIFEST)
    assert not await store.manifests.add(MANIFEST)
    assert await store.manifests.get("m1") == MANIFEST
    assert (await store.manifests.page()).items == (MANIFEST,)
    assert await store.manifests.highest_sequence(b"v" * 16, b"c" * 16) == 7
    assert await store.manifests.highest_sequence(b"v" * 16, b"x" * 16) is None
    with pytest.raises(InvalidInput):
        await store.manifests.add(replace(MANIFEST, id="m2", sequence=2**64 - 1))


async def test_a_revoked_key_stays_known(store):
    key = TrustedKey(key_id="ff", name="release", algorithm="ESP256", public_key=b"k", created_at=1.0)
    assert await store.trust.add(key)
    assert not await store.trust.add(key)
    assert await store.trust.all() == [key]
    assert await store.trust.revoke("ff", now=9.0)
    assert not await store.trust.revoke("ff", now=10.0)
    assert await store.trust.all() == []
    assert await store.trust.all(revoked=True) == [replace(key, revoked_at=9.0)]
    assert (await store.trust.get("ff")).revoked_at == 9.0


async def test_roles_and_validity_of_a_key_can_be_changed_until_it_is_revoked(store):
    key = TrustedKey(key_id="fe", name="release", algorithm="esp256", public_key=b"k", created_at=1.0)
    assert await store.trust.add(key)
    assert (await store.trust.get("fe")).roles == ("image-author",)
    other = replace(
        key, name="old", roles=("image-author", "operator-approval"), not_before=2.0, not_after=3.0,
        requires="ml-dsa-44",
    )  # fmt: skip
    assert await store.trust.change(replace(other, algorithm="other", public_key=b"x"), events=[EVENT])
    assert await store.trust.get("fe") == other
    await store.trust.revoke("fe", now=9.0)
    assert not await store.trust.change(key, events=[EVENT])
    assert not await store.trust.change(replace(key, key_id="00"), events=[EVENT])
    assert await count_events(store) == 1


async def test_further_images_of_a_manifest_exist_and_stay(store):
    first, second = (replace(IMAGE, digest=bytes([n]) * 32) for n in (1, 2))
    manifest = replace(MANIFEST, image_digest=first.digest, further_images=(second.digest,))
    await store.images.add(first)
    with pytest.raises(NotFound):
        await store.manifests.add(manifest)
    await store.images.add(second)
    assert await store.manifests.add(manifest)
    assert await store.manifests.get(manifest.id) == manifest
    for image in (first, second):
        with pytest.raises(Conflict):
            await store.images.delete(image.digest)
    assert await store.manifests.delete(manifest.id)
    assert await store.images.delete(second.digest)


async def test_tokens_are_found_by_hash(store):
    token = Token(id="t1", name="ci", secret_hash=b"h" * 32, role="operator", created_at=1.0)
    await store.tokens.add(token, events=[EVENT])
    with pytest.raises(Conflict):
        await store.tokens.add(replace(token, id="t2", secret_hash=b"i" * 32), events=[EVENT])
    assert await store.tokens.by_hash(b"h" * 32) == token
    assert await store.tokens.by_hash(b"i" * 32) is None
    assert await store.tokens.revoke("t1", now=5.0)
    assert not await store.tokens.revoke("t1", now=6.0)
    assert await store.tokens.all() == [replace(token, revoked_at=5.0)]
    assert await count_events(store) == 1


async def test_campaign_names_are_unique_and_manifests_exist(full):
    with pytest.raises(Conflict):
        await full.campaigns.add(replace(CAMPAIGN, id="c2"), events=[EVENT])
    with pytest.raises(NotFound):
        await full.campaigns.add(replace(CAMPAIGN, id="c2", name="second", manifest_id="m9"), events=[EVENT])
    assert await full.campaigns.find("first") == await full.campaigns.get("c1") == CAMPAIGN
    await full.campaigns.add(replace(CAMPAIGN, id="c2", name="second"))
    with pytest.raises(Conflict):
        await full.campaigns.change(CAMPAIGN, step(CAMPAIGN, name="second"), events=[EVENT])
    with pytest.raises(NotFound):
        await full.campaigns.change(CAMPAIGN, step(CAMPAIGN, manifest_id="m9"), events=[EVENT])
    assert await full.campaigns.get("c1") == CAMPAIGN
    assert await count_events(full) == 0


async def test_a_campaign_changes_only_from_what_was_read(full):
    running = step(CAMPAIGN, state=CampaignState.RUNNING, started_at=9.0, targets=3, snapshot_done=True)
    assert await full.campaigns.change(CAMPAIGN, running, events=[EVENT])
    assert not await full.campaigns.change(CAMPAIGN, running, events=[EVENT])
    assert not await full.campaigns.delete(CAMPAIGN, events=[EVENT])
    assert await full.campaigns.get("c1") == running
    assert await count_events(full) == 1
    with pytest.raises(ValueError, match="revision"):
        await full.campaigns.change(running, replace(running, state=CampaignState.PAUSED))
    with pytest.raises(ValueError, match="same record"):
        await full.campaigns.change(running, step(running, id="c2"))


async def test_campaigns_are_paged_by_state(full):
    for n in range(2, 5):
        await full.campaigns.add(replace(CAMPAIGN, id=f"c{n}", name=f"{n}"))
    await full.campaigns.change(CAMPAIGN, step(CAMPAIGN, state=CampaignState.RUNNING))
    drafts = await full.campaigns.page(states=[CampaignState.DRAFT], limit=2)
    assert ([c.id for c in drafts.items], drafts.next) == (["c2", "c3"], "c3")
    running = await full.campaigns.page(states=["running", "paused"])
    assert [c.id for c in running.items] == ["c1"]
    assert len((await full.campaigns.page()).items) == 4


async def test_a_snapshot_may_be_repeated(full):
    devices = [deployment(f"d{n:04}") for n in range(1200)]
    assert await full.deployments.add(devices[:700], events=[EVENT]) == 700
    changed = step(devices[0], state=S.OFFERED)
    assert await full.deployments.change(devices[0], changed)
    assert await full.deployments.add(devices, events=[EVENT]) == 500
    assert await full.deployments.add(devices, events=[EVENT]) == 0
    assert await full.deployments.get("c1", "d0000") == changed
    assert await full.deployments.statistics("c1") == [
        StateCount(S.OFFERED, "", 1),
        StateCount(S.PENDING, "", 1199),
    ]
    assert await count_events(full) == 2
    with pytest.raises(NotFound):
        await full.deployments.add([deployment("x", campaign_id="c9")])


async def test_a_deployment_changes_only_from_what_was_read(full):
    old = deployment("d")
    await full.deployments.add([old])
    new = step(
        old,
        state=S.DOWNLOADING,
        reason="going",
        text="on",
        attempt=1,
        retry_at=None,
        from_version="1.0",
        to_version="2.0",
        started_at=6.0,
        job='{"phase":1}',
    )
    assert await full.deployments.change(old, new, events=[EVENT])
    assert not await full.deployments.change(old, new, events=[EVENT])
    assert not await full.deployments.change(replace(new, state=S.OFFERED), step(new), events=[EVENT])
    assert await full.deployments.get("c1", "d") == new
    assert await full.deployments.get("c1", "e") is None
    assert await count_events(full) == 1
    with pytest.raises(ValueError, match="same record"):
        await full.deployments.change(new, step(new, endpoint="e"))


async def test_of_many_that_race_for_a_deployment_one_wins(full):
    old = deployment("d")
    await full.deployments.add([old])
    tries = [full.deployments.change(old, step(old, text=str(n)), events=[EVENT]) for n in range(20)]
    assert sum(await asyncio.gather(*tries)) == 1
    assert await count_events(full) == 1


async def test_due_deployments_come_fresh_ones_first(full):
    await full.deployments.add(
        [
            deployment("late", retry_at=90.0),
            deployment("later", retry_at=110.0),
            deployment("b"),
            deployment("a"),
            deployment("busy", S.OFFERED),
        ]
    )
    due = await full.deployments.due("c1", now=100.0, limit=10)
    assert [each.endpoint for each in due] == ["a", "b", "late"]
    assert due[2].retry_at == 90.0
    assert due[0].retry_at is None
    assert len(await full.deployments.due("c1", now=100.0, limit=2)) == 2
    assert await full.deployments.next_retry("c1") == 90.0
    assert await full.deployments.next_retry("c9") is None


async def test_active_deployments_are_found_by_device_and_by_campaign(full):
    await full.campaigns.add(replace(CAMPAIGN, id="c2", name="second"))
    await full.deployments.add(
        [
            deployment("a", S.CONFIRMING),
            deployment("b", S.PENDING),
            deployment("c", S.OFFERED),
            deployment("a", S.OFFERED, campaign_id="c2", created_at=6.0),
        ]
    )
    assert [each.campaign_id for each in await full.deployments.open("a")] == ["c1", "c2"]
    assert await full.deployments.open("b") == []
    found = await full.deployments.open_many(["a", "b", "c", "nobody"])
    assert {name: len(each) for name, each in found.items()} == {"a": 2, "c": 1}
    page = await full.deployments.active("c1", limit=1)
    assert ([each.endpoint for each in page.items], page.next) == (["a"], "a")
    assert [each.endpoint for each in (await full.deployments.active("c1", after="a")).items] == ["c"]
    assert [each.campaign_id for each in await full.deployments.of("a")] == ["c2", "c1"]


async def test_deployments_are_paged_by_state_and_reason(full):
    await full.deployments.add(
        [deployment(f"f{n}", S.FAILED, reason="timeout" if n % 2 else "signature") for n in range(6)]
    )
    page = await full.deployments.page("c1", state=S.FAILED, reason="timeout", limit=2)
    assert ([each.endpoint for each in page.items], page.next) == (["f1", "f3"], "f3")
    assert len((await full.deployments.page("c1", state=S.FAILED)).items) == 6
    assert (await full.deployments.page("c1", state=S.PENDING)).items == ()
    assert [count.count for count in await full.deployments.statistics("c1")] == [3, 3]


async def test_progress_counts_for_active_deployments_only(full):
    await full.deployments.add([deployment("a", S.DOWNLOADING), deployment("b", S.PENDING)])
    for endpoint in ("a", "b"):
        await full.deployments.progress("c1", endpoint, offset=512, size=1000, now=7.0)
    await full.deployments.progress("c1", "a", offset=1, size=1000, now=6.0)
    a = await full.deployments.get("c1", "a")
    assert (a.offset, a.size, a.updated_at, a.revision) == (512, 1000, 7.0, 1)
    assert (await full.deployments.get("c1", "b")).offset == 0
    assert await count_events(full) == 0


async def test_deleting_a_campaign_takes_its_deployments_along(full):
    await full.deployments.add([deployment("a")])
    assert await full.campaigns.delete(CAMPAIGN, events=[EVENT])
    assert await full.deployments.of("a") == []


async def test_events_are_numbered_and_read_both_ways(store):
    await store.events.append([replace(EVENT, endpoint=f"d{n % 3}") for n in range(9)])
    every = await store.events.after(0)
    ids = [event.id for event in every]
    assert ids == sorted(set(ids))
    assert every[0].data == EVENT.data
    assert await store.events.last_id() == ids[-1]
    assert [e.id for e in await store.events.after(ids[3], limit=2)] == ids[4:6]
    assert [e.id for e in await store.events.before(limit=2)] == [ids[8], ids[7]]
    assert [e.id for e in await store.events.before(ids[5], endpoint="d1")] == [ids[4], ids[1]]
    assert [e.id for e in await store.events.after(ids[1], endpoint="d1", limit=1)] == [ids[4]]
    assert [e.id for e in await store.events.after(0, campaign_id="c1", endpoint="d0")] == ids[0::3]
    assert await store.events.after(0, campaign_id="c9") == []
    assert await store.events.before(ids[0], endpoint="d1") == []


async def test_a_device_keeps_its_history_over_many_events(store):
    for n in range(40):
        other = [NewEvent(kind="noise", at=float(n), endpoint=f"x{k}") for k in range(100)]
        await store.events.append([*other, NewEvent(kind="mine", at=float(n), endpoint="me")])
    mine = await store.events.after(0, endpoint="me")
    assert [event.at for event in mine] == [float(n) for n in range(40)]
    assert await store.events.before(endpoint="me", limit=40) == mine[::-1]
    assert await store.events.before(mine[20].id, endpoint="me", limit=5) == mine[15:20][::-1]
    assert await store.events.after(mine[20].id, endpoint="me") == mine[21:]


async def test_pruning_never_reuses_numbers(store):
    await store.events.append([replace(EVENT, at=float(n)) for n in range(5)])
    last = await store.events.last_id()
    assert await store.events.prune(before=3.0, limit=2) == 2
    assert await store.events.prune(before=100.0) == 2  # the newest stays, so that numbers go on
    assert await store.events.prune(before=100.0) == 0
    await store.events.append([EVENT])
    assert await store.events.last_id() == last + 1


async def test_who_waits_for_events_is_woken(store):
    waiting = asyncio.create_task(store.events.wait(0))
    await asyncio.sleep(0)
    await store.events.append([EVENT])
    first = await waiting
    assert first == await store.events.last_id() == await store.events.wait(0)


async def test_who_waits_is_not_woken_by_what_was_undone(store):
    image = replace(IMAGE, digest=b"\1" * 32)
    assert await store.images.add(image, events=[EVENT])
    newest = await store.events.last_id()
    waiting = asyncio.create_task(store.events.wait(newest))
    assert not await store.images.add(image, events=[EVENT])
    await store.devices.define_attribute("a", AttributeType.TEXT)
    assert not waiting.done()
    await store.events.append([EVENT])
    assert await waiting == newest + 1
