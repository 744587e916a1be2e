import pytest

from lwm2m_server.lwm2m import CodecError, Node, ObjectLink, Path
from lwm2m_server.lwm2m.tlv import decode_tlv, encode_tlv, wrap_instance
from lwm2m_server.lwm2m.values import MAX_NODES

DEVICE = Path.of(3, 0)


def _values(nodes):
    return {str(node.path): node.value for node in nodes}


def test_the_example_of_the_core_specification_is_read(registry):
    # Core TS 7.4.5.2, the Device object's instance.
    payload = bytes.fromhex(
        "c800144f70656e204d6f62696c6520416c6c69616e6365"
        "c801164c69676874776569676874204d324d20436c69656e74"
        "c80209333435303030313233"
        "c303312e30"
        "8606410001410105"
        "88070842000ed842011388"
        "870841007d42010384"
        "c10964"
        "c10a0f"
        "830b410000"
        "c40d5182428f"
        "c60e2b30323a3030"
        "c11055"
    )
    assert _values(decode_tlv(payload, DEVICE, registry)) == {
        "/3/0/0": "Open Mobile Alliance",
        "/3/0/1": "Lightweight M2M Client",
        "/3/0/2": "345000123",
        "/3/0/3": "1.0",
        "/3/0/6/0": 1,
        "/3/0/6/1": 5,
        "/3/0/7/0": 3800,
        "/3/0/7/1": 5000,
        "/3/0/8/0": 125,
        "/3/0/8/1": 900,
        "/3/0/9": 100,
        "/3/0/10": 15,
        "/3/0/11/0": 0,
        "/3/0/13": 1367491215,
        "/3/0/14": "+02:00",
        "/3/0/16": "U",
    }
    assert encode_tlv(DEVICE, decode_tlv(payload, DEVICE, registry), registry) == payload


def test_an_empty_uri_and_a_list_of_one_byte_protocols_are_read(registry):
    payload = bytes.fromhex("c001" + "880812" + "".join(f"41{n:02x}{n:02x}" for n in range(6)))
    assert _values(decode_tlv(payload, Path.of(5, 0), registry)) == {
        "/5/0/1": "",
        **{f"/5/0/8/{number}": number for number in range(6)},
    }


def test_a_single_resource_comes_with_its_own_entry(registry):
    assert decode_tlv(b"\xc1\x03\x02", Path.of(5, 0, 3), registry) == (Node(Path.of(5, 0, 3), 2),)


def test_a_resource_instance_comes_bare_or_within_its_resource(registry):
    path = Path.of(3, 0, 6, 1)
    assert decode_tlv(b"\x41\x01\x05", path, registry) == (Node(path, 5),)
    assert decode_tlv(b"\x83\x06\x41\x01\x05", path, registry) == (Node(path, 5),)
    assert decode_tlv(b"\xc1\x06\x05", path, registry) == (Node(path, 5),)


def test_an_object_holds_its_instances(registry):
    body = b"\xc1\x09\x64"
    payload = wrap_instance(0, body)
    assert decode_tlv(payload, Path.of(3), registry) == (Node(Path.of(3, 0, 9), 100),)
    # The wrapper may also come for an instance, and be missing for a single-instance object.
    assert decode_tlv(payload, DEVICE, registry) == (Node(Path.of(3, 0, 9), 100),)
    assert decode_tlv(body, Path.of(3), registry) == (Node(Path.of(3, 0, 9), 100),)
    assert encode_tlv(Path.of(3), [Node(Path.of(3, 0, 9), 100)], registry) == payload


def test_ids_and_lengths_take_the_width_they_need():
    path = Path.of(3303, 0)
    for size in (0, 7, 8, 255, 256, 65535, 65536):
        nodes = (Node(path.child(5700), b"x" * size), Node(path.child(65534), b"y"))
        assert decode_tlv(encode_tlv(path, nodes), path) == nodes


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (0, "c10a00"),
        (-1, "c10aff"),
        (127, "c10a7f"),
        (128, "c20a0080"),
        (-129, "c20aff7f"),
        (70000, "c40a00011170"),
        (2**40, "c80a080000010000000000"),
    ],
)
def test_integers_are_written_in_their_shortest_width(registry, value, payload):
    node = Node(Path.of(3, 0, 10), value)
    assert encode_tlv(DEVICE, [node], registry).hex() == payload
    assert decode_tlv(bytes.fromhex(payload), DEVICE, registry) == (node,)


@pytest.mark.parametrize("width", range(1, 9))
def test_integers_of_any_width_are_read(registry, width):
    entry = bytes((0xC0 | width, 9)) if width < 8 else b"\xc8\x09\x08"
    assert decode_tlv(entry + b"\0" * (width - 1) + b"\x05", DEVICE, registry)[0].value == 5


