"""The update of this device: the machine of object 5 over flash and boot loader, without a network.

Every method commits to flash before it returns, in an order that makes a power cut at any point come out
either before or after it. `reconcile` runs at each boot and finishes or takes back what a cut left half
done.
"""

from dataclasses import replace

from lwm2m_device.boot_state import Outcome
from lwm2m_device.machine import Result, State, Trigger, refusal, step
from lwm2m_device.transfer import Transfer
from lwm2m_device.update_machine import fresh
from lwm2m_device.update_state import UpdateState
from lwm2m_server.firmware.refusals import Refusal, RefusalCode


class Updater(Transfer):
    """Object 5's state with the means to change it."""

    def request(self, trigger: Trigger, *, uri: str = "", source: str = "", instance: int = 0) -> int:  # noqa: ARG002
        """Apply a request of the server to an instance and return the CoAP code of its answer.

        `uri` is what the server wrote, `source` the same made absolute; both are for a pull.
        """
        before = self.state
        found = step(before.state, trigger)
        if found is None:
            return refusal(before.state, trigger)
        if trigger is Trigger.PACKAGE or trigger is Trigger.URI:
            if self.plain:
                self._download.begin()
            self._enter(found.state, Result.INITIAL, fresh(before, uri=uri, source=source))
        elif trigger is Trigger.UPDATE:
            self._enter(found.state, Result.INITIAL, before)
        else:
            self._enter(found.state, found.result or Result.INITIAL, fresh(before))
            if before.state is State.DOWNLOADED:
                self.slot.drop()
        return found.code

    def order(self, instance: int, chosen: tuple[int, ...] | None) -> int:  # noqa: ARG002
        """Order the installation of an instance and return the CoAP code of the answer.

        `chosen` are the further instances that the server named; None: it left the choice to the device.
        """
        return self.request(Trigger.UPDATE, instance=instance)

    def select(self, instance: int) -> bool:
        """Make this the instance that the application is asked about; False when another one is under way."""
        return instance == self.focus

    @property
    def floor(self) -> int:
        """The lowest sequence number that is taken."""
        return self.loader.floor

    @property
    def awaits_server(self) -> bool:
        """Say whether an image runs that has to reach the server before its time is over."""
        return self.loader.on_trial

    def install(self) -> None:
        """Hand the downloaded image to the boot loader; it starts it at the next boot."""
        self.loader.request(self.slot.index)

    def confirm(self) -> None:
        """Keep the image that runs on trial: the server was reached. Does nothing outside a trial."""
        self.loader.confirm()
        self._happen(Trigger.BOOTED, fresh(self.state))

    def reconcile(self) -> tuple[list[str], bool]:
        """Bring State in line with flash and boot loader; return notes, and whether to reboot at once."""
        notes: list[str] = []
        if self.damaged:
            notes.append(STATE_LOST)
            lost = UpdateState(
                result=Result.UPDATE_FAILED,
                code=RefusalCode.STATE_DAMAGED,
                text=STATE_LOST,
                changed=self._clock.now(),
            )
            self._keep(lost)
        if self.boot.trial:
            self._resume_trial()
            return notes, False
        install = False
        if self.state.state is State.UPDATING:
            install = self._settle_installation(notes)
        elif self.state.state is State.DOWNLOADED:
            self._check_downloaded(notes)
        elif self.state.state is State.DOWNLOADING:
            self._resume_download(notes)
        if not install:
            self.loader.clear_outcome()
        return notes, install

    def _resume_trial(self) -> None:
        image = self.boot.image
        if self.state.state is not State.UPDATING and image is not None:
            known = replace(
                fresh(self.state),
                digest=image.digest,
                size=image.size,
                version=image.version,
                sequence=image.sequence,
            )
            self._enter(State.UPDATING, Result.INITIAL, known)

    def _settle_installation(self, notes: list[str]) -> bool:
        image, outcome = self.boot.image, self.loader.state.outcome
        if image is not None and image == self._wanted():
            self._happen(Trigger.BOOTED, fresh(self.state))
            notes.append(f"The installation of {image.version} is complete.")
            return False
        if outcome is Outcome.NONE and self._sealed():
            notes.append("The installation had been ordered but not begun; it begins now.")
            self.install()
            return True
        result, text = _INSTALL_FAILURES.get(outcome, (Result.INTEGRITY, "The image was no longer intact."))
        self._happen(Trigger.INSTALL_FAILED, replace(fresh(self.state), text=text), cause=result)
        notes.append(f"The installation failed: {text}")
        return False

    def _check_downloaded(self, notes: list[str]) -> None:
        if not self._sealed():
            text = "The downloaded image is no longer intact."
            notes.append(text)
            self.fail(Result.INTEGRITY, RefusalCode.DIGEST_MISMATCH, text)

    def _resume_download(self, notes: list[str]) -> None:
        if self._sealed():
            self._resume_received()
            return
        if not self.fetching_image:
            if not self.state.source:
                self.fail(
                    Result.CONNECTION_LOST,
                    RefusalCode.FETCH_FAILED,
                    "The manifest was still on its way at power loss.",
                )
            return
        try:
            holds = self.plain or self._manifest_holds()
        except Refusal as error:
            self.refused(error)
            return
        if not holds:
            self.fail(Result.INTEGRITY, RefusalCode.MALFORMED, "The stored manifest is no longer intact.")
            return
        self.slot.drop()
        kept = self._download.resume()
        notes.append(f"The download goes on at byte {kept}.")

    def _resume_received(self) -> None:
        self._happen(Trigger.RECEIVED, self.state)

    def _manifest_holds(self) -> bool:
        envelope = self._envelopes.load()
        if envelope is None:
            return False
        try:
            offer = self._judges.manifest(envelope)
        except Refusal as error:
            if error.code in (RefusalCode.NO_DECRYPTION_KEY, RefusalCode.DECRYPTION_KEY):
                raise
            return False
        self._download.payload, self._delta = offer.payload, offer.delta
        return offer.digest == self.state.digest and offer.fetched_size == self.state.size


STATE_LOST = "The device's record of the update was damaged; an update that was under way starts over."

_INSTALL_FAILURES = {
    Outcome.BOOT_FAILED: (Result.UPDATE_FAILED, "The new image never reached the server and was reverted."),
    Outcome.IMAGE_DAMAGED: (Result.INTEGRITY, "The new image was damaged before it could start."),
    Outcome.BELOW_FLOOR: (Result.UPDATE_FAILED, "The new image's sequence number is too low to be started."),
    Outcome.UNAUTHORISED: (Result.INTEGRITY, "No trusted key has signed the new image."),
}
