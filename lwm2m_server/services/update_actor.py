"""One update of one device: carries out what the update machine wants, feeds it what happened, stores each step.

A step's job is durable before its actions begin. So after a crash the machine goes on from a state that is not
ahead of the device, and never sends an Execute twice.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from lwm2m_server.campaigns.decide import BackOff, retry_delay
from lwm2m_server.campaigns.machine import DEPLOYMENT_TABLE, DeploymentEvent, advance_deployment
from lwm2m_server.campaigns.reasons import sentence
from lwm2m_server.campaigns.records import Campaign, CampaignState, Deployment
from lwm2m_server.clock import Clock
from lwm2m_server.devices.records import Facts
from lwm2m_server.errors import Lwm2mError, Unavailable
from lwm2m_server.firmware import update_events
from lwm2m_server.firmware.outcomes import Ending, Outcome
from lwm2m_server.firmware.update_job import Kind
from lwm2m_server.services.background import AGAIN, Background, Cancellable, Timers
from lwm2m_server.services.blobs import Offers
from lwm2m_server.services.machines import DEFERRED, Action, Event, Machine, Request
from lwm2m_server.services.transfers import Transfers
from lwm2m_server.store.delta_ports import StoredDelta
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import JsonValue, NewEvent
from lwm2m_server.transport import Peer, TransportError

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_PROGRESS = (update_events.PushProgress, update_events.DownloadProgress)


@dataclass(frozen=True, slots=True)
class ActorTools:
    """What every actor works with; `chance` gives numbers in [0, 1) that spread retries."""

    store: Store
    clock: Clock
    timers: Timers
    back_off: BackOff
    chance: Callable[[], float]


def deployment_event(deployment: Deployment) -> NewEvent:
    """Return the event that goes with a transition of a deployment."""
    data: dict[str, JsonValue] = {
        "state": deployment.state.value,
        "reason": deployment.reason,
        "text": deployment.text,
        "attempt": deployment.attempt,
        "offset": deployment.offset,
        "size": deployment.size,
    }
    if deployment.retry_at is not None:
        data["retry_at"] = deployment.retry_at
    return NewEvent(
        kind=f"deployment.{deployment.state.value}",
        at=deployment.updated_at,
        endpoint=deployment.endpoint,
        campaign_id=deployment.campaign_id,
        data=data,
    )


async def lasting(tools: ActorTools, work: Callable[[], Awaitable[T]]) -> T:
    """Do work of the store, again and again while the store can't: an update waits for it, but does not end."""
    while True:
        try:
            return await work()
        except Unavailable as error:
            _log.error("update waits for the store", error=error.message)
        rested = asyncio.get_running_loop().create_future()
        timer = tools.timers.later(AGAIN, partial(_wake, rested))
        try:
            await rested
        finally:
            timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Superseded(Exception):
    """The stored deployment is not the one that this actor knows: someone else has ended it."""


