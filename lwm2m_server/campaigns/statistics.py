"""Statistics of a campaign: devices by state and by reason; the parts always add up to the whole."""

from collections.abc import Iterable
from dataclasses import dataclass

from lwm2m_server.campaigns.records import ACTIVE, DeploymentState, StateCount


@dataclass(frozen=True, slots=True)
class Totals:
    """`targets = pending + active + succeeded + failed + rejected + skipped + cancelled`, always."""

    targets: int
    pending: int
    active: int
    succeeded: int
    failed: int
    rejected: int
    skipped: int
    cancelled: int

    @property
    def done(self) -> int:
        """Devices that came to an end, whichever."""
        return self.succeeded + self.failed + self.rejected + self.skipped + self.cancelled


@dataclass(frozen=True, slots=True)
class Statistics:
    """Totals, every state (with 0 where nothing is), and reasons of each state, most frequent first."""

    totals: Totals
    states: dict[DeploymentState, int]
    reasons: dict[DeploymentState, dict[str, int]]


def tally(counts: Iterable[StateCount]) -> Statistics:
    """Add up counts by (state, reason)."""
    states = dict.fromkeys(DeploymentState, 0)
    found: dict[DeploymentState, dict[str, int]] = {}
    for entry in counts:
        states[entry.state] += entry.count
        by_reason = found.setdefault(entry.state, {})
        by_reason[entry.reason] = by_reason.get(entry.reason, 0) + entry.count
    reasons = {
        state: dict(sorted(found[state].items(), key=lambda item: (-item[1], item[0])))
        for state in DeploymentState
        if state in found
    }
    return Statistics(
        Totals(
            targets=sum(states.values()),
            pending=states[DeploymentState.PENDING],
            active=sum(states[state] for state in ACTIVE),
            succeeded=states[DeploymentState.SUCCEEDED],
            failed=states[DeploymentState.FAILED],
            rejected=states[DeploymentState.REJECTED],
            skipped=states[DeploymentState.SKIPPED],
            cancelled=states[DeploymentState.CANCELLED],
        ),
        states,
        reasons,
    )
