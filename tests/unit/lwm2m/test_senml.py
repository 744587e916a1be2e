import json

import cbor2
import pytest

from lwm2m_server.lwm2m import ROOT, CodecError, Node, ObjectLink, Path
from lwm2m_server.lwm2m.senml import (
    decode_senml_cbor,
    decode_senml_json,
    encode_senml_cbor,
    encode_senml_json,
)
from lwm2m_server.lwm2m.values import MAX_NODES

DEVICE = Path.of(3, 0)
NODES = (
    Node(Path.of(3, 0, 0), "Acme"),
    Node(Path.of(3, 0, 6, 0), 1),
    Node(Path.of(3, 0, 9), 95),
    Node(Path.of(3, 0, 22, 0), ObjectLink(3, 0)),
    Node(Path.of(3, 0, 50), True),
    Node(Path.of(3, 0, 51), b"\xfb\xff\x00"),
    Node(Path.of(3, 0, 52), -1.5),
)


def _json(*records):
    return json.dumps(records).encode()


def test_values_are_written_as_the_specification_shows_them():
    assert json.loads(encode_senml_json(DEVICE, NODES)) == [
        {"bn": "/3/0/", "n": "0", "vs": "Acme"},
        {"n": "6/0", "v": 1},
        {"n": "9", "v": 95},
        {"n": "22/0", "vlo": "3:0"},
        {"n": "50", "vb": True},
        {"n": "51", "vd": "-_8A"},
        {"n": "52", "v": -1.5},
    ]
    assert cbor2.loads(encode_senml_cbor(DEVICE, NODES)) == [
        {-2: "/3/0/", 0: "0", 3: "Acme"},
        {0: "6/0", 2: 1},
        {0: "9", 2: 95},
        {0: "22/0", "vlo": "3:0"},
        {0: "50", 4: True},
        {0: "51", 8: b"\xfb\xff\x00"},
        {0: "52", 2: -1.5},
    ]


@pytest.mark.parametrize("path", ["/3/0", "/3", "/"])
def test_what_is_written_is_read_back(path):
    base = Path.parse(path)
    assert decode_senml_json(encode_senml_json(base, NODES), base) == NODES
    assert decode_senml_cbor(encode_senml_cbor(base, NODES), base) == NODES


def test_a_single_resource_and_a_resource_instance_have_names_too():
    node = Node(Path.of(3, 0, 9), 95)
    assert encode_senml_json(node.path, [node]) == b'[{"bn":"/3/0/","n":"9","v":95}]'
    node = Node(Path.of(3, 0, 6, 1), 5)
    assert encode_senml_json(node.path, [node]) == b'[{"bn":"/3/0/6/","n":"1","v":5}]'


@pytest.mark.parametrize(
    ("bn", "n"), [("/5/0", "/3"), ("/5/0/", "3"), ("/5/0/3", None), ("", "/5/0/3"), ("/5/0/", "/3")]
)
def test_base_name_and_name_are_joined_and_normalised(bn, n):
    record = {"bn": bn, "v": 1} | ({"n": n} if n is not None else {})
    assert decode_senml_json(_json(record), Path.of(5, 0)) == (Node(Path.of(5, 0, 3), 1),)
    labels = {"bn": -2, "v": 2, "n": 0}
    packed = cbor2.dumps([{labels[name]: value for name, value in record.items()}])
    assert decode_senml_cbor(packed, Path.of(5, 0)) == (Node(Path.of(5, 0, 3), 1),)


def test_the_order_within_a_record_means_nothing():
    assert decode_senml_cbor(cbor2.dumps([{2: 1, 0: "3", -2: "/5/0/"}]), Path.of(5, 0)) == (
        Node(Path.of(5, 0, 3), 1),
    )
    assert decode_senml_json(b'[{"v":1,"n":"3","bn":"/5/0/"}]', Path.of(5, 0)) == (Node(Path.of(5, 0, 3), 1),)


def test_bases_hold_until_they_change():
    payload = _json(
        {"bn": "/3/0/", "bt": 1.7e9, "bv": 10, "n": "9", "v": 1, "t": 5},
        {"n": "10", "v": 2},
        {"bn": "/5/0/", "bt": 1.6e9, "bv": 0, "n": "3", "v": 3},
    )
    assert decode_senml_json(payload, ROOT) == (
        Node(Path.of(3, 0, 9), 11, 1.7e9 + 5),
        Node(Path.of(3, 0, 10), 12, 1.7e9),
        Node(Path.of(5, 0, 3), 3, 1.6e9),
    )


