"""One step of the update machine while it is being worked out: the vocabulary in which the rules are written.

`Run` collects the new job, the new view, actions and the outcome; `update.step` freezes it into a `Step`.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from lwm2m_server import versions
from lwm2m_server.firmware.machine_run import MAX_DELIVERIES, MachineRun
from lwm2m_server.firmware.outcomes import Outcome, failed, failed_for_good
from lwm2m_server.firmware.update_events import (
    Action,
    Configure,
    Execute,
    Push,
    ReadStatus,
    Reset,
    WriteUri,
)
from lwm2m_server.firmware.update_job import (
    Ask,
    DeviceView,
    Goal,
    Kind,
    Method,
    Phase,
    Shown,
    State,
    UpdateJob,
)

MAX_RESETS: Final = 4
"""Resets in a row without reaching Idle with Result 0."""
MAX_EXECUTES: Final = 3
MAX_CONFLICTS: Final = 2
"""Times that instances which are in the way are reset."""

PULL_ONLY, PUSH_ONLY = 0, 1
PROTOCOLS: Final = {"coap": 0, "coaps": 1, "http": 2, "https": 3, "coap+tcp": 4, "coaps+tcp": 5}
"""Values of Firmware Update Protocol Support by URI scheme."""
ASSUMED_PROTOCOLS: Final = frozenset({0, 1})
"""Without that resource the device is taken to support CoAP."""


class Run(MachineRun):
    """A step in the making."""

    job: UpdateJob
    view: DeviceView
    actions: list[Action]

    # -- requests ---------------------------------------------------------------------

    def read(self) -> None:
        """Ask for State, Result and versions, and what the device has of the settings that the job brings."""
        brings = self.job.severity is not None or self.job.max_defer is not None
        settings = brings and self.job.phase is Phase.OFFERED and not self.job.configured
        # while bytes arrive nothing changes in them
        components = bool(self.job.goals) and (
            self.job.phase is not Phase.DOWNLOADING or self.job.execute_sent_at is not None
        )
        self.actions.append(ReadStatus(self.ask(Ask.READ), settings, components))

    def configure(self) -> bool:
        """Write severity and defer period where the device has them and they differ; False: nothing to write."""
        job, view = self.job, self.view
        severity = _differing(job.severity, view.severity)
        max_defer = _differing(job.max_defer, view.max_defer)
        if job.configured or (severity is None and max_defer is None):
            return False
        self.actions.append(Configure(self.ask(Ask.CONFIGURE), severity, max_defer))
        return True

    def reset(self) -> None:
        """Bring the device to Idle: by an empty URI where it pulls, else by a NUL package; then the other."""
        by_uri = (self.view.delivery != PUSH_ONLY) == (self.job.resets % 2 == 0)
        self.change(resets=self.job.resets + 1)
        self.actions.append(Reset(self.ask(Ask.RESET), by_uri))

    def clear_conflict(self) -> bool:
        """Reset the instances that were in the way, to offer anew; False when that was tried, or there are none."""
        others = self.view.conflicting
        if not others or self.job.conflicts >= MAX_CONFLICTS:
            return False
        self.enter(Phase.OFFERED)
        self.change(
            conflicts=self.job.conflicts + 1,
            resets=1,
            error=None,
            execute_sent_at=None,
            accepted=False,
            settling_since=None,
            push_offset=0,
        )
        by_uri = self.view.delivery != PUSH_ONLY
        self.actions.append(Reset(self.ask(Ask.RESET), by_uri, others))
        return True

    def push(self, offset: int) -> None:
        """Send the package from `offset`."""
        self.know(locked=False)
        self.change(push_offset=offset, method=Method.PUSH, busy=False)
        self.actions.append(Push(self.ask(Ask.PUSH), offset))

    def execute(self) -> None:
        """Start the installation; the answer may be lost, so the job remembers that it was asked."""
        if self.job.executes >= MAX_EXECUTES:
            self.finish(failed("update-failed", "the device did not begin the installation", max_retries=1))
            return
        self.change(
            executes=self.job.executes + 1, execute_sent_at=self.now, accepted=False, registered_since=False
        )
        self.actions.append(Execute(self.ask(Ask.EXECUTE)))

    def deliver(self) -> None:
        """Begin the transfer: the device is Idle and ready for it."""
        job = self.job
        methods = self._methods()
        if not methods:
            self.finish(self._no_method())
            return
        if job.deliveries >= MAX_DELIVERIES:
            self.finish(
                failed("stalled", f"the device took {job.deliveries} offers and followed none of them")
            )
            return
        if self.configure():
            return
        self.change(
            method=methods[0],
            deliveries=job.deliveries + 1,
            resets=0,
            error=None,
            registered_since=False,
            settling_since=None,
            push_offset=0,
        )
        if methods[0] is Method.PUSH:
            self.push(0)
        else:
            self.actions.append(WriteUri(self.ask(Ask.URI), self._uris()[0]))

    def deliver_again(self) -> None:
        """Offer anew, from the beginning."""
        self.enter(Phase.OFFERED)
        self.change(push_offset=0, error=None, settling_since=None)
        self.prepare()

    def prepare(self) -> None:
        """Deliver when the device is Idle without an old result, else reset it first (5.1.2 of object 5)."""
        idle = self.view.state == State.IDLE
        if idle and self.view.result in (0, self.job.stale_result):
            self.deliver()
        elif self.job.resets < MAX_RESETS:
            self.reset()
        elif idle:
            # it does not clear its old result: go on, and remember which one is old
            self.change(stale_result=self.view.result or 0)
            self.deliver()
        else:
            self.finish(
                failed("stalled", f"the device stays in State {self.view.state} after {MAX_RESETS} resets")
            )

    # -- what is known ---------------------------------------------------------------------

    def can(self, method: Method) -> bool:
        """Whether another way of delivery is open."""
        return method in self._methods()

    def shown(self, name: str) -> Shown | None:
        """Return what the device shows of a component."""
        return next((each for each in self.view.components or () if each.name == name), None)

    def meets(self, goal: Goal) -> bool:
        """Whether a component shows its new version, or its digest where no version is known."""
        shown = self.shown(goal.name)
        if shown is None:
            return False
        if goal.version is None:
            return goal.digest is not None and shown.digest == goal.digest
        return versions.same(shown.version, goal.version)

    def shows_version(self) -> bool:
        """Whether the device runs the target version, in all its components."""
        if self.job.goals:
            return all(self.meets(goal) for goal in self.job.goals)
        return versions.same(self.view.version, self.job.target_version)

    def digest_agrees(self) -> bool | None:
        """Whether the running images are the target's; `None` when that of one is unknown."""
        if not self.job.goals:
            return _agrees(self.view.running_digest, self.job.target_digest)
        shown = [(self.shown(goal.name), goal) for goal in self.job.goals]
        found = {_agrees(None if there is None else there.digest, goal.digest) for there, goal in shown}
        return False if False in found else None if None in found else True

    def target(self) -> str:
        """What the device is to run, for people."""
        if len(self.job.goals) < 2:
            return self.job.target_version
        return ", ".join(f"{goal.name} {goal.version or '?'}" for goal in self.job.goals)

    def fresh_result(self) -> int:
        """Return the Update Result where it belongs to this job, else 0."""
        result = self.view.result or 0
        return 0 if result == self.job.stale_result else result

    def _methods(self) -> list[Method]:
        delivery, job = self.view.delivery, self.job
        found = {
            Method.PULL: delivery != PUSH_ONLY and bool(self._uris()),
            Method.PUSH: delivery != PULL_ONLY,
        }
        first = Method.PUSH if job.kind is Kind.MANIFEST else job.prefer or Method.PULL
        order = [first, Method.PULL if first is Method.PUSH else Method.PUSH]
        return [method for method in order if found[method] and method not in job.refused]

    def _uris(self) -> list[str]:
        protocols = self.view.protocols or ASSUMED_PROTOCOLS
        return [uri for uri in self.job.uris if PROTOCOLS.get(urlsplit(uri).scheme) in protocols]

    def _no_method(self) -> Outcome:
        if self.job.too_large:
            return failed_for_good(
                "storage-full", "the package is too large to be pushed, and the device can't pull it"
            )
        if self.job.refused:
            ways = " and ".join(method.value for method in self.job.refused)
            return failed_for_good("device-error", f"the device refused delivery by {ways}")
        return failed_for_good("protocol", "the device supports no way of delivery that this server offers")


def _agrees(shown: bytes | None, wanted: bytes | None) -> bool | None:
    return None if shown is None or wanted is None else shown == wanted


def _differing(wanted: int | None, there: int | None) -> int | None:
    """Return what is to be written: nothing where the device does not have the resource."""
    return wanted if there is not None and wanted != there else None
