"""Who decides what this device takes: the manifest processor, or the header of a plain image.

A plain image has to name its version itself: by an MCUboot header, an ESP-IDF application descriptor,
or a first line `firmware-version: 1.2.0`. Either way the version must be newer than the running one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from lwm2m_device import uri
from lwm2m_device.bootloader import Authorise, Boot
from lwm2m_device.layout import Layout
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.slots import ImageHeader
from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.effects import (
    Answer,
    ApplyDelta,
    Authorize,
    ComponentState,
    Copy,
    DeviceFacts,
    Effect,
    Fetch,
    MatchImage,
    Procedure,
    Room,
)
from lwm2m_server.firmware.encryption import (
    ContentCipher,
    is_payload,
    parse_encryption_info,
    payload_component,
    unwrap,
)
from lwm2m_server.firmware.envelope import Verified, verify
from lwm2m_server.firmware.images import HEAD_SIZE, image_format, image_version
from lwm2m_server.firmware.inplace import delta_component, is_delta
from lwm2m_server.firmware.keys import VerificationKey
from lwm2m_server.firmware.preflight import check_approval
from lwm2m_server.firmware.processor import preflight, update
from lwm2m_server.firmware.refusals import Refusal, RefusalCode, refusal
from lwm2m_server.firmware.suit import DIGEST_SHA256, class_id, vendor_id
from lwm2m_server.firmware.trust import Role, TrustAnchor

Read = Callable[[int, int], bytes]
"""Reads bytes of the stored image: offset, length."""

_PIECE = 4096  # bytes that are read at once


@dataclass(frozen=True)
class Payload:
    """An encrypted image on its way: SHA-256 of the bytes as they are fetched, and what decrypts them.

    There are as many of them as of the image.
    """

    digest: bytes
    cipher: ContentCipher

    def digest_of(self, read: Read, size: int) -> bytes:
        """Return the SHA-256 of the bytes as they were fetched, by encrypting the first `size` of the image again."""
        digest = hashlib.sha256()
        for offset in range(0, size, _PIECE):
            digest.update(self.cipher.apply(offset, read(offset, min(_PIECE, size - offset))))
        return digest.digest()


@dataclass(frozen=True)
class Delta:
    """A delta on its way, which rewrites the image that runs: its SHA-256 and bytes."""

    digest: bytes
    size: int


@dataclass(frozen=True)
class Staging:
    """Where a device with one slot takes deltas: the room of the slot, and bytes of the staging area beside it."""

    room: Room
    size: int


@dataclass(frozen=True)
class Offer:
    """What a manifest announces: where the image is, its SHA-256, bytes, version, sequence number.

    `payload` is there when what is fetched is encrypted, `delta` when it is a delta; digest and size are those of
    the image all the same.
    """

    source: str
    digest: bytes
    size: int
    version: str
    sequence: int
    payload: Payload | None = None
    delta: Delta | None = None

    @property
    def fetched_size(self) -> int:
        """Bytes that are fetched."""
        return self.size if self.delta is None else self.delta.size


@dataclass(frozen=True)
class Judges:
    """The decisions that the updater leaves to others; all raise `Refusal`.

    `manifest` verifies an envelope in full. `complete` runs it again with digest and size of what was
    stored, and with the digest of what was fetched. `image` returns the version that a plain image of that
    size names. `plain` devices take images, no manifests.
    """

    manifest: Callable[[bytes], Offer]
    complete: Callable[[bytes, bytes, int, bytes], None]
    image: Callable[[Read, int], str]
    plain: bool = False


def judges_for(
    settings: DeviceSettings,
    boot: Boot,
    floor: Callable[[], int],
    capacity: int,
    now: Callable[[], float],
    staging: Staging | None = None,
) -> Judges:
    """Return the judges of a device that runs `boot` in slots of `capacity` bytes.

    `floor` gives the sequence number as it is now: a trial that is confirmed raises it. `now` is the clock.
    `staging` is where deltas go, None: whole images have room.
    """
    running = None if boot.image is None else boot.image.version
    judge = ManifestJudge(settings, boot, floor, capacity, now, staging)
    return Judges(judge.offer, judge.complete, newer_image(running), settings.plain)


def staging_beside(layout: Layout, boot: Boot) -> Staging | None:
    """Return where deltas go while this image runs; None when there is room for whole images."""
    if layout.staging_size is None or boot.slot is None:
        return None
    return Staging(Room(layout.memory_size, layout.page_size), layout.staging_size)


def identifiers(settings: DeviceSettings) -> tuple[bytes, bytes]:
    """Return vendor and class identifier (16 bytes each)."""
    vendor = vendor_id(settings.vendor.lower())
    return vendor, class_id(vendor, settings.class_name)


def trusted_keys(settings: DeviceSettings) -> tuple[TrustAnchor, ...]:
    """Return the keys that may sign manifests, by role; raises InvalidInput for a file that holds none."""
    held: dict[bytes, tuple[VerificationKey, set[Role]]] = {}
    for role, pems, field in (
        (Role.IMAGE_AUTHOR, settings.trust, "trust"),
        (Role.OPERATOR_APPROVAL, settings.approval, "approval-key"),
    ):
        for pem in pems:
            key = VerificationKey.from_pem(pem, field=field)
            held.setdefault(key.key_id, (key, set()))[1].add(role)
    second = settings.requires
    return tuple(
        TrustAnchor(key, frozenset(roles), requires=None if key.key_type is second else second)
        for key, roles in held.values()
    )


def authoriser(settings: DeviceSettings) -> Authorise:
    """Return what the boot loader asks before each start; images without manifests only have their digest."""
    keys = trusted_keys(settings)

    def authorise(envelope: bytes | None, header: ImageHeader) -> bool:
        if settings.plain:
            return True
        if envelope is None:
            return False
        try:
            verified = verify(envelope, keys)
            check_approval(verified)
        except Refusal:
            return False
        facts = verified.facts
        named = any(
            header.digest in component.digests
            for component in facts.components
            if not is_payload(component.component) and not is_delta(component.component)
        )
        return named and (facts.sequence_number, facts.version) == (header.sequence, header.version)

    return authorise


class ManifestJudge:
    """Runs manifests through the processor, with this device's one component."""

    def __init__(
        self,
        settings: DeviceSettings,
        boot: Boot,
        floor: Callable[[], int],
        capacity: int,
        now: Callable[[], float],
        staging: Staging | None = None,
    ) -> None:
        self._settings = settings
        self._staging = staging
        self._delta = delta_component(settings.component)
        self._keys = trusted_keys(settings)
        self._running = boot.image
        self._floor = floor
        self._capacity = capacity
        self._now = now
        self._hidden = payload_component(settings.component)

    def offer(self, envelope: bytes) -> Offer:
        """Verify an envelope and return what it wants fetched."""
        verified = verify(envelope, self._keys, now=self._now())
        facts = self._facts()
        refused = preflight(verified, facts)
        if refused is not None:
            raise refused
        version = self._newer_version(verified)
        procedure = update(verified, facts)
        try:
            effect = next(procedure)
            while not isinstance(effect, Fetch):
                effect = procedure.send(self._before_fetch(effect))
            made: Copy | ApplyDelta | None = None
            if effect.component in (self._hidden, self._delta):
                made = self._made_after(effect, procedure)
        except StopIteration:
            raise refusal(
                RefusalCode.UNSUPPORTED, "The manifest has nothing to fetch.", field="install"
            ) from None
        return self._offer_of(effect, made, version, verified.facts.sequence_number)

    def _made_after(self, fetch: Fetch, procedure: Procedure) -> Copy | ApplyDelta:
        """Go on from the fetch of an encrypted payload, or a delta, to what makes the image of it."""
        wanted, what = (Copy, "copies") if fetch.component == self._hidden else (ApplyDelta, "applies")
        effect = procedure.send(True)
        while not isinstance(effect, wanted):
            if not (isinstance(effect, MatchImage) and effect.component == fetch.component):
                raise _unsupported("A payload of which the image is not made at once is not supported.")
            effect = procedure.send(effect.digest == fetch.digest)
        if (effect.component, effect.source) != (self._settings.component, fetch.component):
            raise _unsupported(f"The manifest {what} what this device does not.")
        return effect

    def complete(
        self, envelope: bytes, digest: bytes, size: int, fetched_digest: bytes | None = None
    ) -> None:
        """Run the whole procedure with an image that was fetched, of this SHA-256 and size.

        `fetched_digest` is that of the bytes as they came, where they were encrypted, or a delta.
        """
        sent = (self._hidden, self._delta)
        procedure = update(verify(envelope, self._keys, now=self._now()), self._facts())
        fetched = False
        try:
            effect = next(procedure)
            while True:
                if isinstance(effect, Fetch):
                    answer: Answer = not fetched
                    fetched = True
                elif isinstance(effect, MatchImage) and fetched:
                    held = fetched_digest if effect.component in sent else digest
                    same_size = effect.component == self._delta or effect.size in (None, size)
                    answer = effect.digest.value == held and same_size
                elif isinstance(effect, Copy | ApplyDelta) and fetched and effect.source in sent:
                    answer = True
                else:
                    answer = self._before_fetch(effect)
                effect = procedure.send(answer)
        except StopIteration:
            return

    def _facts(self) -> DeviceFacts:
        vendor, device_class = identifiers(self._settings)
        version = None if self._running is None else self._running.version
        return DeviceFacts(
            vendor_ids=frozenset({vendor}),
            class_ids=frozenset({device_class}),
            components={
                self._settings.component: ComponentState(
                    version=version,
                    capacity=self._capacity,
                    in_place=None if self._staging is None else self._staging.room,
                ),
                self._hidden: ComponentState(capacity=self._capacity),
                self._delta: ComponentState(),
            },
            sequence_number=self._floor(),
            now=self._now(),
            battery=self._settings.battery,
        )

    def _before_fetch(self, effect: Effect) -> Answer:
        """Compare with what runs now; everything else is beyond this device."""
        if isinstance(effect, MatchImage):
            running = self._running
            return running is not None and effect.digest.value == running.digest
        if isinstance(effect, Authorize):
            return not self._settings.unauthorized
        return refusal(
            RefusalCode.UNSUPPORTED, f"This device can't {type(effect).__name__.lower()}.", field="install"
        )

    def _newer_version(self, verified: Verified) -> str:
        version = verified.facts.version
        if version is None or versions.try_parse(version) is None:
            raise refusal(RefusalCode.UNSUPPORTED, "The manifest names no version.", field="version")
        if not verified.facts.downgrade:
            _check_newer(version, None if self._running is None else self._running.version)
        return version

    def _offer_of(self, fetch: Fetch, made: Copy | ApplyDelta | None, version: str, sequence: int) -> Offer:
        fetched, size = _named(fetch)
        self._check_staging(size, whole=not isinstance(made, ApplyDelta))
        if fetch.encryption is not None:
            raise _unsupported("An image that is decrypted by its fetch is not supported.")
        if fetch.content is not None:
            raise refusal(
                RefusalCode.UNSUPPORTED, "This device takes no images out of envelopes.", field="uri"
            )
        source = uri.resolve(fetch.uri, self._settings.server)
        try:
            uri.parse(source, field="uri")
        except InvalidInput as error:
            raise refusal(RefusalCode.UNSUPPORTED, error.message, field="uri") from None
        if made is None:
            return Offer(source, fetched, size, version, sequence)
        digest, plain_size = _named(made)
        if isinstance(made, ApplyDelta):
            return Offer(source, digest, plain_size, version, sequence, delta=Delta(fetched, size))
        if made.encryption is None:
            raise _unsupported("The manifest copies an image that is not encrypted.")
        cipher = unwrap(parse_encryption_info(made.encryption), self._settings.decryption_keys)
        if plain_size != size:
            raise refusal(
                RefusalCode.SIZE_MISMATCH,
                f"The image has {plain_size} bytes, its encrypted payload {size}.",
                field="image-size",
            )
        return Offer(source, digest, size, version, sequence, Payload(fetched, cipher))

    def _check_staging(self, size: int, *, whole: bool) -> None:
        """Refuse what has no room beside the one image that there is."""
        if self._staging is None or size <= self._staging.size:
            return
        running = "nothing" if self._running is None else self._running.digest.hex()
        why = f"; the manifest has no delta for the image that runs, {running}" if whole else ""
        raise refusal(
            RefusalCode.STORAGE_FULL,
            f"{'The image' if whole else 'The delta'} has {size} bytes, the staging area {self._staging.size}{why}.",
            field="image-size",
            hint="Make a manifest with a delta for that image, for a slot and pages of this size.",
        )