def test_small_times_are_relative_to_now():
    payload = _json(
        {"n": "/3/0/9", "v": 1, "t": -5}, {"n": "/3/0/10", "v": 1}, {"n": "/3/0/9", "v": 2, "bt": 0}
    )
    assert [node.time for node in decode_senml_json(payload, ROOT, now=1.7e9)] == [1.7e9 - 5, None, 1.7e9]
    assert [node.time for node in decode_senml_json(payload, ROOT)] == [-5, None, 0]


def test_wakaamas_send_is_read():
    assert decode_senml_json(b'[{"bn":"/3/0/","n":"9","v":100}]', ROOT) == (Node(Path.of(3, 0, 9), 100),)


def test_anjays_send_with_base_time_is_read():
    payload = cbor2.dumps([{-2: "/3/0/9", -3: 1.7e9, 2: 100}, {6: 10, 2: 99}])
    assert decode_senml_cbor(payload, ROOT) == (
        Node(Path.of(3, 0, 9), 100, 1.7e9),
        Node(Path.of(3, 0, 9), 99, 1.7e9 + 10),
    )


@pytest.mark.parametrize("data", ["AQI", "AQI=", "-_8A", "+/8A", "-_8", ""])
def test_data_is_base64_of_either_alphabet_padded_or_not(data):
    (node,) = decode_senml_json(_json({"n": "/5/0/0", "vd": data}), ROOT)
    assert isinstance(node.value, bytes)


def test_values_take_their_definitions_type(registry):
    payload = _json(
        {"bn": "/3/0/", "n": "13", "v": 1.7e9},
        {"n": "22/0", "vs": "3:0"},
        {"n": "9", "v": 95.0},
        {"bn": "/1/0/", "n": "6", "v": 1},
        {"bn": "/3303/0/", "n": "5700", "v": 21},
    )
    values = [node.value for node in decode_senml_json(payload, ROOT, registry)]
    assert values == [1_700_000_000, ObjectLink(3, 0), 95, True, 21.0]
    assert [type(value) for value in values] == [int, ObjectLink, int, bool, float]


def test_a_value_of_another_type_is_kept_unless_strict(registry):
    payload = _json({"n": "/3/0/9", "vs": "full"})
    assert decode_senml_json(payload, ROOT, registry) == (Node(Path.of(3, 0, 9), "full"),)
    with pytest.raises(CodecError) as caught:
        decode_senml_json(payload, ROOT, registry, strict=True)
    assert caught.value.field == "/3/0/9"
    with pytest.raises(CodecError, match="range"):
        decode_senml_json(_json({"n": "/3/0/9", "v": 101}), ROOT, registry, strict=True)


def test_a_record_without_value_sets_bases_or_nothing():
    payload = _json({"bn": "/3/0/"}, {"n": "9", "v": 1}, {"n": "10"})
    assert decode_senml_json(payload, ROOT) == (Node(Path.of(3, 0, 9), 1),)
    assert decode_senml_json(b"[]", ROOT) == ()
    assert decode_senml_cbor(b"\x80", ROOT) == ()


def test_unknown_members_are_passed_over_unless_they_must_be_understood():
    assert decode_senml_json(_json({"n": "/3/0/9", "v": 1, "u": "%", "foo": [1]}), ROOT)
    assert decode_senml_cbor(cbor2.dumps([{0: "/3/0/9", 2: 1, 99: 1, "foo": 2}]), ROOT)
    assert decode_senml_cbor(bytes.fromhex("81a1f500"), ROOT) == ()
    with pytest.raises(CodecError, match="foo_"):
        decode_senml_json(_json({"n": "/3/0/9", "v": 1, "foo_": 1}), ROOT)


def test_decimal_fractions_are_numbers():
    payload = cbor2.dumps([{0: "/3303/0/5700", 2: cbor2.CBORTag(4, [-2, 2150])}])
    assert decode_senml_cbor(payload, ROOT) == (Node(Path.of(3303, 0, 5700), 21.5),)


