"""Carries out what `campaigns.decide` wants: snapshots, begins, completes, halts, cancels.

One pass looks at every campaign that may need something. It is woken by whatever may change the answer (an operator,
a device's registration, the end of an update) and by a slow clock for what only time changes.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from lwm2m_server.campaigns.decide import Action, Begin, CancelRest, Complete, Halt, Snapshot, Start, decide
from lwm2m_server.campaigns.machine import (
    CampaignEvent,
    DeploymentEvent,
    advance_campaign,
    advance_deployment,
)
from lwm2m_server.campaigns.records import FINAL, Campaign, CampaignState, Deployment, DeploymentState
from lwm2m_server.campaigns.statistics import Totals, tally
from lwm2m_server.clock import Clock
from lwm2m_server.devices.records import Device
from lwm2m_server.errors import InvalidInput, NotFound
from lwm2m_server.services.background import Pump, Timers, report
from lwm2m_server.services.campaigns import campaign_event
from lwm2m_server.services.checks import Verdict, check, is_known, still_stands
from lwm2m_server.services.directory import parse_filter
from lwm2m_server.services.update_actor import deployment_event
from lwm2m_server.services.updater import Updater
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import StoredManifest
from lwm2m_server.transport import TransportError

_LIVE = (
    CampaignState.SCHEDULED,
    CampaignState.RUNNING,
    CampaignState.PAUSED,
    CampaignState.HALTED,
    CampaignState.ABORTED,
)
_CHUNK = 500
_AWAY = (
    3600.0  # seconds until a device that is not registered is looked at again; its Register does so at once
)
_HELD = 10.0  # the same for a device that another campaign updates, or whose inventory is being read
_INQUIRIES = 3  # times that a device is asked what it is before its deployment fails
_REST = 10.0  # times as long as a look at a campaign took, until the next one
_ROUNDS = 100  # decisions on one campaign in one pass; the next pass goes on
_ACTOR = "server"
# Reasons for which a deployment waits for its device, which may come at any moment.
_HOLDS = frozenset({"not-registered", "inventory", "other-update"})

T = TypeVar("T")


class Runner:
    """Drives all campaigns. Safe to run again after any crash: each step is a compare-and-set of its own."""

    def __init__(
        self,
        store: Store,
        updater: Updater,
        clock: Clock,
        timers: Timers,
        *,
        ask: Callable[[Sequence[str]], None],
        asking: Callable[[str], bool],
        interval: float = 1.0,
    ) -> None:
        """`ask` has the facts of devices read, `asking` says whether a device's are being read just now."""
        self._store = store
        self._updater = updater
        self._clock = clock
        self._ask = ask
        self._asking = asking
        self._waiting: set[str] = set()
        self._unanswered: Counter[str] = Counter()
        self._settled: set[str] = set()
        self._rested: dict[str, float] = {}
        self._pump = Pump("campaigns", self._work, timers=timers, interval=interval)

    async def start(self) -> None:
        """Begin to look at the campaigns."""
        async for campaign in self._campaigns():
            async for deployment in self._pending(campaign.id):
                if deployment.reason in _HOLDS:
                    self._waiting.add(deployment.endpoint)
        self._pump.start()
        self._pump.wake()

    def wake(self) -> None:
        """Look at the campaigns now."""
        self._pump.wake()

    async def close(self) -> None:
        """Stop looking; updates under way are the updater's."""
        await self._pump.close()

    def awaits(self, endpoint: str) -> bool:
        """Say whether a deployment waits for this device to come."""
        return endpoint in self._waiting

    async def arrived(self, endpoint: str) -> None:
        """Let deployments that waited for this device go on: it has registered, or its facts are known."""
        if endpoint not in self._waiting:
            return
        self._waiting.discard(endpoint)
        now = self._clock.now()
        for deployment in await self._store.deployments.of(endpoint):
            waits = deployment.retry_at is not None and deployment.retry_at > now
            # A back-off after a failed attempt is not cut short.
            if deployment.state is DeploymentState.PENDING and waits and deployment.reason in _HOLDS:
                new = advance_deployment(
                    deployment, DeploymentEvent.POSTPONE, now=now, reason=deployment.reason, retry_at=now
                )
                await self._store.deployments.change(deployment, new)
        self.wake()

    async def _work(self) -> None:
        async for campaign in self._campaigns():
            begun = self._clock.now()
            if campaign.id in self._settled or begun < self._rested.get(campaign.id, 0.0):
                continue
            try:
                await self._drive(campaign)
            except Exception as error:  # noqa: BLE001  one campaign must not keep the others waiting
                report(error, "campaign not driven", campaign=campaign.id)
            # Counting a million deployments takes a while: never let it fill the day.
            now = self._clock.now()
            self._rested[campaign.id] = now + (now - begun) * _REST

    async def _campaigns(self) -> AsyncIterator[Campaign]:
        after: str | None = None
        while True:
            page = await self._store.campaigns.page(states=_LIVE, after=after, limit=_CHUNK)
            for campaign in page.items:
                yield campaign
            after = page.next
            if after is None:
                return

    async def _pending(self, campaign_id: str) -> AsyncIterator[Deployment]:
        after: str | None = None
        while True:
            page = await self._store.deployments.page(
                campaign_id, state=DeploymentState.PENDING, after=after, limit=_CHUNK
            )
            for deployment in page.items:
                yield deployment
            after = page.next
            if after is None:
                return

    async def _drive(self, campaign: Campaign) -> None:
        """Decide and act until nothing more is to be done now."""
        current: Campaign | None = campaign
        for _ in range(_ROUNDS):
            if current is None:
                return
            totals = tally(await self._store.deployments.statistics(current.id)).totals
            actions = decide(current, totals, self._clock.now())
            if not actions:
                self._settle(current, totals)
                return
            again = False
            for action in actions:
                again |= await self._act(current, action)
            if not again:
                return
            current = await self._store.campaigns.get(campaign.id)
        self.wake()

    def _settle(self, campaign: Campaign, totals: Totals) -> None:
        """Look no more at a campaign that ended early and has nothing left."""
        ended = campaign.state in (CampaignState.HALTED, CampaignState.ABORTED)
        if ended and totals.pending == 0 and totals.active == 0:
            self._settled.add(campaign.id)

    async def _act(self, campaign: Campaign, action: Action) -> bool:
        """Carry out one action; return whether deciding again at once may bring more."""
        match action:
            case Start():
                return await self._move(campaign, CampaignEvent.START, "started")
            case Complete():
                return await self._move(campaign, CampaignEvent.COMPLETE, "all-done")
            case Halt(reason, text):
                return await self._move(campaign, CampaignEvent.HALT, reason, text)
            case Snapshot():
                return await self._snapshot(campaign)
            case Begin(count):
                return await self._begin(campaign, count)
            case CancelRest(reason):
                return await self._cancel(campaign, reason)

    async def _move(self, campaign: Campaign, event: CampaignEvent, reason: str, text: str = "") -> bool:
        new = advance_campaign(campaign, event, now=self._clock.now(), reason=reason, text=text)
        # When an operator was faster the next decision is about what the operator wanted.
        await self._store.campaigns.change(campaign, new, events=[campaign_event(new, _ACTOR)])
        return True

    async def _snapshot(self, campaign: Campaign) -> bool:
        """Make a deployment for each device that matches; a crash in between repeats it without doubling any."""
        try:
            tree = await parse_filter(self._store, campaign.filter)
        except InvalidInput as error:
            return await self._move(campaign, CampaignEvent.HALT, "filter-unreadable", error.message)
        manifest = await self._store.manifests.get(campaign.manifest_id)
        now = self._clock.now()
        after: str | None = None
        while True:
            page = await self._store.devices.endpoints(filter=tree, now=now, after=after, limit=_CHUNK)
            deployments = [
                Deployment(
                    campaign_id=campaign.id,
                    endpoint=endpoint,
                    created_at=now,
                    updated_at=now,
                    reason="targeted",
                    to_version=manifest.version if manifest is not None else None,
                )
                for endpoint in page.items
            ]
            await self._store.deployments.add(deployments)
            after = page.next
            if after is None:
                break
        totals = tally(await self._store.deployments.statistics(campaign.id)).totals
        new = replace(
            campaign,
            targets=totals.targets,
            snapshot_done=True,
            updated_at=self._clock.now(),
            revision=campaign.revision + 1,
        )
        await self._store.campaigns.change(campaign, new)
        return True

    async def _begin(self, campaign: Campaign, count: int) -> bool:
        manifest = await self._store.manifests.get(campaign.manifest_id)
        stands = None if manifest is None else await self._still_stands(manifest)
        reached: Counter[DeploymentState] = Counter()
        # What fails at once counts for the stop rule, before the next devices meet the same.
        while reached[DeploymentState.OFFERED] < count and not reached[DeploymentState.FAILED]:
            wanted = min(count - reached[DeploymentState.OFFERED], _CHUNK)
            due = await self._store.deployments.due(campaign.id, now=self._clock.now(), limit=wanted)
            devices = await self._store.devices.get_many(entry.endpoint for entry in due)
            reached.update(
                await _together(
                    self._begin_one(campaign, each, devices.get(each.endpoint), manifest, stands)
                    for each in due
                )
            )
            if len(due) < wanted:
                break
        return any(reached[state] for state in FINAL)

    async def _begin_one(
        self,
        campaign: Campaign,
        deployment: Deployment,
        device: Device | None,
        manifest: StoredManifest | None,
        refused: Verdict | None,
    ) -> DeploymentState:
        """Offer the update to one device, or say why not; return the state that it is in then.

        `refused` is why the manifest is offered to nobody any more.
        """
        now = self._clock.now()
        if manifest is None:
            return await self._end(deployment, DeploymentEvent.FAIL, "artefact-missing")
        if device is None:
            return await self._end(deployment, DeploymentEvent.CANCEL, "device-deleted")
        if not device.registered:
            return await self._postpone(deployment, "not-registered", now + _AWAY)
        if self._asking(device.endpoint):
            return await self._postpone(deployment, "inventory", now + _HELD)
        if not is_known(device.facts, manifest):
            return await self._inquire(deployment)
        if self._updater.busy(device.endpoint):
            return await self._postpone(deployment, "other-update", now + _HELD)
        verdict = refused or check(device, manifest)
        self._unanswered.pop(device.endpoint, None)
        # Whoever was offered it before and runs it now has taken it: the update reads that itself, and counts it.
        taken = verdict.event is DeploymentEvent.SKIP and deployment.attempt > 0
        if verdict.event is not DeploymentEvent.OFFER and not taken:
            return await self._end(deployment, verdict.event, verdict.reason, verdict.text)
        return await self._offer(campaign, deployment, device, manifest)

    async def _still_stands(self, manifest: StoredManifest) -> Verdict | None:
        keys = await self._store.trust.all(revoked=True)
        return still_stands(manifest, keys, self._clock.now())

    async def _inquire(self, deployment: Deployment) -> DeploymentState:
        """Have a device asked what it is; one that does not say so after some tries has failed."""
        endpoint = deployment.endpoint
        if self._unanswered[endpoint] >= _INQUIRIES:
            del self._unanswered[endpoint]
            text = "the device does not say what it is"
            return await self._end(deployment, DeploymentEvent.FAIL, "timeout", text)
        self._unanswered[endpoint] += 1
        state = await self._postpone(deployment, "inventory", self._clock.now() + _HELD)
        self._ask([endpoint])
        return state

    async def _offer(
        self, campaign: Campaign, deployment: Deployment, device: Device, manifest: StoredManifest
    ) -> DeploymentState:
        try:
            begun = await self._updater.begin(deployment, device, manifest, campaign)
        except (NotFound, TransportError) as error:
            return await self._end(deployment, DeploymentEvent.FAIL, "artefact-missing", error.message)
        return DeploymentState.OFFERED if begun else deployment.state

    async def _postpone(self, deployment: Deployment, reason: str, until: float) -> DeploymentState:
        self._waiting.add(deployment.endpoint)
        now = self._clock.now()
        new = advance_deployment(deployment, DeploymentEvent.POSTPONE, now=now, reason=reason, retry_at=until)
        # The history says once why a device waits, not at each look.
        events = () if deployment.reason == reason else (deployment_event(new),)
        await self._store.deployments.change(deployment, new, events=events)
        return new.state

    async def _end(
        self, deployment: Deployment, event: DeploymentEvent, reason: str, text: str = ""
    ) -> DeploymentState:
        new = advance_deployment(deployment, event, now=self._clock.now(), reason=reason, text=text)
        await self._store.deployments.change(deployment, new, events=(deployment_event(new),))
        return new.state

    async def _cancel(self, campaign: Campaign, reason: str) -> bool:
        """Cancel what has not begun, and ask for the end of what has; the updater awaits those outcomes."""
        after: str | None = None
        while True:
            page = await self._store.deployments.page(
                campaign.id, state=DeploymentState.PENDING, after=after, limit=_CHUNK
            )
            await _together(self._end(each, DeploymentEvent.CANCEL, reason) for each in page.items)
            after = page.next
            if after is None:
                break
        while True:
            active = await self._store.deployments.active(campaign.id, after=after, limit=_CHUNK)
            for deployment in active.items:
                self._updater.cancel(deployment.endpoint, campaign.id)
            after = active.next
            if after is None:
                return False


async def _together(work: Iterable[Awaitable[T]]) -> list[T]:
    """Await all, so that their writes share commits; raise the first error when every one has ended."""
    found: list[T] = []
    errors: list[BaseException] = []
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            errors.append(result)
        else:
            found.append(result)
    if errors:
        raise errors[0]
    return found
