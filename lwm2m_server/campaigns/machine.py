"""The two state machines as tables: the life of a campaign, and of a deployment in it.

What is not in a table is refused. `succeeded` has one way in: from `confirming`, on evidence.
"""

from dataclasses import replace
from enum import StrEnum
from typing import Final

from lwm2m_server.campaigns.reasons import sentence
from lwm2m_server.campaigns.records import (
    ENDED,
    Campaign,
    CampaignState,
    Deployment,
    DeploymentState,
)
from lwm2m_server.errors import Conflict


class CampaignEvent(StrEnum):
    """What may happen to a campaign."""

    SUBMIT = "submit"
    APPROVE = "approve"
    REFUSE = "refuse"
    SCHEDULE = "schedule"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    COMPLETE = "complete"
    HALT = "halt"
    ABORT = "abort"
    ARCHIVE = "archive"


class DeploymentEvent(StrEnum):
    """What may happen to a deployment."""

    OFFER = "offer"
    DOWNLOAD = "download"
    DOWNLOADED = "downloaded"
    INSTALL = "install"
    CONFIRM = "confirm"
    SUCCEED = "succeed"
    RETRY = "retry"
    FAIL = "fail"
    REJECT = "reject"
    SKIP = "skip"
    CANCEL = "cancel"
    POSTPONE = "postpone"
    DEFER = "defer"


_C, _E = CampaignState, CampaignEvent
CAMPAIGN_TABLE: Final[dict[tuple[CampaignState, CampaignEvent], CampaignState]] = {
    (_C.DRAFT, _E.SUBMIT): _C.AWAITING_APPROVAL,
    (_C.DRAFT, _E.SCHEDULE): _C.SCHEDULED,
    (_C.DRAFT, _E.START): _C.RUNNING,
    (_C.DRAFT, _E.ABORT): _C.ABORTED,
    (_C.AWAITING_APPROVAL, _E.APPROVE): _C.SCHEDULED,
    (_C.AWAITING_APPROVAL, _E.REFUSE): _C.DRAFT,
    (_C.AWAITING_APPROVAL, _E.ABORT): _C.ABORTED,
    (_C.SCHEDULED, _E.START): _C.RUNNING,
    (_C.SCHEDULED, _E.ABORT): _C.ABORTED,
    (_C.RUNNING, _E.PAUSE): _C.PAUSED,
    (_C.RUNNING, _E.COMPLETE): _C.COMPLETED,
    (_C.RUNNING, _E.HALT): _C.HALTED,
    (_C.RUNNING, _E.ABORT): _C.ABORTED,
    (_C.PAUSED, _E.RESUME): _C.RUNNING,
    (_C.PAUSED, _E.HALT): _C.HALTED,
    (_C.PAUSED, _E.ABORT): _C.ABORTED,
    (_C.COMPLETED, _E.ARCHIVE): _C.ARCHIVED,
    (_C.HALTED, _E.ARCHIVE): _C.ARCHIVED,
    (_C.ABORTED, _E.ARCHIVE): _C.ARCHIVED,
}

