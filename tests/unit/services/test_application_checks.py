"""What the server decides about updates of applications, before it offers anything."""

from __future__ import annotations

from typing import Any

import pytest

from lwm2m_server.campaigns.machine import DeploymentEvent
from lwm2m_server.devices.records import ApplicationFacts, Device, Facts
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.applications import application_component, application_in, application_name
from lwm2m_server.services.checks import check, is_known
from lwm2m_server.services.software_link import application_of, place_of
from lwm2m_server.store.records import StoredManifest

OFFER, SKIP, REJECT = DeploymentEvent.OFFER, DeploymentEvent.SKIP, DeploymentEvent.REJECT
METER = ApplicationFacts(instance=1, name="meter", version="1.0.0", active=True)
FREE = ApplicationFacts(instance=2)
FOREIGN = ApplicationFacts(instance=0, name="pump", version="9.0.0", active=True)


def manifest(version: str = "2.0.0", *more: dict[str, Any], **data: Any) -> StoredManifest:
    first = {"component": "app/meter", "version": version, "digest": "01" * 32, "size": 100}
    return StoredManifest(
        id="00" * 32,
        name="m",
        envelope=b"",
        key_id="00",
        vendor_id=bytes(16),
        class_id=bytes(16),
        sequence=1,
        version=version,
        image_digest=b"\1" * 32,
        image_size=100,
        created_at=0.0,
        manufacturer="Acme",
        model="M1",
        data={"components": [first, *more], **data},
    )


def device(*applications: ApplicationFacts, manifests: bool = True, **facts: Any) -> Device:
    known: dict[str, Any] = {
        "manufacturer": "Acme",
        "model": "M1",
        "firmware_version": "7.0.0",
        "vendor_id": bytes(16),
        "class_id": bytes(16),
        "understands_manifests": manifests,
        "applications": applications,
        **facts,
    }
    return Device(endpoint="d", created_at=0.0, registered=True, facts=Facts(**known))


def test_a_device_that_has_not_told_of_its_applications_is_asked_first() -> None:
    assert is_known(device(METER).facts, manifest())
    assert is_known(device().facts, manifest())
    unasked = Device(endpoint="d", created_at=0.0, facts=Facts(understands_manifests=True))
    assert not is_known(unasked.facts, manifest())


@pytest.mark.parametrize("manifests", [True, False])
@pytest.mark.parametrize("places", [(FOREIGN, METER, FREE), (FREE,), (FOREIGN, FREE)])
def test_an_application_is_offered_to_its_own_place_or_to_a_free_one(
    places: tuple[ApplicationFacts, ...], *, manifests: bool
) -> None:
    assert check(device(*places, manifests=manifests), manifest()).event is OFFER
    place = place_of(device(*places).facts, "meter")
    assert place is not None
    assert place.name in ("meter", "")


@pytest.mark.protection("server", "foreign-application")
@pytest.mark.parametrize(
    ("places", "reason"),
    [((), "no-software-object"), ((FOREIGN,), "no-application-place")],
)
def test_a_device_without_a_place_is_refused(places: tuple[ApplicationFacts, ...], reason: str) -> None:
    verdict = check(device(*places), manifest())
    assert (verdict.event, verdict.reason) == (REJECT, reason)


def test_the_firmware_s_version_says_nothing_of_an_application() -> None:
    assert check(device(METER, firmware_version="2.0.0"), manifest()).event is OFFER
    verdict = check(device(METER), manifest("1.0"))
    assert (verdict.event, verdict.reason) == (SKIP, "already-current")


def test_an_older_version_is_refused_unless_the_manifest_may_go_back() -> None:
    verdict = check(device(METER), manifest("0.9.0"))
    assert (verdict.event, verdict.reason) == (REJECT, "version-rollback")
    assert check(device(METER), manifest("0.9.0", downgrade=True)).event is OFFER


def test_a_manifest_for_another_class_or_model_is_refused() -> None:
    verdict = check(device(METER, class_id=b"\1" * 16), manifest())
    assert (verdict.event, verdict.reason) == (REJECT, "class-mismatch")
    verdict = check(device(METER, manifests=False, model="M2"), manifest())
    assert (verdict.event, verdict.reason) == (REJECT, "model-mismatch")


def test_an_application_comes_alone() -> None:
    other = {"component": "00", "version": "2.0.0", "digest": "02" * 32, "size": 10}
    verdict = check(device(METER), manifest("2.0.0", other))
    assert (verdict.event, verdict.reason) == (REJECT, "unsupported")


def test_only_what_is_installed_has_a_version() -> None:
    shown = {"name": "meter", "version": "2.0.0", "active": True}
    assert application_of(1, state=4, **shown).version == "2.0.0"
    for state in (0, 1, 2, 3, None):
        assert application_of(1, state=state, **shown) == ApplicationFacts(instance=1, name="meter")


def test_names_of_applications_are_components_below_app() -> None:
    assert application_name((b"app", b"meter")) == "meter"
    assert application_component("meter") == (b"app", b"meter")
    for component in ("00", "app", "app/", "app/a/b", "modem", "app/" + "x" * 65):
        assert application_in(component) is None
    for name in ("", "a/b", "x" * 65, "ä", "-x"):
        with pytest.raises(InvalidInput):
            application_component(name)
