"""`/campaigns`: one update for many devices, and each device in it."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import (
    After,
    Endpoint,
    IfMatch,
    Limit,
    Operator,
    Reader,
    ServicesOf,
    etag,
    event_number,
    expected_revision,
    precondition,
)
from lwm2m_server.api.idempotency import IdempotentRoute, idempotency_key
from lwm2m_server.api.problems import problems
from lwm2m_server.campaigns.records import Campaign, CampaignState, DeploymentState
from lwm2m_server.errors import InvalidInput
from lwm2m_server.services import CampaignService
from lwm2m_server.services.campaigns import CampaignDraft

router = APIRouter(prefix="/campaigns", tags=["campaigns"], route_class=IdempotentRoute)

_NULLABLE = ("start_at", "severity", "max_defer")


def _show(campaign: Campaign, response: Response) -> models.Campaign:
    response.headers["ETag"] = etag(campaign.revision)
    return models.Campaign.of(campaign)


@router.post(
    "",
    status_code=201,
    summary="Create a campaign",
    responses=problems(409, 413, 422),
    dependencies=[Depends(idempotency_key)],
)
async def create_campaign(
    services: ServicesOf, who: Operator, body: models.CampaignBody, response: Response
) -> models.Campaign:
    """Make a draft. Filter and stop rule are checked now; nothing is sent before the start."""
    draft = CampaignDraft(
        **body.model_dump(exclude={"start_at"}),
        start_at=body.start_at.timestamp() if body.start_at is not None else None,
    )
    campaign = await services.campaigns.create(draft, actor=who.name)
    response.headers["Location"] = f"/api/v1/campaigns/{campaign.id}"
    return _show(campaign, response)


@router.get("", summary="List campaigns", responses=problems(422))
async def list_campaigns(
    *,
    services: ServicesOf,
    _: Reader,
    state: CampaignState | None = None,
    archived: Annotated[bool, Query(description="Also those put away")] = False,
    after: After = None,
    limit: Limit = 100,
) -> models.Page[models.Campaign]:
    """List campaigns by id."""
    page = await services.campaigns.list(state=state, archived=archived, after=after, limit=limit)
    return models.Page(items=[models.Campaign.of(campaign) for campaign in page.items], next=page.next)


@router.get("/{campaign_id}", summary="Show a campaign", responses=problems(404, 422))
async def get_campaign(
    services: ServicesOf, _: Reader, campaign_id: str, response: Response
) -> models.Campaign:
    """Show a campaign by its id or its name."""
    return _show(await services.campaigns.get(campaign_id), response)


@router.patch("/{campaign_id}", summary="Change a draft", responses=problems(404, 409, 412, 422))
async def edit_campaign(
    *,
    services: ServicesOf,
    who: Operator,
    campaign_id: str,
    body: models.CampaignPatch,
    response: Response,
    if_match: IfMatch = None,
) -> models.Campaign:
    """Change some fields of a draft; a campaign that has started is immutable."""
    changes = body.model_dump(exclude_unset=True)
    for name, value in changes.items():
        if value is None and name not in _NULLABLE:
            raise InvalidInput(f"'{name}' can't be null", field=name, hint="leave it out to keep it as it is")
    if body.start_at is not None:
        changes["start_at"] = body.start_at.timestamp()
    revision = expected_revision(if_match)
    with precondition(revision):
        campaign = await services.campaigns.edit(
            campaign_id, changes, expected_revision=revision, actor=who.name
        )
    return _show(campaign, response)


@router.delete("/{campaign_id}", status_code=204, summary="Delete a draft", responses=problems(404, 409, 422))
async def delete_campaign(services: ServicesOf, who: Operator, campaign_id: str) -> None:
    """Delete a draft; what ever started stays as history and can be archived."""
    await services.campaigns.delete(campaign_id, actor=who.name)


_ACTIONS: dict[str, tuple[str, Callable[[CampaignService], Callable[..., Awaitable[Campaign]]]]] = {
    "start": ("Start now, or at its time, or ask for approval, as the draft says.", lambda s: s.start),
    "approve": ("Approve a campaign that someone else made.", lambda s: s.approve),
    "refuse": ("Refuse approval: the campaign is a draft again.", lambda s: s.refuse),
    "pause": ("Begin no further devices; those under way go on.", lambda s: s.pause),
    "resume": ("Go on after a pause.", lambda s: s.resume),
    "abort": ("End it: what waits or downloads is cancelled, what installs is awaited.", lambda s: s.abort),
    "archive": ("Put an ended campaign away.", lambda s: s.archive),
}


def _add_action(
    name: str, text: str, method: Callable[[CampaignService], Callable[..., Awaitable[Campaign]]]
) -> None:
    async def act(
        services: ServicesOf, who: Operator, campaign_id: str, response: Response
    ) -> models.Campaign:
        return _show(await method(services.campaigns)(campaign_id, actor=who.name), response)

    router.add_api_route(
        f"/{{campaign_id}}/{name}",
        act,
        methods=["POST"],
        operation_id=f"{name}_campaign",
        summary=f"{name.capitalize()} a campaign",
        description=f"{text} Doing it twice changes nothing.",
        responses=problems(404, 409, 422),
    )


for _name, (_text, _method) in _ACTIONS.items():
    _add_action(_name, _text, _method)


@router.get("/{campaign_id}/statistics", summary="Count devices", responses=problems(404, 422))
async def statistics(services: ServicesOf, _: Reader, campaign_id: str) -> models.Statistics:
    """Count devices by state, and by reason within each state; and what deltas saved."""
    campaign = await services.campaigns.get(campaign_id)
    savings = await services.deltas.savings(campaign_id=campaign.id)
    return models.Statistics.of(await services.campaigns.statistics(campaign.id), savings)


@router.get("/{campaign_id}/deployments", summary="List devices of a campaign", responses=problems(404, 422))
async def list_deployments(
    *,
    services: ServicesOf,
    _: Reader,
    campaign_id: str,
    state: DeploymentState | None = None,
    reason: Annotated[str | None, Query(max_length=64, examples=["digest-mismatch"])] = None,
    after: After = None,
    limit: Limit = 100,
) -> models.Page[models.Deployment]:
    """List deployments by endpoint, of one state and reason where given."""
    page = await services.campaigns.deployments(
        campaign_id, state=state, reason=reason, after=after, limit=limit
    )
    return models.Page(items=[models.Deployment.of(deployment) for deployment in page.items], next=page.next)


@router.get(
    "/{campaign_id}/deployments/{endpoint}",
    summary="Show a device of a campaign",
    responses=problems(404, 422),
)
async def get_deployment(
    services: ServicesOf, _: Reader, campaign_id: str, endpoint: Endpoint
) -> models.DeploymentHistory:
    """Tell where it stands, and all that happened to it in this campaign."""
    deployment = await services.campaigns.deployment(campaign_id, endpoint)
    history = await services.campaigns.history(campaign_id, endpoint)
    return models.DeploymentHistory(
        deployment=models.Deployment.of(deployment), events=[models.Event.of(event) for event in history]
    )


@router.get("/{campaign_id}/events", summary="History of a campaign", responses=problems(404, 422))
async def campaign_events(
    services: ServicesOf, _: Reader, campaign_id: str, after: After = None, limit: Limit = 100
) -> models.Page[models.Event]:
    """Tell what happened in a campaign, its devices included, the newest first."""
    before = event_number(after, "after")
    campaign = await services.campaigns.get(campaign_id)
    page = await services.events.recent(before=before, limit=limit, campaign_id=campaign.id)
    return models.Page(items=[models.Event.of(event) for event in page.items], next=page.next)
