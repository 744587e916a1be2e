"""One application of this device: the machine of object 9 over a flash of its own, without a network.

Its flash is divided like the device's (layout `ab`): one slot holds the software in place, the other one takes
packages; the record in place of the update state says which is which. Every method commits to flash before it
returns, in an order that makes a power cut at any point come out either before or after it. `reconcile` runs at each
boot; what was begun and not finished shows as `Stage.INSTALLING`, `UNINSTALLING` or `CLEARING` then, and whoever has
the hooks does it again.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from lwm2m_device.download import ImageDownload
from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_device.places import Place
from lwm2m_device.slots import ImageHeader, Slot, check_version_text
from lwm2m_device.software_judges import RESULTS, PackageJudge, Present
from lwm2m_device.software_machine import METHOD_NOT_ALLOWED, Result, Stage, Trigger, step
from lwm2m_device.software_state import TEXT_LIMIT, SoftwareState, SoftwareStore
from lwm2m_server.firmware.applications import PREFIX
from lwm2m_server.firmware.images import VERSION_LINE
from lwm2m_server.firmware.refusals import Refusal, RefusalCode
from lwm2m_server.firmware.refusals import refusal as refuse


class Application:
    """Stage and Update Result of one instance with the means to change them.

    `listeners` are called after each change. `others` are the device's other applications: a free place does not
    take what has a place already.
    """

    def __init__(self, flash: Flash, layout: Layout, place: Place, judge: PackageJudge) -> None:
        self.place = place
        self.slots = (Slot(flash, layout, 0), Slot(flash, layout, 1))
        self.listeners: list[Callable[[], None]] = []
        self.others: Sequence[Application] = ()
        self._flash = flash
        self._layout = layout
        self._judge = judge
        self._store = SoftwareStore(flash, layout)
        self._begin_in_free_slot()

    # what is known

    @property
    def state(self) -> SoftwareState:
        """The present state, as it is in flash."""
        return self._store.state

    @property
    def plain(self) -> bool:
        """Say whether packages are files as they are rather than envelopes."""
        return self._judge.plain

    @property
    def name(self) -> str:
        """PkgName: of the package once it is known, else of what is in place, else of the place."""
        return self.state.package or self.state.name or self.place.name

    @property
    def version(self) -> str:
        """PkgVersion: of the package once it is whole, else of what is in place."""
        if self.state.stage in (Stage.DOWNLOADED, Stage.DELIVERED, Stage.INSTALLING):
            return self.state.version
        software = self.software
        return "" if software is None else software.version

    @property
    def software(self) -> ImageHeader | None:
        """What is in place."""
        slot = self.place_slot
        return None if slot is None else slot.header()

    @property
    def delivered(self) -> ImageHeader | None:
        """What was delivered, or is being installed."""
        return self._slot.header()

    @property
    def free_slot(self) -> Slot:
        """Where packages go."""
        return self._slot

    @property
    def place_slot(self) -> Slot | None:
        """Where the software in place is."""
        return None if self.state.place is None else self.slots[self.state.place]

    @property
    def component(self) -> str:
        """The application's name as that of a component."""
        return f"{PREFIX}{self.name}"

    @property
    def offset(self) -> int:
        """The next byte that is wanted, while downloading."""
        return self._download.offset

    @property
    def package_limit(self) -> int:
        """The largest package in bytes: a file in the slot, or an envelope beside it."""
        return self._slot.capacity if self.plain else self._slot.envelope.limit

    @property
    def fetching_image(self) -> bool:
        """Say whether the bytes that are wanted belong to the software, not to an envelope."""
        return self.state.stage is Stage.DOWNLOADING and (self.plain or bool(self.state.digest))

    # requests, and the package on its way

    def request(self, trigger: Trigger, *, source: str = "") -> int:
        """Apply a request of the server and return the CoAP code; `source` is where a pull comes from."""
        found = step(self.state.stage, trigger)
        if found is None:
            return METHOD_NOT_ALLOWED
        keeps = trigger in (Trigger.INSTALL, Trigger.ACTIVATE, Trigger.DEACTIVATE, Trigger.UNINSTALL)
        base = self.state if keeps and found.stage is not Stage.INITIAL else _fresh(self.state)
        if trigger in (Trigger.PACKAGE, Trigger.URI):
            self._begin_in_free_slot()
            self._download.begin()
            base = replace(base, source=source)
        before = self.state.stage
        self._enter(found.stage, found.result or Result.INITIAL, replace(base, code="", text=""))
        if before in (Stage.DELIVERED, Stage.DOWNLOADED) and found.stage is Stage.INITIAL:
            self._slot.drop()
        return found.code

    def accept_envelope(self, envelope: bytes) -> None:
        """Verify an envelope and get ready for what it names; raises Refusal, see `refused`."""
        name, offer = self._judge.offer(envelope, self._present())
        self._download.check_room(offer.size)
        check_version_text(offer.version)
        self._download.payload = offer.payload
        self._download.begin()
        self._slot.envelope.store(envelope)
        self._keep(
            replace(
                self.state,
                package=name,
                source=offer.source,
                etag=b"",
                digest=offer.digest,
                size=offer.size,
                version=offer.version,
                sequence=offer.sequence,
            )
        )

    def expect(self, etag: bytes, size: int = 0) -> None:
        """Note entity tag and size (0: unknown) of the bytes that come next; a changed tag starts over."""
        if etag == self.state.etag:
            return
        known = size if self.plain else self.state.size
        self._download.start_over(known)
        self._keep(replace(self.state, etag=etag, size=known))

    def store(self, data: bytes) -> None:
        """Store the next bytes, decrypted where they are not plain; raises Refusal when there are too many."""
        self._download.take(data, self.state.size)

    def holds(self, offset: int, data: bytes) -> bool:
        """Say whether these bytes are already stored at this offset: a repeated block."""
        return self._download.holds(offset, data)

    def finish(self) -> None:
        """All bytes are there: show that, then verify them and make the package installable; raises Refusal."""
        self._download.flush()
        self._download.check_whole(self.state.size)
        self._happen(Trigger.RECEIVED, replace(self.state, size=self.offset))
        self._verify()

    def fail(self, result: Result, code: str, text: str) -> None:
        """End the download, or what was delivered, with a result, and keep the reason for Status Reason."""
        text = text.encode()[:TEXT_LIMIT].decode(errors="ignore")
        self._happen(Trigger.FAILED, replace(_fresh(self.state), code=code, text=text), cause=result)

    def refused(self, error: Refusal) -> None:
        """End the download for a refusal."""
        self.fail(RESULTS[RefusalCode(error.code)], str(error.code), error.message)

    # what the hooks have done

    def installed(self) -> None:
        """Make the package that was delivered the software in place. One write of the record does it."""
        state = self.state
        if not self._is_sealed():
            self.fail(Result.INTEGRITY, RefusalCode.DIGEST_MISMATCH, "The package was no longer intact.")
            return
        done = replace(
            _fresh(state), place=self._slot.index, name=self.name, floor=max(state.floor, state.sequence)
        )
        self._happen(Trigger.INSTALLED, done)
        self._begin_in_free_slot()

    def install_failed(self, text: str) -> None:
        """Keep the package: the server may try again, or drop it by Uninstall."""
        self._complain(Trigger.INSTALL_FAILED, text)

    def removed(self) -> None:
        """Forget the software in place."""
        if self.place_slot is not None:
            self.place_slot.drop()
        self._happen(Trigger.REMOVED, replace(_fresh(self.state), place=None, name=""))
        self._begin_in_free_slot()

    def remove_failed(self, text: str) -> None:
        """Keep the software as it is."""
        self._complain(Trigger.REMOVE_FAILED, text)

    def started(self) -> None:
        """Show that what was activated runs."""
        self._happen(Trigger.STARTED, self.state)

    def start_failed(self, text: str) -> None:
        """Show that what was activated does not run."""
        self._complain(Trigger.START_FAILED, text)

    def set_tells_objects(self, *, value: bool) -> None:
        """Keep Update Supported Objects."""
        self._keep(replace(self.state, tells_objects=value))

    # at each boot

    def program_factory(self) -> None:
        """Put the software of a new device in place, if there is any, and the record of an instance without."""
        if not self._store.is_new:
            return
        with self._flash.at_the_factory():
            version = self.place.version
            if version is None:
                self._keep(SoftwareState())
                return
            content = VERSION_LINE + f"{version}\n{self.place.name}\n".encode()
            slot = self.slots[0]
            slot.drop()
            slot.erase_page(0)
            slot.write(0, content)
            slot.seal(ImageHeader(version, hashlib.sha256(content).digest(), len(content), 0))
            self._keep(SoftwareState(Stage.ACTIVE, Result.INSTALLED, place=0, name=self.place.name))
        self._begin_in_free_slot()

    def reconcile(self) -> list[str]:
        """Bring Stage in line with the flash; return notes for people."""
        notes: list[str] = []
        if self._store.damaged:
            notes.append(_STATE_LOST)
            headers = [header for slot in self.slots if (header := slot.header()) is not None]
            floor = max((header.sequence for header in headers), default=0)
            lost = SoftwareState(
                result=Result.DEVICE_DEFINED, floor=floor, code=RefusalCode.STATE_DAMAGED, text=_STATE_LOST
            )
            self._keep(lost)
            self._begin_in_free_slot()
        self._check_software(notes)
        stage = self.state.stage
        if stage is Stage.DOWNLOADING:
            self._resume_download(notes)
        elif stage is Stage.DOWNLOADED:
            self._verify_again()
        elif stage in (Stage.DELIVERED, Stage.INSTALLING) and not self._is_sealed():
            self.fail(Result.INTEGRITY, RefusalCode.DIGEST_MISMATCH, "The package is no longer intact.")
            notes.append(f"Application {self.place.number}: the package is no longer intact.")
        return notes

    # inside

    def _begin_in_free_slot(self) -> None:
        self._slot = self.slots[1 if self.state.place == 0 else 0]
        self._download = ImageDownload(
            self._flash, self._layout, self._slot, what="application", where="its place"
        )

    def _present(self) -> Present:
        taken = frozenset(other.name for other in self.others)
        return Present(self.state.name or self.place.name, self.software, self.state.floor, taken)

    def _check_software(self, notes: list[str]) -> None:
        """Give up software whose bytes have changed by themselves. One that is being replaced goes anyway."""
        state = self.state
        if state.place is None or state.stage not in _AT_REST:
            return
        if self.slots[state.place].is_intact():
            return
        notes.append(f"Application {self.name} is no longer intact and is given up.")
        self.fail(Result.INTEGRITY, RefusalCode.DIGEST_MISMATCH, "The software is no longer intact.")
        self._keep(replace(self.state, place=None, name=""))
        self._begin_in_free_slot()

    def _resume_download(self, notes: list[str]) -> None:
        if not self.fetching_image:
            if not self.state.source:
                text = "The package was still on its way at power loss."
                self.fail(Result.CONNECTION_LOST, RefusalCode.FETCH_FAILED, text)
            return
        if not self.plain:
            try:
                _, offer = self._judge.offer(self._slot.envelope.require(), self._present())
            except Refusal as error:
                self.refused(error)
                return
            self._download.payload = offer.payload
        kept = self._download.resume()
        notes.append(f"The download of application {self.name} goes on at byte {kept}.")

    def _verify_again(self) -> None:
        """Power was lost between the last byte and the verdict: judge anew, from what is in flash."""
        self._download.resume()
        try:
            if not self.plain:
                envelope = self._slot.envelope.load() or b""
                self._download.payload = self._judge.offer(envelope, self._present())[1].payload
            self._verify()
        except Refusal as error:
            self.refused(error)

    def _verify(self) -> None:
        state = self.state
        digest = self._slot.digest_of(state.size)
        if self.plain:
            version = self._judge.version(self._slot.read, state.size, self._present())
            check_version_text(version)
            # Nothing numbers plain packages: count them.
            state = replace(
                state,
                digest=digest,
                version=version,
                sequence=state.floor + 1,
                package=self._present().name,
            )
        else:
            self._check_against_manifest(digest)
        header = _header_of(state)
        if self._slot.header() != header:
            self._slot.seal(header)
        self._happen(Trigger.VERIFIED, state)

    def _check_against_manifest(self, digest: bytes) -> None:
        state = self.state
        if digest != state.digest:
            raise refuse(
                RefusalCode.DIGEST_MISMATCH,
                "What was stored does not have the digest that its manifest names.",
                field="image-digest",
            )
        envelope = self._slot.envelope.require()
        fetched = self._download.fetched_digest(digest, state.size)
        self._judge.complete(envelope, self._present(), digest, state.size, fetched)

    def _is_sealed(self) -> bool:
        return self._slot.header() == _header_of(self.state) and self._slot.is_intact()

    def _complain(self, trigger: Trigger, text: str) -> None:
        text = text.encode()[:TEXT_LIMIT].decode(errors="ignore")
        self._happen(trigger, replace(self.state, code="", text=text))

    def _happen(self, trigger: Trigger, base: SoftwareState, *, cause: Result = Result.INITIAL) -> None:
        """Apply an event of the device's own; `cause` is the result where the table leaves it open."""
        found = step(self.state.stage, trigger)
        if found is not None:
            self._enter(found.stage, cause if found.result is None else found.result, base)

    def _enter(self, stage: Stage, result: Result, base: SoftwareState) -> None:
        self._keep(replace(base, stage=stage, result=result))
        for listener in self.listeners:
            listener()

    def _keep(self, state: SoftwareState) -> None:
        self._store.store(state)


_AT_REST = (Stage.INITIAL, Stage.INACTIVE, Stage.STARTING, Stage.ACTIVE)
_STATE_LOST = "The record of this application was damaged; it counts as not installed."


def _fresh(state: SoftwareState) -> SoftwareState:
    """Forget the package but keep what is in place and what the server configured."""
    return SoftwareState(
        place=state.place, name=state.name, floor=state.floor, tells_objects=state.tells_objects
    )


def _header_of(state: SoftwareState) -> ImageHeader:
    return ImageHeader(state.version, state.digest, state.size, state.sequence)