def _named(effect: Fetch | Copy | ApplyDelta) -> tuple[bytes, int]:
    """Return the SHA-256 and the size that the manifest names for what is fetched or copied."""
    if effect.digest is None or effect.digest.algorithm != DIGEST_SHA256 or not effect.size:
        raise refusal(
            RefusalCode.UNSUPPORTED, "The manifest names no SHA-256 digest or no size.", field="image-digest"
        )
    return effect.digest.value, effect.size


def _unsupported(message: str) -> Refusal:
    return refusal(RefusalCode.UNSUPPORTED, message, field="install")


def newer_image(running: str | None) -> Callable[[Read, int], str]:
    """Return the judge for plain images: the version must be above `running` (None: any will do)."""

    def judge(read: Read, size: int) -> str:
        head = read(0, min(size, HEAD_SIZE))
        version = image_version(head, image_format(head))
        if version is None or versions.try_parse(version) is None:
            raise refusal(
                RefusalCode.UNSUPPORTED,
                "The image does not name its version.",
                hint="Use an MCUboot or ESP-IDF image, or begin it with a line 'firmware-version: 1.2.0'.",
            )
        _check_newer(version, running)
        return version

    return judge


def _check_newer(version: str, running: str | None) -> None:
    if running is None or versions.try_parse(running) is None:
        return
    if versions.compare(version, running) <= 0:
        raise refusal(
            RefusalCode.VERSION_ROLLBACK, f"Version {version} is not newer than {running}.", field="version"
        )
