"""The machines that updates run on: each takes events, and turns what it wants into requests over its link.

An actor (`update_actor`) feeds one of them and stores its job; it knows no object of the device.
"""

from collections.abc import Callable, Coroutine
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Protocol, cast

from lwm2m_server.campaigns.machine import DeploymentEvent
from lwm2m_server.devices.records import ApplicationFacts, ComponentFacts, Facts
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import software, update, update_events
from lwm2m_server.firmware.software_events import (
    Activate,
    Install,
    ReadSoftware,
    SoftwareAction,
    SoftwareEvent,
    SoftwareRead,
    SoftwareStep,
    Uninstall,
)
from lwm2m_server.firmware.software_job import MACHINE, SoftwareJob, SoftwareView
from lwm2m_server.firmware.update_job import DeviceView, Phase, Shown, UpdateJob
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.services.device_link import DeviceLink
from lwm2m_server.services.software_link import SoftwareLink, application_of

Job = UpdateJob | SoftwareJob
Event = update_events.Event | SoftwareRead
Action = update_events.Action | SoftwareAction
Step = update_events.Step | SoftwareStep
Post = Callable[[Event], None]
Request = Coroutine[Any, Any, Event]
Move = tuple[DeploymentEvent | None, str, str]
"""A transition of the deployment: event, reason, and text where the reason does not say it all."""

DEFERRED = "deferred"
_PHASE_EVENT: dict[Phase, tuple[DeploymentEvent | None, str]] = {
    Phase.DOWNLOADING: (DeploymentEvent.DOWNLOAD, "transfer"),
    Phase.DOWNLOADED: (DeploymentEvent.DOWNLOADED, "verified"),
    Phase.INSTALLING: (DeploymentEvent.INSTALL, "installing"),
    Phase.CONFIRMING: (DeploymentEvent.CONFIRM, "awaiting-evidence"),
}


def job_of(data: dict[str, Any]) -> Job:
    """Read a stored job; raises `InvalidInput` for what is none."""
    if not isinstance(data, dict):
        raise InvalidInput("the stored update job has an unknown form", field="job")
    return SoftwareJob.from_json(data) if data.get("machine") == MACHINE else UpdateJob.from_json(data)


class Machine(Protocol):
    """One job on its machine. `step` works in an event; with `keep` false it only tells what would come of it."""

    @property
    def job(self) -> Job:
        """The job as the last step left it."""
        ...

    def step(self, event: Event, now: float, *, keep: bool = True) -> Step:
        """Work in an event."""
        ...

    def request(self, action: Action) -> Request:
        """Return the request that an action asks for: neither observing nor pushing."""
        ...

    def observe(self, post: Post) -> Coroutine[Any, Any, None]:
        """Observe what tells how far the device is."""
        ...

    def push(self, number: int, offset: int, post: Post) -> Request:
        """Push the package."""
        ...

    def noted(self, event: Event, known: Facts) -> Facts | None:
        """Return the facts that an event tells; None for other events. `known` is what was noted before."""
        ...

    def move(self) -> Move:
        """Return the transition of the deployment that fits the job."""
        ...

    def close(self) -> None:
        """End the observations."""
        ...


