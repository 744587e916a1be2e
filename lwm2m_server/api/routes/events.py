"""`/events`: what happens, as it happens (server-sent events)."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import Reader, ServicesOf, event_number
from lwm2m_server.api.problems import problems

router = APIRouter(tags=["events"])


async def _start(
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Goes on after this event, as browsers do")
    ] = None,
    after: Annotated[
        str | None, Query(description="The same, for the first request; 0: from the first")
    ] = None,
) -> int | None:
    header = event_number(last_event_id, "Last-Event-ID")
    return header if header is not None else event_number(after, "after")


async def _campaign(services: ServicesOf, campaign: str | None = None) -> str | None:
    return None if campaign is None else (await services.campaigns.get(campaign)).id


@router.get(
    "/events",
    summary="Follow events",
    response_class=EventSourceResponse,
    responses=problems(404, 422),
)
async def follow(
    services: ServicesOf,
    _: Reader,
    start: Annotated[int | None, Depends(_start)],
    campaign: Annotated[str | None, Depends(_campaign)],
    endpoint: Annotated[str | None, Query(max_length=512, description="Of this device only")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Send events: `event` is the kind, `data` the event as JSON; without a start only what is new."""
    async for event in services.events.stream(after=start, endpoint=endpoint, campaign_id=campaign):
        yield ServerSentEvent(
            raw_data=models.Event.of(event).model_dump_json(), event=event.kind, id=str(event.id)
        )
