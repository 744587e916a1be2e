"""One device in a campaign: every way an update can go, over the real services in virtual time."""

import asyncio
from collections.abc import Sequence

import pytest

from lwm2m_server.campaigns.records import Deployment, DeploymentState
from lwm2m_server.store.records import NewEvent
from lwm2m_server.transport import Code
from memory import World
from memory.device import paths
from memory.world import ADDRESS

LIFE = ["offered", "downloading", "downloaded", "installing", "confirming", "succeeded"]


async def test_a_pull(world: World) -> None:
    device = await world.device(delivery=0)
    campaign = await world.campaign(await world.release())
    assert await world.outcome(campaign) == ("succeeded", "confirmed-version")
    assert device.executed == 1
    assert "PUT /5/0/0" not in paths(device.requests)
    assert await world.states(campaign) == LIFE
    done = await world.deployment(campaign)
    assert (done.attempt, done.from_version, done.to_version) == (1, "1.0.0", "2.0.0")
    assert done.offset == done.size == 40_000
    ended = await world.ended(campaign)
    assert (ended.state, ended.reason, ended.targets) == ("completed", "all-done", 1)


async def test_a_push(world: World) -> None:
    device = await world.device(delivery=1)
    campaign = await world.campaign(await world.release())
    assert await world.outcome(campaign) == ("succeeded", "confirmed-version")
    assert device.blocks_taken == list(range(40))
    assert device.executed == 1


async def test_the_directory_knows_the_new_version_at_once(world: World) -> None:
    await world.device()
    await world.outcome(await world.campaign(await world.release()))
    found = await world.server.services.directory.list(filter="firmware.version = 2.0.0")
    assert [device.endpoint for device in found.items] == ["dev-1"]


async def test_a_device_that_understands_manifests_gets_the_envelope_and_fetches_the_image(
    world: World,
) -> None:
    manifest = await world.release()
    device = await world.device(agent=True, image_path=("fw", manifest.image_digest.hex()))
    campaign = await world.campaign(manifest)
    device.digest = manifest.image_digest  # what it will report after the reboot
    assert await world.outcome(campaign) == ("succeeded", "confirmed-digest")
    assert device.package == manifest.envelope


@pytest.mark.protection("server", "evidence")
async def test_version_without_the_digest_is_no_evidence(world: World) -> None:
    manifest = await world.release()
    device = await world.device(agent=True, digest=b"\x01" * 32)
    device.image_path = ("fw", manifest.image_digest.hex())
    campaign = await world.campaign(manifest, retries=0)
    state, _ = await world.outcome(campaign)
    assert state == "failed", "the version is right, but another image runs"


@pytest.mark.protection("server", "lost-messages")
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("delivery", [0, 1])
async def test_lost_notifications_only_cost_time(world: World, delivery: int, *, lost: bool) -> None:
    await world.device(delivery=delivery, lost_notifications=lost)
    campaign = await world.campaign(await world.release())
    assert (await world.outcome(campaign))[0] == "succeeded"


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (2, "failed", "storage-full"),
        (5, "failed", "integrity"),
        (6, "rejected", "unsupported"),
        (10, "cancelled", "cancelled-by-device"),
        (77, "failed", "unknown-result"),
    ],
)
async def test_what_the_device_says_of_the_package(world: World, code: int, state: str, reason: str) -> None:
    device = await world.device(judge=lambda _: code)
    campaign = await world.campaign(await world.release())
    assert await world.outcome(campaign) == (state, reason)
    assert device.executed == 0


async def test_a_refused_manifest_keeps_the_devices_own_reason(world: World) -> None:
    device = await world.device(agent=True, refusal="class-mismatch", judge=lambda _: 6)
    campaign = await world.campaign(await world.release())
    assert await world.outcome(campaign) == ("rejected", "class-mismatch")
    assert (await world.deployment(campaign)).text == "refused: class-mismatch"
    assert device.version == "1.0.0"


async def test_retries_with_growing_delays_then_failed(world: World) -> None:
    device = await world.device(delivery=0, judge=lambda _: 4)
    campaign = await world.campaign(await world.release(), retries=2)
    assert await world.outcome(campaign) == ("failed", "connection-lost")
    done = await world.deployment(campaign)
    assert done.attempt == 3
    history = await world.server.services.campaigns.history(campaign.id, "dev-1")
    waits = [
        float(str(event.data["retry_at"])) - event.at
        for event in history
        if event.kind == "deployment.pending" and event.data["reason"] == "connection-lost"
    ]
    assert len(waits) == 2
    assert waits == sorted(waits)
    assert device.executed == 0


async def test_the_second_attempt_may_succeed(world: World) -> None:
    verdicts = [4, None]
    await world.device(judge=lambda _: verdicts.pop(0))
    campaign = await world.campaign(await world.release())
    assert (await world.outcome(campaign))[0] == "succeeded"
    assert (await world.deployment(campaign)).attempt == 2


