"""An error in a filter says where, what was expected, and the way out."""

import pytest

from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.devices.filter import FilterError, parse

OWN = {"region": AttributeType.TEXT, "ring": AttributeType.NUMBER}


@pytest.mark.parametrize(
    ("text", "column", "message", "hint"),
    [
        ("", 1, "the filter is empty", "`all`"),
        ("  ", 1, "the filter is empty", "`all`"),
        ('regoin = "eu"', 1, "no attribute 'regoin'", "did you mean 'region'?"),
        ('Region = "eu"', 1, "no attribute 'Region'", "did you mean 'region'?"),
        ('firmware_version = "1"', 1, "no attribute", "'firmware.version'"),
        ("software.meter < 2", 1, "no attribute", "software.NAME.version"),
        ("component.modem < 2", 1, "no attribute", "component.NAME.version"),
        ("component.modem.version < new", 27, "expected a version", "is a version"),
        ("zzz = 1", 1, "no attribute 'zzz'", "there are: address"),
        ("region = eu", 10, "\"text\" in quotes, found 'eu'", 'region = "eu"'),
        ("firmware.version < latest", 20, "expected a version", "firmware.version is a version"),
        ('ring = "3"', 8, "expected a number", "ring is a number"),
        ("ring < 1e999", 8, "expected a number", "ring is a number"),
        ("registered = yes", 14, "expected true or false", "boolean"),
        ("(registered", 12, "expected 'and', 'or' or ')', found the end", None),
        ("registered registered", 12, "expected 'and', 'or' or the end", None),
        ("registered and", 15, "expected the name of an attribute, found the end", None),
        ("model", 6, "expected a comparison of model", "such as model ="),
        ("last_seen = 2d ago", 11, "can't be compared by '='", "last_seen > 2d ago"),
        ("last_seen > 2d", 15, "expected 'ago'", "such as"),
        ("last_seen > 2x ago", 13, "expected a time", "last_seen is a time"),
        ("registered < true", 12, "can't be compared by '<'", "use = or !="),
        ('ring like "3*"', 6, "can't be compared by 'like'", "patterns are for text"),
        ("region in ()", 12, "in quotes, found ')'", None),
        ('region in "eu"', 11, "expected '('", "such as region in"),
        ('region in ("eu"', 16, "expected ',' or ')'", None),
        ('region = "eu', 10, "isn't closed", 'end it with "'),
        ("region = 'a\\n'", 12, "unknown escape", "backslash"),
        ("region = 'a\0'", 10, "control characters", "printable"),
        ("ring = 3 & registered", 10, "'&' is not part", "quotes"),
        ('region like "*****"', 13, "more than 4 '*'", "`and`"),
        ('vendor = "xyz"', 10, "expected an identifier", None),
        ("not " * 33 + "registered", 133, "nested deeper than 32", None),
        ("(" * 33 + "registered" + ")" * 33, 34, "nested deeper than 32", None),
        ('region = "' + "x" * 5000 + '"', 4097, "longer than 4096", "attribute"),
    ],
)
def test_errors_point_to_the_place(text, column, message, hint):
    with pytest.raises(FilterError) as caught:
        parse(text, OWN)
    error = caught.value
    assert error.field == "filter"
    assert error.position + 1 == column, error.message
    assert message in error.message
    if hint is not None:
        assert hint in error.hint


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (
            'manufacturer = "Acme" and firmware.version < 2.1 and not region = "eu"',
            'manufacturer = "Acme" and firmware.version < "2.1" and not region = "eu"',
        ),
        ("registered", "registered = true"),
        ("NOT registered OR All", "not registered = true or all"),
        ("ring in (1,2.50)", "ring in (1, 2.5)"),
        ("ring <> 1 and ring == 1", "ring != 1 and ring = 1"),
        ("last_seen > 48h ago", "last_seen > 2d ago"),
        ("created < 2026-01-31T12:00:00+01:00", "created < 2026-01-31T11:00:00Z"),
        ("created < 2026-01-31", "created < 2026-01-31T00:00:00Z"),
        ("region not in ('a', \"b'\")", 'region not in ("a", "b\'")'),
        (
            "region starts with 'e' and region not like '*x?'",
            'region starts with "e" and region not like "*x?"',
        ),
        (
            "vendor = FA6B4A53-d5ad-5fdf-be9d-e663e4d41ffe",
            'vendor = "fa6b4a53d5ad5fdfbe9de663e4d41ffe"',
        ),
        (
            "(registered or registered) and exists region",
            "(registered = true or registered = true) and exists region",
        ),
        ("firmware.version != 'special build'", 'firmware.version != "special build"'),
    ],
)
def test_what_is_written_in_many_ways_has_one_form(text, canonical):
    assert str(parse(text, OWN)) == canonical
