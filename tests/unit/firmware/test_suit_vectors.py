"""The example envelopes of the SUIT manifest draft parse, verify and encode to the same bytes."""

from pathlib import Path

import pytest

from lwm2m_server.firmware.describe import describe
from lwm2m_server.firmware.envelope import parse_envelope, read_unverified, verify
from lwm2m_server.firmware.keys import VerificationKey
from lwm2m_server.firmware.manifest import parse_manifest
from lwm2m_server.firmware.refusals import NotTrusted, Refusal
from lwm2m_server.firmware.suit import vendor_id

VECTORS = Path(__file__).resolve().parents[3].parent / "shared" / "suit-vectors"
NAMES = [
    *(f"example{number}-{kind}-0" for number in range(6) for kind in ("signed", "unsigned")),
    "example2-signed-1",
]

pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason="the SUIT example envelopes are not at hand")


def load(name: str) -> bytes:
    return bytes.fromhex((VECTORS / f"{name}.hex").read_text().strip())


@pytest.fixture
def key() -> VerificationKey:
    return VerificationKey.from_pem((VECTORS / "public_key.pem").read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_vector_encodes_to_the_same_bytes(name: str) -> None:
    data = load(name)
    envelope = parse_envelope(data)
    assert envelope.encode() == data
    assert parse_manifest(envelope.manifest).encode() == envelope.manifest


@pytest.mark.parametrize("name", NAMES)
def test_signed_vector_verifies_and_unsigned_one_does_not(name: str, key: VerificationKey) -> None:
    data = load(name)
    if "unsigned" in name:
        with pytest.raises(NotTrusted) as caught:
            verify(data, [key])
        assert caught.value.code == "signature"
        return
    verified = verify(data, [key])
    assert verified.facts.sequence_number == int(name[7])
    assert verified.facts.vendor_id == vendor_id("arm.com")
    assert verified.key_id == key.key_id


@pytest.mark.parametrize("name", [name for name in NAMES if "unsigned" not in name])
def test_every_flipped_bit_in_a_signed_vector_is_refused(name: str, key: VerificationKey) -> None:
    data = load(name)
    # the tag may be missing; what stands in its place otherwise is no envelope
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << (position % 8)
        with pytest.raises(Refusal):
            verify(bytes(flipped), [key])


def test_severed_members_may_be_left_out(key: VerificationKey) -> None:
    full, severed = load("example2-signed-1"), load("example2-signed-0")
    assert parse_envelope(full).without_text().encode() != full
    assert verify(parse_envelope(full).without_text().encode(), [key]).facts.image_uri
    assert verify(severed, [key]).facts.image_uri is None
    assert verify(full, [key]).facts.main.vendor_domain == "arm.com"


def test_envelope_without_its_tag_is_read_and_written_with_it() -> None:
    data = load("example0-signed-0")
    assert parse_envelope(data[2:]).encode() == data


@pytest.mark.parametrize("name", NAMES)
def test_vector_can_be_shown(name: str) -> None:
    shown = describe(load(name))
    assert shown["sequence_number"] == read_unverified(load(name)).sequence_number
    assert shown["components"][0]["digests"][0].startswith("00112233")
