"""One step of the software machine while it is being worked out: the vocabulary in which the rules are written.

`Run` collects the new job, the new view, actions and the outcome; `software.step` freezes it into a `SoftwareStep`.
"""

from __future__ import annotations

from typing import Final

from lwm2m_server import versions
from lwm2m_server.firmware.machine_run import MAX_DELIVERIES, MachineRun
from lwm2m_server.firmware.outcomes import Outcome, failed, failed_for_good
from lwm2m_server.firmware.software_events import Activate, Install, ReadSoftware, SoftwareAction, Uninstall
from lwm2m_server.firmware.software_job import Ask, SoftwareJob, SoftwareView, State
from lwm2m_server.firmware.software_results import GOOD
from lwm2m_server.firmware.update_events import Push, WriteUri
from lwm2m_server.firmware.update_job import Kind, Method, Phase

MAX_REMOVALS: Final = 4
"""Uninstalls in a row without reaching INITIAL with Result 0."""
MAX_INSTALLS: Final = 3
MAX_ACTIVATIONS: Final = 3

_STARTED: Final = (State.DOWNLOAD_STARTED, State.DOWNLOADED, State.DELIVERED)


class Run(MachineRun):
    """A step in the making."""

    job: SoftwareJob
    view: SoftwareView
    actions: list[SoftwareAction]

    # -- requests ---------------------------------------------------------------------

    def read(self) -> None:
        """Ask for all that is decided on."""
        self.actions.append(ReadSoftware(self.ask(Ask.READ)))

    def uninstall(self) -> None:
        """Bring the instance to INITIAL with Result 0.

        What is in place must stay until the new one takes over, so always ForUpdate; a device that refuses the
        argument before the installation is asked without: then only the package can be meant.
        """
        plainly = self.job.removal_refused and self.view.state in _STARTED
        self.change(removals=self.job.removals + 1, removing=False, settling_since=None)
        self.actions.append(Uninstall(self.ask(Ask.UNINSTALL), for_update=not plainly))

    def push(self, offset: int) -> None:
        """Send the package from `offset`."""
        self.know(locked=False)
        self.change(push_offset=offset, method=Method.PUSH, busy=False)
        self.actions.append(Push(self.ask(Ask.PUSH), offset))

    def install(self) -> None:
        """Start the installation; the answer may be lost, so the job remembers that it was asked."""
        if self.job.installs >= MAX_INSTALLS:
            self.finish(failed("update-failed", "the device did not begin the installation", max_retries=1))
            return
        self.change(
            installs=self.job.installs + 1,
            install_sent_at=self.now,
            accepted=False,
            registered_since=False,
            settling_since=None,
        )
        self.actions.append(Install(self.ask(Ask.INSTALL)))

    def activate(self) -> None:
        """Switch on what was installed."""
        self.change(activations=self.job.activations + 1, settling_since=None)
        self.actions.append(Activate(self.ask(Ask.ACTIVATE)))

    def deliver(self) -> None:
        """Begin the transfer: the instance is INITIAL and ready for it."""
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
        self.change(
            method=methods[0],
            deliveries=job.deliveries + 1,
            removals=0,
            removing=False,
            error=None,
            registered_since=False,
            settling_since=None,
            push_offset=0,
        )
        if methods[0] is Method.PUSH:
            self.push(0)
        else:
            self.actions.append(WriteUri(self.ask(Ask.URI), job.uris[0]))

    def deliver_again(self) -> None:
        """Offer anew, from the beginning."""
        self.enter(Phase.OFFERED)
        self.change(push_offset=0, error=None, settling_since=None)
        self.prepare()

    def prepare(self) -> None:
        """Deliver when the instance is INITIAL without an old result, else uninstall first."""
        initial = self.view.state == State.INITIAL
        if initial and self.view.result in (0, self.job.stale_result):
            self.deliver()
        elif not initial and self.job.removing and not self.settled():
            self.wait()
        elif self.job.removals < MAX_REMOVALS:
            self.uninstall()
        elif initial:
            # it does not clear its old result: go on, and remember which one is old
            self.change(stale_result=self.view.result or 0)
            self.deliver()
        else:
            self.finish(
                failed(
                    "stalled", f"the device stays in State {self.view.state} after {MAX_REMOVALS} Uninstalls"
                )
            )

    # -- what is known ---------------------------------------------------------------------

    def can(self, method: Method) -> bool:
        """Whether another way of delivery is open."""
        return method in self._methods()

    def is_foreign(self) -> bool:
        """Whether the instance shows the name of another application."""
        return self.view.name not in (None, "", self.job.application)

    def shows_version(self) -> bool:
        """Whether the target version is installed under the application's name."""
        return (
            self.view.state == State.INSTALLED
            and not self.is_foreign()
            and versions.same(self.view.version, self.job.target_version)
        )

    def failure(self) -> int:
        """Return the Update Result where it tells of a failure of this job, else 0."""
        result = self.view.result or 0
        return 0 if result in GOOD or result == self.job.stale_result else result

    def _methods(self) -> list[Method]:
        job = self.job
        first = Method.PUSH if job.kind is Kind.MANIFEST else job.prefer or Method.PULL
        order = [first, Method.PULL if first is Method.PUSH else Method.PUSH]
        open_ways = {Method.PUSH} | ({Method.PULL} if job.uris else set())
        return [method for method in order if method in open_ways and method not in job.refused]

    def _no_method(self) -> Outcome:
        if self.job.too_large:
            return failed_for_good(
                "storage-full", "the package is too large to be pushed, and the device can't pull it"
            )
        ways = " and ".join(method.value for method in self.job.refused)
        return failed_for_good("device-error", f"the device refused delivery by {ways}")
