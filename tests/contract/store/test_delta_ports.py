"""Contract of deltas, their failures and transfers."""

from dataclasses import replace

import pytest

from lwm2m_server.campaigns.records import Campaign
from lwm2m_server.store.delta_ports import Savings, StoredDelta, Transfer
from lwm2m_server.store.records import StoredImage, StoredManifest

BASE, TARGET, OTHER = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
THUMB = StoredDelta(
    base=BASE,
    target=TARGET,
    method="thumb",
    digest=b"\x0a" * 32,
    size=90,
    state="ready",
    created_at=4.0,
    seconds=0.5,
    memory=1 << 20,
)
WHOLE = replace(THUMB, base=b"", method="lzma", digest=b"\x0b" * 32, size=600)
PATCH = Transfer(
    campaign_id="c1",
    endpoint="dev-1",
    digest=THUMB.digest,
    method="thumb",
    size=90,
    image_size=1000,
    sent=90,
    updated_at=5.0,
    applied=True,
)


def image(digest):
    return StoredImage(digest=digest, size=1000, name="app.bin", created_at=1.0)


@pytest.fixture
async def stored(store):
    for digest in (BASE, TARGET):
        await store.images.add(image(digest))
    await store.manifests.add(
        StoredManifest(
            id="m1",
            name="release",
            envelope=b"\xd8k",
            key_id="ff",
            vendor_id=b"v" * 16,
            class_id=b"c" * 16,
            sequence=7,
            version="2.0",
            image_digest=TARGET,
            image_size=1000,
            created_at=2.0,
        )
    )
    for number in (1, 2):
        campaign = Campaign(
            id=f"c{number}", name=f"{number}", manifest_id="m1", created_at=3.0, updated_at=3.0
        )
        await store.campaigns.add(campaign)
    await store.deltas.put([WHOLE, THUMB])
    return store.deltas


async def test_patches_of_a_pair_come_with_those_that_need_no_base(stored):
    assert await stored.of(BASE, TARGET) == [WHOLE, THUMB]
    assert await stored.of(OTHER, TARGET) == [WHOLE]
    assert await stored.of(TARGET, BASE) == []


async def test_a_patch_is_replaced_by_a_newer_one_of_the_same_method(stored):
    newer = replace(THUMB, digest=b"\x0c" * 32, size=80)
    await stored.put([newer])
    assert await stored.of(BASE, TARGET) == [WHOLE, newer]
    assert await stored.digests() == {WHOLE.digest, newer.digest}


async def test_patches_go_with_their_base(stored, store):
    assert await store.images.delete(BASE)
    assert await stored.of(BASE, TARGET) == [WHOLE]
    assert await stored.digests() == {WHOLE.digest}


async def test_patches_go_with_their_target(stored, store):
    await store.images.add(image(OTHER))
    await stored.put([replace(THUMB, target=OTHER), replace(WHOLE, target=OTHER)])
    assert await store.images.delete(OTHER)
    assert await stored.of(BASE, OTHER) == []


async def test_failures_are_counted_by_device(stored):
    assert await stored.fail("dev-1", THUMB.digest, reason="digest-mismatch", at=1.0) == 1
    assert await stored.fail("dev-1", THUMB.digest, reason="delta-unusable", at=2.0) == 1
    assert await stored.fail("dev-2", THUMB.digest, reason="digest-mismatch", at=3.0) == 2
    assert await stored.failed("dev-1") == {THUMB.digest}
    assert await stored.failed("dev-3") == set()


async def test_a_withdrawn_patch_says_so(stored):
    await stored.withdraw(THUMB.digest)
    assert [delta.state for delta in await stored.of(BASE, TARGET)] == ["ready", "withdrawn"]


async def test_a_transfer_is_replaced_by_what_came_later(stored):
    await stored.record([replace(PATCH, sent=10, applied=False)])
    await stored.record([PATCH])
    assert await stored.transfers("c1", "dev-1") == [PATCH]
    assert await stored.transfers("c2", "dev-1") == []


async def test_an_update_of_several_images_saves_by_each_of_them(stored):
    modem = replace(PATCH, digest=OTHER, image=BASE, method="", size=500, image_size=500, sent=500)
    rows = [replace(PATCH, image=TARGET), modem, replace(modem, digest=BASE, applied=False, sent=7)]
    await stored.record(rows)
    assert await stored.transfers("c1", "dev-1") == sorted(rows, key=lambda row: row.digest)
    assert await stored.savings() == Savings(1, 1, 1500, PATCH.sent + 507)


async def test_savings_add_up_what_ended_well(stored):
    whole = replace(PATCH, digest=TARGET, method="", size=1000, sent=1000)
    await stored.record(
        [
            PATCH,
            replace(PATCH, endpoint="dev-2", applied=False),
            replace(whole, endpoint="dev-2"),
            replace(whole, endpoint="dev-3", sent=400, applied=False),
            replace(PATCH, campaign_id="c2"),
        ]
    )
    assert await stored.savings(campaign_id="c1") == Savings(2, 1, 2000, 1180)
    assert await stored.savings(campaign_id="c1", endpoint="dev-2") == Savings(1, 0, 1000, 1090)
    assert await stored.savings(endpoint="dev-1") == Savings(2, 2, 2000, 180)
    assert await stored.savings() == Savings(3, 2, 3000, 1270)
    assert await stored.savings(endpoint="dev-9") == Savings()
    assert (await stored.savings(campaign_id="c1", endpoint="dev-2")).saved_bytes == -90
