"""What the server decides about updates of several components, before it offers anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lwm2m_server.campaigns.machine import DeploymentEvent
from lwm2m_server.devices.records import ComponentFacts, Device, Facts, Registration
from lwm2m_server.services.checks import check
from lwm2m_server.services.components import Target, sent_sizes, targets_of
from lwm2m_server.store.records import StoredManifest

OFFER, SKIP, REJECT = DeploymentEvent.OFFER, DeploymentEvent.SKIP, DeploymentEvent.REJECT
MAIN, MODEM, SENSOR = (bytes([number]) * 32 for number in (1, 2, 3))
OLD = bytes(32)


def entry(name: str, version: str | None, digest: bytes, size: int, **more: Any) -> dict[str, Any]:
    return {"component": name, "version": version, "digest": digest.hex(), "size": size, **more}


ENTRIES = [
    entry("00", "2.0.0", MAIN, 100),
    entry("modem", "5.0", MODEM, 200),
    entry("sensor", "3.0", SENSOR, 50),
]


def manifest(*entries: dict[str, Any], **data: Any) -> StoredManifest:
    given = list(entries or ENTRIES)
    return StoredManifest(
        id="00" * 32,
        name="m",
        envelope=b"",
        key_id="00",
        vendor_id=bytes(16),
        class_id=bytes(16),
        sequence=1,
        version=given[0]["version"],
        image_digest=bytes.fromhex(given[0]["digest"]),
        image_size=given[0]["size"],
        created_at=0.0,
        manufacturer="Acme",
        model="M1",
        data={"components": given, **data},
    )


def component(instance: int, name: str, version: str | None, digest: bytes | None = OLD) -> ComponentFacts:
    return ComponentFacts(instance=instance, name=name, version=version, digest=digest, capacity=1000)


OLD_ONES = (component(0, "00", "1.0.0"), component(1, "modem", "4.9"), component(2, "sensor", "2.9"))
NEW_ONES = (
    component(0, "00", "2.0.0", MAIN),
    component(1, "modem", "5.0", MODEM),
    component(2, "sensor", "3.0", SENSOR),
)


def device(*components: ComponentFacts, manifests: bool = True, **facts: Any) -> Device:
    objects = (
        ("/3/0", *(f"/33629/{each.instance}" for each in components)) if components else ("/3/0", "/5/0")
    )
    registration = Registration(
        registration_id="r",
        endpoint="d",
        address="10.0.0.2:1",
        registered_at=0.0,
        last_seen=0.0,
        expires_at=1.0,
        objects=objects,
    )
    known: dict[str, Any] = {
        "manufacturer": "Acme",
        "model": "M1",
        "firmware_version": components[0].version if components else "1.0.0",
        "understands_manifests": manifests,
        "components": components,
    }
    return Device(
        endpoint="d", created_at=0.0, registration=registration, registered=True, facts=Facts(**known | facts)
    )


def judged(device: Device, *entries: dict[str, Any], **data: Any) -> tuple[DeploymentEvent, str]:
    verdict = check(device, manifest(*entries, **data))
    return verdict.event, verdict.reason


def test_a_device_with_all_components_is_offered_the_update() -> None:
    assert judged(device(*OLD_ONES)) == (OFFER, "offered")


def test_it_is_current_only_when_every_component_is() -> None:
    assert judged(device(*NEW_ONES)) == (SKIP, "already-current")
    for index in range(3):
        mixed = [
            old if at == index else new for at, (old, new) in enumerate(zip(OLD_ONES, NEW_ONES, strict=True))
        ]
        assert judged(device(*mixed)) == (OFFER, "offered")


def test_the_right_version_with_another_digest_is_not_current() -> None:
    assert judged(device(NEW_ONES[0], component(1, "modem", "5.0"), NEW_ONES[2])) == (OFFER, "offered")
    assert judged(device(NEW_ONES[0], component(1, "modem", "5.0", None), NEW_ONES[2]))[0] is SKIP


@pytest.mark.protection("server", "wrong-component")
def test_a_component_that_the_device_does_not_show_is_named() -> None:
    verdict = check(device(*OLD_ONES[:1]), manifest())
    assert (verdict.event, verdict.reason) == (REJECT, "component-missing")
    assert "modem, sensor" in verdict.text


@pytest.mark.parametrize("manifests", [False, True])
def test_a_device_without_components_takes_no_update_of_several(*, manifests: bool) -> None:
    assert judged(device(manifests=manifests)) == (REJECT, "component-missing")


def test_a_plain_device_without_components_takes_the_main_one_only() -> None:
    assert judged(device(manifests=False), ENTRIES[0]) == (OFFER, "offered")
    assert judged(device(manifests=False), ENTRIES[1] | {"version": "5.0"}) == (REJECT, "component-missing")


def test_a_plain_device_with_components_takes_one_at_a_time() -> None:
    plain = device(*OLD_ONES, manifests=False)
    assert judged(plain, ENTRIES[1]) == (OFFER, "offered")
    assert judged(plain) == (REJECT, "unsupported")


@pytest.mark.protection("server", "older-version")
@pytest.mark.parametrize("manifests", [False, True])
def test_no_component_goes_back_unless_the_manifest_says_so(*, manifests: bool) -> None:
    newer = device(OLD_ONES[0], component(1, "modem", "5.1"), OLD_ONES[2], manifests=manifests)
    verdict = check(newer, manifest(ENTRIES[1]))
    assert (verdict.event, verdict.reason) == (REJECT, "version-rollback")
    assert "5.1" in verdict.text
    assert judged(newer, ENTRIES[1], downgrade=True) == (OFFER, "offered")
    assert judged(newer, ENTRIES[2]) == (OFFER, "offered")


def test_of_several_the_one_that_would_go_back_is_named() -> None:
    newer = device(OLD_ONES[0], component(1, "modem", "5.1"), OLD_ONES[2])
    assert "runs of modem 5.1" in check(newer, manifest()).text


@pytest.mark.protection("server", "sequence")
@pytest.mark.parametrize(("taken", "event"), [(2, REJECT), (1, OFFER), (None, OFFER)])
def test_a_device_that_took_a_higher_sequence_number_is_not_offered_a_lower_one(
    taken: int | None, event: DeploymentEvent
) -> None:
    for approved in (False, True):
        verdict = check(device(*OLD_ONES, sequence=taken), manifest(downgrade=approved))
        assert verdict.event is event
        assert verdict.reason == ("sequence-rollback" if event is REJECT else "offered")


@pytest.mark.protection("server", "too-big")
@pytest.mark.parametrize("manifests", [False, True])
def test_what_is_too_big_for_its_component_is_refused_before_the_offer(*, manifests: bool) -> None:
    small = replace(OLD_ONES[1], capacity=199)
    verdict = check(device(OLD_ONES[0], small, OLD_ONES[2], manifests=manifests), manifest(ENTRIES[1]))
    assert (verdict.event, verdict.reason) == (REJECT, "storage-full")
    assert "200 bytes, and 199 fit" in verdict.text
    fits = device(OLD_ONES[0], replace(small, capacity=200), OLD_ONES[2], manifests=manifests)
    assert judged(fits, ENTRIES[1]) == (OFFER, "offered")


@pytest.mark.parametrize(("capacity", "event"), [(99, REJECT), (100, OFFER), (None, OFFER)])
def test_the_main_image_has_a_known_size_without_components_too(
    capacity: int | None, event: DeploymentEvent
) -> None:
    for manifests in (False, True):
        assert judged(device(capacity=capacity, manifests=manifests), ENTRIES[0])[0] is event


def test_a_component_without_a_version_is_told_by_its_digest() -> None:
    unnamed = entry("modem", None, MODEM, 200)
    assert judged(device(*NEW_ONES), ENTRIES[0], unnamed) == (SKIP, "already-current")
    assert judged(device(*OLD_ONES), ENTRIES[0], unnamed) == (OFFER, "offered")


def test_what_is_decrypted_is_installed_and_its_payload_is_sent() -> None:
    hidden = [
        entry("00", "2.0.0", MAIN, 100, encrypted=True),
        entry("modem", "5.0", MODEM, 200, integrated=True),
        entry("00/encrypted", None, SENSOR, 100),
    ]
    found = manifest(*hidden)
    assert targets_of(found) == (Target("00", "2.0.0", MAIN, 100), Target("modem", "5.0", MODEM, 200))
    assert sent_sizes(found) == {SENSOR: 100}


def test_names_of_manifests_that_were_stored_in_hex_are_the_names_of_today() -> None:
    found = manifest(entry("00", "2.0.0", MAIN, 100), entry(b"modem".hex(), "5.0", MODEM, 200))
    assert [target.name for target in targets_of(found)] == ["00", "modem"]
