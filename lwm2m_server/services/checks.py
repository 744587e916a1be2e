"""Whether a manifest may be offered at all, and whether this device may be offered this update.

A device with the update agent object decides for itself what it accepts; what it says of itself is compared
here nevertheless, so that a mistake ends before it reaches the device. A plain object-5 device would flash
whatever it gets, so what can't be checked for it is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lwm2m_server import versions
from lwm2m_server.campaigns.machine import DeploymentEvent
from lwm2m_server.devices.records import Device, Facts
from lwm2m_server.errors import Lwm2mError
from lwm2m_server.firmware.envelope import Verified, verify
from lwm2m_server.firmware.preflight import check_approval
from lwm2m_server.firmware.refusals import RefusalCode, refusal
from lwm2m_server.services.keyring import anchors_of
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


def check(device: Device, manifest: StoredManifest) -> Verdict:
    """Compare what the device says of itself with what the manifest is for."""
    facts = device.facts
    if _runs(facts, manifest):
        return Verdict(
            DeploymentEvent.SKIP, "already-current", f"the device already runs version {manifest.version}"
        )
    if facts.understands_manifests:
        return _identifiers(facts, manifest) or _rollback(facts, manifest) or _OFFER
    if manifest.is_encrypted:
        return Verdict(
            DeploymentEvent.REJECT,
            "no-decryption-key",
            "the image is encrypted, and only devices that take manifests can decrypt it",
        )
    if device.registration is not None and not _has_firmware_object(device.registration.objects):
        return Verdict(DeploymentEvent.REJECT, "no-firmware-object")
    return _identity(facts, manifest) or _version(facts, manifest) or _OFFER


def _runs(facts: Facts, manifest: StoredManifest) -> bool:
    if not versions.same(facts.firmware_version, manifest.version):
        return False
    return facts.running_digest is None or facts.running_digest == manifest.installed_digest


def _has_firmware_object(objects: tuple[str, ...]) -> bool:
    return any(path == "/5" or path.startswith("/5/") for path in objects)


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


def _version(facts: Facts, manifest: StoredManifest) -> Verdict | None:
    present = versions.try_parse(facts.firmware_version)
    target = versions.try_parse(manifest.version)
    if present is None or target is None:
        return Verdict(
            DeploymentEvent.REJECT,
            "unknown-version",
            f"the versions '{facts.firmware_version}' and '{manifest.version}' can't be compared",
        )
    return _rollback(facts, manifest)


def _rollback(facts: Facts, manifest: StoredManifest) -> Verdict | None:
    present = versions.try_parse(facts.firmware_version)
    target = versions.try_parse(manifest.version)
    if present is None or target is None or present <= target or manifest.data.get("downgrade") is True:
        return None
    return Verdict(
        DeploymentEvent.REJECT,
        "version-rollback",
        f"the device runs {present}, which is newer than {target}, and the manifest does not say that it may go back",
    )


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
