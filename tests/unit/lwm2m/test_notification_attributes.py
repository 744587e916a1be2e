import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m import Attributes, Path, parse_discover


def test_attributes_become_query_parameters_in_their_order():
    attributes = Attributes.from_mapping(
        {"pmin": 10, "pmax": 60.0, "gt": 25.5, "lt": -3, "st": 1e-7, "con": True}
    )
    assert attributes.query() == ("pmin=10", "pmax=60", "gt=25.5", "lt=-3", "st=0.0000001", "con=1")
    assert attributes.get("gt") == 25.5
    assert attributes.get("epmin") is None
    assert attributes.has_thresholds


def test_null_takes_an_attribute_away():
    attributes = Attributes.from_mapping({"pmin": None, "pmax": 5})
    assert attributes.query() == ("pmin", "pmax=5")
    assert not attributes.has_thresholds


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "attributes"),
        ({"dim": 1}, "dim"),
        ({"pmin": -1}, "pmin"),
        ({"pmin": 1.5}, "pmin"),
        ({"pmin": "10"}, "pmin"),
        ({"pmin": True}, "pmin"),
        ({"pmin": float("inf")}, "pmin"),
        ({"pmin": 2**32}, "pmin"),
        ({"con": 2}, "con"),
        ({"gt": float("nan")}, "gt"),
        ({"gt": "hot"}, "gt"),
        ({"pmin": 10, "pmax": 5}, "pmax"),
        ({"epmin": 10, "epmax": 5}, "epmax"),
        ({"st": 0}, "st"),
        ({"st": -1}, "st"),
        ({"lt": 10, "gt": 10}, "lt"),
        ({"lt": 10, "gt": 12, "st": 1}, "lt"),
    ],
)
def test_an_attribute_that_no_device_can_follow_is_refused_by_name(data, field):
    with pytest.raises(InvalidInput) as caught:
        Attributes.from_mapping(data)
    assert caught.value.field == field
    assert caught.value.hint


def test_limits_that_touch_are_taken():
    assert Attributes.from_mapping({"pmin": 5, "pmax": 5, "lt": 10, "gt": 12.1, "st": 1}).query()


def _paths(discovered):
    return [str(each.path) for each in discovered]


def test_anjays_discover_is_read_with_its_dimensions():
    found = parse_discover(b"</5>;ver=1.1,</5/0>;pmin=1,</5/0/3>,</5/0/8>;dim=6")
    assert _paths(found) == ["/5", "/5/0", "/5/0/3", "/5/0/8"]
    assert found[0].get("ver") == "1.1"
    assert found[1].get("pmin") == "1"
    assert (found[2].dimension, found[3].dimension) == (None, 6)


def test_instances_are_inferred_from_deeper_links():
    assert _paths(parse_discover(b"</3>,</3/0/0>,</3/0/1>")) == ["/3", "/3/0", "/3/0/0", "/3/0/1"]
    assert _paths(parse_discover(b"</3/0/0>;pmin=1,</3>;pmin=2")) == ["/3", "/3/0", "/3/0/0"]
    assert parse_discover(b"</3/0/0>,</3>;pmin=2")[0].get("pmin") == "2"


def test_an_empty_body_discovers_nothing():
    assert parse_discover(b"") == ()


def test_bootstrap_discover_shows_accounts():
    found = parse_discover(b'</>;lwm2m=1.1,</0>,</0/1>;ssid=101;uri="coap://h:5683",</0/0>,</1/0>;ssid=101')
    assert found[0].path == Path()
    assert found[0].get("lwm2m") == "1.1"
    by_path = {str(each.path): each for each in found}
    assert by_path["/0/1"].short_server_id == 101
    assert by_path["/0/1"].get("uri") == "coap://h:5683"
    assert by_path["/0/0"].short_server_id is None


def test_an_alternate_root_is_taken_off():
    assert _paths(parse_discover(b"</lwm2m/3/0>", ("lwm2m",))) == ["/3", "/3/0"]


def test_what_is_no_link_format_is_refused():
    with pytest.raises(InvalidInput):
        parse_discover(b"oops")
