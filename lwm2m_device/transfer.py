"""The transfer of an update: a manifest and its image on their way into the slot for downloads.

Every method commits to flash before it returns, in an order that makes a power cut at any point come out
either before or after it.
"""

from dataclasses import replace

from lwm2m_device.bootloader import Boot, BootLoader
from lwm2m_device.download import ImageDownload
from lwm2m_device.flash import Flash
from lwm2m_device.inplace import InPlaceDelta
from lwm2m_device.judges import Delta, Judges
from lwm2m_device.layout import Layout
from lwm2m_device.machine import Result, State, Trigger
from lwm2m_device.slots import ImageHeader, Slot, StagedDelta, check_version_text
from lwm2m_device.update_machine import UpdateMachine, fresh
from lwm2m_device.update_state import UpdateState
from lwm2m_server.clock import Clock
from lwm2m_server.firmware.deltas import PatchError
from lwm2m_server.firmware.refusals import Refusal, RefusalCode
from lwm2m_server.firmware.refusals import refusal as refuse


class Transfer(UpdateMachine):
    """Object 5's state with the bytes that it speaks of."""

    slot: Slot
    """Where the bytes that are wanted go."""

    def __init__(
        self, flash: Flash, layout: Layout, loader: BootLoader, boot: Boot, *, judges: Judges, clock: Clock
    ) -> None:
        super().__init__(flash, layout, clock)
        self.boot = boot
        self.loader = loader
        self._judges = judges
        self._delta: Delta | None = None
        self._aim(loader.download_slot(boot))

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
        return self._download.payload is not None

    @property
    def takes_delta(self) -> bool:
        """Say whether the bytes that are wanted are a delta that the manifest names."""
        return self._delta is not None

    def accept_envelope(self, envelope: bytes) -> None:
        """Verify an envelope and get ready for its image; raises Refusal, see `refused`."""
        offer = self._judges.manifest(envelope)
        self._download.check_room(offer.fetched_size)
        check_version_text(offer.version)
        self._download.payload, self._delta = offer.payload, offer.delta
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
        known = size if self.plain else self.state.size
        self._download.start_over(known)
        self._keep(replace(self.state, etag=etag, size=known))

    def store(self, data: bytes) -> None:
        """Store the next bytes as the image has them; raises Refusal when there are too many of them."""
        self._download.take(data, self.state.size)

    def restart(self) -> None:
        """Give up what is stored of the image: it comes from byte 0 again."""
        self._download.begin()

    def holds(self, offset: int, data: bytes) -> bool:
        """Say whether these bytes are already stored at this offset: a repeated block."""
        return self._download.holds(offset, data)

    def finish(self) -> None:
        """Check the whole image as it lies in the slot and make it installable; raises Refusal."""
        state, digest = self.state, self._whole()
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

    def base(self) -> tuple[Slot, ImageHeader] | None:
        """Return the image that a delta to the wanted one may start from; None when there is none."""
        if self.boot.slot is None or self.boot.image is None:
            return None
        return self.loader.slots[self.boot.slot], self.boot.image

    def _whole(self) -> bytes:
        """Return the SHA-256 of all that was fetched; raises Refusal when it is too short."""
        self._download.check_whole(self.state.size)
        self._download.flush()
        return self._download.digest()

    def _aim(self, slot: Slot) -> None:
        """Have the bytes that come next go there."""
        self.slot = slot
        self._download = ImageDownload(self.flash, self.layout, slot)
        self._envelopes = slot.envelope

    def _sealed(self) -> bool:
        return bool(self.state.digest) and self.slot.header() == self._wanted() and self.slot.is_intact()

    def _check_against_manifest(self, digest: bytes) -> None:
        if digest != self.state.digest:
            raise refuse(RefusalCode.DIGEST_MISMATCH, self._why_another(), field="image-digest")
        envelope = self._envelopes.require()
        fetched = self._download.fetched_digest(digest, self.offset)
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
        envelope = self._envelopes.require()
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
        payload = self._download.payload
        if payload is None:
            return "The stored image does not have the digest that its manifest names."
        if payload.digest_of(self.slot.read, self.offset) != payload.digest:
            return "The encrypted image is not the one that its manifest names."
        return "The decrypted image does not have the digest that its manifest names."

    def _wanted(self) -> ImageHeader:
        state = self.state
        return ImageHeader(state.version, state.digest, state.size, state.sequence)

    def _describe_plain(self, digest: bytes) -> UpdateState:
        version = self._judges.image(self.slot.read, self.offset)
        check_version_text(version)
        # Without a manifest nothing numbers the images: count them, so that the boot loader knows the order.
        return replace(
            self.state, digest=digest, size=self.offset, version=version, sequence=self.loader.floor + 1
        )