def test_unsigned_integers_use_the_highest_bit(registry):
    node = Node(Path.of(5, 0, 13), 200)
    assert encode_tlv(Path.of(5, 0), [node], registry).hex() == "c10dc8"
    assert decode_tlv(b"\xc1\x0d\xc8", Path.of(5, 0), registry) == (node,)
    assert encode_tlv(Path.of(5, 0), [Node(Path.of(5, 0, 13), 2**64 - 1)], registry)[3:] == b"\xff" * 8


def test_floats_of_four_and_eight_bytes_are_read(registry):
    path = Path.of(3303, 0)
    assert decode_tlv(bytes.fromhex("e4164441ac0000"), path, registry)[0].value == 21.5
    assert decode_tlv(bytes.fromhex("e81644084035800000000000"), path, registry)[0].value == 21.5


def test_links_and_booleans_have_their_bytes(registry):
    link = Node(Path.of(3, 0, 22, 0), ObjectLink(10, 65535))
    assert encode_tlv(DEVICE, [link], registry).hex() == "86164400000affff"
    assert decode_tlv(encode_tlv(DEVICE, [link], registry), DEVICE, registry) == (link,)
    flag = Node(Path.of(1, 0, 6), True)
    assert encode_tlv(Path.of(1, 0), [flag], registry) == b"\xc1\x06\x01"
    assert decode_tlv(b"\xc1\x06\x01", Path.of(1, 0), registry) == (flag,)


def test_without_a_definition_a_value_stays_bytes():
    assert decode_tlv(b"\xc1\x09\x64", Path.of(31024, 0)) == (Node(Path.of(31024, 0, 9), b"\x64"),)


@pytest.mark.parametrize("payload", [b"\xc0\x09", b"\xc8\x09\x09" + b"\0" * 9])
def test_a_value_that_does_not_fit_its_type_stays_bytes_unless_strict(registry, payload):
    (node,) = decode_tlv(payload, DEVICE, registry)
    assert isinstance(node.value, bytes)
    with pytest.raises(CodecError) as caught:
        decode_tlv(payload, DEVICE, registry, strict=True)
    assert caught.value.field == "/3/0/9"


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (b"\xc1", "/3/0"),
        (b"\xc1\x09", "/3/0"),
        (b"\xc8\x09\xff\x00", "/3/0"),
        (b"\xd8\x09\xff\xff\xff", "/3/0"),
        (b"\xe1\xff\xff\x00", "/3/0"),
        (b"\x41\x00\x01", "/3/0"),
        (b"\x83\x06\xc1\x01\x05", "/3/0"),
        (b"\x02\x00\x41\x00", "/3"),
        (b"\x02\x00\x02\x00", "/3"),
        (b"\x03\x01\xc1\x09\x64", "/3/0"),
        (b"\x03\x00\xc1\x09\x64", "/3/0/9"),
        (b"\xc1\x08\x64", "/3/0/9"),
        (b"\x41\x02\x64", "/3/0/6/1"),
        (b"\x02\x00\xc0\x09", "/"),
        (b"\x41\x00\x09", "/"),
        (b"\xc1\x00\x09", "/"),
    ],
)
def test_broken_or_misplaced_entries_are_one_named_error(registry, payload, path):
    with pytest.raises(CodecError) as caught:
        decode_tlv(payload, Path.parse(path), registry)
    assert caught.value.field == path


def test_the_number_of_values_is_bounded():
    with pytest.raises(CodecError, match="more than"):
        decode_tlv(b"\xc0\x01" * (MAX_NODES + 1), DEVICE)


@pytest.mark.parametrize(
    ("path", "nodes"),
    [
        (Path(), [Node(Path.of(3, 0, 9), 1)]),
        (DEVICE, [Node(Path.of(4, 0, 0), 1)]),
        (DEVICE, [Node(DEVICE, 1)]),
        (DEVICE, [Node(Path.of(3, 0, 9), 1), Node(Path.of(3, 0, 9), 2)]),
        (DEVICE, [Node(Path.of(3, 0, 9), "full")]),
        (DEVICE, [Node(Path.of(3, 0, 99), 1 << 64)]),
    ],
)
def test_values_that_cannot_be_written_are_one_named_error(registry, path, nodes):
    with pytest.raises(CodecError):
        encode_tlv(path, nodes, registry)


def test_a_value_of_16_mib_is_too_long():
    with pytest.raises(CodecError, match="16777216"):
        encode_tlv(Path.of(5, 0), [Node(Path.of(5, 0, 0), bytes(1 << 24))])


def test_what_is_not_a_number_stays_bytes(registry):
    (node,) = decode_tlv(bytes.fromhex("e416447fc00000"), Path.of(3303, 0), registry)
    assert node.value == bytes.fromhex("7fc00000")


def test_fractions_of_a_second_are_dropped(registry):
    node = Node(Path.of(3, 0, 13), 1000.75)
    assert encode_tlv(DEVICE, [node], registry) == b"\xc2\x0d\x03\xe8"


def test_what_is_out_of_range_is_not_written(registry):
    with pytest.raises(CodecError) as caught:
        encode_tlv(DEVICE, [Node(Path.of(3, 0, 9), 101)], registry)
    assert caught.value.field == "/3/0/9"
