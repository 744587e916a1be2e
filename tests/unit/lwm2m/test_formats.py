import pytest

from lwm2m_server.lwm2m import CodecError, ContentFormat, Node, Path, decode, encode
from lwm2m_server.lwm2m.formats import MAX_PAYLOAD

STATE = Path.of(5, 0, 3)


@pytest.mark.parametrize("number", [11542, 1542])
def test_both_numbers_of_tlv_are_read(registry, number):
    assert decode(number, b"\xc1\x03\x02", STATE, registry) == (Node(STATE, 2),)


@pytest.mark.parametrize("number", [11543, 1543])
def test_both_numbers_of_the_old_json_are_read(registry, number):
    assert decode(number, b'{"bn":"/5/0/","e":[{"n":"3","v":2}]}', STATE, registry) == (Node(STATE, 2),)


@pytest.mark.parametrize("number", [None, 65535, 12345])
def test_a_missing_or_unknown_format_is_guessed_from_the_path(registry, number):
    assert decode(number, b"2", STATE, registry) == (Node(STATE, 2),)
    package = Path.of(5, 0, 0)
    assert decode(number, b"2", package, registry) == (Node(package, b"2"),)
    unknown = Path.of(31024, 10, 1)
    assert decode(number, b"\xff\x00", unknown, registry) == (Node(unknown, b"\xff\x00"),)
    assert decode(number, b"abc", unknown, registry) == (Node(unknown, "abc"),)


@pytest.mark.parametrize(
    "payload",
    [b"\xc1\x03\x02", b'[{"bn":"/5/0/","n":"3","v":2}]', b'{"bn":"/5/0/","e":[{"n":"3","v":2}]}'],
)
def test_several_values_without_a_format_are_guessed_from_their_start(registry, payload):
    assert decode(None, payload, Path.of(5, 0), registry) == (Node(STATE, 2),)


def test_nothing_without_a_format_is_nothing(registry):
    assert decode(None, b"", Path.of(5, 0), registry) == ()
    assert decode(None, b"", STATE, registry) == (Node(STATE, ""),)


def test_what_cannot_be_guessed_is_one_named_error(registry):
    with pytest.raises(CodecError):
        decode(None, b"\xff\xff", Path.of(5, 0), registry)


def test_a_device_does_not_guess_what_is_written_to_it(registry):
    for path, payload in ((STATE, b"2"), (Path.of(5, 0), b"\xc1\x03\x02")):
        with pytest.raises(CodecError, match="not known"):
            decode(65535, payload, path, registry, strict=True)


@pytest.mark.parametrize("number", [0, 42, 60, 40])
def test_formats_of_one_value_do_not_hold_an_instance(registry, number):
    with pytest.raises(CodecError, match="several"):
        decode(number, b"2", Path.of(5, 0), registry)


@pytest.mark.parametrize("number", [0, 42, 60])
def test_formats_of_one_value_hold_exactly_one(registry, number):
    for nodes in ([], [Node(STATE, 1), Node(STATE, 2)], [Node(Path.of(5, 0, 5), 1)]):
        with pytest.raises(CodecError, match="one resource"):
            encode(number, STATE, nodes, registry)


@pytest.mark.parametrize("number", [40, 1543, 11543, 65535])
def test_other_formats_are_not_written(number):
    with pytest.raises(CodecError, match="written"):
        encode(number, STATE, [Node(STATE, 1)])


def test_content_is_bounded():
    with pytest.raises(CodecError, match="bytes of content"):
        decode(0, bytes(MAX_PAYLOAD + 1), STATE)


def test_links_as_a_value_are_text(registry):
    path = Path.of(31024, 0, 1)
    assert decode(ContentFormat.LINK_FORMAT, b"</3/0>", path, registry) == (Node(path, "</3/0>"),)


def test_the_same_nodes_come_out_of_every_format(registry):
    path = Path.of(3, 0)
    nodes = (
        Node(Path.of(3, 0, 0), "Acme"),
        Node(Path.of(3, 0, 6, 0), 1),
        Node(Path.of(3, 0, 9), 95),
        Node(Path.of(3, 0, 13), 1367491215),
    )
    for number in (
        ContentFormat.TLV,
        ContentFormat.LEGACY_TLV,
        ContentFormat.SENML_JSON,
        ContentFormat.SENML_CBOR,
    ):
        assert decode(number, encode(number, path, nodes, registry), path, registry, strict=True) == nodes
