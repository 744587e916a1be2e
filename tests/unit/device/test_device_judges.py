"""What the device decides by itself: who may sign, downgrades, time, battery, the application's word."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lwm2m_device.bootloader import Boot
from lwm2m_device.judges import ManifestJudge, authoriser
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.slots import ImageHeader
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.envelope import sign
from lwm2m_server.firmware.keys import KeyType, SigningKey
from lwm2m_server.firmware.refusals import Refusal
from lwm2m_server.firmware.suit_versions import requirements

IMAGE = b"firmware-version: 2.0.0\n" + bytes(500)
DIGEST = hashlib.sha256(IMAGE).digest()
AUTHOR, OPERATOR, SECOND = (
    SigningKey.generate(),
    SigningKey.generate(),
    SigningKey.generate(KeyType.ML_DSA_44),
)
SETTINGS = DeviceSettings(
    endpoint="d",
    server="coap://192.0.2.1",
    flash=Path("unused"),
    vendor="acme.example",
    class_name="meter",
    trust=(AUTHOR.public.pem(),),
    approval=(OPERATOR.public.pem(),),
)
DESCRIPTION = ManifestDescription(
    vendor_domain="acme.example",
    class_name="meter",
    version="2.0.0",
    sequence_number=7,
    image_digest=DIGEST,
    image_size=len(IMAGE),
    image_uri="/fw/x",
)
NOW = 1_000_000.0


def judged(
    description: ManifestDescription,
    *keys: SigningKey,
    running: str = "1.0.0",
    floor: int = 6,
    **settings: Any,
) -> str:
    """Return the code of the refusal, or `taken`: by the offer, and by the second look after the download."""
    envelope = build_manifest(description)
    for key in keys or (AUTHOR,):
        envelope = sign(envelope, key)
    boot = Boot(0, ImageHeader(running, bytes(32), 10, floor), trial=False, notes=())
    judge = ManifestJudge(replace(SETTINGS, **settings), boot, lambda: floor, 65536, lambda: NOW)
    try:
        judge.offer(envelope)
    except Refusal as refused:
        return str(refused.code)
    judge.complete(envelope, DIGEST, len(IMAGE))
    return "taken"


BACK = replace(DESCRIPTION, downgrade=True)


@pytest.mark.protection("device", "downgrade", "key-role")
def test_only_a_marked_and_approved_manifest_goes_back_to_an_older_version() -> None:
    assert judged(DESCRIPTION, running="3.0.0") == "version-rollback"
    assert judged(BACK, running="3.0.0") == "not-approved"
    assert judged(DESCRIPTION, AUTHOR, OPERATOR, running="3.0.0") == "version-rollback", "not marked"
    assert judged(BACK, OPERATOR, running="3.0.0") == "role-mismatch"
    assert judged(BACK, AUTHOR, OPERATOR, running="3.0.0") == "taken"


@pytest.mark.protection("device", "sequence")
def test_the_sequence_number_goes_up_also_on_the_way_back() -> None:
    assert judged(BACK, AUTHOR, OPERATOR, running="3.0.0", floor=7) == "sequence-rollback"
    assert judged(BACK, AUTHOR, OPERATOR, running="3.0.0", floor=8) == "sequence-rollback"


@pytest.mark.protection("device", "downgrade")
def test_the_boot_loader_asks_for_the_approval_too() -> None:
    authorise = authoriser(SETTINGS)
    header = ImageHeader("2.0.0", DIGEST, len(IMAGE), 7)
    signed = sign(build_manifest(BACK), AUTHOR)
    assert not authorise(signed, header)
    assert authorise(sign(signed, OPERATOR), header)


@pytest.mark.protection("device", "second-signature")
def test_a_second_signature_that_the_device_asks_for_must_be_there() -> None:
    trust = (AUTHOR.public.pem(), SECOND.public.pem())
    assert judged(DESCRIPTION, trust=trust, requires=KeyType.ML_DSA_44) == "second-signature"
    assert judged(DESCRIPTION, AUTHOR, SECOND, trust=trust, requires=KeyType.ML_DSA_44) == "taken"
    assert judged(DESCRIPTION, AUTHOR, SECOND) == "taken", "a block of a key that is not known does no harm"


@pytest.mark.protection("device", "expired", "battery")
def test_time_battery_and_application() -> None:
    assert judged(replace(DESCRIPTION, use_before=int(NOW) + 1)) == "taken"
    assert judged(replace(DESCRIPTION, use_before=int(NOW))) == "expired"
    thirsty = replace(DESCRIPTION, minimum_battery=500)
    assert judged(thirsty) == "battery-low", "the device does not know its charge"
    assert judged(thirsty, battery=499) == "battery-low"
    assert judged(thirsty, battery=500) == "taken"
    asking = replace(DESCRIPTION, authorize=0)
    assert judged(asking) == "taken"
    assert judged(asking, unauthorized=True) == "not-authorized"


@pytest.mark.protection("device", "precursor")
def test_an_update_that_starts_from_other_versions_is_refused() -> None:
    description = replace(DESCRIPTION, requires=requirements(">= 1.5, < 2.0"))
    assert judged(description, running="1.5.0") == "taken"
    assert judged(description, running="1.4.9") == "precursor-mismatch"
    assert judged(replace(DESCRIPTION, version="3.0.0", requires=requirements("< 2.0")), running="2.0.0") == (
        "precursor-mismatch"
    )


def test_an_image_in_the_envelope_is_beyond_this_device() -> None:
    assert judged(replace(DESCRIPTION, image_uri="#x", payload=IMAGE)) == "unsupported"
