"""What should happen in a campaign now: a pure function of the campaign, its counts and the time.

The runner carries the actions out and asks again; run in virtual time the same function makes a forecast.
"""

from dataclasses import dataclass
from typing import Final

from lwm2m_server.campaigns.records import Campaign, CampaignState
from lwm2m_server.campaigns.statistics import Totals
from lwm2m_server.campaigns.stop import parse_stop
from lwm2m_server.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Start:
    """Begin the campaign: its time has come."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Copy the devices that match the filter now into deployments."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin up to `count` pending deployments whose back-off is over."""

    count: int


@dataclass(frozen=True, slots=True)
class Complete:
    """End the campaign: every device has come to an end."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop the campaign by itself."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class CancelRest:
    """Cancel what has not come to the point of no return: the campaign has ended early."""

    reason: str


_MAX_STEPS: Final = 64  # beyond it the power would only overflow; the maximum holds long before

Action = Start | Snapshot | Begin | Complete | Halt | CancelRest


def decide(campaign: Campaign, totals: Totals, now: float) -> tuple[Action, ...]:
    """Return what to do, in order. Nothing means: ask again when counts or time have changed."""
    if campaign.state is CampaignState.SCHEDULED:
        return (Start(),) if campaign.start_at is None or now >= campaign.start_at else ()
    if campaign.state in (CampaignState.HALTED, CampaignState.ABORTED):
        why = "halted" if campaign.state is CampaignState.HALTED else "aborted"
        return (CancelRest(why),) if totals.pending or totals.active else ()
    if campaign.state not in (CampaignState.RUNNING, CampaignState.PAUSED):
        return ()
    halt = _halt(campaign, totals)
    if halt is not None:
        return (halt,)
    if campaign.state is CampaignState.PAUSED:
        return ()
    if not campaign.snapshot_done:
        return (Snapshot(),)
    if totals.pending == 0 and totals.active == 0:
        return (Complete(),)
    free = min(campaign.limit - totals.active, totals.pending)
    return (Begin(free),) if free > 0 else ()


def _halt(campaign: Campaign, totals: Totals) -> Halt | None:
    try:
        clause = parse_stop(campaign.stop).met(totals)
    except InvalidInput as error:
        return Halt("stop-rule-unreadable", error.message)
    if clause is None:
        return None
    outcomes = totals.succeeded + totals.failed
    return Halt("stop-rule", f"{totals.failed} of {outcomes} outcomes are failures: {clause}")


@dataclass(frozen=True, slots=True)
class BackOff:
    """Seconds before the second attempt, growth, the most of it, and the share that varies at random."""

    initial: float = 60.0
    factor: float = 2.0
    maximum: float = 3600.0
    jitter: float = 0.1


def retry_delay(
    attempt: int, retries: int, back_off: BackOff, chance: float, least: float = 0.0
) -> float | None:
    """Return seconds until the next attempt, None when there is none.

    `attempt` counts those made (1 after the first), `retries` those allowed beyond the first. `chance` in [0, 1)
    spreads devices that failed together, so that they do not come back together. The delay is not below `least`,
    what the reason itself asks for.
    """
    if attempt > retries:
        return None
    steps = min(max(attempt, 1) - 1, _MAX_STEPS)
    delay = max(least, min(back_off.maximum, back_off.initial * back_off.factor**steps))
    return delay * (1.0 + back_off.jitter * chance)
