"""How real clients answer, and what must come of it: one test a habit."""

import cbor2
import pytest

from lwm2m_server.errors import DeviceError
from lwm2m_server.lwm2m import (
    ROOT,
    Negotiation,
    Node,
    Path,
    decode,
    discover,
    discovered_of,
    execute,
    expect,
    nodes_of,
    parse_discover,
    read,
    write_attributes,
)
from lwm2m_server.lwm2m.attributes import Attributes

BATTERY = Path.of(3, 0, 9)
STATE = Path.of(5, 0, 3)


def test_without_accept_wakaama_and_leshan_answer_tlv_for_one_resource_and_anjay_text(registry):
    assert nodes_of(read(BATTERY), 69, 11542, b"\xc1\x09\x64", registry) == (Node(BATTERY, 100),)
    assert nodes_of(read(BATTERY), 69, 0, b"100", registry) == (Node(BATTERY, 100),)


def test_wakaama_has_no_senml_cbor_and_gets_the_next_format():
    state = Negotiation.initial("1.1", (110,))
    assert state.accept(BATTERY) == 110
    state = Negotiation.initial("1.1").after(112, 134)
    assert state.accept(BATTERY) == 110


def test_wakaama_answers_5_00_to_an_accept_that_it_cannot_serve():
    assert Negotiation.initial("1.1").after(112, 160).accept(BATTERY) == 110


def test_leshan_1_serves_the_old_numbers(registry):
    assert decode(1542, b"\xc1\x09\x64", BATTERY, registry) == (Node(BATTERY, 100),)
    assert decode(1543, b'{"bn":"/3/0/9","e":[{"v":100}]}', BATTERY, registry) == (Node(BATTERY, 100),)


def test_the_new_numbers_are_sent_first():
    assert Negotiation.initial("1.0").accept(BATTERY) == 11542


def test_awa_answers_2_00_and_a_format_that_does_not_exist(registry):
    assert nodes_of(read(BATTERY), 64, 65535, b"100", registry) == (Node(BATTERY, 100),)
    assert nodes_of(read(Path.of(5, 0, 0)), 64, 65535, b"\x00\xff", registry) == (
        Node(Path.of(5, 0, 0), b"\x00\xff"),
    )
    assert decode(65535, b"\x00\xff", Path.of(9999, 0, 0), registry) == (
        Node(Path.of(9999, 0, 0), b"\x00\xff"),
    )


def test_node_lib_names_no_format(registry):
    assert nodes_of(read(Path.of(3, 0, 0)), 69, None, b"Acme", registry) == (Node(Path.of(3, 0, 0), "Acme"),)


def test_awa_answers_discover_with_nothing():
    assert discovered_of(discover(Path.of(5)), 69, b"") == ()


def test_wakaama_refuses_discover_of_the_firmware_object():
    with pytest.raises(DeviceError) as caught:
        discovered_of(discover(Path.of(5)), 161, b"")
    assert caught.value.code == "5.01"


def test_wakaama_lists_resources_without_their_instance():
    found = parse_discover(b"</3>,</3/0/0>,</3/0/1>")
    assert Path.of(3, 0) in [each.path for each in found]


def test_anjay_1_2_tells_dimensions():
    found = parse_discover(b"</5>;ver=1.0,</5/0>,</5/0/0>,</5/0/8>;dim=6")
    assert [each.dimension for each in found] == [None, None, None, 6]


def test_composite_is_marked_away_after_silence():
    assert Negotiation.initial("1.1").with_composite(False).composite is False


@pytest.mark.parametrize(("bn", "n"), [("/5/0", "/3"), ("/5/0/", "3")])
def test_anjay_and_wakaama_cut_names_differently(registry, bn, n):
    second = "/5" if n.startswith("/") else "5"
    payload = cbor2.dumps([{2: 2, -2: bn, 0: n}, {0: second, 2: 0}])
    assert decode(112, payload, Path.of(5, 0), registry) == (Node(STATE, 2), Node(Path.of(5, 0, 5), 0))


def test_the_firmware_instance_has_an_empty_uri_and_one_byte_protocols(registry):
    payload = bytes.fromhex("c001c10300c10500880812410000410101410202410303410404410505c10902")
    values = {str(node.path): node.value for node in decode(11542, payload, Path.of(5, 0), registry)}
    assert values["/5/0/1"] == ""
    assert [values[f"/5/0/8/{number}"] for number in range(6)] == list(range(6))
    assert (values["/5/0/3"], values["/5/0/5"], values["/5/0/9"]) == (0, 0, 2)


def test_integers_come_in_the_shortest_width(registry):
    memory = Path.of(3, 0, 10)
    assert decode(11542, b"\xc1\x0a\x0f", memory, registry)[0].value == 15
    assert decode(11542, b"\xc2\x0a\x7f\xff", memory, registry)[0].value == 32767


def test_leshan_1_answers_5_00_to_attributes_and_to_the_update_trigger():
    for operation in (
        write_attributes(BATTERY, Attributes.from_mapping({"pmin": 1})),
        execute(Path.of(1, 0, 8)),
    ):
        with pytest.raises(DeviceError) as caught:
            expect(operation, 160)
        assert caught.value.code == "5.00"


def test_wakaama_sends_json_from_the_root(registry):
    assert decode(110, b'[{"bn":"/3/0/","n":"9","v":100}]', ROOT, registry) == (Node(BATTERY, 100),)


def test_anjay_sends_cbor_with_a_base_time(registry):
    payload = cbor2.dumps([{-2: "/3/0/9", -3: 1_700_000_000.5, 2: 100}])
    assert decode(112, payload, ROOT, registry) == (Node(BATTERY, 100, 1_700_000_000.5),)
