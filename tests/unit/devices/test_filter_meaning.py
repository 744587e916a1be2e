"""What a filter means, device by device."""

import pytest

from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.devices.filter import like, matches, names, parse
from lwm2m_server.devices.records import Device, Facts, Registration

OWN = {"region": AttributeType.TEXT, "ring": AttributeType.NUMBER}
NOW = 1_000_000.0
REGISTRATION = Registration(
    registration_id="r",
    endpoint="dev",
    address="192.0.2.1:1",
    registered_at=NOW - 7200,
    last_seen=NOW - 3600,
    expires_at=NOW,
)
DEVICE = Device(
    endpoint="dev",
    created_at=0.0,
    registration=REGISTRATION,
    registered=True,
    facts=Facts(manufacturer="Acme", firmware_version="1.10.0", vendor_id=b"\xab" * 16),
    attributes={"ring": 2},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", True),
        ("not all", False),
        ('manufacturer = "Acme"', True),
        ('manufacturer = "acme"', False),
        ("firmware.version > 1.9.0", True),
        ("firmware.version < 1.9.0", False),
        ("firmware.version = 1.10", True),
        ("firmware.version in (1.9, 1.10.0+build)", True),
        ("firmware.version >= 1.10.0-rc1", True),
        ('firmware.version starts with "1.1"', True),
        ("ring >= 2 and ring < 2.5", True),
        ("ring not in (2)", False),
        ("last_seen > 2h ago", True),
        ("last_seen > 30m ago", False),
        ("last_seen < 30m ago", True),
        ('vendor = "abababab-abab-abab-abab-abababababab"', True),
        ('exists vendor and not exists class and class != "00"', False),
        # a missing value makes each comparison false, whichever way it is put; `not` turns that round
        ('region = "eu"', False),
        ('region != "eu"', False),
        ('region not in ("eu")', False),
        ('region not like "e*"', False),
        ('not region = "eu"', True),
        ('not region != "eu"', True),
        ("exists region", False),
        ("manifests", False),
        ("not manifests", True),
    ],
)
def test_a_device_matches_or_it_does_not(text, expected):
    assert matches(parse(text, OWN), DEVICE, NOW) is expected


def test_versions_that_are_none_compare_as_text_and_have_no_order():
    odd = Device(endpoint="odd", created_at=0.0, facts=Facts(firmware_version="nightly"))
    for text, expected in (
        ('firmware.version = "nightly"', True),
        ("firmware.version != 1.0", True),
        ("firmware.version < 1.0", False),
        ("firmware.version >= 1.0", False),
        ("not firmware.version < 1.0", True),
    ):
        assert matches(parse(text), odd, NOW) is expected, text


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("abc", "a*", True),
        ("abc", "*b*", True),
        ("abc", "a?c", True),
        ("abc", "a?", False),
        ("", "*", True),
        ("", "?", False),
        ("a*c", "a*c", True),
        ("aXbXc", "a*b*d", False),
        ("äb", "?b", True),
        ("Abc", "a*", False),
    ],
)
def test_patterns_fit_the_whole_text(text, pattern, expected):
    assert like(text, pattern) is expected


def test_a_filter_tells_which_attributes_it_looks_at():
    tree = parse('not (region = "eu" or ring = 1) and exists model and all', OWN)
    assert names(tree) == {"region", "ring", "model"}
