"""Campaigns as operators see them: made and edited as drafts, started, paused, aborted, looked at.

Starting, pausing and so on are idempotent: what is already so stays so, and the campaign is returned
unchanged. The work itself is the runner's (`services.runner`); it is only woken here.
"""

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from lwm2m_server.campaigns.machine import CampaignEvent, advance_campaign
from lwm2m_server.campaigns.records import (
    DEFAULT_LIMIT,
    DEFAULT_RETRIES,
    DEFAULT_STOP,
    EDITABLE,
    ENDED,
    MAX_DEFER,
    Campaign,
    CampaignState,
    Deployment,
    DeploymentState,
    Severity,
)
from lwm2m_server.campaigns.statistics import Statistics, tally
from lwm2m_server.campaigns.stop import parse_stop
from lwm2m_server.clock import Clock
from lwm2m_server.errors import Conflict, Forbidden, InvalidInput, NotFound
from lwm2m_server.services.directory import MAX_PAGE, parse_filter
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import Event, JsonValue, NewEvent, Page

_MAX_LIMIT = 1_000_000
_MAX_RETRIES = 100
_MAX_NAME = 100
_MAX_DESCRIPTION = 2000
_TRIES = 8  # of a compare-and-set that meets the runner's own


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignDraft:
    """What an operator says of a new campaign; None takes the server's default."""

    name: str
    manifest_id: str
    filter: str = ""
    description: str = ""
    limit: int | None = None
    retries: int | None = None
    stop: str | None = None
    approval: bool = False
    start_at: float | None = None
    severity: Severity | None = None
    max_defer: int | None = None


_EDITS = frozenset(field.name for field in fields(CampaignDraft))


