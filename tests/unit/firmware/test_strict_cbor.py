"""The strict CBOR layer refuses whatever a deterministic encoder would not have written."""

import pytest

from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.refusals import Malformed


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "ends too early"),
        ("0101", "follow"),
        ("1801", "shortest"),
        ("190018", "shortest"),
        ("1a0000ffff", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("580141", "shortest"),
        ("5f4101ff", "indefinite"),
        ("9fff", "indefinite"),
        ("bfff", "indefinite"),
        ("a201010102", "twice"),
        ("a202010102", "order"),
        ("a220011818" + "02", "order"),
        ("a1f501", "key"),
        ("a1a0a0", "key"),
        ("f93c00", "float"),
        ("fb3ff0000000000000", "float"),
        ("f7", "simple"),
        ("e0", "simple"),
        ("f820", "float"),
        ("1c", "reserved"),
        ("d86b01", "tag 107"),
        ("d81d00", "tag 29"),
        ("44010203", "inside a string"),
        ("9b00000000ffffffff", "shortest"),
        ("9bffffffffffffffff", "early"),
        ("bbffffffffffffffff", "early"),
        ("62c328", "valid"),
        ("81" * 17 + "01", "nested"),
    ],
)
def test_refused(data: str, why: str) -> None:
    with pytest.raises(Malformed) as caught:
        cbor.decode(bytes.fromhex(data), field="manifest")
    assert why in caught.value.message
    assert caught.value.field == "manifest"
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    "data", ["00", "1818", "20", "4101", "6161", "82f5f6", "a21818012002", "81" * 16 + "01"]
)
def test_accepted_when_deterministic(data: str) -> None:
    raw = bytes.fromhex(data)
    assert cbor.encode(cbor.decode(raw, field="x")) == raw


def test_keys_are_written_in_bytewise_order_not_length_first() -> None:
    assert cbor.encode({-1: 0, 24: 0, 2: 0, "a": 0}).hex() == "a4" + "0200" + "181800" + "2000" + "616100"


def test_tags_are_accepted_where_they_are_expected() -> None:
    assert cbor.decode(bytes.fromhex("d86b01"), field="x", tags={107}).value == 1


def test_size_is_bounded_before_anything_is_read() -> None:
    with pytest.raises(Malformed, match="more than"):
        cbor.decode(bytes(100), field="x", max_size=99)
