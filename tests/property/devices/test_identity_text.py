"""Each identity has one text, and a rule gives the endpoint name that stands in a name, nothing else."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwm2m_server.devices.identities import (
    MAX_PSK_IDENTITY,
    NameRule,
    Source,
    canonical,
    psk_identity,
    psk_text,
)
from lwm2m_server.errors import InvalidInput
from lwm2m_server.transport import psk_identity as text_in_the_transport

IDENTITIES = st.binary(min_size=1, max_size=MAX_PSK_IDENTITY)
NAMES = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1)
PARTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, blacklist_characters="{}"))


@given(IDENTITIES)
def test_the_text_of_an_identity_gives_its_bytes_back_and_is_printable_ascii(identity):
    text = psk_text(identity)
    assert psk_identity(text) == identity
    assert text.isascii()
    assert text.isprintable()
    assert canonical(text) == text
    assert text == text_in_the_transport(identity)


@given(IDENTITIES, IDENTITIES)
def test_two_identities_have_two_texts(one, other):
    assert (psk_text(one) == psk_text(other)) == (one == other)


@given(st.text())
def test_any_text_is_refused_or_has_one_canonical_form(text):
    found = None
    with suppress(InvalidInput):
        found = canonical(text)
    assert found is None or canonical(found) == found


@pytest.mark.parametrize(
    "text", ["psk:", "psk:%", "psk:%4", "psk:%zz", "rpk:00", "x509:" + "g" * 64, "meter"]
)
def test_what_is_no_identity_is_refused(text):
    with pytest.raises(InvalidInput):
        canonical(text)


def test_one_identity_may_be_written_in_several_ways():
    assert canonical("psk:%61b") == "psk:ab"
    assert canonical("psk:ä") == "psk:%C3%A4"
    assert canonical("rpk:" + "AB" * 32) == "rpk:" + "ab" * 32
    assert psk_identity("psk:psk:x") == b"psk:x"
    with pytest.raises(InvalidInput):
        psk_identity("x" * (MAX_PSK_IDENTITY + 1))


@given(PARTS, NAMES, PARTS, st.sampled_from([Source.CN, Source.URI]))
def test_a_rule_finds_the_endpoint_that_stands_in_its_place(before, endpoint, after, source):
    rule = NameRule(source, before + "{endpoint}" + after)
    assert rule.endpoints([before + endpoint + after]) == {endpoint}


@given(PARTS, PARTS, st.lists(st.text()))
def test_what_a_rule_finds_makes_one_of_the_names_again(before, after, names):
    rule = NameRule(Source.CN, before + "{endpoint}" + after)
    for found in rule.endpoints(names):
        assert found
        assert before + found + after in names


def test_dns_names_know_no_case_others_do():
    assert NameRule(Source.DNS, "{endpoint}.Dev.Example").endpoints(["M1.dev.example"]) == {"m1"}
    assert NameRule(Source.CN, "Dev-{endpoint}").endpoints(["dev-1", "Dev-A"]) == {"A"}


def test_nothing_in_the_place_is_no_endpoint():
    assert NameRule(Source.URI, "urn:imei:{endpoint}").endpoints(["urn:imei:", "urn:imei:1"]) == {"1"}
    assert NameRule(Source.URI, "aba{endpoint}aba").endpoints(["ababa"]) == set()


@pytest.mark.parametrize(
    "pattern", ["", "fixed", "{endpoint}{endpoint}", "{name}", "{{endpoint}}", "\n{endpoint}"]
)
def test_a_pattern_without_one_place_is_refused(pattern):
    with pytest.raises(InvalidInput) as caught:
        NameRule(Source.CN, pattern)
    assert caught.value.field == "pattern"


def test_without_a_source_no_name_counts():
    assert NameRule(Source.NONE, "").endpoints(["a"]) == set()
    with pytest.raises(InvalidInput):
        NameRule(Source.NONE, "{endpoint}")
