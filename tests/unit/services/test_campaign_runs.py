"""Campaigns over several devices: limits, stops, checks on a device's behalf, and statistics that add up."""

from pathlib import Path

import pytest

from lwm2m_server.campaigns.records import Campaign, CampaignState, DeploymentState
from lwm2m_server.devices.records import Registration
from lwm2m_server.errors import Conflict, Forbidden, InvalidInput, NotFound
from lwm2m_server.services.campaigns import CampaignDraft
from memory import ScriptedDevice, World


async def fleet(world: World, count: int, **options: object) -> list[ScriptedDevice]:
    return [await world.device(f"dev-{number:02}", **options) for number in range(count)]


async def active(world: World, campaign: Campaign) -> int:
    statistics = await world.server.services.campaigns.statistics(campaign.id)
    totals = statistics.totals
    assert totals.targets == totals.pending + totals.active + totals.done
    return totals.active


async def test_no_more_devices_at_once_than_the_limit(world: World) -> None:
    await fleet(world, 7)
    world.network.delay = 0.1
    campaign = await world.campaign(await world.release(), limit=2)
    seen: set[int] = set()

    async def over() -> bool:
        seen.add(await active(world, campaign))
        found = await world.server.services.campaigns.get(campaign.id)
        return found.state is CampaignState.COMPLETED

    await world.until(over, step=0.2)
    assert max(seen) == 2
    statistics = await world.server.services.campaigns.statistics(campaign.id)
    assert statistics.totals.succeeded == statistics.totals.targets == 7


async def test_a_mixed_fleet_ends_in_the_right_states_with_the_right_reasons(world: World) -> None:
    await world.device("good")
    await world.device("current", version="2.0.0")
    await world.device("newer", version="2.1.0")
    await world.device("stranger", manufacturer="Other")
    await world.device("other-model", model="M2")
    await world.device("nameless", manufacturer="")
    await world.device("versionless", version="mystery build")
    await world.device("full", judge=lambda _: 2)
    campaign = await world.campaign(await world.release())
    assert (await world.ended(campaign)).state is CampaignState.COMPLETED
    expected = {
        "good": ("succeeded", "confirmed-version"),
        "current": ("skipped", "already-current"),
        "newer": ("rejected", "version-rollback"),
        "stranger": ("rejected", "manufacturer-mismatch"),
        "other-model": ("rejected", "model-mismatch"),
        "nameless": ("rejected", "unknown-identity"),
        "versionless": ("rejected", "unknown-version"),
        "full": ("failed", "storage-full"),
    }
    page = await world.server.services.campaigns.deployments(campaign.id)
    assert {entry.endpoint: (entry.state.value, entry.reason) for entry in page.items} == expected
    statistics = await world.server.services.campaigns.statistics(campaign.id)
    assert statistics.totals.targets == statistics.totals.done == 8
    assert statistics.reasons[DeploymentState.REJECTED] == {
        "manufacturer-mismatch": 1,
        "model-mismatch": 1,
        "unknown-identity": 1,
        "unknown-version": 1,
        "version-rollback": 1,
    }
    untouched = [device for device in world.devices if device.endpoint not in {"good", "full"}]
    assert all(not device.package for device in untouched), "nothing was sent to those"


async def test_a_manifest_that_names_nobody_is_for_no_plain_device(world: World) -> None:
    await world.device()
    campaign = await world.campaign(await world.release(manufacturer="", model=""))
    assert await world.outcome(campaign) == ("rejected", "manifest-unspecific")


async def test_only_what_the_filter_takes(world: World) -> None:
    await fleet(world, 2)
    await world.device("old", version="0.9.0")
    campaign = await world.campaign(await world.release(), filter="firmware.version < 1.0.0")
    assert (await world.ended(campaign)).targets == 1
    assert await world.outcome(campaign, "old") == ("succeeded", "confirmed-version")


