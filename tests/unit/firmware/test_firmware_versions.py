"""Versions of firmware: what is read, how they compare, keys for databases."""

from itertools import pairwise

import pytest

from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput

ASCENDING = [
    "0.0.1-alpha", "0.0.1", "1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-alpha", "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.0.1", "1.9.0", "1.10.0", "2.0",
    "2.0.0.999999999999", "10.0.0",
]  # fmt: skip


@pytest.mark.parametrize(("older", "newer"), list(pairwise(ASCENDING)))
def test_order_is_that_of_semantic_versioning(older: str, newer: str) -> None:
    assert versions.compare(older, newer) == -1
    assert versions.compare(newer, older) == 1
    assert versions.sort_key(older) < versions.sort_key(newer)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("2.1", "2.1.0"),
        ("v1.9.0", "1.9.0"),
        (" 1.2.3 ", "1.2.3.0"),
        ("1.2.3+a", "1.2.3+b"),
        ("01.002.3", "1.2.3"),
    ],
)
def test_forms_of_one_version_are_equal(one: str, two: str) -> None:
    assert versions.compare(one, two) == 0
    assert versions.sort_key(one) == versions.sort_key(two)
    assert hash(versions.parse(one)) == hash(versions.parse(two))


@pytest.mark.parametrize(
    "text", ["", "banana", "1.", "1..2", "1.2.3.4.5", "1.2-", "1.2.3+", "-1", "1.2\n.3", "1" * 200, "9" * 19]
)
def test_what_is_no_version_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        versions.parse(text)
    assert caught.value.code == "invalid-version"
    assert caught.value.hint
    assert versions.try_parse(text) is None
    assert versions.try_sort_key(text) is None


def test_text_is_kept_as_it_was_read() -> None:
    assert str(versions.parse("v1.10.0-rc.1+build")) == "v1.10.0-rc.1+build"


def test_sort_keys_do_not_depend_on_the_collation() -> None:
    assert set("".join(versions.sort_key(text) for text in ASCENDING)) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("reported", "wanted", "same"),
    [
        ("1.2.3", "1.2.3", True),
        ("v1.2", "1.2.0", True),
        ("1.2.3", "1.2.3+7", True),
        ("1.2.3+8", "1.2.3+7", False),
        ("1.2.4", "1.2.3", False),
        ("banana", "banana", True),
        ("banana", "1.2.3", False),
        (None, "1.2.3", False),
    ],
)
def test_device_runs_a_version_when_it_names_the_same_one(
    reported: str | None, wanted: str, same: bool
) -> None:
    assert versions.same(reported, wanted) is same
