"""What the server decides on a device's behalf: every combination of what the device says and the manifest asks."""

from dataclasses import replace
from itertools import product

import pytest

from lwm2m_server.campaigns.machine import DeploymentEvent
from lwm2m_server.devices.records import Device, Facts, Registration
from lwm2m_server.services.checks import check
from lwm2m_server.store.records import StoredManifest

DIGEST = b"\x02" * 32
OFFER, SKIP, REJECT = DeploymentEvent.OFFER, DeploymentEvent.SKIP, DeploymentEvent.REJECT


def manifest(
    version: str = "2.0.0", manufacturer: str | None = "Acme", model: str | None = "M1"
) -> StoredManifest:
    return StoredManifest(
        id="00" * 32,
        name="m",
        envelope=b"",
        key_id="00",
        vendor_id=bytes(16),
        class_id=bytes(16),
        sequence=1,
        version=version,
        image_digest=DIGEST,
        image_size=1,
        created_at=0.0,
        manufacturer=manufacturer,
        model=model,
    )


def device(objects: tuple[str, ...] = ("/3/0", "/5/0"), **facts: object) -> Device:
    registration = Registration(
        registration_id="r",
        endpoint="d",
        address="10.0.0.2:1",
        registered_at=0.0,
        last_seen=0.0,
        expires_at=1.0,
        objects=objects,
    )
    known = {
        "manufacturer": "Acme",
        "model": "M1",
        "firmware_version": "1.0.0",
        "understands_manifests": False,
    }
    return Device(
        endpoint="d",
        created_at=0.0,
        registration=registration,
        registered=True,
        facts=Facts(**{**known, **facts}),  # type: ignore[arg-type]
    )


@pytest.mark.protection("server", "foreign-make", "older-version")
@pytest.mark.parametrize(
    ("facts", "event", "reason"),
    [
        ({}, OFFER, "offered"),
        ({"manufacturer": None}, REJECT, "unknown-identity"),
        ({"manufacturer": "acme"}, REJECT, "manufacturer-mismatch"),
        ({"model": None}, REJECT, "unknown-identity"),
        ({"model": "M10"}, REJECT, "model-mismatch"),
        ({"firmware_version": None}, REJECT, "unknown-version"),
        ({"firmware_version": "mystery"}, REJECT, "unknown-version"),
        ({"firmware_version": "2.0.0"}, SKIP, "already-current"),
        ({"firmware_version": "2.0"}, SKIP, "already-current"),
        ({"firmware_version": "2.0.1"}, REJECT, "version-rollback"),
        ({"firmware_version": "10.0.0"}, REJECT, "version-rollback"),
        ({"firmware_version": "2.0.0-rc.1"}, OFFER, "offered"),
        ({"firmware_version": "2.0.0", "running_digest": DIGEST}, SKIP, "already-current"),
        ({"firmware_version": "2.0.0", "running_digest": b"\x01" * 32}, OFFER, "offered"),
    ],
)
def test_a_plain_device(facts: dict[str, object], event: DeploymentEvent, reason: str) -> None:
    verdict = check(device(**facts), manifest())
    assert (verdict.event, verdict.reason) == (event, reason)


def test_versions_are_compared_by_meaning() -> None:
    assert check(device(firmware_version="1.9.0"), manifest("1.10.0")).event is OFFER
    assert check(device(firmware_version="1.10.0"), manifest("1.9.0")).reason == "version-rollback"


@pytest.mark.protection("server", "foreign-make")
@pytest.mark.parametrize(("manufacturer", "model"), [(None, "M1"), ("Acme", None), ("", "M1"), (None, None)])
def test_what_cant_be_checked_for_a_plain_device_is_refused(
    manufacturer: str | None, model: str | None
) -> None:
    verdict = check(device(), manifest(manufacturer=manufacturer, model=model))
    assert (verdict.event, verdict.reason) == (REJECT, "manifest-unspecific")


@pytest.mark.parametrize(
    ("manufacturer", "model", "version", "named"),
    list(product(["Acme", "Other", None], ["M1", None], ["1.0.0", "2.0.0-rc.1", None], [True, False])),
)
def test_a_device_with_the_update_agent_decides_for_itself(
    manufacturer: str | None, model: str | None, version: str | None, *, named: bool
) -> None:
    agent = device(
        manufacturer=manufacturer, model=model, firmware_version=version, understands_manifests=True
    )
    wanted = manifest() if named else manifest(manufacturer=None, model=None)
    assert check(agent, wanted).event is OFFER


@pytest.mark.protection("server", "foreign-vendor", "foreign-class", "older-version")
@pytest.mark.parametrize(
    ("facts", "event", "reason"),
    [
        ({"vendor_id": bytes(16), "class_id": bytes(16)}, OFFER, "offered"),
        ({"vendor_id": b"v" * 16, "class_id": bytes(16)}, REJECT, "vendor-mismatch"),
        ({"vendor_id": bytes(16), "class_id": b"c" * 16}, REJECT, "class-mismatch"),
        ({"firmware_version": "2.0.1"}, REJECT, "version-rollback"),
    ],
)
def test_what_a_device_with_the_update_agent_would_refuse_is_not_offered(
    facts: dict[str, object], event: DeploymentEvent, reason: str
) -> None:
    verdict = check(device(understands_manifests=True, **facts), manifest())
    assert (verdict.event, verdict.reason) == (event, reason)


def test_every_branch_of_a_manifest_counts_for_the_identifiers() -> None:
    both = replace(manifest(), data={"class_ids": [bytes(16).hex(), (b"c" * 16).hex()]})
    assert check(device(understands_manifests=True, class_id=b"c" * 16), both).event is OFFER


@pytest.mark.protection("server", "downgrade")
@pytest.mark.parametrize("agent", [True, False])
def test_only_a_manifest_that_says_so_goes_back_to_an_older_version(*, agent: bool) -> None:
    newer = device(understands_manifests=agent, firmware_version="3.0.0")
    assert check(newer, manifest()).reason == "version-rollback"
    assert check(newer, replace(manifest(), data={"downgrade": True})).event is OFFER


def test_what_is_there_already_is_skipped_for_every_device() -> None:
    agent = device(firmware_version="2.0.0", understands_manifests=True, running_digest=DIGEST)
    assert check(agent, manifest()).event is SKIP
    other = device(firmware_version="2.0.0", understands_manifests=True, running_digest=b"\x01" * 32)
    assert check(other, manifest()).event is OFFER, "the same version, but another image"


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        (("/3/0",), "no-firmware-object"),
        (("/3/0", "/55/0"), "no-firmware-object"),
        (("/3/0", "/5"), "offered"),
        (("/3/0", "/5/0"), "offered"),
    ],
)
def test_a_device_needs_the_firmware_object(objects: tuple[str, ...], reason: str) -> None:
    assert check(device(objects), manifest()).reason == reason


def test_a_rejection_says_what_is_what() -> None:
    verdict = check(device(model="M9"), manifest())
    assert "M9" in verdict.text
    assert "M1" in verdict.text
