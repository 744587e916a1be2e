"""All updates that are under way: begins them, resumes them after a restart, and brings them their news."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from lwm2m_server.campaigns.machine import DeploymentEvent, advance_deployment
from lwm2m_server.campaigns.records import Campaign, CampaignState, Deployment
from lwm2m_server.devices.records import Device, Facts
from lwm2m_server.errors import InvalidInput, Lwm2mError, NotFound
from lwm2m_server.firmware import update_events
from lwm2m_server.firmware.applications import application_in
from lwm2m_server.firmware.software_job import SoftwareJob, new_software_job
from lwm2m_server.firmware.update_job import (
    FIRMWARE,
    Goal,
    Kind,
    Method,
    Timers,
    UpdateJob,
    new_job,
)
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.services.addresses import Reachable, peer_of
from lwm2m_server.services.background import Background, report
from lwm2m_server.services.blobs import BlobShelf, Offers, blob_path
from lwm2m_server.services.components import (
    ADVANCED_UPDATE,
    first_of,
    named_deltas,
    sent_sizes,
    targets_of,
)
from lwm2m_server.services.deltas import DeltaService
from lwm2m_server.services.device_link import DeviceLink
from lwm2m_server.services.exchange import Exchange
from lwm2m_server.services.machines import FirmwareMachine, Job, Machine, SoftwareMachine, job_of
from lwm2m_server.services.software_link import SOFTWARE, SoftwareLink, place_of
from lwm2m_server.services.transfers import Transfers
from lwm2m_server.services.update_actor import ActorTools, UpdateActor, deployment_event, lasting
from lwm2m_server.store.records import StoredManifest
from lwm2m_server.transport import Download, Peer, Transport

_log = structlog.get_logger(__name__)

_CHUNK = 1000
_RESUMED = (
    CampaignState.RUNNING,
    CampaignState.PAUSED,
    CampaignState.COMPLETED,
    CampaignState.HALTED,
    CampaignState.ABORTED,
)


@dataclass(frozen=True, slots=True)
class UpdatePolicy:
    """How updates are delivered: bounds of each phase, preferred way, base of URIs by the device as a peer."""

    timers: Timers
    prefer: Method
    base_uri: Callable[[Peer], str]
    block_size: int = 1024


class Updater:
    """One actor for each device that is being updated."""

    def __init__(
        self,
        tools: ActorTools,
        transport: Transport,
        exchange: Exchange,
        shelf: BlobShelf,
        deltas: DeltaService,
        policy: UpdatePolicy,
        *,
        on_done: Callable[[Deployment], None],
    ) -> None:
        """`on_done` gets each deployment that has left the active states, for good or for now."""
        self._tools = tools
        self._transport = transport
        self._exchange = exchange
        self._shelf = shelf
        self._deltas = deltas
        self._policy = policy
        self._on_done = on_done
        self._actors: dict[str, UpdateActor] = {}
        self._background = Background("updater")
        self._started = False

    async def open(self) -> None:
        """Open again what was under way when the server stopped: offers, so that downloads can go on.

        Nothing is asked of devices before `start`: there is no listener yet from which they know us.
        """
        after: str | None = None
        while True:
            page = await self._tools.store.campaigns.page(states=_RESUMED, after=after, limit=_CHUNK)
            for campaign in page.items:
                await self._resume_campaign(campaign)
            after = page.next
            if after is None:
                return

    def start(self) -> None:
        """Go on with what `open` has found."""
        self._started = True
        for actor in self._actors.values():
            self._background.spawn(self._run(actor))

    async def close(self) -> None:
        """Stop all actors; their jobs stay stored as they are."""
        await self._background.close()

    def __len__(self) -> int:
        return len(self._actors)

    def busy(self, endpoint: str) -> bool:
        """Say whether the device is being updated."""
        return endpoint in self._actors

    async def begin(
        self, deployment: Deployment, device: Device, manifest: StoredManifest, campaign: Campaign
    ) -> bool:
        """Offer the update to a registered device; False when the deployment was changed meanwhile.

        Raises `NotFound` when the image or manifest file is gone.
        """
        if device.registration is None or device.endpoint in self._actors:
            return False
        again = deployment.attempt > 0
        job = self._job(device, peer_of(device.registration), manifest, campaign, again=again)
        offers = self._offers(job, manifest)
        now = self._tools.clock.now()
        new = advance_deployment(deployment, DeploymentEvent.OFFER, now=now, reason="offered")
        new = replace(
            new,
            job=json.dumps(job.to_json()),
            offset=0,
            size=job.size if job.kind is Kind.IMAGE else sum(sent_sizes(manifest).values()),
            from_version=_present(device.facts, manifest) or deployment.from_version,
            to_version=manifest.version,
        )
        stored = False
        try:
            events = (deployment_event(new),)
            stored = await self._tools.store.deployments.change(deployment, new, events=events)
        finally:
            if not stored:
                offers.close()
        if stored:
            # a delta to encrypted bytes saves nothing, and the plain ones are not here
            if job.kind is Kind.MANIFEST and isinstance(job, UpdateJob):
                fetched = sent_sizes(manifest)
                for base, target in _installed(device.facts, manifest):
                    if target in fetched:
                        self._deltas.prepare(base, target)
            self._spawn(new, device, job, offers, self._transfers(new, manifest))
        return stored

    def registered(self, endpoint: str, where: Reachable) -> None:
        """The device registered anew, from there."""
        actor = self._actors.get(endpoint)
        if actor is not None:
            actor.moved(peer_of(where))
            actor.post(update_events.Registered())

    def gone(self, endpoint: str) -> None:
        """The device's registration ended."""
        actor = self._actors.get(endpoint)
        if actor is not None:
            actor.post(update_events.Gone())

    def downloaded(self, endpoint: str | None, download: Download) -> None:
        """A device has fetched bytes of an artefact.

        Many clients download from another port than they registered from: then (None) it is the one device at that
        host which was offered these bytes; behind a shared address nobody can tell, and State says it later.
        """
        actor = None if endpoint is None else self._actors.get(endpoint)
        if actor is None:
            there = [each for each in self._actors.values() if each.fetches(download.peer, download.digest)]
            actor = there[0] if len(there) == 1 else None
        if actor is not None:
            actor.fetched(download.digest, download.offset)

    def offering(self, endpoint: str | None, peer: Peer, digest: bytes) -> UpdateActor | None:
        """Return the update in which this peer is offered these bytes, found as in `downloaded`."""
        actor = None if endpoint is None else self._actors.get(endpoint)
        if actor is not None and actor.fetches(peer, digest):
            return actor
        there = [each for each in self._actors.values() if each.fetches(peer, digest)]
        return there[0] if len(there) == 1 else None

    def moved(self, endpoint: str, where: Reachable) -> None:
        """The device is another peer now."""
        actor = self._actors.get(endpoint)
        if actor is not None:
            actor.moved(peer_of(where))

    def cancel(self, endpoint: str, campaign_id: str) -> None:
        """Ask for the end of this campaign's update of the device."""
        actor = self._actors.get(endpoint)
        if actor is not None and actor.deployment.campaign_id == campaign_id:
            actor.cancel()

    async def _resume_campaign(self, campaign: Campaign) -> None:
        manifest = await self._tools.store.manifests.get(campaign.manifest_id)
        after: str | None = None
        while True:
            page = await self._tools.store.deployments.active(campaign.id, after=after, limit=_CHUNK)
            devices = await self._tools.store.devices.get_many(entry.endpoint for entry in page.items)
            for deployment in page.items:
                await self._resume(deployment, devices.get(deployment.endpoint), manifest)
            after = page.next
            if after is None:
                return

    async def _resume(
        self, deployment: Deployment, device: Device | None, manifest: StoredManifest | None
    ) -> None:
        if device is None:
            await self._fail(deployment, "device-deleted", "")
            return
        if manifest is None:
            await self._fail(deployment, "artefact-missing", "")
            return
        try:
            job = job_of(json.loads(deployment.job))
            offers = self._offers(job, manifest)
        except NotFound as error:
            await self._fail(deployment, "artefact-missing", error.message)
        except (InvalidInput, ValueError) as error:
            _log.error("stored update job unusable", endpoint=deployment.endpoint, exc_info=error)
            await self._fail(deployment, "internal", "the stored update job can't be read")
        else:
            transfers = self._transfers(deployment, manifest)
            for digest in await transfers.restore():
                with contextlib.suppress(NotFound):
                    offers.add(digest)
            self._spawn(deployment, device, job, offers, transfers)

    async def _fail(self, deployment: Deployment, reason: str, text: str) -> None:
        new = advance_deployment(
            deployment, DeploymentEvent.FAIL, now=self._tools.clock.now(), reason=reason, text=text
        )
        deployments, events = self._tools.store.deployments, (deployment_event(new),)
        if await lasting(self._tools, lambda: deployments.change(deployment, new, events=events)):
            self._on_done(new)

    def _spawn(
        self, deployment: Deployment, device: Device, job: Job, offers: Offers, transfers: Transfers
    ) -> None:
        endpoint = deployment.endpoint
        actor = UpdateActor(self._tools, self._machine(device, job), offers, deployment, transfers)
        if device.registration is not None:
            actor.moved(peer_of(device.registration))
        self._actors[endpoint] = actor
        if self._started:
            self._background.spawn(self._run(actor))

    def _machine(self, device: Device, job: Job) -> Machine:
        """Put the job on the machine that it belongs to."""
        there = self._exchange, self._transport, device.endpoint, Path.parse(job.instance)
        size, registered = self._policy.block_size, device.registered
        if isinstance(job, SoftwareJob):
            known = device.facts.applications or ()
            return SoftwareMachine(SoftwareLink(*there, block_size=size), job, known, registered=registered)
        return FirmwareMachine(DeviceLink(*there, block_size=size), job, registered=registered)

    async def _run(self, actor: UpdateActor) -> None:
        endpoint = actor.deployment.endpoint
        try:
            await actor.run()
        except Exception as error:  # noqa: BLE001  the fault of one update must not leave its device in limbo
            report(error, "update ended by an error", endpoint=endpoint)
            text = error.message if isinstance(error, Lwm2mError) else ""
            await self._fail(actor.deployment, "internal", text)
        finally:
            del self._actors[endpoint]
        self._on_done(actor.deployment)

    def _job(
        self, device: Device, peer: Peer, manifest: StoredManifest, campaign: Campaign, *, again: bool
    ) -> Job:
        """Make the job: the signed envelope for a device that understands it, else the image."""
        envelope = bool(device.facts.understands_manifests)
        digest = bytes.fromhex(manifest.id) if envelope else manifest.image_digest
        given: dict[str, Any] = {
            "kind": Kind.MANIFEST if envelope else Kind.IMAGE,
            "digest": digest,
            "size": len(manifest.envelope) if envelope else manifest.image_size,
            "uris": ("/".join((self._policy.base_uri(peer), *blob_path(digest))),),
            "target_version": manifest.version,
            "prefer": self._policy.prefer,
            "timers": self._policy.timers,
            "now": self._tools.clock.now(),
        }
        application = application_in(targets_of(manifest)[0].name)
        if application is not None:
            place = place_of(device.facts, application)
            instance = str(Path.of(SOFTWARE, 0 if place is None else place.instance))
            return new_software_job(application=application, instance=instance, again=again, **given)
        first = first_of(device.facts, manifest)
        return new_job(
            target_digest=manifest.installed_digest,
            severity=None if campaign.severity is None else campaign.severity.number,
            max_defer=campaign.max_defer,
            instance=FIRMWARE if first is None else str(Path.of(ADVANCED_UPDATE, first.instance)),
            goals=() if first is None else _goals(device.facts, manifest),
            **given,
        )

    def _transfers(self, deployment: Deployment, manifest: StoredManifest) -> Transfers:
        return Transfers(
            self._tools.store.deltas,
            self._tools.clock,
            deployment.campaign_id,
            deployment.endpoint,
            sent_sizes(manifest),
            named_deltas(manifest),
        )

    def _offers(self, job: Job, manifest: StoredManifest) -> Offers:
        digests: Sequence[bytes] = (job.digest, manifest.image_digest)
        if job.kind is Kind.MANIFEST:
            digests = (*digests, *manifest.further_images)
        return Offers(self._shelf, self._transport, tuple(dict.fromkeys(digests)))


def _goals(facts: Facts, manifest: StoredManifest) -> tuple[Goal, ...]:
    present = {each.name: each.version for each in facts.components or ()}
    return tuple(
        Goal(name=target.name, version=target.version, digest=target.digest, before=present.get(target.name))
        for target in targets_of(manifest)
    )


def _present(facts: Facts, manifest: StoredManifest) -> str | None:
    """Return the version of what the manifest's first component replaces."""
    application = application_in(targets_of(manifest)[0].name)
    if application is not None:
        place = facts.application(application)
        return None if place is None else place.version
    first = first_of(facts, manifest)
    return facts.firmware_version if first is None else first.version


def _installed(facts: Facts, manifest: StoredManifest) -> Iterator[tuple[bytes | None, bytes]]:
    """Pair what is installed, where that is known, with what the manifest puts in its place."""
    for index, target in enumerate(targets_of(manifest)):
        component = facts.component(target.name)
        if component is not None:
            yield component.digest, target.digest
        elif index == 0:
            yield facts.running_digest, target.digest