async def test_targets_are_those_of_the_start(world: World) -> None:
    await world.device("first")
    world.network.delay = 0.2
    campaign = await world.campaign(await world.release())
    await world.reach(campaign, "downloading", "first")
    await world.device("second")
    assert (await world.ended(campaign)).targets == 1
    with pytest.raises(NotFound):
        await world.deployment(campaign, "second")


async def test_a_pause_begins_no_more_and_lets_go_on_what_is_under_way(world: World) -> None:
    await fleet(world, 3)
    world.network.delay = 0.1
    campaign = await world.campaign(await world.release(), limit=1)
    await world.reach(campaign, "downloading", "dev-00")
    campaigns = world.server.services.campaigns
    await campaigns.pause(campaign.id, actor="ann")
    assert await world.outcome(campaign, "dev-00") == ("succeeded", "confirmed-version")
    await world.run(600.0)
    assert (await world.deployment(campaign, "dev-01")).state is DeploymentState.PENDING
    await campaigns.resume(campaign.id, actor="ann")
    assert (await world.ended(campaign)).state is CampaignState.COMPLETED


async def test_an_abort_cancels_what_has_not_come_to_the_point_of_no_return(world: World) -> None:
    installing = await world.device("dev-00", install_time=500.0)
    loading = await world.device("dev-01", delivery=0, stop_fetching_at=10_240)
    await world.device("dev-02")
    campaign = await world.campaign(await world.release(), limit=2)
    await world.reach(campaign, "installing", "dev-00")
    await world.reach(campaign, "downloading", "dev-01")
    campaigns = world.server.services.campaigns
    await campaigns.abort(campaign.id, actor="ann")
    assert await world.outcome(campaign, "dev-02") == ("cancelled", "aborted")
    assert await world.outcome(campaign, "dev-01") == ("cancelled", "aborted")
    assert loading.state == 0, "the device was reset"
    with pytest.raises(Conflict) as caught:
        await campaigns.archive(campaign.id, actor="ann")
    assert caught.value.code == "winding-down"
    assert (await world.outcome(campaign, "dev-00"))[0] == "succeeded"
    assert installing.version == "2.0.0"
    assert (await campaigns.archive(campaign.id, actor="ann")).state is CampaignState.ARCHIVED


async def test_an_abort_survives_a_restart(world: World) -> None:
    await world.device("dev-00", delivery=0, stop_fetching_at=10_240)
    await world.device("dev-01")
    campaign = await world.campaign(await world.release(), limit=1)
    await world.reach(campaign, "downloading", "dev-00")
    await world.kill()
    # The abort is stored, and the server dies before it did anything about it.
    world.server = world._server()
    await world.server.services.campaigns.abort(campaign.id, actor="ann")
    await world.kill()
    world.server = world._server()
    await world.server.start()
    assert await world.outcome(campaign, "dev-00") == ("cancelled", "aborted")
    assert await world.outcome(campaign, "dev-01") == ("cancelled", "aborted")


@pytest.mark.protection("server", "runaway")
async def test_the_stop_rule_halts_the_campaign_and_cancels_the_rest(world: World) -> None:
    await fleet(world, 8, judge=lambda _: 2)
    campaign = await world.campaign(await world.release(), limit=2, stop="failures > 2")
    halted = await world.ended(campaign)
    assert (halted.state, halted.reason) == (CampaignState.HALTED, "stop-rule")
    assert "failures > 2" in halted.text
    await world.run(60.0)
    totals = (await world.server.services.campaigns.statistics(campaign.id)).totals
    assert 3 <= totals.failed <= 4
    assert totals.failed + totals.cancelled == 8


async def test_a_scheduled_campaign_starts_by_itself(world: World) -> None:
    await world.device()
    start = world.network.clock.now() + 100.0
    campaign = await world.campaign(await world.release(), start_at=start)
    assert campaign.state is CampaignState.SCHEDULED
    await world.run(99.0)
    assert (await world.server.services.campaigns.get(campaign.id)).state is CampaignState.SCHEDULED
    await world.run(5.0)
    assert await world.outcome(campaign) == ("succeeded", "confirmed-version")