class UpdateActor:
    """Drives one job to its outcome. `post` feeds it; `run` ends when the deployment has left the active states."""

    def __init__(
        self,
        tools: ActorTools,
        machine: Machine,
        offers: Offers,
        deployment: Deployment,
        transfers: Transfers,
    ) -> None:
        self._tools = tools
        self._machine = machine
        self._offers = offers
        self._deployment = deployment
        self._transfers = transfers
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._held: Event | None = None
        self._tasks = Background(f"update of {deployment.endpoint}")
        self._push: asyncio.Task[None] | None = None
        self._timer: Cancellable | None = None
        self._cancelling = False
        self._facts = Facts()

    @property
    def deployment(self) -> Deployment:
        """The deployment as it was stored last."""
        return self._deployment

    @property
    def endpoint(self) -> str:
        """The device."""
        return self._deployment.endpoint

    def post(self, event: Event) -> None:
        """Tell the machine what happened; returns at once."""
        self._queue.put_nowait(event)

    def moved(self, peer: Peer) -> None:
        """The device is this peer now, which may fetch."""
        try:
            self._offers.open_to(peer)
        except TransportError as error:
            # The device is refused there, says so, and the attempt ends by its answer.
            _log.error("artefacts not offered", endpoint=self._deployment.endpoint, error=error.message)

    def fetches(self, peer: Peer, digest: bytes) -> bool:
        """Say whether these bytes are open to this peer for this update."""
        return self._offers.open_for(peer, digest)

    def fetched(self, digest: bytes, offset: int) -> None:
        """The device has fetched this blob up to `offset`; the few bytes of an envelope are no progress."""
        job = self._machine.job
        if job.kind is Kind.IMAGE or digest != job.digest:
            self.post(update_events.DownloadProgress(self._transfers.fetched(digest, offset)))

    async def offer_patch(self, delta: StoredDelta) -> None:
        """Let the device fetch a patch too. Raises `NotFound` when its file is gone."""
        self._offers.add(delta.digest)
        self._transfers.offered(delta)
        # Before the device hears of it: a server that is killed then opens it again at its start.
        await self._transfers.save()

    def cancel(self) -> None:
        """Ask for the end of the update; once it installs, the outcome is awaited all the same."""
        if not self._cancelling:
            self._cancelling = True
            self.post(update_events.CancelRequested())

    async def run(self) -> None:
        """Work until the outcome is stored. Cancelling this task leaves the job as stored, to be resumed."""
        self.post(update_events.Started())
        stopping = False
        try:
            while True:
                outcome = await self._step(await self._next())
                if outcome is not None:
                    await self._finish(outcome)
                    return
        except Superseded:
            _log.info("update superseded", endpoint=self._deployment.endpoint)
        except asyncio.CancelledError:
            stopping = True
            await self._end_push()
            await self._save_progress()
            with contextlib.suppress(Lwm2mError):
                await self._transfers.save()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._tasks.close()
            self._machine.close()
            # A server that stops leaves them open as long as it answers: from a refusal in its last moments the
            # device would read that the update is over.
            if not stopping:
                self._offers.close()

    async def _next(self) -> Event:
        """Return the next event; of progress that came faster than it could be stored only the latest."""
        event = self._held or await self._queue.get()
        self._held = None
        while isinstance(event, _PROGRESS) and not self._queue.empty():
            following = self._queue.get_nowait()
            if type(following) is not type(event):
                self._held = following
                break
            event = following
        return event

    async def _save_progress(self) -> None:
        """Store how far a push has come that is being stopped with the server: it goes on from there."""
        last: update_events.PushProgress | None = None
        while not self._queue.empty():
            event = self._queue.get_nowait()
            last = event if isinstance(event, update_events.PushProgress) else last
        job = self._machine.job
        if last is not None:
            step = self._machine.step(last, self._tools.clock.now(), keep=False)
            if step.outcome is not None:
                return
            job = step.job
        # A step that was being stored when the server was told to stop may not be in the row either.
        old, text = self._deployment, json.dumps(job.to_json())
        if text != old.job:
            now = self._tools.clock.now()
            new = replace(old, job=text, offset=job.offset, updated_at=now, revision=old.revision + 1)
            with contextlib.suppress(Lwm2mError):
                await self._tools.store.deployments.change(old, new)

    async def _step(self, event: Event) -> Outcome | None:
        tools = self._tools
        await self._note_facts(event)
        before = self._machine.job
        step = self._machine.step(event, tools.clock.now())
        if step.job != before and step.outcome is None:
            await self._store_step()
        for action in step.actions:
            self._do(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if step.wake_at is not None:
            delay = max(0.0, step.wake_at - tools.clock.now())
            self._timer = tools.timers.later(delay, lambda: self.post(update_events.Tick()))
        return step.outcome

    async def _note_facts(self, event: Event) -> None:
        """Keep the directory in step: whoever sees the outcome sees the version that it rests on."""
        facts = self._machine.noted(event, self._facts)
        if facts is not None and facts != self._facts:
            self._facts = facts
            endpoint = self._deployment.endpoint
            await lasting(self._tools, lambda: self._tools.store.devices.set_facts(endpoint, facts))

    async def _store_step(self) -> None:
        job, now = self._machine.job, self._tools.clock.now()
        old = self._deployment
        event, why, text = self._machine.move()
        news = job.phase.value != old.state.value or DEFERRED in (why, old.reason)
        same = (job.phase.value, why, text or sentence(why)) == (old.state.value, old.reason, old.text)
        moves = news and not same and (old.state, event) in DEPLOYMENT_TABLE
        if event is not None and moves:
            new = advance_deployment(old, event, now=now, reason=why, text=text)
        else:
            new = replace(old, updated_at=now, revision=old.revision + 1)
        new = replace(new, job=json.dumps(job.to_json()), offset=job.offset, size=old.size or job.size)
        events = (deployment_event(new),) if moves else ()
        await self._change(new, events)

    async def _change(self, new: Deployment, events: tuple[NewEvent, ...]) -> None:
        deployments, old = self._tools.store.deployments, self._deployment
        if not await lasting(self._tools, lambda: deployments.change(old, new, events=events)):
            # After a failure of the store nobody but the row itself knows whether the change is in it.
            key = old.campaign_id, old.endpoint
            if await lasting(self._tools, lambda: deployments.get(*key)) != new:
                raise Superseded
        self._deployment = new

    def _do(self, action: Action) -> None:
        match action:
            case update_events.Observe():
                self._tasks.spawn(self._machine.observe(self.post))
            case update_events.Push(number, offset):
                self._stop_push()
                self._push = self._answer(self._machine.push(number, offset, self.post))
            case update_events.StopPush():
                self._stop_push()
            case _:
                self._answer(self._machine.request(action))

    def _answer(self, work: Request) -> asyncio.Task[None] | None:
        async def answered() -> None:
            self.post(await work)

        return self._tasks.spawn(answered())

    def _stop_push(self) -> None:
        if self._push is not None:
            self._push.cancel()
            self._push = None

    async def _end_push(self) -> None:
        """End a push and wait until it has told how far it came."""
        push = self._push
        self._stop_push()
        if push is not None:
            await asyncio.wait({push})

    async def _finish(self, outcome: Outcome) -> None:
        """Store how the attempt ended: for good, or back to pending for another one."""
        job = self._machine.job
        if job.kind is Kind.IMAGE:
            self._transfers.fetched(job.digest, job.offset)
        succeeded = outcome.ending is Ending.SUCCEEDED
        await lasting(self._tools, lambda: self._transfers.save(succeeded=succeeded))
        now = self._tools.clock.now()
        old = self._deployment
        if outcome.ending is Ending.SUCCEEDED:
            if (old.state, DeploymentEvent.SUCCEED) not in DEPLOYMENT_TABLE:
                confirming = advance_deployment(
                    old, DeploymentEvent.CONFIRM, now=now, reason="awaiting-evidence"
                )
                await self._change(confirming, (deployment_event(confirming),))
            event, retry_at = DeploymentEvent.SUCCEED, None
        elif outcome.ending is Ending.REJECTED:
            event, retry_at = DeploymentEvent.REJECT, None
        elif outcome.ending is Ending.CANCELLED:
            event, retry_at = DeploymentEvent.CANCEL, None
        else:
            retry_at = await self._retry_at(outcome, now)
            event = DeploymentEvent.FAIL if retry_at is None else DeploymentEvent.RETRY
        new = advance_deployment(
            self._deployment, event, now=now, reason=outcome.reason, text=outcome.text, retry_at=retry_at
        )
        await self._change(new, (deployment_event(new),))

    async def _retry_at(self, outcome: Outcome, now: float) -> float | None:
        campaigns, key = self._tools.store.campaigns, self._deployment.campaign_id
        campaign = await lasting(self._tools, lambda: campaigns.get(key))
        if not outcome.retryable or campaign is None or not _goes_on(campaign):
            return None
        retries = campaign.retries
        if outcome.max_retries is not None:
            retries = min(retries, outcome.max_retries)
        delay = retry_delay(
            self._deployment.attempt, retries, self._tools.back_off, self._tools.chance(), outcome.retry_after
        )
        return None if delay is None else now + delay


def _goes_on(campaign: Campaign) -> bool:
    return campaign.state in (CampaignState.RUNNING, CampaignState.PAUSED)