class FirmwareMachine:
    """An update through object 5 or 33629."""

    def __init__(self, link: DeviceLink, job: UpdateJob, *, registered: bool) -> None:
        self.job = job
        self._view = DeviceView(registered=registered)
        self._link = link

    def step(self, event: Event, now: float, *, keep: bool = True) -> update_events.Step:
        """Work in an event."""
        step = update.step(self.job, self._view, cast("update_events.Event", event), now)
        if keep:
            self.job, self._view = step.job, step.view
        return step

    def request(self, action: Action) -> Request:
        """Return the request."""
        link = self._link
        match action:
            case update_events.ReadStatus(number, settings, components):
                return link.read_status(number, settings=settings, components=components)
            case update_events.Configure(number, severity, max_defer):
                return link.configure(number, severity, max_defer)
            case update_events.Reset(number, by_uri, others):
                return link.reset(number, by_uri=by_uri, others=others)
            case update_events.WriteUri(number, uri):
                return link.write_uri(number, uri)
            case update_events.Execute(number):
                return link.execute_update(number)
            case _:
                raise ValueError(action)

    def observe(self, post: Post) -> Coroutine[Any, Any, None]:
        """Observe State and Result."""
        return self._link.observe_update(post)

    def push(self, number: int, offset: int, post: Post) -> Request:
        """Push the package."""
        return self._link.push(number, self.job.digest, offset, post)

    def noted(self, event: Event, known: Facts) -> Facts | None:
        """Return versions and digests."""
        if not isinstance(event, update_events.StatusRead):
            return None
        components = known.components
        if event.components is not None:
            components = tuple(map(_component, event.components))
        return Facts(
            firmware_version=event.version or None,
            running_digest=event.running_digest,
            components=components,
        )

    def move(self) -> Move:
        """Return the transition; an update that is put off shows as such."""
        job = self.job
        if job.deferred_since is None or job.phase not in (Phase.DOWNLOADING, Phase.DOWNLOADED):
            return *_PHASE_EVENT.get(job.phase, (None, "")), ""
        downloading = job.phase is Phase.DOWNLOADING
        event = DeploymentEvent.DOWNLOAD if downloading else DeploymentEvent.DEFER
        until = ""
        if job.deferred_until is not None:
            until = f" until {datetime.fromtimestamp(job.deferred_until, UTC):%Y-%m-%dT%H:%M:%SZ}"
        what = "download" if downloading else "installation"
        return event, DEFERRED, f"the device's application puts the {what} off{until}"

    def close(self) -> None:
        """End the observations."""
        self._link.close()


class SoftwareMachine:
    """An update of an application through object 9."""

    def __init__(
        self,
        link: SoftwareLink,
        job: SoftwareJob,
        applications: tuple[ApplicationFacts, ...],
        *,
        registered: bool,
    ) -> None:
        """`applications` is what is known of all that the device has."""
        self.job = job
        self._view = SoftwareView(registered=registered)
        self._link = link
        self._applications = applications

    def step(self, event: Event, now: float, *, keep: bool = True) -> SoftwareStep:
        """Work in an event."""
        step = software.step(self.job, self._view, cast("SoftwareEvent", event), now)
        if keep:
            self.job, self._view = step.job, step.view
        return step

    def request(self, action: Action) -> Request:
        """Return the request."""
        link = self._link
        match action:
            case ReadSoftware(number):
                return link.read_software(number)
            case Uninstall(number, for_update):
                return link.uninstall(number, for_update=for_update)
            case update_events.WriteUri(number, uri):
                return link.write_uri(number, uri)
            case Install(number):
                return link.install(number)
            case Activate(number):
                return link.activate(number)
            case _:
                raise ValueError(action)

    def observe(self, post: Post) -> Coroutine[Any, Any, None]:
        """Observe State and Result."""
        return self._link.observe_update(post)

    def push(self, number: int, offset: int, post: Post) -> Request:
        """Push the package."""
        return self._link.push(number, self.job.digest, offset, post)

    def noted(self, event: Event, known: Facts) -> Facts | None:  # noqa: ARG002  it has its own knowledge
        """Return what is installed now, among all the device's applications."""
        if not isinstance(event, SoftwareRead):
            return None
        instance = Path.parse(self.job.instance).ids[1]
        now = application_of(
            instance, name=event.name, version=event.version, state=event.state, active=event.active
        )
        others = tuple(each for each in self._applications if each.instance != instance)
        self._applications = tuple(sorted((*others, now), key=lambda each: each.instance))
        return Facts(applications=self._applications)

    def move(self) -> Move:
        """Return the transition."""
        return *_PHASE_EVENT.get(self.job.phase, (None, "")), ""

    def close(self) -> None:
        """End the observations."""
        self._link.close()


def _component(shown: Shown) -> ComponentFacts:
    return ComponentFacts(**{item.name: getattr(shown, item.name) for item in fields(shown)})
