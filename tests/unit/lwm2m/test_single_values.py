"""Text, CBOR and opaque: formats that hold one value and no name."""

import cbor2
import pytest

from lwm2m_server.lwm2m import CodecError, ContentFormat, Node, ObjectLink, Path, decode, encode
from lwm2m_server.lwm2m.cbor import load

CASES = [
    ("/3/0/0", "Acmé", "Acmé".encode()),
    ("/3/0/9", 100, b"100"),
    ("/5/0/13", 2**64 - 1, b"18446744073709551615"),
    ("/3303/0/5700", 21.5, b"21.5"),
    ("/3303/0/5700", -4.0, b"-4.0"),
    ("/3303/0/5700", 1e-7, b"0.0000001"),
    ("/3303/0/5700", 1e20, b"100000000000000000000"),
    ("/1/0/6", True, b"1"),
    ("/1/0/6", False, b"0"),
    ("/3/0/13", 1367491215, b"1367491215"),
    ("/3/0/22/0", ObjectLink(10, 65535), b"10:65535"),
    ("/5/0/0", b"\0", b"AA=="),
    ("/5/0/1", "", b""),
]


@pytest.mark.parametrize(("path", "value", "payload"), CASES)
def test_a_value_is_written_as_text_and_read_back(registry, path, value, payload):
    node = Node(Path.parse(path), value)
    written = encode(ContentFormat.TEXT, node.path, [node], registry)
    assert written == payload
    assert decode(ContentFormat.TEXT, written, node.path, registry) == (node,)


@pytest.mark.parametrize(("path", "value", "payload"), CASES)
def test_a_value_is_written_as_cbor_and_read_back(registry, path, value, payload):
    node = Node(Path.parse(path), value)
    written = encode(ContentFormat.CBOR, node.path, [node], registry)
    assert decode(ContentFormat.CBOR, written, node.path, registry) == (node,)


@pytest.mark.parametrize(
    ("path", "payload", "value"),
    [
        ("/3/0/9", b" 100\r\n", 100),
        ("/3/0/9", b"+5\0", 5),
        ("/3303/0/5700", b"1e2", 100.0),
        ("/3303/0/5700", b".5", 0.5),
        ("/3303/0/5700", b"21", 21.0),
        ("/1/0/6", b"true", True),
        ("/5/0/0", b"AAE", b"\0\1"),
        ("/3/0/13", b"1.5e9", 1_500_000_000),
    ],
)
def test_text_is_read_generously(registry, path, payload, value):
    (node,) = decode(ContentFormat.TEXT, payload, Path.parse(path), registry)
    assert node.value == value
    assert type(node.value) is type(value)


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/3/0/9", b""),
        ("/3/0/9", b"ten"),
        ("/3/0/9", b"9" * 400),
        ("/3/0/9", "٣".encode()),
        ("/3303/0/5700", b"nan"),
        ("/3303/0/5700", b"1e999"),
        ("/3303/0/5700", b"inf"),
        ("/1/0/6", b"2"),
        ("/3/0/22/0", b"3:x"),
        ("/5/0/0", b"!!"),
        ("/3/0/0", b"\xff"),
    ],
)
def test_text_that_does_not_fit_is_kept_unless_strict(registry, path, payload):
    (node,) = decode(ContentFormat.TEXT, payload, Path.parse(path), registry)
    assert isinstance(node.value, str | bytes)
    with pytest.raises(CodecError) as caught:
        decode(ContentFormat.TEXT, payload, Path.parse(path), registry, strict=True)
    assert caught.value.field == path


def test_text_without_a_definition_is_text_or_bytes():
    path = Path.of(31024, 10, 1)
    assert decode(0, b"20", path) == (Node(path, "20"),)
    assert decode(0, b"\xff", path) == (Node(path, b"\xff"),)


def test_a_time_may_carry_its_cbor_tag(registry):
    path = Path.of(3, 0, 13)
    assert decode(ContentFormat.CBOR, bytes.fromhex("c11a5182428f"), path, registry) == (
        Node(path, 1367491215),
    )


@pytest.mark.parametrize(
    "payload", [b"\x80", b"\xa0", b"\xf6", b"\xf7", b"", b"\x01\x02", bytes.fromhex("c161 61"), b"\xf0"]
)
def test_cbor_that_is_no_single_value_is_refused(payload):
    with pytest.raises(CodecError):
        decode(ContentFormat.CBOR, payload, Path.of(3, 0, 9))


def test_cbor_is_shallow():
    assert load(b"\x81" * 3 + b"\x01") == [[[1]]]
    with pytest.raises(CodecError, match="depth"):
        load(b"\x81" * 5 + b"\x01")


def test_opaque_is_the_bytes_themselves(registry):
    node = Node(Path.of(5, 0, 0), b"\0\xff")
    assert encode(ContentFormat.OPAQUE, node.path, [node], registry) == b"\0\xff"
    assert decode(ContentFormat.OPAQUE, b"\0\xff", node.path, registry) == (node,)
    with pytest.raises(CodecError, match="bytes"):
        encode(ContentFormat.OPAQUE, Path.of(3, 0, 9), [Node(Path.of(3, 0, 9), 1)], registry)


def test_a_value_that_cannot_be_sent_is_refused():
    with pytest.raises(CodecError):
        encode(ContentFormat.TEXT, Path.of(3, 0, 9), [Node(Path.of(3, 0, 9), float("inf"))])


def test_cbor_integers_have_their_shortest_form():
    assert (
        encode(ContentFormat.CBOR, Path.of(9, 0, 1), [Node(Path.of(9, 0, 1), 500)])
        == cbor2.dumps(500)
        == b"\x19\x01\xf4"
    )
