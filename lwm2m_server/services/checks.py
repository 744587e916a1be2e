"""Whether a manifest may be offered at all, and whether this device may be offered this update.

A device with the update agent object decides for itself what it accepts; what it says of itself is compared
here nevertheless, so that a mistake ends before it reaches the device. A plain object-5 device would flash
whatever it gets, so what can't be checked for it is refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lwm2m_server import versions
from lwm2m_server.campaigns.machine import DeploymentEvent
from lwm2m_server.devices.records import Device, Facts
from lwm2m_server.errors import Lwm2mError
from lwm2m_server.firmware.applications import application_in
from lwm2m_server.firmware.envelope import Verified, verify
from lwm2m_server.firmware.preflight import check_approval
from lwm2m_server.firmware.refusals import RefusalCode, refusal
from lwm2m_server.services.components import ADVANCED_UPDATE, MAIN, Target, targets_of
from lwm2m_server.services.keyring import anchors_of
from lwm2m_server.services.software_link import place_of
from lwm2m_server.store.records import JsonValue, StoredManifest, TrustedKey


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with the deployment, and why; `event` is OFFER, SKIP or REJECT."""

    event: DeploymentEvent
    reason: str
    text: str = ""


_OFFER = Verdict(DeploymentEvent.OFFER, "offered")


def verify_now(envelope: bytes, keys: Iterable[TrustedKey], now: float) -> Verified:
    """Verify an envelope as of now: signatures, who made them, approval, and that its time is not over.

    `keys` are all that were ever trusted. Raises `Refusal` or another error for users.
    """
    verified = verify(envelope, anchors_of(keys), now=now)
    check_approval(verified)
    until = verified.facts.use_before
    if until is not None and now >= until:
        raise refusal(
            RefusalCode.EXPIRED,
            "the time until which the manifest may be used is over",
            field="use_before",
            hint="make a new manifest, with a higher sequence number",
        )
    return verified


def still_stands(manifest: StoredManifest, keys: Iterable[TrustedKey], now: float) -> Verdict | None:
    """Why a manifest that was accepted once is offered no longer: a key was revoked, its time is over."""
    try:
        verify_now(manifest.envelope, keys, now)
    except Lwm2mError as error:
        return Verdict(DeploymentEvent.REJECT, str(error.code), error.message)
    return None


def is_known(facts: Facts, manifest: StoredManifest) -> bool:
    """Say whether the device has said what this update asks of it; what an earlier server read may not be enough."""
    if application_in(targets_of(manifest)[0].name) is not None and facts.applications is None:
        return False
    return facts.understands_manifests is not None


def check(device: Device, manifest: StoredManifest) -> Verdict:
    """Compare what the device says of itself with what the manifest is for."""
    facts, targets = device.facts, targets_of(manifest)
    application = application_in(targets[0].name)
    if application is not None:
        return _check_application(facts, manifest, application, several=len(targets) > 1)
    missing = _missing(facts, targets)
    if missing is None and all(_runs(present, target) for present, target in _pairs(facts, targets)):
        return Verdict(DeploymentEvent.SKIP, "already-current", f"the device already runs {_said(targets)}")
    if facts.understands_manifests:
        return (
            _identifiers(facts, manifest)
            or missing
            or _sequence(facts, manifest)
            or _rollback(facts, manifest, targets)
            or _room(facts, targets)
            or _OFFER
        )
    if manifest.is_encrypted:
        return Verdict(
            DeploymentEvent.REJECT,
            "no-decryption-key",
            "the image is encrypted, and only devices that take manifests can decrypt it",
        )
    if device.registration is not None and not _has_update_object(device.registration.objects):
        return Verdict(DeploymentEvent.REJECT, "no-firmware-object")
    if len(targets) > 1 and missing is None:
        return Verdict(
            DeploymentEvent.REJECT,
            "unsupported",
            "the update has several components, and only devices that take manifests can install them together",
        )
    return (
        _identity(facts, manifest)
        or missing
        or _version(facts, manifest, targets)
        or _room(facts, targets)
        or _OFFER
    )


def _check_application(facts: Facts, manifest: StoredManifest, application: str, *, several: bool) -> Verdict:
    """Compare an application's manifest with the place that it goes to."""
    if not facts.applications:
        return Verdict(DeploymentEvent.REJECT, "no-software-object")
    place = place_of(facts, application)
    if place is None:
        return Verdict(
            DeploymentEvent.REJECT, "no-application-place", f"the device has no place for {application}"
        )
    if versions.same(place.version, manifest.version):
        return Verdict(
            DeploymentEvent.SKIP,
            "already-current",
            f"the device already has {application} {manifest.version}",
        )
    if several:
        return Verdict(
            DeploymentEvent.REJECT, "unsupported", "an application comes alone, without other components"
        )
    if not facts.understands_manifests and manifest.is_encrypted:
        return Verdict(DeploymentEvent.REJECT, "no-decryption-key")
    foreign = (_identifiers if facts.understands_manifests else _identity)(facts, manifest)
    return foreign or _older(application, place.version, manifest) or _OFFER


def _older(application: str, version: str | None, manifest: StoredManifest) -> Verdict | None:
    present, wanted = versions.try_parse(version), versions.try_parse(manifest.version)
    if manifest.data.get("downgrade") is True or present is None or wanted is None or present <= wanted:
        return None
    return Verdict(
        DeploymentEvent.REJECT,
        "version-rollback",
        f"the device has {application} {present}, which is newer than {wanted}, "
        "and the manifest does not say that it may go back",
    )