@pytest.mark.protection("server", "trial")
async def test_a_device_that_comes_back_with_its_old_version_has_failed(world: World) -> None:
    device = await world.device(after_install=lambda _: "1.0.0")
    campaign = await world.campaign(await world.release(), retries=0)
    state, reason = await world.outcome(campaign)
    assert state == "failed"
    assert reason in {"update-failed", "rolled-back"}
    assert device.executed == 1


async def test_a_device_that_never_comes_back_has_failed(world: World) -> None:
    await world.device(after_install=lambda _: None)
    campaign = await world.campaign(await world.release(), retries=0)
    state, reason = await world.outcome(campaign)
    assert state == "failed"
    assert reason in {"silent", "no-return", "stalled"}


async def test_a_device_that_falls_silent_during_the_download_has_failed(world: World) -> None:
    device = await world.device(delivery=0, stop_fetching_at=10_240)
    campaign = await world.campaign(await world.release(), retries=0)
    await world.reach(campaign, "downloading")
    device.silent = True
    assert (await world.outcome(campaign))[0] == "failed"


@pytest.mark.parametrize("delivery", [0, 1])
@pytest.mark.parametrize("at", ["offered", "downloading", "downloaded", "installing"])
async def test_a_restart_of_the_server_loses_nothing(world: World, delivery: int, at: str) -> None:
    device = await world.device(delivery=delivery)
    world.network.delay = 0.2  # so that every step can be seen
    campaign = await world.campaign(await world.release())
    await world.reach(campaign, at)
    await world.restart()
    assert (await world.outcome(campaign))[0] == "succeeded"
    assert device.executed == 1, "never twice"
    assert device.asked_from == {ADDRESS}, "a device behind a NAT knows no other port"
    assert (await world.deployment(campaign)).attempt == 1, "the same attempt goes on"


async def test_a_push_goes_on_after_a_restart_where_it_stood(world: World) -> None:
    device = await world.device(delivery=1)
    world.network.delay = 0.05
    campaign = await world.campaign(await world.release(size=200_000))

    async def half() -> bool:
        return len(device.blocks_taken) > 100

    await world.until(half)
    await world.restart()
    assert (await world.outcome(campaign))[0] == "succeeded"
    repeated = len(device.blocks_taken) - 196
    assert repeated <= 16


async def test_a_device_that_loses_power_during_the_download_begins_again(world: World) -> None:
    device = await world.device(delivery=0, stop_fetching_at=10_240)
    campaign = await world.campaign(await world.release())
    await world.reach(campaign, "downloading")
    await world.run(5.0)
    device.stop_fetching_at = None
    device.power_cut()
    await device.boot()
    assert (await world.outcome(campaign))[0] == "succeeded"


@pytest.mark.protection("server", "stranger")
async def test_blobs_are_open_only_while_an_update_needs_them(world: World) -> None:
    manifest = await world.release()
    path = ("fw", manifest.image_digest.hex())
    device = await world.device(delivery=0)
    stranger = await world.device("stranger", version="2.0.0")
    assert (await world.answer(device.send(Code.GET, path))).code == Code.NOT_FOUND
    world.network.delay = 0.2
    campaign = await world.campaign(manifest, filter='endpoint = "dev-1"')
    await world.reach(campaign, "downloading")
    assert (await world.answer(stranger.send(Code.GET, path))).code == Code.FORBIDDEN
    await world.outcome(campaign)
    await world.settle()
    assert (await world.answer(device.send(Code.GET, path))).code == Code.NOT_FOUND


async def test_a_device_that_answers_for_resources_alone_is_updated_too(world: World) -> None:
    device = await world.device(only_resources=True)
    device.version = "1.0.0"
    campaign = await world.campaign(await world.release())
    assert (await world.outcome(campaign))[0] == "succeeded"


async def test_progress_is_seen_while_it_downloads(world: World) -> None:
    await world.device(delivery=0)
    world.network.delay = 0.3
    campaign = await world.campaign(await world.release())
    offsets: list[int] = []

    async def over() -> bool:
        deployment = await world.deployment(campaign)
        offsets.append(deployment.offset)
        return deployment.state is not DeploymentState.DOWNLOADING and deployment.offset > 0

    await world.until(over)
    assert offsets == sorted(offsets)
    assert len(set(offsets)) > 4


async def test_progress_that_comes_faster_than_it_is_stored_is_told_by_its_last(world: World) -> None:
    device = await world.device(delivery=1)
    writes: list[int] = []
    change = world.store.deployments.change

    async def slow(old: Deployment, new: Deployment, *, events: Sequence[NewEvent] = ()) -> bool:
        for _ in range(50):  # the push goes on meanwhile
            await asyncio.sleep(0)
        writes.append(new.offset)
        return await change(old, new, events=events)

    world.store.deployments.change = slow  # type: ignore[method-assign]
    campaign = await world.campaign(await world.release(size=400_000))
    assert (await world.outcome(campaign))[0] == "succeeded"
    assert len(device.blocks_taken) == 391
    assert writes == sorted(writes)
    assert len(writes) < 80, "not one for each of the hundred steps of the progress"