async def test_a_device_that_is_away_is_updated_when_it_comes_and_holds_nobody_up(world: World) -> None:
    away = await world.device("dev-00")
    await world.device("dev-01")
    await world.answer(away.deregister())
    campaign = await world.campaign(await world.release(), limit=1)
    assert await world.outcome(campaign, "dev-01") == ("succeeded", "confirmed-version")
    waiting = await world.deployment(campaign, "dev-00")
    assert (waiting.state, waiting.reason, waiting.attempt) == (DeploymentState.PENDING, "not-registered", 0)
    await world.restart()
    await away.boot()
    assert await world.outcome(campaign, "dev-00", within=120.0) == ("succeeded", "confirmed-version")


async def test_a_device_is_updated_by_one_campaign_at_a_time(world: World) -> None:
    device = await world.device(install_time=100.0)
    first = await world.campaign(await world.release())
    await world.reach(first, "installing")
    device.wanted = "3.0.0"
    second = await world.campaign(await world.release("3.0.0", sequence=2), "second")
    await world.run(20.0)
    waiting = await world.deployment(second)
    assert (waiting.state, waiting.reason) == (DeploymentState.PENDING, "other-update")
    device.wanted = "2.0.0"
    assert (await world.outcome(first))[0] == "succeeded"
    device.wanted = "3.0.0"
    assert (await world.outcome(second))[0] == "succeeded"


async def test_a_device_under_update_cant_be_deleted(world: World) -> None:
    await world.device(install_time=100.0)
    campaign = await world.campaign(await world.release())
    await world.reach(campaign, "installing")
    directory = world.server.services.directory
    with pytest.raises(Conflict):
        await directory.delete("dev-1", actor="ann")
    await world.outcome(campaign)
    await directory.delete("dev-1", actor="ann")
    with pytest.raises(NotFound):
        await directory.get("dev-1")


async def test_a_device_that_never_says_what_it_is_has_failed(world: World) -> None:
    await world.device(silent=True)
    campaign = await world.campaign(await world.release())
    assert await world.outcome(campaign) == ("failed", "timeout")


async def test_without_inventory_devices_are_asked_when_a_campaign_meets_them(tmp_path: Path) -> None:
    world = World(tmp_path, inventory=False)
    await world.start()
    device = await world.device()
    assert device.requests == [], "nobody asks at registration"
    campaign = await world.campaign(await world.release())
    assert await world.outcome(campaign) == ("succeeded", "confirmed-version")
    await world.close()


async def test_what_an_earlier_attempt_has_done_counts_as_success_and_not_as_skipped(world: World) -> None:
    device = await world.device(after_install=lambda _: "1.0.0")
    campaign = await world.campaign(await world.release())

    async def waits() -> bool:
        found = await world.deployment(campaign)
        return (found.state, found.attempt) == (DeploymentState.PENDING, 1)

    await world.until(waits, within=600)
    device.version = "2.0.0"
    await world.answer(device.register())
    assert await world.outcome(campaign) == ("succeeded", "already-current")


async def test_an_empty_campaign_is_done_at_once(world: World) -> None:
    campaign = await world.campaign(await world.release(), filter='endpoint = "nobody"')
    ended = await world.ended(campaign)
    assert (ended.state, ended.targets) == (CampaignState.COMPLETED, 0)


async def test_a_snapshot_that_a_crash_cut_short_takes_nobody_twice(world: World) -> None:
    now = world.network.clock.now()
    await world.store.registrations.register(
        [
            Registration(
                registration_id=f"r{number}",
                endpoint=f"dev-{number:04}",
                address=f"10.9.0.1:{10_000 + number}",
                registered_at=now,
                last_seen=now,
                expires_at=now + 1e6,
            )
            for number in range(1200)
        ]
    )
    for _ in range(2):
        await world.restart()
    campaign = await world.campaign(await world.release(), limit=1)
    await world.restart()
    await world.run(5.0)
    assert (await world.server.services.campaigns.get(campaign.id)).targets == 1200