@dataclass(frozen=True, slots=True)
class _Present:
    """What is installed where a target goes."""

    version: str | None
    digest: bytes | None
    capacity: int | None


def _missing(facts: Facts, targets: Sequence[Target]) -> Verdict | None:
    """Refuse what the device has no component for; one without object 33629 has its firmware alone.

    How that is called, a device that takes manifests knows; for others it has the name that manifests give it.
    """
    if facts.components:
        lacking = [target.name for target in targets if facts.component(target.name) is None]
    else:
        known = {targets[0].name} if facts.understands_manifests else {MAIN}
        lacking = [target.name for target in targets if target.name not in known]
    if not lacking:
        return None
    return Verdict(
        DeploymentEvent.REJECT,
        "component-missing",
        f"the device does not show {'component' if len(lacking) == 1 else 'components'} {', '.join(lacking)}",
    )


def _pairs(facts: Facts, targets: Sequence[Target]) -> Iterator[tuple[_Present, Target]]:
    """Pair each target with what is there; only where none is missing."""
    for target in targets:
        component = facts.component(target.name)
        if component is None:
            yield _Present(facts.firmware_version, facts.running_digest, facts.capacity), target
        else:
            yield _Present(component.version, component.digest, component.capacity), target


def _runs(present: _Present, target: Target) -> bool:
    if target.version is None:
        return present.digest == target.digest
    if not versions.same(present.version, target.version):
        return False
    return present.digest is None or present.digest == target.digest


def _said(targets: Sequence[Target]) -> str:
    if len(targets) == 1:
        return f"version {targets[0].version}"
    return ", ".join(f"{target.name} {target.version or target.digest.hex()[:12]}" for target in targets)


def _room(facts: Facts, targets: Sequence[Target]) -> Verdict | None:
    """Refuse what does not fit where the device says how much does."""
    for present, target in _pairs(facts, targets):
        if present.capacity is not None and target.size > present.capacity:
            return Verdict(
                DeploymentEvent.REJECT,
                "storage-full",
                f"the image{_of(target, targets)} has {target.size} bytes, and {present.capacity} fit",
            )
    return None


def _of(target: Target, targets: Sequence[Target]) -> str:
    return f" of {target.name}" if len(targets) > 1 else ""


def _has_update_object(objects: tuple[str, ...]) -> bool:
    return any(path.split("/")[1:2] in (["5"], [str(ADVANCED_UPDATE)]) for path in objects)


def _identity(facts: Facts, manifest: StoredManifest) -> Verdict | None:
    if not manifest.manufacturer or not manifest.model:
        return Verdict(
            DeploymentEvent.REJECT,
            "manifest-unspecific",
            "the manifest names no manufacturer and model, so nobody could check it for this device",
        )
    for name, reported, wanted in (
        ("manufacturer", facts.manufacturer, manifest.manufacturer),
        ("model", facts.model, manifest.model),
    ):
        if reported is None:
            return Verdict(DeploymentEvent.REJECT, "unknown-identity", f"the device does not say its {name}")
        if reported != wanted:
            return Verdict(
                DeploymentEvent.REJECT,
                f"{name}-mismatch",
                f"the device's {name} is '{reported}', the manifest is for '{wanted}'",
            )
    return None


def _version(facts: Facts, manifest: StoredManifest, targets: Sequence[Target]) -> Verdict | None:
    for present, target in _pairs(facts, targets):
        if versions.try_parse(present.version) is None or versions.try_parse(target.version) is None:
            return Verdict(
                DeploymentEvent.REJECT,
                "unknown-version",
                f"the versions '{present.version}' and '{target.version}' can't be compared",
            )
    return _rollback(facts, manifest, targets)


def _sequence(facts: Facts, manifest: StoredManifest) -> Verdict | None:
    """A device takes no manifest with a lower number than it has taken, whatever that manifest says."""
    if facts.sequence is None or facts.sequence <= manifest.sequence:
        return None
    return Verdict(
        DeploymentEvent.REJECT,
        "sequence-rollback",
        f"the device has taken a manifest with sequence number {facts.sequence}, this one has {manifest.sequence}",
    )


def _rollback(facts: Facts, manifest: StoredManifest, targets: Sequence[Target]) -> Verdict | None:
    if manifest.data.get("downgrade") is True:
        return None
    for there, target in _pairs(facts, targets):
        present, wanted = versions.try_parse(there.version), versions.try_parse(target.version)
        if present is not None and wanted is not None and present > wanted:
            return Verdict(
                DeploymentEvent.REJECT,
                "version-rollback",
                f"the device runs{_of(target, targets)} {present}, which is newer than {wanted}, "
                "and the manifest does not say that it may go back",
            )
    return None


def _identifiers(facts: Facts, manifest: StoredManifest) -> Verdict | None:
    """Compare the SUIT identifiers that a device reports with all that the manifest has branches for."""
    for name, code, reported, first in (
        ("vendor", "vendor-mismatch", facts.vendor_id, manifest.vendor_id),
        ("class", "class-mismatch", facts.class_id, manifest.class_id),
    ):
        known: JsonValue = manifest.data.get(f"{name}_ids")
        wanted = known if isinstance(known, list) else [first.hex()]
        if reported is not None and reported.hex() not in wanted:
            return Verdict(
                DeploymentEvent.REJECT, code, f"the device reports another {name} than the manifest is for"
            )
    return None
