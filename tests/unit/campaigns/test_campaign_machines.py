"""Every state with every event: what fits leads where the design says, all else is refused and changes nothing."""

from dataclasses import replace
from itertools import product

import pytest

from lwm2m_server.campaigns.machine import (
    CAMPAIGN_TABLE,
    CampaignEvent,
    DeploymentEvent,
    advance_campaign,
    advance_deployment,
    may,
)
from lwm2m_server.campaigns.records import (
    ACTIVE,
    ENDED,
    FINAL,
    Campaign,
    CampaignState,
    Deployment,
    DeploymentState,
)
from lwm2m_server.errors import Conflict

CAMPAIGN = Campaign(id="c", name="C", manifest_id="m", created_at=1.0, updated_at=1.0, revision=7)
DEPLOYMENT = Deployment(
    campaign_id="c", endpoint="d", created_at=1.0, updated_at=1.0, attempt=2, job='{"phase": 1}', revision=7
)

# The design again, in other words: state, then event>state.
CAMPAIGNS = """
draft              submit>awaiting_approval schedule>scheduled start>running abort>aborted
awaiting_approval  approve>scheduled refuse>draft abort>aborted
scheduled          start>running abort>aborted
running            pause>paused complete>completed halt>halted abort>aborted
paused             resume>running halt>halted abort>aborted
completed          archive>archived
halted             archive>archived
aborted            archive>archived
archived
"""
DEPLOYMENTS = """
pending      offer>offered postpone>pending reject>rejected skip>skipped fail>failed cancel>cancelled
offered      download>downloading downloaded>downloaded install>installing confirm>confirming retry>pending fail>failed reject>rejected skip>skipped cancel>cancelled defer>downloaded
downloading  download>downloading downloaded>downloaded install>installing confirm>confirming retry>pending fail>failed reject>rejected cancel>cancelled defer>downloaded
downloaded   install>installing confirm>confirming retry>pending fail>failed reject>rejected cancel>cancelled defer>downloaded
installing   confirm>confirming retry>pending fail>failed reject>rejected cancel>cancelled defer>downloaded
confirming   succeed>succeeded retry>pending fail>failed reject>rejected cancel>cancelled defer>downloaded
succeeded
failed
rejected
skipped
cancelled
"""  # noqa: E501


def table(text: str) -> dict[tuple[str, str], str]:
    found = {}
    for line in text.strip().splitlines():
        state, *moves = line.split()
        for move in moves:
            event, after = move.split(">")
            found[state, event] = after
    return found


@pytest.mark.parametrize(("state", "event"), list(product(CampaignState, CampaignEvent)))
def test_each_event_in_each_state_of_a_campaign(state: CampaignState, event: CampaignEvent) -> None:
    before = replace(CAMPAIGN, state=state)
    expected = table(CAMPAIGNS).get((state.value, event.value))
    assert may(before, event) == (expected is not None)
    if expected is None:
        with pytest.raises(Conflict) as caught:
            advance_campaign(before, event, now=5.0, reason="paused")
        assert caught.value.code == "wrong-state"
        assert caught.value.hint
    else:
        after = advance_campaign(before, event, now=5.0, reason="paused")
        assert (after.state, after.reason, after.updated_at, after.revision) == (expected, "paused", 5.0, 8)
        assert after.text, "people get a sentence"


@pytest.mark.parametrize(("state", "event"), list(product(DeploymentState, DeploymentEvent)))
def test_each_event_in_each_state_of_a_deployment(state: DeploymentState, event: DeploymentEvent) -> None:
    before = replace(DEPLOYMENT, state=state)
    expected = table(DEPLOYMENTS).get((state.value, event.value))
    if expected is None:
        with pytest.raises(Conflict):
            advance_deployment(before, event, now=5.0, reason="transfer")
    else:
        after = advance_deployment(before, event, now=5.0, reason="transfer", retry_at=9.0)
        assert (after.state, after.reason, after.updated_at, after.revision) == (expected, "transfer", 5.0, 8)
        assert after.final == (after.ended_at is not None)
        waits = event in (DeploymentEvent.RETRY, DeploymentEvent.POSTPONE)
        assert after.retry_at == (9.0 if waits else None)


def test_success_has_one_way_in() -> None:
    ways = [key for key, after in table(DEPLOYMENTS).items() if after == "succeeded"]
    assert ways == [("confirming", "succeed")]


def test_final_states_have_no_way_out_and_active_ones_can_always_end() -> None:
    moves = table(DEPLOYMENTS)
    for state in DeploymentState:
        after = {target for (source, _), target in moves.items() if source == state.value}
        assert bool(after) != (state in FINAL)
        if state in ACTIVE:
            assert {"failed", "rejected", "cancelled", "pending"} <= after
    assert not ACTIVE & FINAL


def test_every_campaign_can_be_brought_to_an_end() -> None:
    for state in CampaignState:
        reachable, todo = {state}, [state]
        while todo:
            here = todo.pop()
            for (source, _), target in CAMPAIGN_TABLE.items():
                if source is here and target not in reachable:
                    reachable.add(target)
                    todo.append(target)
        assert CampaignState.ARCHIVED in reachable


def test_a_campaign_remembers_when_it_first_started_and_when_it_ended() -> None:
    running = advance_campaign(CAMPAIGN, CampaignEvent.START, now=10.0, reason="started")
    paused = advance_campaign(running, CampaignEvent.PAUSE, now=11.0, reason="paused")
    resumed = advance_campaign(paused, CampaignEvent.RESUME, now=12.0, reason="resumed")
    done = advance_campaign(resumed, CampaignEvent.COMPLETE, now=13.0, reason="all-done")
    archived = advance_campaign(done, CampaignEvent.ARCHIVE, now=99.0, reason="archived")
    assert (archived.started_at, archived.ended_at) == (10.0, 13.0)
    assert done.state in ENDED


def test_who_approved_is_kept() -> None:
    waiting = advance_campaign(CAMPAIGN, CampaignEvent.SUBMIT, now=1.0, reason="submitted")
    approved = advance_campaign(waiting, CampaignEvent.APPROVE, now=2.0, reason="approved", by="eve")
    assert approved.approved_by == "eve"
    assert waiting.approved_by == ""


def test_an_offer_begins_an_attempt_and_a_retry_forgets_its_job() -> None:
    offered = advance_deployment(DEPLOYMENT, DeploymentEvent.OFFER, now=5.0, reason="offered")
    assert (offered.attempt, offered.started_at) == (3, 5.0)
    again = advance_deployment(offered, DeploymentEvent.RETRY, now=6.0, reason="timeout", retry_at=60.0)
    assert (again.job, again.retry_at, again.attempt, again.ended_at) == ("", 60.0, 3, None)
    second = advance_deployment(again, DeploymentEvent.OFFER, now=60.0, reason="offered")
    assert (second.attempt, second.started_at, second.retry_at) == (4, 5.0, None)


def test_a_postponement_is_no_attempt() -> None:
    waits = advance_deployment(
        replace(DEPLOYMENT, attempt=0),
        DeploymentEvent.POSTPONE,
        now=5.0,
        reason="not-registered",
        retry_at=9.0,
    )
    assert (waits.attempt, waits.started_at, waits.retry_at) == (0, None, 9.0)
