"""All or nothing, or best effort: what a component that can't be installed does to the others."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.build import ComponentDescription, ManifestDescription, build_manifest
from lwm2m_server.firmware.commands import RunSequence
from lwm2m_server.firmware.effects import ComponentState, DeviceFacts
from lwm2m_server.firmware.envelope import Verified, parse_envelope, read_unverified
from lwm2m_server.firmware.facts import facts_of
from lwm2m_server.firmware.inplace import NamedDelta, delta_component
from lwm2m_server.firmware.lint import Assumptions, LintResult, lint
from lwm2m_server.firmware.suit import class_id, vendor_id

MAIN, MODEM, SENSOR = (b"\0",), (b"modem",), (b"sensor",)
VENDOR = vendor_id("acme.example")


def image(name: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(name).digest()
    return {"digest": digest, "size": len(name), "uri": f"/fw/{digest.hex()}"}


def further(component: tuple[bytes, ...], **more: Any) -> ComponentDescription:
    return ComponentDescription(component=component, version="5.0", **image(component[0]), **more)


DESCRIPTION = ManifestDescription(
    vendor_domain="acme.example",
    class_name="meter-v2",
    version="2.0",
    sequence_number=1,
    image_digest=hashlib.sha256(b"main").digest(),
    image_size=4,
    image_uri="/fw/main",
    component=MAIN,
    best_effort=True,
    further=(further(MODEM), further(SENSOR)),
)


def played(description: ManifestDescription, *failing: tuple[bytes, ...]) -> LintResult:
    """Play the update on a device in which these components can't be installed."""
    envelope = build_manifest(description)
    manifest = read_unverified(envelope)
    payloads = dict(parse_envelope(envelope).payloads)
    verified = Verified(envelope, manifest, facts_of(manifest), b"", b"", (), payloads)
    device = DeviceFacts(
        vendor_ids=frozenset({VENDOR}),
        class_ids=frozenset({class_id(VENDOR, "meter-v2")}),
        components=dict.fromkeys(manifest.common.components, ComponentState()),
    )
    return lint(verified, device, Assumptions(failing=frozenset(failing)))


def test_the_others_are_installed_and_started_all_the_same() -> None:
    for failing in ((), (MODEM,), (SENSOR,), (MODEM, SENSOR)):
        result = played(DESCRIPTION, *failing)
        assert (result.refused, result.invoked) == (None, True)
        assert len(result.fetched) == 3


def test_the_first_component_is_what_the_update_stands_on() -> None:
    result = played(DESCRIPTION, MAIN)
    assert result.refused is not None
    assert not result.invoked


@pytest.mark.parametrize("failing", [MAIN, MODEM, SENSOR])
def test_all_or_nothing_ends_with_the_first_failure(failing: tuple[bytes, ...]) -> None:
    result = played(replace(DESCRIPTION, best_effort=False), failing)
    assert result.refused is not None
    assert result.refused.code == "digest-mismatch"


def test_a_failure_stays_in_its_sequence() -> None:
    install = read_unverified(build_manifest(DESCRIPTION)).install
    assert isinstance(install, tuple)
    nested = [command for command in install if isinstance(command, RunSequence)]
    assert len(nested) == 2


def test_a_delta_that_leads_nowhere_is_soft_too() -> None:
    delta = NamedDelta(
        base=bytes(32), base_size=9, digest=bytes([1]) * 32, size=3, uri="/fw/delta", memory=4096, segment=512
    )
    described = replace(DESCRIPTION, further=(further(MODEM, deltas=(delta,)), further(SENSOR)))
    assert played(described, MODEM, (*MODEM, b"in-place")).refused is None
    assert delta_component(MODEM) == (*MODEM, b"in-place")
    assert played(replace(described, best_effort=False), MODEM).refused is not None


def test_what_the_manifest_asks_before_is_asked_of_all() -> None:
    result = played(replace(DESCRIPTION, authorize=0))
    assert result.refused is None
    envelope = build_manifest(replace(DESCRIPTION, minimum_battery=500))
    manifest = read_unverified(envelope)
    assert isinstance(manifest.install, tuple)
    asked = manifest.install[: [type(each) for each in manifest.install].index(RunSequence)]
    assert any("MINIMUM_BATTERY" in repr(each) for each in asked)


def test_one_component_is_installed_or_not() -> None:
    with pytest.raises(InvalidInput) as caught:
        build_manifest(replace(DESCRIPTION, further=()))
    assert caught.value.field == "install"