class CampaignService:
    """Campaigns and their deployments."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        wake: Callable[[], None],
        default_limit: int = DEFAULT_LIMIT,
        default_retries: int = DEFAULT_RETRIES,
    ) -> None:
        """`wake` makes the runner look at the campaigns at once."""
        self._store = store
        self._clock = clock
        self._wake = wake
        self._default_limit = default_limit
        self._default_retries = default_retries

    async def create(self, draft: CampaignDraft, *, actor: str) -> Campaign:
        """Make a draft. Raises `InvalidInput` naming the field, `Conflict` when the name is taken."""
        now = self._clock.now()
        campaign = Campaign(
            id=secrets.token_hex(8),
            name=draft.name.strip(),
            manifest_id=draft.manifest_id,
            created_at=now,
            updated_at=now,
            filter=draft.filter.strip(),
            description=draft.description.strip(),
            reason="created",
            limit=self._default_limit if draft.limit is None else draft.limit,
            retries=self._default_retries if draft.retries is None else draft.retries,
            stop=DEFAULT_STOP if draft.stop is None else draft.stop.strip(),
            approval=draft.approval,
            start_at=draft.start_at,
            severity=draft.severity,
            max_defer=draft.max_defer,
            created_by=actor,
        )
        await self._check(campaign)
        event = NewEvent(
            kind="campaign.created",
            at=now,
            campaign_id=campaign.id,
            data={"name": campaign.name, "by": actor},
        )
        await self._store.campaigns.add(campaign, events=[event])
        return campaign

    async def preview(self, filter: str) -> int:  # noqa: A002
        """Count the devices that a filter matches now."""
        tree = await parse_filter(self._store, filter)
        return await self._store.devices.count(filter=tree, now=self._clock.now())

    async def edit(
        self,
        campaign_id: str,
        changes: Mapping[str, object],
        *,
        expected_revision: int | None = None,
        actor: str,
    ) -> Campaign:
        """Change a draft; any other state, or a stale revision, is a `Conflict`."""
        campaign = await self.get(campaign_id)
        if expected_revision is not None and expected_revision != campaign.revision:
            raise _stale(campaign)
        if campaign.state not in EDITABLE:
            raise Conflict(
                f"Campaign '{campaign.name}' is {campaign.state.replace('_', ' ')} and can't be changed any more.",
                code="immutable",
                field="state",
                hint="Abort it and create a new one with what should be different.",
            )
        unknown = sorted(changes.keys() - _EDITS)
        if unknown:
            raise InvalidInput(f"A campaign has no field '{unknown[0]}' to change.", field=unknown[0])
        now = self._clock.now()
        new = replace(campaign, reason="edited", updated_at=now, revision=campaign.revision + 1)
        # As in a new draft, blanks around texts mean nothing.
        stripped = {key: value.strip() if isinstance(value, str) else value for key, value in changes.items()}
        new = replace(new, **stripped)  # type: ignore[arg-type]  # the faces check types, _check the rest
        await self._check(new)
        fields: list[JsonValue] = [*sorted(changes)]
        data: dict[str, JsonValue] = {"fields": fields, "by": actor}
        event = NewEvent(kind="campaign.edited", at=now, campaign_id=campaign.id, data=data)
        if not await self._store.campaigns.change(campaign, new, events=[event]):
            raise _stale(campaign)
        return new

    async def get(self, campaign_id: str) -> Campaign:
        """Return a campaign by its id or its name; raise `NotFound`."""
        campaign = await self._store.campaigns.get(campaign_id) or await self._store.campaigns.find(
            campaign_id
        )
        if campaign is None:
            raise NotFound(
                f"There is no campaign '{campaign_id}'.",
                field="campaign",
                hint="See what is there: lwm2m campaigns list.",
            )
        return campaign

    async def list(
        self,
        *,
        state: CampaignState | None = None,
        archived: bool = False,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Campaign]:
        """Return campaigns, those put away only when asked for."""
        states: tuple[CampaignState, ...] | None = (state,) if state is not None else None
        if states is None and not archived:
            states = tuple(known for known in CampaignState if known is not CampaignState.ARCHIVED)
        limit = max(1, min(limit, MAX_PAGE))
        return await self._store.campaigns.page(states=states, after=after, limit=limit)

    async def start(self, campaign_id: str, *, actor: str) -> Campaign:
        """Start a draft: now, at its time, or after approval, whatever it says. A scheduled one starts
        now.
        """
        campaign = await self.get(campaign_id)
        if campaign.started_at is not None or campaign.state is CampaignState.AWAITING_APPROVAL:
            if campaign.state in (CampaignState.RUNNING, CampaignState.AWAITING_APPROVAL):
                return campaign
            return await self._move(campaign, CampaignEvent.START, "started", actor)
        if campaign.state is CampaignState.DRAFT:
            await self._check(campaign)
            if campaign.approval:
                return await self._move(campaign, CampaignEvent.SUBMIT, "submitted", actor)
            if campaign.start_at is not None and campaign.start_at > self._clock.now():
                return await self._move(campaign, CampaignEvent.SCHEDULE, "scheduled", actor)
        return await self._move(campaign, CampaignEvent.START, "started", actor)

    async def approve(self, campaign_id: str, *, actor: str) -> Campaign:
        """Approve a campaign that waits for it; whoever made it can't (four eyes)."""
        campaign = await self.get(campaign_id)
        if campaign.state is CampaignState.AWAITING_APPROVAL and actor == campaign.created_by:
            raise Forbidden(
                f"Campaign '{campaign.name}' was made by '{actor}'; someone else must approve it.",
                code="four-eyes",
            )
        if campaign.approved_by and campaign.state in (CampaignState.SCHEDULED, CampaignState.RUNNING):
            return campaign
        return await self._move(campaign, CampaignEvent.APPROVE, "approved", actor)

    async def refuse(self, campaign_id: str, *, actor: str, text: str = "") -> Campaign:
        """Refuse approval: the campaign is a draft again."""
        campaign = await self.get(campaign_id)
        if campaign.state is CampaignState.DRAFT and campaign.reason == "approval-refused":
            return campaign
        return await self._move(campaign, CampaignEvent.REFUSE, "approval-refused", actor, text)

    async def pause(self, campaign_id: str, *, actor: str) -> Campaign:
        """Begin no further devices; those under way go on."""
        return await self._to(campaign_id, CampaignState.PAUSED, CampaignEvent.PAUSE, "paused", actor)

    async def resume(self, campaign_id: str, *, actor: str) -> Campaign:
        """Go on after a pause."""
        return await self._to(campaign_id, CampaignState.RUNNING, CampaignEvent.RESUME, "resumed", actor)

    async def abort(self, campaign_id: str, *, actor: str) -> Campaign:
        """End a campaign: what waits or downloads is cancelled, what installs is awaited and counted."""
        return await self._to(campaign_id, CampaignState.ABORTED, CampaignEvent.ABORT, "aborted", actor)

    async def archive(self, campaign_id: str, *, actor: str) -> Campaign:
        """Put an ended campaign away. Raises `Conflict` while some of its devices are still being updated."""
        campaign = await self.get(campaign_id)
        totals = tally(await self._store.deployments.statistics(campaign.id)).totals
        left = totals.pending + totals.active
        if campaign.state in ENDED and left:
            raise Conflict(
                f"{left} {'device' if left == 1 else 'devices'} of campaign '{campaign.name}' can't be left alone yet.",
                code="winding-down",
                field="state",
                hint="Wait for their outcome: what installs can't be taken back.",
            )
        return await self._to(campaign_id, CampaignState.ARCHIVED, CampaignEvent.ARCHIVE, "archived", actor)

    async def delete(self, campaign_id: str, *, actor: str) -> None:
        """Delete a draft; anything that ever started is history and stays (`Conflict`)."""
        campaign = await self.get(campaign_id)
        if campaign.state not in EDITABLE:
            raise Conflict(
                f"Campaign '{campaign.name}' is not a draft.",
                code="immutable",
                field="state",
                hint="Archive it when it has ended.",
            )
        data: dict[str, JsonValue] = {"name": campaign.name, "by": actor}
        event = NewEvent(kind="campaign.deleted", at=self._clock.now(), campaign_id=campaign.id, data=data)
        if not await self._store.campaigns.delete(campaign, events=[event]):
            raise _stale(campaign)

    async def statistics(self, campaign_id: str) -> Statistics:
        """Count the campaign's devices by state and reason."""
        campaign = await self.get(campaign_id)
        return tally(await self._store.deployments.statistics(campaign.id))

    async def deployments(
        self,
        campaign_id: str,
        *,
        state: DeploymentState | None = None,
        reason: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Deployment]:
        """Return deployments by endpoint, of this state and reason only when given."""
        campaign = await self.get(campaign_id)
        limit = max(1, min(limit, MAX_PAGE))
        return await self._store.deployments.page(
            campaign.id, state=state, reason=reason, after=after, limit=limit
        )

    async def deployment(self, campaign_id: str, endpoint: str) -> Deployment:
        """Return one device of a campaign; raise `NotFound`."""
        campaign = await self.get(campaign_id)
        deployment = await self._store.deployments.get(campaign.id, endpoint)
        if deployment is None:
            raise NotFound(
                f"Device '{endpoint}' is not part of campaign '{campaign.name}'.", field="endpoint"
            )
        return deployment

    async def history(self, campaign_id: str, endpoint: str, *, limit: int = MAX_PAGE) -> tuple[Event, ...]:
        """Return what happened to one device in a campaign, the oldest first."""
        campaign = await self.get(campaign_id)
        return tuple(
            await self._store.events.after(0, limit=limit, endpoint=endpoint, campaign_id=campaign.id)
        )

    async def _to(
        self, campaign_id: str, state: CampaignState, event: CampaignEvent, reason: str, actor: str
    ) -> Campaign:
        campaign = await self.get(campaign_id)
        return campaign if campaign.state is state else await self._move(campaign, event, reason, actor)

    async def _move(
        self, campaign: Campaign, event: CampaignEvent, reason: str, actor: str, text: str = ""
    ) -> Campaign:
        for _ in range(_TRIES):
            now = self._clock.now()
            new = advance_campaign(campaign, event, now=now, reason=reason, text=text, by=actor)
            if await self._store.campaigns.change(campaign, new, events=[campaign_event(new, actor)]):
                self._wake()
                return new
            campaign = await self.get(campaign.id)
            if campaign.state is new.state:
                return campaign
        raise _stale(campaign)

    async def _check(self, campaign: Campaign) -> None:
        """Raise `InvalidInput` for the first field that is not usable."""
        if not campaign.name or len(campaign.name) > _MAX_NAME or not campaign.name.isprintable():
            raise InvalidInput(f"A campaign's name has 1 to {_MAX_NAME} printable characters.", field="name")
        if len(campaign.description) > _MAX_DESCRIPTION:
            raise InvalidInput(
                f"The description is longer than {_MAX_DESCRIPTION} characters.", field="description"
            )
        _in_range("limit", campaign.limit, 1, _MAX_LIMIT)
        _in_range("retries", campaign.retries, 0, _MAX_RETRIES)
        if campaign.max_defer is not None:
            _in_range("max_defer", campaign.max_defer, 0, MAX_DEFER)
        if campaign.start_at is not None and not math.isfinite(campaign.start_at):
            raise InvalidInput("The start is not a time.", field="start_at")
        parse_stop(campaign.stop)
        await parse_filter(self._store, campaign.filter)
        if await self._store.manifests.get(campaign.manifest_id) is None:
            raise InvalidInput(
                f"There is no manifest '{campaign.manifest_id}'.",
                field="manifest_id",
                hint="Upload it first: lwm2m manifest upload FILE; lwm2m manifest list shows those that are there.",
            )


def campaign_event(campaign: Campaign, actor: str) -> NewEvent:
    """Return the event that goes with a transition of a campaign."""
    data: dict[str, JsonValue] = {
        "name": campaign.name,
        "state": campaign.state.value,
        "reason": campaign.reason,
        "text": campaign.text,
        "by": actor,
    }
    return NewEvent(
        kind=f"campaign.{campaign.state.value}", at=campaign.updated_at, campaign_id=campaign.id, data=data
    )


def _in_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"'{field}' is {value}; it must be from {low} to {high}.", field=field)


def _stale(campaign: Campaign) -> Conflict:
    return Conflict(
        f"Campaign '{campaign.name}' was changed by someone else meanwhile.",
        code="stale",
        field="revision",
        hint="Read it again and repeat the change.",
    )
