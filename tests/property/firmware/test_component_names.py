"""A component's name stands for one identifier, and the other way round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwm2m_server.firmware.suit import component_of, component_text

PARTS = st.binary(min_size=1, max_size=8) | st.text("abcdefmoz0159._-A", min_size=1, max_size=8).map(
    str.encode
)


@given(st.lists(PARTS, min_size=1, max_size=3).map(tuple))
def test_every_identifier_comes_back_from_its_name(component: tuple[bytes, ...]) -> None:
    assert component_of(component_text(component)) == component


@given(st.text(max_size=12) | st.text("abcmz09._-/", max_size=12))
def test_any_text_is_one_identifier_or_none(text: str) -> None:
    found = component_of(text)
    assert found is None or component_of(component_text(found)) == found


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ((b"\x00",), "00"),
        ((b"modem",), "modem"),
        ((b"cafe",), "63616665"),
        ((b"board", b"\x01"), "board/01"),
        ((b"-x",), "2d78"),
    ],
)
def test_words_stand_as_they_are_unless_they_could_be_hex(component: tuple[bytes, ...], name: str) -> None:
    assert component_text(component) == name


@pytest.mark.parametrize("text", ["", "/", "00/", "a b", "0", "0g", "modém"])
def test_what_is_neither_word_nor_hex_names_nothing(text: str) -> None:
    assert component_of(text) is None
