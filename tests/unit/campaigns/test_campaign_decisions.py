"""What a campaign does next, from its state, its counts and the time alone."""

from dataclasses import replace

import pytest

from lwm2m_server.campaigns.decide import (
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
from lwm2m_server.campaigns.records import Campaign, CampaignState
from lwm2m_server.campaigns.statistics import Totals

NOTHING = Totals(0, 0, 0, 0, 0, 0, 0, 0)
RUNNING = Campaign(
    id="c",
    name="C",
    manifest_id="m",
    created_at=0.0,
    updated_at=0.0,
    state=CampaignState.RUNNING,
    snapshot_done=True,
    limit=10,
    stop="failures > 2 or failures > 10 % after 20",
)


def totals(**counts: int) -> Totals:
    return replace(NOTHING, **counts, targets=sum(counts.values()))


@pytest.mark.parametrize("state", ["draft", "awaiting_approval", "completed", "archived"])
def test_nothing_happens_by_itself(state: str) -> None:
    assert decide(replace(RUNNING, state=CampaignState(state)), totals(pending=5), 0.0) == ()


def test_a_scheduled_campaign_starts_when_its_time_has_come() -> None:
    campaign = replace(RUNNING, state=CampaignState.SCHEDULED, start_at=100.0)
    assert decide(campaign, NOTHING, 99.9) == ()
    assert decide(campaign, NOTHING, 100.0) == (Start(),)
    assert decide(replace(campaign, start_at=None), NOTHING, 0.0) == (Start(),)


def test_targets_are_copied_before_anything_begins() -> None:
    assert decide(replace(RUNNING, snapshot_done=False), totals(pending=3), 0.0) == (Snapshot(),)


@pytest.mark.parametrize(
    ("pending", "active", "begin"), [(50, 0, 10), (50, 7, 3), (2, 7, 2), (50, 10, None), (50, 12, None)]
)
def test_no_more_devices_at_once_than_the_limit(pending: int, active: int, begin: int | None) -> None:
    actions = decide(RUNNING, totals(pending=pending, active=active), 0.0)
    assert actions == (() if begin is None else (Begin(begin),))


def test_it_completes_when_every_device_has_come_to_an_end() -> None:
    done = totals(succeeded=5, failed=1, rejected=2, skipped=1, cancelled=1)
    assert decide(RUNNING, done, 0.0) == (Complete(),)
    assert decide(RUNNING, totals(succeeded=5, active=1), 0.0) == ()
    assert decide(RUNNING, NOTHING, 0.0) == (Complete(),), "a filter that matches nothing is done at once"


def test_a_paused_campaign_begins_nothing_but_still_stops_by_its_rule() -> None:
    paused = replace(RUNNING, state=CampaignState.PAUSED)
    assert decide(paused, totals(pending=5, active=1), 0.0) == ()
    assert decide(paused, totals(succeeded=5), 0.0) == ()
    assert isinstance(decide(paused, totals(pending=5, failed=3), 0.0)[0], Halt)


def test_the_stop_rule_halts_before_anything_else_begins() -> None:
    (action,) = decide(RUNNING, totals(pending=50, failed=3, succeeded=1), 0.0)
    assert isinstance(action, Halt)
    assert action.reason == "stop-rule"
    assert "3 of 4" in action.text


def test_the_stop_rule_looks_at_the_last_device_too() -> None:
    assert isinstance(decide(RUNNING, totals(failed=3), 0.0)[0], Halt)


@pytest.mark.parametrize("rule", ["", "failures > lots", "failures > 5 and", "\x00"])
def test_a_rule_that_cant_be_read_stops_the_campaign(rule: str) -> None:
    (action,) = decide(replace(RUNNING, stop=rule), totals(pending=1), 0.0)
    assert isinstance(action, Halt)
    assert action.reason == "stop-rule-unreadable"


@pytest.mark.parametrize(("state", "why"), [("halted", "halted"), ("aborted", "aborted")])
def test_what_is_left_of_an_ended_campaign_is_cancelled(state: str, why: str) -> None:
    ended = replace(RUNNING, state=CampaignState(state))
    assert decide(ended, totals(pending=1), 0.0) == (CancelRest(why),)
    assert decide(ended, totals(active=1), 0.0) == (CancelRest(why),)
    assert decide(ended, totals(cancelled=1, succeeded=1), 0.0) == ()


BACK_OFF = BackOff(initial=60.0, factor=2.0, maximum=600.0, jitter=0.1)


@pytest.mark.parametrize(
    ("attempt", "delay"), [(1, 60.0), (2, 120.0), (3, 240.0), (4, 480.0), (5, 600.0), (100, 600.0)]
)
def test_back_off_doubles_up_to_the_maximum(attempt: int, delay: float) -> None:
    assert retry_delay(attempt, 100, BACK_OFF, 0.0) == delay


def test_retries_are_counted_beyond_the_first_attempt() -> None:
    assert retry_delay(3, 3, BACK_OFF, 0.0) is not None
    assert retry_delay(4, 3, BACK_OFF, 0.0) is None
    assert retry_delay(1, 0, BACK_OFF, 0.0) is None


def test_chance_spreads_devices_that_failed_together() -> None:
    delays = [retry_delay(1, 3, BACK_OFF, chance / 100) for chance in range(100)]
    assert len(set(delays)) == 100
    assert all(delay is not None and 60.0 <= delay < 66.0 for delay in delays)


def test_the_delay_covers_what_the_reason_asks_for() -> None:
    assert retry_delay(1, 3, BACK_OFF, 0.0, 300.0) == 300.0
    assert retry_delay(1, 3, BACK_OFF, 0.0, 3600.0) == 3600.0, "also above the campaign's own maximum"


def test_a_huge_factor_does_not_overflow() -> None:
    assert retry_delay(10_000, 10_000, BackOff(1e6, 100.0, 1e7), 0.5) == pytest.approx(1.05e7)
