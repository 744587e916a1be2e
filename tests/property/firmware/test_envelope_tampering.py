"""Invariants: any bytes parse or give one named refusal; what verifies is exactly what was signed."""

import contextlib
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.build import ComponentDescription, ManifestDescription, build_manifest
from lwm2m_server.firmware.commands import parse_sequence
from lwm2m_server.firmware.cose import parse_sign1
from lwm2m_server.firmware.describe import describe
from lwm2m_server.firmware.effects import ComponentState, DeviceFacts
from lwm2m_server.firmware.envelope import Verified, parse_envelope, sign, verify
from lwm2m_server.firmware.facts import facts_of
from lwm2m_server.firmware.keys import KeyType, SigningKey
from lwm2m_server.firmware.lint import lint
from lwm2m_server.firmware.manifest import parse_manifest, parse_text
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

RICH = sign(
    build_manifest(
        ManifestDescription(
            vendor_domain="acme.example",
            class_name="meter",
            version="1.2.3",
            sequence_number=3,
            image_digest=hashlib.sha256(b"main").digest(),
            image_size=4,
            image_uri="/fw/main",
            further=(
                ComponentDescription(
                    component=(b"\x01", b"m"),
                    digest=hashlib.sha256(b"modem").digest(),
                    size=5,
                    uri="#modem",
                    version="5.0.0",
                    payload=b"modem",
                ),
            ),
            use_before=2**33,
            minimum_battery=9,
            authorize=-1,
            downgrade=True,
            sever=("text", "install"),
        )
    ),
    KEYS[0],
)
"""Several components, every condition, severed members and an integrated payload."""


def test_every_flipped_bit_of_an_envelope_of_our_own_is_refused() -> None:
    verify(RICH, TRUSTED)
    for position in range(8 * len(RICH)):
        changed = bytearray(RICH)
        changed[position // 8] ^= 1 << (position % 8)
        with pytest.raises(Refusal):
            verify(bytes(changed), TRUSTED)


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


@settings(max_examples=300)
@given(st.binary(max_size=120) | values.map(cbor.encode))
def test_any_bytes_are_read_or_refused_by_name_everywhere(data: bytes) -> None:
    for reader in (parse_envelope, parse_manifest, parse_sign1, parse_sequence, parse_text):
        with contextlib.suppress(Refusal):
            reader(data) if reader in (parse_envelope, parse_manifest) else reader(data, "x")  # type: ignore[operator]


def flat(items: list[tuple[int, object]]) -> bytes:
    return cbor.encode([part for item in items for part in item])


commands = st.recursive(
    st.tuples(
        st.sampled_from([1, 2, 3, 4, 5, 6, 14, 18, 21, 22, 23, 24, 25, 26, 27, 28, 29, 31, -257]), st.just(15)
    )
    | st.tuples(st.just(12), st.integers(0, 3) | st.just(True) | st.just([0, 1]))
    | st.tuples(
        st.sampled_from([19, 20]),
        st.fixed_dictionaries(
            {},
            optional={
                1: st.just(bytes(16)),
                3: st.just(cbor.encode([-16, hashlib.sha256(b"x").digest()])),
                4: st.integers(0, 10),
                5: st.integers(0, 2),
                13: st.booleans(),
                14: st.integers(0, 100),
                18: st.binary(max_size=4),
                21: st.just("/x"),
                22: st.integers(0, 3),
                26: st.integers(0, 10),
                28: st.just(cbor.encode([2, [1, 0]])),
                29: st.just(cbor.encode({5: 1})),
            },
        ).filter(bool),
    )
    | st.tuples(st.just(35), st.just({0: [3, 21]}))
    | st.tuples(st.just(34), st.just({1: {21: "/y"}})),
    lambda inner: (
        st.tuples(st.just(32), st.lists(inner, min_size=1, max_size=3).map(flat))
        | st.tuples(
            st.just(15),
            st.lists(st.lists(inner, min_size=1, max_size=3).map(flat), min_size=2, max_size=3),
        )
    ),
    max_leaves=8,
)


DEVICE = DeviceFacts(
    vendor_ids=frozenset({bytes(16)}),
    class_ids=frozenset(),
    components={(b"\x00",): ComponentState(version="1.0.0", slot=1), (b"\x01",): ComponentState()},
    now=5.0,
    battery=5,
)


@settings(max_examples=120)
@given(st.lists(commands, min_size=1, max_size=6), st.lists(commands, max_size=3))
def test_the_processor_takes_any_manifest_or_refuses_it_by_name(
    install: list[tuple[int, object]], shared: list[tuple[int, object]]
) -> None:
    common: dict[int, object] = {2: [[b"\x00"], [b"\x01"]]}
    if shared:
        common[4] = flat(shared)
    data = cbor.encode({1: 1, 2: 0, 3: cbor.encode(common), 20: flat(install)})
    try:
        manifest = parse_manifest(data)
        facts = facts_of(manifest)
    except Refusal:
        return
    assert manifest.encode() == data
    result = lint(Verified(b"", manifest, facts, b""), DEVICE)
    assert result.refused is None or result.refused.field


@given(values)
def test_any_value_is_no_manifest_or_encodes_to_itself(value: object) -> None:
    data = cbor.encode({1: 1, 2: 0, 3: cbor.encode({2: [[b"\x00"]]}), 7: cbor.encode([20, value])})
    try:
        manifest = parse_manifest(data)
    except Refusal:
        return
    assert manifest.encode() == data
