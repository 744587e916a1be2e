"""Statistics add up, whatever the counts."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lwm2m_server.campaigns.reasons import REASONS, reason, sentence
from lwm2m_server.campaigns.records import DeploymentState, StateCount
from lwm2m_server.campaigns.statistics import tally

counts = st.lists(
    st.builds(
        StateCount,
        st.sampled_from(DeploymentState),
        st.sampled_from(["", "timeout", "signature", "x"]),
        st.integers(0, 10**6),
    )
)


@given(counts)
def test_the_parts_are_the_whole(entries: list[StateCount]) -> None:
    found = tally(entries)
    whole = sum(entry.count for entry in entries)
    totals = found.totals
    assert totals.targets == whole == totals.pending + totals.active + totals.done
    assert sum(found.states.values()) == whole
    assert sum(sum(reasons.values()) for reasons in found.reasons.values()) == whole
    for state, reasons in found.reasons.items():
        assert sum(reasons.values()) == found.states[state]


@given(counts)
def test_every_state_is_there_and_reasons_stand_most_frequent_first(entries: list[StateCount]) -> None:
    found = tally(entries)
    assert list(found.states) == list(DeploymentState)
    for reasons in found.reasons.values():
        assert list(reasons.values()) == sorted(reasons.values(), reverse=True)


def test_the_same_reason_in_two_states_stays_apart() -> None:
    found = tally(
        [
            StateCount(DeploymentState.PENDING, "timeout", 3),
            StateCount(DeploymentState.FAILED, "timeout", 2),
        ]
    )
    assert found.reasons == {
        DeploymentState.PENDING: {"timeout": 3},
        DeploymentState.FAILED: {"timeout": 2},
    }


def test_codes_are_kebab_case_unique_and_have_a_sentence() -> None:
    for code, entry in REASONS.items():
        assert code == entry.code == code.lower().replace("_", "-")
        assert entry.sentence
        assert not entry.sentence.endswith(".")
    assert max(Counter(entry.sentence for entry in REASONS.values()).values()) == 1


def test_a_code_that_nobody_knows_is_final_and_keeps_its_name() -> None:
    unknown = reason("quantum-flip")
    assert (unknown.code, unknown.retry) == ("quantum-flip", False)
    assert "quantum-flip" in unknown.sentence
    assert sentence("") == ""
