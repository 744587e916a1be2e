"""Invariant: the order of sort keys is the order of versions, and that order is total."""

from hypothesis import given
from hypothesis import strategies as st

from lwm2m_server import versions

numbers = st.lists(st.integers(0, 10**18 - 1) | st.integers(0, 12), min_size=1, max_size=4)
identifiers = st.text("0123456789abzABZ-", min_size=1, max_size=5)
pre = st.lists(identifiers, max_size=3)
texts = st.builds(
    lambda head, tail: ".".join(map(str, head)) + ("-" + ".".join(tail) if tail else ""), numbers, pre
)


@given(texts, texts)
def test_keys_order_like_versions(one: str, two: str) -> None:
    left, right = versions.parse(one), versions.parse(two)
    assert (left < right) == (left.key < right.key)
    assert (left == right) == (left.key == right.key)
    assert versions.compare(one, two) == -versions.compare(two, one)


@given(st.text(max_size=200))
def test_any_text_is_a_version_or_none(text: str) -> None:
    found = versions.try_parse(text)
    assert found is None or versions.parse(found.text) == found
