"""The update of this device: the machine of object 5 over flash and boot loader, without a network.

Every method commits to flash before it returns, in an order that makes a power cut at any point come out
either before or after it. `reconcile` runs at each boot and finishes or takes back what a cut left half
done.
"""

import hashlib
from dataclasses import replace

from lwm2m_device.boot_state import Outcome
from lwm2m_device.bootloader import Boot, BootLoader
from lwm2m_device.download import ImageDownload
from lwm2m_device.flash import Flash
from lwm2m_device.inplace import InPlaceDelta
from lwm2m_device.judges import Delta, Judges, Payload
from lwm2m_device.layout import Layout
from lwm2m_device.machine import Result, State, Trigger, refusal, step
from lwm2m_device.slots import VERSION_LIMIT, ImageHeader, StagedDelta
from lwm2m_device.update_machine import UpdateMachine, fresh
from lwm2m_device.update_state import UpdateState
from lwm2m_server.clock import Clock
from lwm2m_server.firmware.deltas import PatchError
from lwm2m_server.firmware.refusals import Refusal, RefusalCode
from lwm2m_server.firmware.refusals import refusal as refuse


class Updater(UpdateMachine):
    """Object 5's state with the means to change it."""

    def __init__(
        self, flash: Flash, layout: Layout, loader: BootLoader, boot: Boot, *, judges: Judges, clock: Clock
    ) -> None:
        super().__init__(flash, layout, clock)
        self.boot = boot
        self.loader = loader
        self._judges = judges
        self.slot = loader.download_slot(boot)
        self._download = ImageDownload(flash, layout, self.slot)
        self._envelopes = self.slot.envelope
        self._payload: Payload | None = None
        self._delta: Delta | None = None

    @property
    def plain(self) -> bool:
        """Say whether packages are images rather than envelopes."""
        return self._judges.plain

    @property
    def offset(self) -> int:
        """The next byte of the image that is wanted, while Downloading."""
        return self._download.offset

    @property
    def package_limit(self) -> int:
        """The largest package in bytes: an image in the slot, or an envelope in the manifest area."""
        return self.slot.capacity if self.plain else self._envelopes.limit

    @property
    def fetching_image(self) -> bool:
        """Say whether the bytes that are wanted belong to the image, not to an envelope."""
        return self.state.state is State.DOWNLOADING and (self.plain or bool(self.state.digest))

    @property
    def encrypted(self) -> bool:
        """Say whether the bytes that are wanted are encrypted; `store` decrypts them."""
        return self._payload is not None

    @property
    def takes_delta(self) -> bool:
        """Say whether the bytes that are wanted are a delta that the manifest names."""
        return self._delta is not None

    def request(self, trigger: Trigger, *, uri: str = "", source: str = "") -> int:
        """Apply a request of the server and return the CoAP code of its answer.

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

    def accept_envelope(self, envelope: bytes) -> None:
        """Verify an envelope and get ready for its image; raises Refusal, see `refused`."""
        offer = self._judges.manifest(envelope)
        if offer.fetched_size > self.slot.capacity:
            raise _too_large(offer.fetched_size, self.slot.capacity)
        _check_version_text(offer.version)
        self._payload, self._delta = offer.payload, offer.delta
        self._download.begin()
        self._envelopes.store(envelope)
        self._keep(
            replace(
                self.state,
                source=offer.source,
                etag=b"",
                digest=offer.digest,
                size=offer.fetched_size,
                version=offer.version,
                sequence=offer.sequence,
            )
        )

    def expect(self, etag: bytes, size: int = 0) -> None:
        """Note entity tag and size (0: unknown) of the bytes that come next; a changed tag starts over."""
        if etag == self.state.etag:
            return
        if self.offset:
            self._download.begin()
        known = size if self.plain else self.state.size
        if known > self.slot.capacity:
            raise _too_large(known, self.slot.capacity)
        self._keep(replace(self.state, etag=etag, size=known))

    def store(self, data: bytes) -> None:
        """Store the next bytes as the image has them; raises Refusal when there are too many of them."""
        end = self.offset + len(data)
        if self.state.size and end > self.state.size:
            raise refuse(
                RefusalCode.SIZE_MISMATCH,
                f"The image is longer than the {self.state.size} bytes of its manifest.",
            )
        if end > self.slot.capacity:
            raise _too_large(end, self.slot.capacity)
        if self._payload is not None:
            data = self._payload.cipher.apply(self.offset, data)
        self._download.store(data)

    def restart(self) -> None:
        """Give up what is stored of the image: it comes from byte 0 again."""
        self._download.begin()

    def holds(self, offset: int, data: bytes) -> bool:
        """Say whether these bytes are already stored at this offset: a repeated block."""
        return self._download.holds(offset, data)

    def finish(self) -> None:
        """Check the whole image as it lies in the slot and make it installable; raises Refusal."""
        state = self.state
        if state.size and self.offset != state.size:
            raise refuse(
                RefusalCode.SIZE_MISMATCH,
                f"The image has {self.offset} bytes, its manifest says {state.size}.",
            )
        self._download.flush()
        digest = self._download.digest()
        staged = None
        if self._delta is not None:
            staged = StagedDelta(digest, self.offset)
            digest, size = self._check_delta(staged, self._delta)
            state = replace(state, size=size)
        elif self.plain:
            state = self._describe_plain(digest)
        else:
            self._check_against_manifest(digest)
        header = ImageHeader(state.version, digest, state.size or self.offset, state.sequence)
        if self.slot.header() != header or self.slot.delta() != staged:
            self.slot.seal(header, staged)
        self._happen(Trigger.RECEIVED, state)

    def fail(self, result: Result, code: str, text: str) -> None:
        """End the download with a result, and keep the reason for object 42800."""
        was = self.state.state
        self._happen(Trigger.DOWNLOAD_FAILED, replace(fresh(self.state), code=code, text=text), cause=result)
        if was is State.DOWNLOADED:
            self.slot.drop()

    def refused(self, error: Refusal) -> None:
        """End the download for a refusal."""
        self.fail(Result(error.update_result), str(error.code), error.message)

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
            notes.append(_STATE_LOST)
            lost = UpdateState(
                result=Result.UPDATE_FAILED,
                code=RefusalCode.STATE_DAMAGED,
                text=_STATE_LOST,
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
            self._happen(Trigger.RECEIVED, self.state)
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
        self._payload, self._delta = offer.payload, offer.delta
        return offer.digest == self.state.digest and offer.fetched_size == self.state.size

    def _sealed(self) -> bool:
        return bool(self.state.digest) and self.slot.header() == self._wanted() and self.slot.is_intact()

    def _check_against_manifest(self, digest: bytes) -> None:
        if digest != self.state.digest:
            raise refuse(RefusalCode.DIGEST_MISMATCH, self._why_another(), field="image-digest")
        envelope = self._envelopes.load()
        if envelope is None:
            raise refuse(RefusalCode.MALFORMED, "The stored manifest is no longer intact.")
        fetched = digest if self._payload is None else self._encrypted_digest(self._payload)
        self._judges.complete(envelope, digest, self.offset, fetched)

    def _check_delta(self, staged: StagedDelta, named: Delta) -> tuple[bytes, int]:
        """Return SHA-256 and bytes of the image that a delta makes: all is known before anything is rewritten."""
        if staged.digest != named.digest:
            raise refuse(
                RefusalCode.DIGEST_MISMATCH,
                "The stored delta does not have the digest that its manifest names.",
                field="image-digest",
            )
        try:
            delta = InPlaceDelta(self.layout, self.loader.slots[0], self.slot, staged.size)
            digest, size = delta.result()
        except PatchError as error:
            raise refuse(RefusalCode.DIGEST_MISMATCH, error.message, field="image-digest") from None
        envelope = self._envelopes.load()
        if envelope is None:
            raise refuse(RefusalCode.MALFORMED, "The stored manifest is no longer intact.")
        if digest != self.state.digest:
            raise refuse(
                RefusalCode.DIGEST_MISMATCH,
                "The delta does not make the image that the manifest names.",
                field="image-digest",
            )
        self._judges.complete(envelope, digest, size, staged.digest)
        return digest, size

    def _why_another(self) -> str:
        """Say what is wrong with an image of another digest: encrypted again it is what was fetched."""
        if self._payload is None:
            return "The stored image does not have the digest that its manifest names."
        if self._encrypted_digest(self._payload) != self._payload.digest:
            return "The encrypted image is not the one that its manifest names."
        return "The decrypted image does not have the digest that its manifest names."

    def _encrypted_digest(self, payload: Payload) -> bytes:
        digest = hashlib.sha256()
        for offset in range(0, self.offset, _PIECE):
            plain = self.slot.read(offset, min(_PIECE, self.offset - offset))
            digest.update(payload.cipher.apply(offset, plain))
        return digest.digest()

    def _wanted(self) -> ImageHeader:
        state = self.state
        return ImageHeader(state.version, state.digest, state.size, state.sequence)

    def _describe_plain(self, digest: bytes) -> UpdateState:
        version = self._judges.image(self.slot.read, self.offset)
        _check_version_text(version)
        # Without a manifest nothing numbers the images: count them, so that the boot loader knows the order.
        return replace(
            self.state, digest=digest, size=self.offset, version=version, sequence=self.loader.floor + 1
        )


_PIECE = 4096  # bytes that are read at once
_STATE_LOST = "The device's record of the update was damaged; an update that was under way starts over."

_INSTALL_FAILURES = {
    Outcome.BOOT_FAILED: (Result.UPDATE_FAILED, "The new image never reached the server and was reverted."),
    Outcome.IMAGE_DAMAGED: (Result.INTEGRITY, "The new image was damaged before it could start."),
    Outcome.BELOW_FLOOR: (Result.UPDATE_FAILED, "The new image's sequence number is too low to be started."),
    Outcome.UNAUTHORISED: (Result.INTEGRITY, "No trusted key has signed the new image."),
}


def _check_version_text(version: str) -> None:
    if len(version.encode()) > VERSION_LIMIT:
        raise refuse(
            RefusalCode.UNSUPPORTED,
            f"The version's text is longer than {VERSION_LIMIT} bytes.",
            field="version",
        )


def _too_large(size: int, capacity: int) -> Refusal:
    return refuse(
        RefusalCode.STORAGE_FULL, f"The image has {size} bytes, the slot {capacity}.", field="image-size"
    )
