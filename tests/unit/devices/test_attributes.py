"""Names, types and bounds of attributes."""

import pytest

from lwm2m_server.devices.attributes import (
    BUILT_IN,
    AttributeType,
    check_name,
    check_value,
    clean_facts,
    define,
)
from lwm2m_server.devices.records import Facts
from lwm2m_server.errors import Conflict, InvalidInput


@pytest.mark.parametrize("name", ["region", "a", "cell.id", "fleet-ring", "Ring2", "x_y.z-9"])
def test_plain_names_are_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1a",
        "a b",
        "a..b",
        "-a",
        "a.",
        "ä",
        "x" * 65,
        "and",
        "NOT",
        "component.a",
        "software.a",
        *BUILT_IN,
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(InvalidInput) as caught:
        check_name(name)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("value", "type_"),
    [("x", "text"), (True, "boolean"), (3, "number"), (-0.5, "number"), (2**53, "number"), (None, None)],
)
def test_a_value_has_one_type(value, type_):
    assert check_value("a", value, None) == type_


@pytest.mark.parametrize(
    "value", [2**53 + 1, float("nan"), float("inf"), "a\0b", "a\n", "\ud800", "x" * 1025]
)
def test_values_that_databases_would_change_are_refused(value):
    with pytest.raises(InvalidInput) as caught:
        check_value("a", value, None)
    assert caught.value.field == "attributes/a"


def test_a_type_holds_for_the_fleet():
    with pytest.raises(InvalidInput, match="holds a number"):
        check_value("a", "x", AttributeType.NUMBER)
    with pytest.raises(InvalidInput, match="holds a number"):
        check_value("a", True, AttributeType.NUMBER)
    assert check_value("a", "1.2", AttributeType.VERSION) is AttributeType.VERSION
    with pytest.raises(InvalidInput, match="not a version"):
        check_value("a", "x", AttributeType.VERSION)


def test_a_type_can_be_redefined_while_no_device_has_a_value():
    define("a", AttributeType.TEXT, AttributeType.NUMBER, in_use=False)
    define("a", AttributeType.TEXT, AttributeType.TEXT, in_use=True)
    with pytest.raises(Conflict):
        define("a", AttributeType.TEXT, AttributeType.NUMBER, in_use=True)
    with pytest.raises(InvalidInput):
        define("a", AttributeType.TIME, None, in_use=False)


def test_facts_lose_what_cannot_be_stored():
    facts = Facts(manufacturer="A\0c\x7fme\ud800", model="x" * 2000, vendor_id=b"\0")
    assert clean_facts(facts) == Facts(manufacturer="Acme", model="x" * 1024, vendor_id=b"\0")
