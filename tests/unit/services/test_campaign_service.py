"""Campaigns in the hands of operators: two at once, edits of drafts, what is refused and what is told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lwm2m_server.campaigns.machine import CampaignEvent, advance_campaign
from lwm2m_server.campaigns.records import Campaign, CampaignState, Deployment, DeploymentState
from lwm2m_server.clock import ManualClock
from lwm2m_server.errors import Conflict, Forbidden, InvalidInput, NotFound
from lwm2m_server.services.campaigns import CampaignDraft, CampaignService
from lwm2m_server.store.memory import MemoryStore
from lwm2m_server.store.records import StoredImage, StoredManifest


class Desk:
    """A campaign service without a runner: nothing moves but by operators."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = ManualClock()
        self.woken = 0
        self.campaigns = CampaignService(self.store, self.clock, wake=self._wake, default_limit=7)

    def _wake(self) -> None:
        self.woken += 1

    async def open(self) -> None:
        await self.store.images.add(StoredImage(digest=bytes(32), size=1, name="i", created_at=0.0))
        manifest = StoredManifest(
            id="m",
            name="m",
            envelope=b"e",
            key_id="k",
            vendor_id=bytes(16),
            class_id=bytes(16),
            sequence=1,
            version="2.0.0",
            image_digest=bytes(32),
            image_size=1,
            created_at=0.0,
        )
        await self.store.manifests.add(manifest)

    async def draft(self, name: str = "c", **options: Any) -> Campaign:
        return await self.campaigns.create(CampaignDraft(name=name, manifest_id="m", **options), actor="ann")

    async def kinds(self) -> list[str]:
        return [event.kind for event in await self.store.events.after(0)]


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    desk = Desk()
    await desk.open()
    return desk


@pytest.mark.parametrize(
    ("first", "action", "state"),
    [
        (None, "start", "running"),
        ("start", "pause", "paused"),
        ("start", "abort", "aborted"),
    ],
)
async def test_two_operators_with_one_wish_both_get_it(
    desk: Desk, first: str | None, action: str, state: str
) -> None:
    campaign = await desk.draft()
    if first is not None:
        await getattr(desk.campaigns, first)(campaign.id, actor="ann")
    real = desk.store.campaigns.change

    async def slow(*arguments: Any, **options: Any) -> bool:
        await asyncio.sleep(0)
        return await real(*arguments, **options)

    desk.store.campaigns.change = slow  # type: ignore[method-assign]
    work = getattr(desk.campaigns, action)
    both = await asyncio.gather(work(campaign.id, actor="ann"), work(campaign.id, actor="bob"))
    assert [each.state for each in both] == [state, state]
    assert (await desk.kinds()).count(f"campaign.{state}") == 1


async def test_an_operator_wins_over_a_server_that_was_faster(desk: Desk) -> None:
    campaign = await desk.campaigns.start((await desk.draft()).id, actor="ann")
    real = desk.store.campaigns.change
    meddled: list[bool] = []

    async def change(old: Campaign, new: Campaign, **options: Any) -> bool:
        if not meddled:
            now = await desk.campaigns.get(old.id)
            paused = advance_campaign(now, CampaignEvent.PAUSE, now=1.0, reason="paused")
            meddled.append(await real(now, paused))
        return await real(old, new, **options)

    desk.store.campaigns.change = change  # type: ignore[method-assign]
    assert (await desk.campaigns.abort(campaign.id, actor="ann")).state is CampaignState.ABORTED


async def test_each_change_wakes_the_runner_and_nothing_else_does(desk: Desk) -> None:
    campaign = await desk.draft()
    assert desk.woken == 0
    await desk.campaigns.start(campaign.id, actor="ann")
    assert desk.woken == 1
    await desk.campaigns.start(campaign.id, actor="ann")
    assert desk.woken == 1


async def test_an_edit_is_held_to_the_same_rules_as_a_draft(desk: Desk) -> None:
    campaign = await desk.draft()
    edited = await desk.campaigns.edit(
        campaign.id, {"name": "  new ", "filter": ' manufacturer = "Acme" ', "limit": 3}, actor="bob"
    )
    assert (edited.name, edited.filter, edited.limit) == ("new", 'manufacturer = "Acme"', 3)
    assert (edited.revision, edited.reason) == (campaign.revision + 1, "edited")
    for field, value in {
        "name": " ",
        "limit": 0,
        "retries": -1,
        "stop": "sometimes",
        "filter": "and and",
        "manifest_id": "none",
        "start_at": float("nan"),
        "max_defer": -1,
        "description": "x" * 2001,
    }.items():
        with pytest.raises(InvalidInput) as caught:
            await desk.campaigns.edit(campaign.id, {field: value}, actor="bob")
        assert caught.value.field == field
    for field in ("state", "id", "revision", "targets", "created_by", "nothing"):
        with pytest.raises(InvalidInput) as caught:
            await desk.campaigns.edit(campaign.id, {field: 1}, actor="bob")
        assert caught.value.field == field
    assert await desk.campaigns.get(campaign.id) == edited


