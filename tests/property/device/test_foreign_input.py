"""What the device reads from applications and servers: an answer, an address, or one named error."""

import contextlib
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lwm2m_device.consent import Accept, Answer, Defer, HookFailed, Refuse, parse_answer
from lwm2m_device.uri import parse, resolve
from lwm2m_server.errors import InvalidInput

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
GOOD = [
    b'{"answer": "accept"}',
    b'{"answer": "defer", "seconds": 600}',
    b'{"answer": "refuse", "text": "no"}',
]


def read(output: bytes) -> Answer | None:
    """Return what was understood; any other exception than the named one ends the test."""
    with contextlib.suppress(HookFailed):
        return parse_answer(output)
    return None


@given(st.binary(max_size=200))
@example(b"\xff\xfe{\0")
@example(b"[" * 100_000)
@example(b'{"answer": "defer", "seconds": ' + b"9" * 5000 + b"}")
def test_any_bytes_are_an_answer_or_one_named_error(output: bytes) -> None:
    read(output)


@given(JSON)
def test_any_json_is_an_answer_or_one_named_error(value: object) -> None:
    read(json.dumps(value).encode())


@given(st.sampled_from(["accept", "defer", "refuse", ""]), JSON, JSON)
def test_whatever_stands_in_an_answer_a_deferral_ends_and_a_refusal_has_a_text(
    answer: str, seconds: object, text: object
) -> None:
    for members in ({}, {"seconds": seconds}, {"text": text}, {"seconds": seconds, "text": text}):
        found = read(json.dumps({"answer": answer, **members}).encode())
        if isinstance(found, Defer):
            assert 0 < found.seconds < math.inf
        elif isinstance(found, Refuse):
            assert isinstance(found.text, str)
        else:
            assert found is None or (isinstance(found, Accept) and not members)


@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4))
def test_a_mutated_answer_is_understood_or_one_named_error(
    good: bytes, changes: list[tuple[int, int]]
) -> None:
    output = bytearray(good)
    for at, byte in changes:
        output[at % len(output)] = byte
    read(bytes(output))


@given(
    st.text(max_size=120), st.sampled_from(["", "coap://", "coaps://[", "coap://host:", "/fw/", "coap://a?"])
)
def test_any_text_is_an_address_or_one_named_error(text: str, before: str) -> None:
    with contextlib.suppress(InvalidInput):
        found = parse(before + text)
        assert found.host
        assert 0 < found.port < 65536
    with contextlib.suppress(InvalidInput):
        parse(resolve(before + text, "coap://192.0.2.1"))


@pytest.mark.parametrize("text", ["coap://", "coap://h:0", "coap://h:65536", "coap://[::1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)
