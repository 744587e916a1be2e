"""Who decides which package an application takes: the manifest processor, or the header of a plain file.

A manifest for an application has the component `app/<name>` and nothing else. It goes through the same processor,
keys and identifiers as one for firmware; version and sequence number are compared with what is in place.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from lwm2m_device.bootloader import Boot
from lwm2m_device.judges import ManifestJudge, Offer, Read, newer_image, trusted_keys
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.slots import ImageHeader
from lwm2m_device.software_machine import Result
from lwm2m_server.firmware.applications import application_name
from lwm2m_server.firmware.envelope import verify
from lwm2m_server.firmware.refusals import RefusalCode, refusal
from lwm2m_server.firmware.software_results import SOFTWARE_RESULT
from lwm2m_server.firmware.suit import component_text


@dataclass(frozen=True)
class Present:
    """What a package is compared with.

    `name` is that of the application (empty: any will do), `software` what is in place, `floor` the highest sequence
    number that was. `taken` are the names of applications that have places of their own.
    """

    name: str
    software: ImageHeader | None
    floor: int
    taken: frozenset[str] = frozenset()


class PackageJudge(Protocol):
    """The decisions that an application leaves to others; all raise `Refusal`. `plain` devices take no manifests."""

    @property
    def plain(self) -> bool:
        """Say whether packages are files as they are."""
        ...

    def offer(self, envelope: bytes, present: Present) -> tuple[str, Offer]:
        """Verify an envelope in full; return the application's name and what is to be fetched."""
        ...

    def complete(
        self, envelope: bytes, present: Present, digest: bytes, size: int, fetched_digest: bytes
    ) -> None:
        """Run the envelope again with what was stored, and the digest of what was fetched."""
        ...

    def version(self, read: Read, size: int, present: Present) -> str:
        """Return the version that a plain file of this size names."""
        ...


class SoftwareJudge:
    """The judge of the applications of a device with these settings."""

    def __init__(self, settings: DeviceSettings, capacity: int, now: Callable[[], float]) -> None:
        """`capacity` is the largest application in bytes, `now` the clock."""
        self._settings = settings
        self._keys = trusted_keys(settings)
        self._capacity = capacity
        self._now = now

    @property
    def plain(self) -> bool:
        """Say whether packages are files as they are."""
        return self._settings.plain

    def offer(self, envelope: bytes, present: Present) -> tuple[str, Offer]:
        """Verify an envelope."""
        name, judge = self._judge(envelope, present)
        return name, judge.offer(envelope)

    def complete(
        self, envelope: bytes, present: Present, digest: bytes, size: int, fetched_digest: bytes
    ) -> None:
        """Run an envelope to its end."""
        _, judge = self._judge(envelope, present)
        judge.complete(envelope, digest, size, fetched_digest)

    def version(self, read: Read, size: int, present: Present) -> str:
        """Read the header of a plain file."""
        if not present.name:
            raise refusal(
                RefusalCode.UNSUPPORTED,
                "A plain package does not name its application, and this place is for any.",
                hint="Run the device with --application NAME, or with manifests.",
            )
        running = None if present.software is None else present.software.version
        return newer_image(running)(read, size)

    def _judge(self, envelope: bytes, present: Present) -> tuple[str, ManifestJudge]:
        component = verify(envelope, self._keys, now=self._now()).facts.main.component
        name = application_name(component)
        wanted = f"application {present.name}" if present.name else "any application without a place"
        if name is None or present.name not in ("", name) or (not present.name and name in present.taken):
            raise refusal(
                RefusalCode.COMPONENT_MISMATCH,
                f"The manifest is for {component_text(component)}, this place for {wanted}.",
                field="common/2",
            )
        judge = ManifestJudge(
            replace(self._settings, component=component),
            Boot(None, present.software, trial=False, notes=()),
            lambda: present.floor,
            self._capacity,
            self._now,
        )
        return name, judge


RESULTS: dict[RefusalCode, Result] = {code: Result(number) for code, number in SOFTWARE_RESULT.items()}
"""Update Result of object 9 for each refusal; Status Reason says which it was."""