# operators


async def draft(world: World, **options: object) -> CampaignDraft:
    return CampaignDraft(name="c", manifest_id=(await world.release()).id, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"filter": "colour ="}, "filter"),
        ({"stop": "whenever"}, "stop"),
        ({"limit": 0}, "limit"),
        ({"retries": -1}, "retries"),
        ({"retries": 101}, "retries"),
        ({"start_at": float("nan")}, "start_at"),
        ({"description": "x" * 3000}, "description"),
    ],
)
async def test_a_bad_draft_names_its_field_and_makes_nothing(
    world: World, options: dict[str, object], field: str
) -> None:
    campaigns = world.server.services.campaigns
    with pytest.raises(InvalidInput) as caught:
        await campaigns.create(await draft(world, **options), actor="ann")
    assert caught.value.field == field
    assert (await campaigns.list()).items == ()


async def test_a_campaign_needs_a_manifest_that_is_there(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        await world.server.services.campaigns.create(
            CampaignDraft(name="c", manifest_id="00" * 32), actor="ann"
        )
    assert caught.value.field == "manifest_id"


async def test_only_drafts_can_be_changed(world: World) -> None:
    campaigns = world.server.services.campaigns
    campaign = await campaigns.create(await draft(world), actor="ann")
    edited = await campaigns.edit(campaign.id, {"limit": 5}, actor="ann")
    assert (edited.limit, edited.revision) == (5, 2)
    with pytest.raises(Conflict):
        await campaigns.edit(campaign.id, {"limit": 6}, expected_revision=1, actor="ann")
    with pytest.raises(InvalidInput):
        await campaigns.edit(campaign.id, {"state": "completed"}, actor="ann")
    with pytest.raises(InvalidInput):
        await campaigns.edit(campaign.id, {"limit": 0}, actor="ann")
    await campaigns.start(campaign.id, actor="ann")
    with pytest.raises(Conflict) as caught:
        await campaigns.edit(campaign.id, {"limit": 6}, actor="ann")
    assert caught.value.code == "immutable"
    with pytest.raises(Conflict):
        await campaigns.delete(campaign.id, actor="ann")


async def test_commands_may_be_repeated(world: World) -> None:
    campaigns = world.server.services.campaigns
    await world.device()
    campaign = await campaigns.create(await draft(world), actor="ann")
    started = await campaigns.start(campaign.id, actor="ann")
    assert await campaigns.start(campaign.id, actor="ann") == started
    for command in (campaigns.pause, campaigns.resume, campaigns.abort):
        once = await command(campaign.id, actor="ann")
        assert await command(campaign.id, actor="ann") == once


async def test_a_campaign_that_needs_approval_gets_it_from_someone_else(world: World) -> None:
    campaigns = world.server.services.campaigns
    campaign = await campaigns.create(await draft(world, approval=True), actor="ann")
    waiting = await campaigns.start(campaign.id, actor="ann")
    assert waiting.state is CampaignState.AWAITING_APPROVAL
    with pytest.raises(Forbidden) as caught:
        await campaigns.approve(campaign.id, actor="ann")
    assert caught.value.code == "four-eyes"
    refused = await campaigns.refuse(campaign.id, actor="bob", text="not on a Friday")
    assert (refused.state, refused.text) == (CampaignState.DRAFT, "not on a Friday")
    await campaigns.start(campaign.id, actor="ann")
    assert (await campaigns.approve(campaign.id, actor="bob")).approved_by == "bob"
    assert (await world.ended(campaign)).state is CampaignState.COMPLETED


async def test_a_campaign_is_found_by_name_too(world: World) -> None:
    campaigns = world.server.services.campaigns
    campaign = await campaigns.create(await draft(world), actor="ann")
    assert await campaigns.get("c") == campaign
    with pytest.raises(NotFound):
        await campaigns.get("d")
