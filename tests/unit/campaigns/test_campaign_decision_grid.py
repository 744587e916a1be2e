"""What holds for every decision, whatever the state, the counts, the limit and the rule."""

from hypothesis import given
from hypothesis import strategies as st

from lwm2m_server.campaigns.decide import (
    Action,
    BackOff,
    Begin,
    CancelRest,
    Complete,
    Halt,
    Snapshot,
    Start,
    decide,
    retry_delay,
)
from lwm2m_server.campaigns.machine import CampaignEvent, may
from lwm2m_server.campaigns.records import ENDED, Campaign, CampaignState
from lwm2m_server.campaigns.statistics import Totals

small = st.integers(0, 4) | st.integers(0, 10**6)
stops = st.sampled_from(
    ["never", "failures > 0", "failures > 3", "failures > 20 % after 10", "", "failures > ?", "sometimes"]
)
UNREADABLE = {"", "failures > ?", "sometimes"}


@st.composite
def totals(draw: st.DrawFn) -> Totals:
    counts = [draw(small) for _ in range(7)]
    return Totals(sum(counts), *counts)


campaigns = st.builds(
    Campaign,
    id=st.just("c"),
    name=st.just("C"),
    manifest_id=st.just("m"),
    created_at=st.just(0.0),
    updated_at=st.just(0.0),
    state=st.sampled_from(CampaignState),
    limit=st.integers(1, 50),
    stop=stops,
    start_at=st.none() | st.floats(0, 100),
    snapshot_done=st.booleans(),
)
NEEDS = {Start: CampaignEvent.START, Complete: CampaignEvent.COMPLETE, Halt: CampaignEvent.HALT}


def actions(campaign: Campaign, counts: Totals, now: float = 50.0) -> tuple[Action, ...]:
    return decide(campaign, counts, now)


@given(campaigns, totals())
def test_never_more_devices_at_once_than_the_limit(campaign: Campaign, counts: Totals) -> None:
    for action in actions(campaign, counts):
        if isinstance(action, Begin):
            assert 0 < action.count <= counts.pending
            assert counts.active + action.count <= campaign.limit


@given(campaigns, totals())
def test_devices_begin_only_in_a_running_campaign_that_has_its_targets(
    campaign: Campaign, counts: Totals
) -> None:
    if any(isinstance(action, Begin) for action in actions(campaign, counts)):
        assert campaign.state is CampaignState.RUNNING
        assert campaign.snapshot_done


@given(campaigns, totals())
def test_a_campaign_completes_only_when_nothing_is_left(campaign: Campaign, counts: Totals) -> None:
    if Complete() in actions(campaign, counts):
        assert counts.pending == counts.active == 0
        assert campaign.snapshot_done


@given(campaigns, totals())
def test_a_rule_that_cant_be_read_lets_nothing_go_on(campaign: Campaign, counts: Totals) -> None:
    if campaign.stop not in UNREADABLE:
        return
    found = actions(campaign, counts)
    assert not any(isinstance(action, Begin | Snapshot | Complete) for action in found)
    if campaign.state in (CampaignState.RUNNING, CampaignState.PAUSED):
        assert [type(action) for action in found] == [Halt]


@given(campaigns, totals())
def test_what_is_decided_fits_the_state(campaign: Campaign, counts: Totals) -> None:
    for action in actions(campaign, counts):
        if type(action) in NEEDS:
            assert may(campaign, NEEDS[type(action)])
        if isinstance(action, CancelRest):
            assert campaign.state in ENDED
            assert counts.pending + counts.active


@given(campaigns, totals())
def test_the_same_is_decided_twice(campaign: Campaign, counts: Totals) -> None:
    assert actions(campaign, counts) == actions(campaign, counts)


@given(campaigns, totals())
def test_a_running_campaign_is_never_stuck(campaign: Campaign, counts: Totals) -> None:
    """Nothing to do means that devices are under way, as many as may be, or that none is left to begin."""
    if campaign.state is not CampaignState.RUNNING or actions(campaign, counts):
        return
    assert counts.active > 0
    assert counts.active >= campaign.limit or counts.pending == 0


back_offs = st.builds(
    BackOff, st.floats(0.1, 1e6), st.floats(1.0, 100.0), st.floats(0.1, 1e7), st.floats(0.0, 1.0)
)


@given(
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    back_offs,
    st.floats(0.0, 1.0, exclude_max=True),
    st.floats(0.0, 1e6),
)
def test_a_delay_stays_in_its_bounds(
    attempt: int, retries: int, back_off: BackOff, chance: float, least: float
) -> None:
    delay = retry_delay(attempt, retries, back_off, chance, least)
    if attempt > retries:
        assert delay is None
    else:
        assert delay is not None
        most = max(least, back_off.maximum) * (1.0 + back_off.jitter)
        assert least <= delay <= most * 1.000_001
        assert delay >= min(back_off.initial, back_off.maximum)
