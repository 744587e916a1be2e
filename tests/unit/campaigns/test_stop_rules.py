"""Stop rules: their language, when they are met, and that they fail closed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwm2m_server.campaigns.records import DEFAULT_STOP
from lwm2m_server.campaigns.statistics import Totals
from lwm2m_server.campaigns.stop import parse_stop
from lwm2m_server.errors import InvalidInput


def outcomes(failed: int, succeeded: int) -> Totals:
    return Totals(failed + succeeded + 9, 4, 0, succeeded, failed, 2, 2, 1)


@pytest.mark.parametrize(
    ("rule", "failed", "succeeded", "met"),
    [
        ("failures > 5", 5, 0, False),
        ("failures > 5", 6, 100_000, True),
        ("failures > 0", 1, 0, True),
        ("failures > 10 %", 1, 9, False),  # exactly 10 %
        ("failures > 10 %", 2, 9, True),
        ("failures > 10%", 0, 0, False),
        ("failures > 10 % after 20", 10, 9, False),
        ("failures > 10 % after 20", 10, 10, True),
        ("failures > 0.5 %", 1, 199, False),
        ("failures > 0.5 %", 1, 198, True),
        ("failures > 5 after 50", 6, 43, False),
        ("failures > 5 after 50", 6, 44, True),
        ("FAILURES>5 OR failures>1% after 100", 2, 99, True),
        ("never", 1000, 0, False),
    ],
)
def test_when_a_rule_is_met(rule: str, failed: int, succeeded: int, *, met: bool) -> None:
    assert (parse_stop(rule).met(outcomes(failed, succeeded)) is not None) == met


def test_refusals_and_skips_are_no_outcomes() -> None:
    refused = Totals(100, 0, 0, 0, 0, 60, 40, 0)
    assert parse_stop("failures > 0 or failures > 1 %").met(refused) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "failures",
        "failures > ",
        "failures > -1",
        "failures > 1.5",
        "failures > 100 %",
        "failures > 5 %% ",
        "failures < 5",
        "failures > 5 and failures > 6",
        "failures > 5 or",
        "or failures > 5",
        "successes > 5",
        "failures > nan",
        "never or failures > 5",
        "failures > 5 after -3",
        "failures > 1" + "0" * 400,
    ],
)
def test_what_is_no_rule_is_refused_with_the_field_and_an_example(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_stop(text)
    assert caught.value.field == "stop"
    assert caught.value.hint


def test_the_default_is_a_rule() -> None:
    assert parse_stop(DEFAULT_STOP).clauses


def test_a_clause_reads_as_it_is_written() -> None:
    for text in ("failures > 5", "failures > 2.5 %", "failures > 10 % after 20"):
        (clause,) = parse_stop(text).clauses
        assert str(clause) == text


@given(st.text(max_size=300))
def test_any_text_is_a_rule_or_one_named_error(text: str) -> None:
    try:
        rule = parse_stop(text)
    except InvalidInput:
        return
    rule.met(outcomes(1, 1))
