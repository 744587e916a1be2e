"""May this device be offered this update? Asked by the server on behalf of devices that can't check a manifest.

A device with the update agent object decides for itself what it accepts: there only 'already there' is decided
here. A plain object-5 device would flash whatever it gets, so what can't be checked for it is refused.
"""

from dataclasses import dataclass

from lwm2m_server import versions
from lwm2m_server.campaigns.machine import DeploymentEvent
from lwm2m_server.devices.records import Device, Facts
from lwm2m_server.store.records import StoredManifest


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with the deployment, and why; `event` is OFFER, SKIP or REJECT."""

    event: DeploymentEvent
    reason: str
    text: str = ""


_OFFER = Verdict(DeploymentEvent.OFFER, "offered")


def check(device: Device, manifest: StoredManifest) -> Verdict:
    """Compare what the device says of itself with what the manifest is for."""
    facts = device.facts
    if _runs(facts, manifest):
        return Verdict(
            DeploymentEvent.SKIP, "already-current", f"the device already runs version {manifest.version}"
        )
    if facts.understands_manifests:
        return _OFFER
    if device.registration is not None and not _has_firmware_object(device.registration.objects):
        return Verdict(DeploymentEvent.REJECT, "no-firmware-object")
    return _identity(facts, manifest) or _version(facts, manifest) or _OFFER


def _runs(facts: Facts, manifest: StoredManifest) -> bool:
    if not versions.same(facts.firmware_version, manifest.version):
        return False
    return facts.running_digest is None or facts.running_digest == manifest.image_digest


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
    if present > target:
        return Verdict(
            DeploymentEvent.REJECT,
            "version-rollback",
            f"the device runs {present}, which is newer than {target}",
        )
    return None
