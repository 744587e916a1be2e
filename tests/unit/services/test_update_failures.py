"""Updates while parts of the server fail: nothing hangs, nothing is done twice, nobody waits for another."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from lwm2m_server.campaigns.records import Deployment, DeploymentState
from lwm2m_server.store.errors import StoreError
from lwm2m_server.transport import Code
from memory import ScriptedDevice, World

Change = Callable[..., Awaitable[bool]]


def fails(*_: object, **__: object) -> Any:
    raise StoreError("the disk is full")


@pytest.mark.parametrize("delivery", [0, 1])
@pytest.mark.parametrize("at", ["offered", "downloading", "downloaded", "installing", "confirming"])
async def test_an_update_waits_for_a_store_that_fails_and_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, delivery: int, at: str
) -> None:
    device = await world.device(delivery=delivery)
    world.network.delay = 0.2
    campaign = await world.campaign(await world.release())
    await world.reach(campaign, at)
    with monkeypatch.context() as patch:
        patch.setattr(world.store.deployments, "change", fails)
        await world.run(60.0)
    assert await world.outcome(campaign) == ("succeeded", "confirmed-version")
    assert device.executed == 1
    assert (await world.deployment(campaign)).attempt == 1


async def test_a_change_that_was_stored_though_the_store_said_no_ends_no_update(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployments = world.store.deployments
    real: Change = deployments.change
    refused: list[str] = []

    async def stored_but_denied(old: Deployment, new: Deployment, **options: Any) -> bool:
        done = await real(old, new, **options)
        if done and old.active and new.state is not old.state:
            refused.append(new.state.value)
            raise StoreError("the answer of the disk got lost")
        return done

    device = await world.device()
    campaign = await world.campaign(await world.release())
    monkeypatch.setattr(deployments, "change", stored_but_denied)
    assert await world.outcome(campaign) == ("succeeded", "confirmed-version")
    assert refused[-1] == "succeeded"
    assert device.executed == 1


async def test_progress_that_is_being_stored_when_the_server_stops_is_in_the_store_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Change = world.store.deployments.change
    hanging: list[int] = []

    async def change(old: Deployment, new: Deployment, **options: Any) -> bool:
        if not hanging and new.offset > 10_000:
            hanging.append(new.offset)
            await asyncio.Event().wait()
        return await real(old, new, **options)

    async def hangs() -> bool:
        return bool(hanging)

    monkeypatch.setattr(world.store.deployments, "change", change)
    await world.device(delivery=1)
    world.network.delay = 0.05
    campaign = await world.campaign(await world.release())
    await world.until(hangs, step=0.05)
    await world.kill()
    stored = await world.store.deployments.get(campaign.id, "dev-1")
    assert stored is not None
    assert stored.offset >= hanging[0]


async def test_a_fault_of_one_update_fails_its_device_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.device("good")
    await world.device("bad")
    real: Change = world.store.deployments.change
    broken: list[str] = []

    async def change(old: Deployment, new: Deployment, **options: Any) -> bool:
        if old.endpoint == "bad" and new.state is DeploymentState.DOWNLOADED and not broken:
            broken.append(old.endpoint)
            raise RuntimeError("a mistake in the program")
        return await real(old, new, **options)

    monkeypatch.setattr(world.store.deployments, "change", change)
    campaign = await world.campaign(await world.release())
    assert await world.outcome(campaign, "bad") == ("failed", "internal")
    assert (await world.outcome(campaign, "good"))[0] == "succeeded"
    assert (await world.ended(campaign)).state == "completed"


async def test_a_campaign_that_cant_be_driven_keeps_no_other_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.device("one")
    await world.device("two")
    manifest = await world.release()
    statistics = world.store.deployments.statistics
    broken: list[str] = []

    async def breaks(campaign_id: str) -> Any:
        if campaign_id in broken:
            raise RuntimeError("a mistake in the program")
        return await statistics(campaign_id)

    monkeypatch.setattr(world.store.deployments, "statistics", breaks)
    campaigns = world.server.services.campaigns
    first = await world.campaign(manifest, "first", filter='endpoint = "nobody"', start_at=2e9)
    broken.append(first.id)
    await campaigns.start(first.id, actor="ann")
    second = await world.campaign(manifest, "second", filter='endpoint = "two"')
    assert (await world.outcome(second, "two"))[0] == "succeeded"
    broken.clear()
    assert (await world.ended(await campaigns.get(first.id))).state == "completed"


async def test_a_store_that_fails_stops_no_campaign_for_good(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.device()
    with monkeypatch.context() as patch:
        patch.setattr(world.store.deployments, "add", fails)
        campaign = await world.campaign(await world.release())
        await world.run(10.0)
    await world.run(2.0)
    assert (await world.outcome(campaign))[0] == "succeeded"


async def test_an_image_that_is_gone_fails_devices_and_the_stop_rule_sees_them(world: World) -> None:
    for number in range(9):
        await world.device(f"dev-{number}")
    manifest = await world.release()
    await world.files.delete(manifest.image_digest)
    campaign = await world.campaign(manifest, limit=2, stop="failures > 1")
    ended = await world.ended(campaign)
    assert (ended.state, ended.reason) == ("halted", "stop-rule")
    totals = (await world.server.services.campaigns.statistics(campaign.id)).totals
    assert (totals.failed, totals.cancelled) == (2, 7)
    assert (await world.deployment(campaign, "dev-0")).reason == "artefact-missing"


async def test_a_device_that_is_away_for_its_second_attempt_gets_it_when_it_comes(world: World) -> None:
    device = await world.device(judge=lambda _: 4)
    campaign = await world.campaign(await world.release())

    async def waits() -> bool:
        deployment = await world.deployment(campaign)
        return deployment.state is DeploymentState.PENDING and deployment.attempt == 1

    await world.until(waits)
    await world.answer(device.deregister())
    await world.run(120.0)
    assert (await world.deployment(campaign)).reason == "not-registered"
    device.judge = lambda _: None
    await device.boot()
    assert (await world.outcome(campaign, within=120.0))[0] == "succeeded", "not an hour later"
    assert (await world.deployment(campaign)).attempt == 2


async def test_a_back_off_is_not_cut_short_by_a_registration(world: World) -> None:
    device = await world.device(judge=lambda _: 4)
    manifest = await world.release()
    campaign = await world.campaign(manifest)

    async def waits() -> bool:
        deployment = await world.deployment(campaign)
        return deployment.state is DeploymentState.PENDING and deployment.attempt == 1

    await world.until(waits)
    before = await world.deployment(campaign)
    await world.answer(device.deregister())
    other = await world.campaign(manifest, "other")
    assert (await world.deployment(other)).reason == "not-registered", "this one waits for the device"
    await device.boot()
    await world.settle()
    after = await world.deployment(campaign)
    assert (after.state, after.retry_at) == (before.state, before.retry_at)


async def test_what_waits_for_a_device_waits_for_it_after_a_restart_too(world: World) -> None:
    device = await world.device()
    await world.answer(device.deregister())
    campaign = await world.campaign(await world.release())
    await world.run(5.0)
    assert (await world.deployment(campaign)).reason == "not-registered"
    await world.restart()
    await device.boot()
    assert (await world.outcome(campaign, within=120.0))[0] == "succeeded"


async def test_a_job_that_cant_be_read_after_a_restart_fails_and_holds_nobody_up(world: World) -> None:
    device = await world.device(delivery=0, stop_fetching_at=2048)
    campaign = await world.campaign(await world.release(), retries=0)
    old = await world.reach(campaign, "downloading")
    await world.kill()
    now = await world.store.deployments.get(old.campaign_id, old.endpoint)
    assert now is not None
    await world.store.deployments.change(now, replace(now, job='{"format": 99}', revision=now.revision + 1))
    await world.restart()
    assert await world.outcome(campaign) == ("failed", "internal")
    assert device.executed == 0


async def test_an_update_whose_image_is_gone_after_a_restart_fails(world: World) -> None:
    await world.device(delivery=0, stop_fetching_at=2048)
    manifest = await world.release()
    campaign = await world.campaign(manifest)
    await world.reach(campaign, "downloading")
    await world.kill()
    await world.files.delete(manifest.image_digest)
    await world.restart()
    assert await world.outcome(campaign) == ("failed", "artefact-missing")


@pytest.mark.parametrize("at", ["offered", "downloading"])
async def test_an_abort_before_the_installation_leaves_the_device_as_it_was(world: World, at: str) -> None:
    device = await world.device(delivery=0)
    world.network.delay = 0.2
    campaign = await world.campaign(await world.release())
    await world.reach(campaign, at)
    await world.server.services.campaigns.abort(campaign.id, actor="ann")
    state, reason = await world.outcome(campaign)
    assert (state, reason) == ("cancelled", "aborted")
    assert (device.version, device.executed) == ("1.0.0", 0)
    await world.run(60.0)
    assert device.state == 0, "the package was dropped"


async def test_an_abort_during_the_installation_awaits_the_outcome(world: World) -> None:
    device = await world.device(install_time=30.0)
    campaign = await world.campaign(await world.release())
    await world.reach(campaign, "installing")
    campaigns = world.server.services.campaigns
    await campaigns.abort(campaign.id, actor="ann")
    await world.restart()
    assert await world.outcome(campaign) == ("succeeded", "confirmed-version")
    assert device.version == "2.0.0"
    assert (await world.server.services.campaigns.get(campaign.id)).state == "aborted"


async def test_a_device_that_comes_back_from_another_host_may_fetch_from_there(world: World) -> None:
    manifest = await world.release()
    device = await world.device(delivery=0, stop_fetching_at=4096)
    campaign = await world.campaign(manifest)
    await world.reach(campaign, "downloading")
    path = ("fw", manifest.image_digest.hex())
    left = ScriptedDevice(world.network, device.server, "left", host=device.host)
    device.power_cut()
    device.host, device.stop_fetching_at = "10.0.200.1", None
    await device.boot()
    world.devices.append(left)
    await left.boot()
    assert (await world.answer(left.send(Code.GET, path))).code == Code.FORBIDDEN
    assert (await world.outcome(campaign))[0] == "succeeded"
