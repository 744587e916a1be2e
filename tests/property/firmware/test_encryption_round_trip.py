"""Encryption info and key streams over any bytes: a value or one named refusal, and always the same image."""

import contextlib
import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.encryption import (
    A128CTR,
    ContentCipher,
    encryption_info,
    parse_encryption_info,
    unwrap,
)
from lwm2m_server.firmware.key_agreement import Agreement, cose_key
from lwm2m_server.firmware.refusals import Refusal

KEYS = st.binary(min_size=16, max_size=16)
PRIVATE = ec.generate_private_key(ec.SECP256R1())
AGREEMENT = Agreement.new(PRIVATE.public_key())
GOOD = encryption_info(bytes(16), [(b"k" * 16, b"one"), (AGREEMENT, b"two")])
HELD = (b"k" * 16, PRIVATE)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-70_000, 70_000) | st.binary(max_size=24) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(-8, 8), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        parse_encryption_info(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255), st.booleans())
def test_a_changed_byte_is_refused_or_gives_another_value(at: int, change: int, cut: bool) -> None:
    data = bytearray(GOOD)
    data[at] ^= change
    with contextlib.suppress(Refusal):
        unwrap(parse_encryption_info(bytes(data[:at] if cut else data)), HELD)


@given(ANY, ANY, ANY, st.sampled_from([-2, -3, 1, -1]))
def test_any_key_agreement_is_read_or_refused(one: object, two: object, three: object, part: int) -> None:
    sender = {**cose_key(AGREEMENT.ephemeral.public_key()), part: one}
    recipient = [cbor.encode({1: -29}), {-1: sender, -20: two or b""}, three or bytes(24)]
    with contextlib.suppress(Refusal):
        info = [b"", {1: A128CTR, 5: bytes(16)}, None, [recipient]]
        unwrap(parse_encryption_info(cbor.encode(cbor.Tag(96, info))), HELD)


@given(ANY, ANY, ANY, ANY)
def test_any_structure_is_read_or_refused(one: object, two: object, three: object, four: object) -> None:
    headers = {1: A128CTR, 5: bytes(16)} if two is None else two
    with contextlib.suppress(Refusal):
        parse_encryption_info(cbor.encode(cbor.Tag(96, [one or b"", headers, three, four])))


@given(KEYS, KEYS, st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_in_whatever_pieces_and_order_the_same_image_comes_out(
    key: bytes, iv: bytes, image: bytes, places: list[int]
) -> None:
    cipher = ContentCipher(key, iv)
    sent = cipher.apply(0, image)
    ends = sorted({0, len(image), *(place for place in places if place < len(image))})
    ranges = reversed(list(itertools.pairwise(ends)))
    pieces = [cipher.apply(start, sent[start:end]) for start, end in ranges]
    assert b"".join(reversed(pieces)) == image


@given(KEYS, KEYS, KEYS)
def test_the_content_key_comes_out_with_the_class_key_and_no_other(
    content: bytes, kek: bytes, other: bytes
) -> None:
    info = parse_encryption_info(encryption_info(content, [(kek, b"kid")]))
    assert unwrap(info, [kek]).key == content
    agreed = parse_encryption_info(encryption_info(content, [(AGREEMENT, b"kid")]))
    assert unwrap(agreed, [kek, PRIVATE]).key == content
    if other != kek:
        with pytest.raises(Refusal) as caught:
            unwrap(info, [other])
        assert caught.value.code == "decryption-key"
