"""Why a deployment or a campaign is in its state: stable codes, a sentence each, and what may be retried.

Codes never change their meaning: scripts, statistics and stop rules stand on them. The refusal codes are
those that a manifest processor reports, on the server or on the device.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One code. `retry` says whether another attempt may help; how often and when, the campaign says."""

    code: str
    sentence: str
    retry: bool = False


_ALL = (
    # progress and good ends
    Reason("targeted", "the device was in the snapshot that the campaign took when it started"),
    Reason("offered", "the update was offered to the device"),
    Reason("transfer", "the device is taking the bytes of the package"),
    Reason("verified", "the device has the whole package and found it acceptable"),
    Reason("installing", "the device was told to install, or does so by itself"),
    Reason("awaiting-evidence", "the device must register again and show the new version"),
    Reason("confirmed-version", "the device registered again and shows the new version"),
    Reason("confirmed-digest", "the device registered again and shows the new version and digest"),
    Reason("already-current", "the device already runs the wanted version"),
    # worth another attempt
    Reason("timeout", "the device did not answer", retry=True),
    Reason("not-registered", "the device is not registered at the moment", retry=True),
    Reason("inventory", "the device was asked what it is and has not answered yet", retry=True),
    Reason("busy", "the device was busy for too long", retry=True),
    Reason("connection-lost", "the connection was lost during the download", retry=True),
    Reason("out-of-memory", "the device ran out of memory during the download", retry=True),
    Reason("silent", "the device did not answer any more", retry=True),
    Reason("conflicting-state", "another component of the device is in the way of this update", retry=True),
    Reason("dependency-missing", "another component of the device must be updated first", retry=True),
    Reason("stalled", "the device made no progress for too long", retry=True),
    Reason("transfer-failed", "the transfer broke off", retry=True),
    Reason("fetch-failed", "the device could not fetch the image", retry=True),
    Reason("integrity", "the device found the package damaged", retry=True),
    Reason("invalid-uri", "the device could not use the address of the package", retry=True),
    Reason("update-failed", "the device reports that the installation failed", retry=True),
    Reason("rolled-back", "the device came back with its old version", retry=True),
    Reason("partly-installed", "some components of the device are new and some are old", retry=True),
    Reason("device-error", "the device answered with an error", retry=True),
    Reason("no-storage", "the device has too little storage for the application at the moment", retry=True),
    Reason("package-type", "the device does not take this type of package for applications", retry=True),
    Reason("uninstall-failed", "the device could not remove what was installed before", retry=True),
    Reason("deferred", "the device's application or its user put the update off", retry=True),
    Reason("digest-mismatch", "the image has another digest on the device than in the manifest", retry=True),
    Reason("size-mismatch", "the image has another size on the device than in the manifest", retry=True),
    Reason("battery-low", "the device's battery holds less than the manifest asks for", retry=True),
    Reason("component-failed", "a component of the device could not be installed", retry=True),
    Reason("state-damaged", "the device's record of the update was damaged; it starts over", retry=True),
    # final: failed
    Reason("storage-full", "the device has too little storage for the package"),
    Reason("protocol", "the device supports no protocol that the server can deliver by"),
    Reason("unconfirmed", "the device never showed the new version"),
    Reason("wrong-version", "the device came back with a version that nobody offered it"),
    Reason("unknown-result", "the device reports a result that no specification knows"),
    Reason("no-firmware-object", "the device has no firmware update object"),
    Reason("no-software-object", "the device has no object for the management of applications"),
    Reason("no-application-place", "the device has no place for this application"),
    Reason("activation-failed", "the application was installed and does not start"),
    Reason("artefact-missing", "the image or manifest is no longer stored on the server"),
    Reason("internal", "the server could not go on with this device; its log says why"),
    # final: rejected by a check, on the device or on its behalf
    Reason("signature", "the manifest's signature does not hold"),
    Reason("unknown-key", "the manifest is signed by a key that the device does not trust"),
    Reason("key-revoked", "the manifest is signed by a key that was revoked"),
    Reason("key-expired", "the manifest is signed by a key whose time is over"),
    Reason("key-not-yet-valid", "the manifest is signed by a key whose time has not come"),
    Reason("role-mismatch", "the manifest is signed by a key that may not author images"),
    Reason("second-signature", "the manifest lacks the second signature that the key's policy asks for"),
    Reason("not-approved", "the manifest goes back to an older version and no operator has approved it"),
    Reason("malformed", "the manifest is malformed"),
    Reason("no-decryption-key", "the image is encrypted and the device has no key for such images"),
    Reason("decryption-key", "the image is encrypted for another key than the device's"),
    Reason("vendor-mismatch", "the manifest is for another vendor"),
    Reason("class-mismatch", "the manifest is for another class of device"),
    Reason("component-missing", "the device does not show a component that the manifest is for"),
    Reason("component-mismatch", "the manifest names a component that the device does not have"),
    Reason("sequence-rollback", "the device has taken a manifest with a higher sequence number"),
    Reason("version-rollback", "the device runs a newer version"),
    Reason("expired", "the time until which the manifest may be used is over"),
    Reason("precursor-mismatch", "the device does not run a version that the manifest starts from"),
    Reason("not-authorized", "the device's application did not authorize the update"),
    Reason("refused-by-application", "the device's application refused the download or the installation"),
    Reason("unsupported", "the device does not support the package or a command in the manifest"),
    Reason("manufacturer-mismatch", "the device's manufacturer is not the one that the manifest is for"),
    Reason("model-mismatch", "the device's model is not the one that the manifest is for"),
    Reason("manifest-unspecific", "the manifest names no manufacturer and model to check this device by"),
    Reason("unknown-version", "the device's present version is unknown, so it can't be compared"),
    Reason("unknown-identity", "the device does not say its manufacturer or model, so it can't be checked"),
    # cancelled and skipped
    Reason("aborted", "the campaign was aborted"),
    Reason("halted", "the campaign was halted by its stop rule"),
    Reason("cancelled-by-device", "the device or its user cancelled the update"),
    Reason("device-deleted", "the device was deleted from the server"),
    Reason("other-update", "another update of this device is under way"),
    # campaigns
    Reason("created", "the campaign was created"),
    Reason("edited", "the campaign was changed"),
    Reason("submitted", "the campaign waits for approval"),
    Reason("approved", "the campaign was approved"),
    Reason("approval-refused", "the approval was refused"),
    Reason("scheduled", "the campaign waits for its start"),
    Reason("started", "the campaign was started"),
    Reason("paused", "the campaign was paused"),
    Reason("resumed", "the campaign was resumed"),
    Reason("all-done", "every device has come to an end"),
    Reason("stop-rule", "the stop rule was met"),
    Reason("filter-unreadable", "the filter can't be read any more, so the campaign was stopped"),
    Reason("stop-rule-unreadable", "the stop rule can't be read, so the campaign was stopped"),
    Reason("archived", "the campaign was put away"),
)

REASONS: dict[str, Reason] = {reason.code: reason for reason in _ALL}


def reason(code: str) -> Reason:
    """Return the reason with `code`; an unknown code (of a newer device) is final and says so."""
    return REASONS.get(code) or Reason(code, f"the device reports '{code}'")


def sentence(code: str) -> str:
    """Return the sentence for people; empty for an empty code."""
    return reason(code).sentence if code else ""