async def test_a_name_is_used_once(desk: Desk) -> None:
    await desk.draft("one")
    two = await desk.draft("two")
    with pytest.raises(Conflict):
        await desk.draft(" one ")
    with pytest.raises(Conflict):
        await desk.campaigns.edit(two.id, {"name": "one"}, actor="ann")


async def test_an_edit_of_what_someone_else_changed_meanwhile_is_refused(desk: Desk) -> None:
    campaign = await desk.draft()
    await desk.campaigns.edit(campaign.id, {"limit": 3}, actor="ann")
    with pytest.raises(Conflict) as caught:
        await desk.campaigns.edit(campaign.id, {"limit": 4}, expected_revision=campaign.revision, actor="bob")
    assert caught.value.code == "stale"
    assert (await desk.campaigns.get(campaign.id)).limit == 3


async def test_a_start_in_the_future_is_scheduled_and_may_be_made_now(desk: Desk) -> None:
    later = desk.clock.now() + 3600
    campaign = await desk.campaigns.start((await desk.draft(start_at=later)).id, actor="ann")
    assert campaign.state is CampaignState.SCHEDULED
    assert (await desk.campaigns.start(campaign.id, actor="ann")).state is CampaignState.RUNNING
    past = await desk.draft("past", start_at=1.0)
    assert (await desk.campaigns.start(past.id, actor="ann")).state is CampaignState.RUNNING


async def test_approval_takes_two_people_and_a_refusal_makes_a_draft_again(desk: Desk) -> None:
    campaigns = desk.campaigns
    campaign = await campaigns.start((await desk.draft(approval=True)).id, actor="ann")
    assert campaign.state is CampaignState.AWAITING_APPROVAL
    assert await campaigns.start(campaign.id, actor="ann") == campaign, "starting again approves nothing"
    with pytest.raises(Forbidden) as caught:
        await campaigns.approve(campaign.id, actor="ann")
    assert caught.value.code == "four-eyes"
    refused = await campaigns.refuse(campaign.id, actor="bob", text="not on a Friday")
    assert (refused.state, refused.text) == (CampaignState.DRAFT, "not on a Friday")
    assert await campaigns.refuse(campaign.id, actor="bob") == refused
    await campaigns.start(campaign.id, actor="ann")
    approved = await campaigns.approve(campaign.id, actor="bob")
    assert (approved.state, approved.approved_by) == (CampaignState.SCHEDULED, "bob")
    assert await campaigns.approve(campaign.id, actor="eve") == approved


async def test_what_does_not_fit_says_what_does(desk: Desk) -> None:
    campaign = await desk.draft()
    for action in ("pause", "resume", "archive", "approve"):
        with pytest.raises(Conflict) as caught:
            await getattr(desk.campaigns, action)(campaign.id, actor="bob")
        assert caught.value.code == "wrong-state"
        assert "start" in str(caught.value.hint)
    assert await desk.campaigns.get(campaign.id) == campaign


async def test_nothing_goes_to_the_archive_while_devices_still_install(desk: Desk) -> None:
    campaign = await desk.campaigns.start((await desk.draft()).id, actor="ann")
    deployment = Deployment(
        campaign_id=campaign.id,
        endpoint="d",
        created_at=0.0,
        updated_at=0.0,
        state=DeploymentState.INSTALLING,
    )
    await desk.store.deployments.add([deployment])
    await desk.campaigns.abort(campaign.id, actor="ann")
    with pytest.raises(Conflict) as caught:
        await desk.campaigns.archive(campaign.id, actor="ann")
    assert caught.value.code == "winding-down"
    assert "1 device of" in caught.value.message


async def test_what_was_put_away_is_listed_only_when_asked_for(desk: Desk) -> None:
    campaign = await desk.draft()
    await desk.campaigns.abort(campaign.id, actor="ann")
    archived = await desk.campaigns.archive(campaign.id, actor="ann")
    assert await desk.campaigns.archive(campaign.id, actor="ann") == archived
    assert (await desk.campaigns.list()).items == ()
    assert (await desk.campaigns.list(archived=True)).items == (archived,)
    assert (await desk.campaigns.list(state=CampaignState.ARCHIVED)).items == (archived,)


async def test_a_draft_is_deleted_but_what_ever_started_is_history(desk: Desk) -> None:
    draft = await desk.draft("draft")
    await desk.campaigns.delete(draft.id, actor="ann")
    with pytest.raises(NotFound):
        await desk.campaigns.get(draft.id)
    started = await desk.campaigns.start((await desk.draft()).id, actor="ann")
    with pytest.raises(Conflict) as caught:
        await desk.campaigns.delete(started.id, actor="ann")
    assert caught.value.code == "immutable"


async def test_an_unknown_campaign_or_device_is_not_found(desk: Desk) -> None:
    campaign = await desk.draft()
    with pytest.raises(NotFound):
        await desk.campaigns.statistics("nobody")
    with pytest.raises(NotFound) as caught:
        await desk.campaigns.deployment(campaign.id, "nobody")
    assert caught.value.field == "endpoint"
    assert campaign.limit == 7, "the server's default"