_D, _V = DeploymentState, DeploymentEvent
DEPLOYMENT_TABLE: Final[dict[tuple[DeploymentState, DeploymentEvent], DeploymentState]] = {
    (_D.PENDING, _V.OFFER): _D.OFFERED,
    (_D.PENDING, _V.REJECT): _D.REJECTED,
    (_D.PENDING, _V.SKIP): _D.SKIPPED,
    (_D.PENDING, _V.FAIL): _D.FAILED,
    (_D.PENDING, _V.CANCEL): _D.CANCELLED,
    (_D.PENDING, _V.POSTPONE): _D.PENDING,  # not now: the device is away, or another update holds it
    (_D.OFFERED, _V.DOWNLOAD): _D.DOWNLOADING,
    # Notifications get lost: a device may be seen first when it is already further on.
    (_D.OFFERED, _V.DOWNLOADED): _D.DOWNLOADED,
    (_D.OFFERED, _V.INSTALL): _D.INSTALLING,
    (_D.OFFERED, _V.CONFIRM): _D.CONFIRMING,
    (_D.OFFERED, _V.RETRY): _D.PENDING,
    (_D.OFFERED, _V.FAIL): _D.FAILED,
    (_D.OFFERED, _V.REJECT): _D.REJECTED,
    (_D.OFFERED, _V.SKIP): _D.SKIPPED,
    (_D.OFFERED, _V.CANCEL): _D.CANCELLED,
    (_D.DOWNLOADING, _V.DOWNLOAD): _D.DOWNLOADING,  # further bytes
    (_D.DOWNLOADING, _V.DOWNLOADED): _D.DOWNLOADED,
    (_D.DOWNLOADING, _V.INSTALL): _D.INSTALLING,
    (_D.DOWNLOADING, _V.CONFIRM): _D.CONFIRMING,
    (_D.DOWNLOADING, _V.RETRY): _D.PENDING,
    (_D.DOWNLOADING, _V.FAIL): _D.FAILED,
    (_D.DOWNLOADING, _V.REJECT): _D.REJECTED,
    (_D.DOWNLOADING, _V.CANCEL): _D.CANCELLED,
    (_D.DOWNLOADED, _V.INSTALL): _D.INSTALLING,
    (_D.DOWNLOADED, _V.CONFIRM): _D.CONFIRMING,
    (_D.DOWNLOADED, _V.RETRY): _D.PENDING,
    (_D.DOWNLOADED, _V.FAIL): _D.FAILED,
    (_D.DOWNLOADED, _V.REJECT): _D.REJECTED,
    (_D.DOWNLOADED, _V.CANCEL): _D.CANCELLED,
    # The device has the package and its application puts the installation off, also after it was ordered.
    (_D.OFFERED, _V.DEFER): _D.DOWNLOADED,
    (_D.DOWNLOADING, _V.DEFER): _D.DOWNLOADED,
    (_D.DOWNLOADED, _V.DEFER): _D.DOWNLOADED,
    (_D.INSTALLING, _V.DEFER): _D.DOWNLOADED,
    (_D.CONFIRMING, _V.DEFER): _D.DOWNLOADED,
    # Whoever wants to cancel from here on must await the outcome; only the device itself can still say so.
    (_D.INSTALLING, _V.CONFIRM): _D.CONFIRMING,
    (_D.INSTALLING, _V.RETRY): _D.PENDING,
    (_D.INSTALLING, _V.FAIL): _D.FAILED,
    (_D.INSTALLING, _V.REJECT): _D.REJECTED,
    (_D.INSTALLING, _V.CANCEL): _D.CANCELLED,
    (_D.CONFIRMING, _V.SUCCEED): _D.SUCCEEDED,
    (_D.CONFIRMING, _V.RETRY): _D.PENDING,
    (_D.CONFIRMING, _V.FAIL): _D.FAILED,
    (_D.CONFIRMING, _V.REJECT): _D.REJECTED,
    (_D.CONFIRMING, _V.CANCEL): _D.CANCELLED,
}


def may(campaign: Campaign, event: CampaignEvent) -> bool:
    """Return whether `event` fits the campaign's state."""
    return (campaign.state, event) in CAMPAIGN_TABLE


def advance_campaign(
    campaign: Campaign, event: CampaignEvent, *, now: float, reason: str, text: str = "", by: str = ""
) -> Campaign:
    """Return the campaign after `event`; raise `Conflict` where the table has no such transition."""
    state = CAMPAIGN_TABLE.get((campaign.state, event))
    if state is None:
        fits = sorted(str(known) for at, known in CAMPAIGN_TABLE if at is campaign.state)
        raise Conflict(
            f"Campaign '{campaign.name}' is {campaign.state.replace('_', ' ')}; '{event}' does not fit.",
            code="wrong-state",
            field="state",
            hint=f"What fits now: {', '.join(fits)}." if fits else "Nothing can be done with it any more.",
        )
    return replace(
        campaign,
        state=state,
        reason=reason,
        text=text or sentence(reason),
        updated_at=now,
        started_at=now
        if state is CampaignState.RUNNING and campaign.started_at is None
        else campaign.started_at,
        ended_at=now if state in ENDED and campaign.ended_at is None else campaign.ended_at,
        approved_by=by if event is CampaignEvent.APPROVE else campaign.approved_by,
        revision=campaign.revision + 1,
    )


def advance_deployment(
    deployment: Deployment,
    event: DeploymentEvent,
    *,
    now: float,
    reason: str,
    text: str = "",
    retry_at: float | None = None,
) -> Deployment:
    """Return the deployment after `event`; raise `Conflict` where the table has no such transition.

    An offer begins an attempt; a retry forgets the attempt's job. A retry and a postponement wait until
    `retry_at`.
    """
    state = DEPLOYMENT_TABLE.get((deployment.state, event))
    if state is None:
        raise Conflict(
            f"Device '{deployment.endpoint}' is {deployment.state} in this campaign; '{event}' does not fit.",
            code="wrong-state",
            field="state",
        )
    after = replace(
        deployment,
        state=state,
        reason=reason,
        text=text or sentence(reason),
        updated_at=now,
        retry_at=retry_at if event in (DeploymentEvent.RETRY, DeploymentEvent.POSTPONE) else None,
        revision=deployment.revision + 1,
    )
    if event is DeploymentEvent.OFFER:
        return replace(after, attempt=deployment.attempt + 1, started_at=deployment.started_at or now)
    if event is DeploymentEvent.RETRY:
        return replace(after, job="")
    if after.final:
        return replace(after, job="", ended_at=now)
    return after
