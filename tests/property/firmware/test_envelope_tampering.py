"""Invariants: any bytes parse or give one named refusal; what verifies is exactly what was signed."""

import contextlib
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.cose import KeyType, SigningKey
from lwm2m_server.firmware.describe import describe
from lwm2m_server.firmware.envelope import parse_envelope, sign, verify
from lwm2m_server.firmware.manifest import parse_manifest
from lwm2m_server.firmware.refusals import Malformed, Refusal

KEYS = [SigningKey.generate(kind) for kind in KeyType]
TRUSTED = [key.public for key in KEYS]
ENVELOPES = [
    sign(
        build_manifest(
            ManifestDescription(
                vendor_domain="acme.example",
                class_name="meter",
                version="1.2.3-rc.1",
                sequence_number=300,
                image_digest=hashlib.sha256(b"x").digest(),
                image_size=70_000,
                image_uri="/fw/image",
                manufacturer="Acme",
            )
        ),
        key,
    )
    for key in KEYS
]

values = st.recursive(
    st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=30)
    | st.text(max_size=20)
    | st.booleans()
    | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.integers(-50, 50) | st.text(max_size=4) | st.binary(max_size=4), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(ENVELOPES), st.data())
def test_one_flipped_bit_is_refused(envelope: bytes, data: st.DataObject) -> None:
    at, bit = data.draw(st.integers(0, len(envelope) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(envelope)
    changed[at] ^= 1 << bit
    with pytest.raises(Refusal) as caught:
        verify(bytes(changed), TRUSTED)
    assert caught.value.field
    assert caught.value.update_result in (5, 6)


@given(st.sampled_from(ENVELOPES), st.data())
def test_cut_or_extended_envelope_is_refused(envelope: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(envelope) - 1))
    for changed in (envelope[:cut], envelope + envelope[cut:]):
        with pytest.raises(Refusal):
            verify(changed, TRUSTED)


@given(values)
def test_deterministic_encoding_survives_decoding(value: object) -> None:
    data = cbor.encode(value)
    assert cbor.encode(cbor.decode(data, field="x")) == data


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_malformed(data: bytes) -> None:
    try:
        value = cbor.decode(data, field="x", tags={107})
    except Malformed:
        return
    assert cbor.encode(value) == data


@given(
    st.sampled_from(ENVELOPES),
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)), max_size=4),
)
def test_any_damage_is_read_or_refused_by_name(envelope: bytes, damage: list[tuple[int, bytes]]) -> None:
    for at, patch in damage:
        envelope = envelope[:at] + patch + envelope[at + len(patch) :]
    for reader in (parse_envelope, describe, parse_manifest):
        with contextlib.suppress(Refusal):
            reader(envelope)


@given(values)
def test_any_value_is_no_manifest_or_encodes_to_itself(value: object) -> None:
    data = cbor.encode({1: 1, 2: 0, 3: cbor.encode({2: [[b"\x00"]]}), 7: cbor.encode([20, value])})
    try:
        manifest = parse_manifest(data)
    except Refusal:
        return
    assert manifest.encode() == data