@pytest.mark.parametrize(
    "record",
    [
        1,
        None,
        [],
        {"n": "/3/0/9", "v": True},
        {"n": "/3/0/9", "v": "1"},
        {"n": "/3/0/9", "v": None},
        {"n": "/3/0/9", "v": 1 << 70},
        {"n": "/3/0/9", "vs": 1},
        {"n": "/3/0/9", "vb": 1},
        {"n": "/3/0/9", "vd": 1},
        {"n": "/3/0/9", "vd": "!"},
        {"n": "/3/0/9", "vlo": "3"},
        {"n": "/3/0/9", "vlo": "3:99999"},
        {"n": "/3/0/9", "v": 1, "vs": "1"},
        {"n": "/3/0/9", "v": 1, "t": "now"},
        {"n": "/3/0/9", "v": 1, "bver": 11},
        {"n": 9, "v": 1},
        {"bn": 9, "v": 1},
        {"n": "/3/0", "v": 1},
        {"n": "urn:dev:1", "v": 1},
        {"n": "/3/0/9" + "/" * 500, "v": 1},
        {"n": "/70000/0/9", "v": 1},
        {"v": 1},
    ],
)
def test_a_broken_record_is_one_named_error(record):
    with pytest.raises(CodecError) as caught:
        decode_senml_json(_json(record), ROOT)
    assert caught.value.field == "/"
    labels = {"bn": -2, "n": 0, "v": 2, "vs": 3, "vb": 4, "t": 6, "vd": 8, "bver": -1}
    if isinstance(record, dict):
        record = {labels.get(name, name): value for name, value in record.items()}
    with pytest.raises(CodecError):
        decode_senml_cbor(cbor2.dumps([record]), ROOT)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[",
        b"[{]",
        b'[{"n":"/3/0/9","v":NaN}]',
        b'[{"n":"/3/0/9","v":1,"x":Infinity}]',
        b'[{"n":"/3/0/9","v":1e999}]',
        b'[{"n":"/3/0/9","v":1,"v":2}]',
        b'[{"n":"/3/0/9","v":' + b"9" * 6000 + b"}]",
        b"[" * 100_000,
        b'[{"a":' * 100_000,
        b"\xff",
        b"[] []",
    ],
)
def test_broken_json_is_one_named_error(payload):
    with pytest.raises(CodecError):
        decode_senml_json(payload, ROOT)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "a0",
        "81",
        "8101",
        "80" + "00",
        "9bffffffffffffffff",
        "bb7fffffffffffffff",
        "5b7fffffffffffffff",
        "81" * 100,
        "81a2026131",
        "81a20001" + "0002",
        "81a100" + "c249" + "01" * 9,
        "81a20066" + b"/3/0/9".hex() + "02c249" + "01" * 9,
        "81a20066" + b"/3/0/9".hex() + "02c482" + "1b00ffffffffffffff" + "01",
        "81a20066" + b"/3/0/9".hex() + "02c582" + "1b00ffffffffffffff" + "01",
        "81a20066" + b"/3/0/9".hex() + "02f97e00",
        "81a20066" + b"/3/0/9".hex() + "02f7",
        "81a10061ff",
        "81a30066" + b"/3/0/9".hex() + "616e66" + b"/3/0/9".hex() + "0201",
        "81d81c80",
        "d9d9f780",
    ],
)
def test_broken_cbor_is_one_named_error(payload):
    with pytest.raises(CodecError):
        decode_senml_cbor(bytes.fromhex(payload), ROOT)


def test_a_record_outside_of_the_path_is_refused():
    with pytest.raises(CodecError, match="outside"):
        decode_senml_json(_json({"n": "/4/0/0", "v": 1}), DEVICE)


def test_the_number_of_records_is_bounded():
    many = [{"n": "/3/0/9", "v": 1}] * (MAX_NODES + 1)
    with pytest.raises(CodecError, match="more than"):
        decode_senml_json(json.dumps(many).encode(), ROOT)
    with pytest.raises(CodecError, match="more than"):
        decode_senml_cbor(cbor2.dumps([{0: "/3/0/9", 2: 1}] * (MAX_NODES + 1)), ROOT)


def test_times_are_written_and_values_outside_of_the_path_are_not():
    node = Node(Path.of(3, 0, 9), 1, 1.7e9)
    assert decode_senml_json(encode_senml_json(ROOT, [node]), ROOT) == (node,)
    with pytest.raises(CodecError, match="within"):
        encode_senml_json(DEVICE, [Node(Path.of(4, 0, 0), 1)])
    with pytest.raises(CodecError, match="within"):
        encode_senml_cbor(DEVICE, [Node(DEVICE, 1)])


def test_a_value_that_its_type_does_not_take_is_not_written(registry):
    with pytest.raises(CodecError) as caught:
        encode_senml_json(DEVICE, [Node(Path.of(3, 0, 9), 101)], registry)
    assert caught.value.field == "/3/0/9"
