"""Every protection of the table in docs/firmware.md has its tests, on each side that enforces it."""

import pytest

from protections import PROTECTIONS, SIDES, proofs

PROOFS = list(proofs())
WANTED = [(side, name) for name, each in PROTECTIONS.items() for side in SIDES if getattr(each, side)]


@pytest.mark.parametrize(("side", "name"), WANTED, ids=lambda text: text)
def test_what_a_side_enforces_a_test_of_that_side_proves(side: str, name: str) -> None:
    found = [each.test for each in PROOFS if each.side == side and name in each.names]
    assert found, f'no test has @pytest.mark.protection("{side}", "{name}")'


def test_markers_name_protections_that_their_side_enforces() -> None:
    marked = {(each.side, name): each.test for each in PROOFS for name in each.names}
    assert {at: test for at, test in marked.items() if at not in WANTED} == {}


def test_only_tests_carry_markers_and_each_says_a_name() -> None:
    for each in PROOFS:
        assert each.test.startswith("test_"), each
        assert each.names, each


def test_each_protection_is_enforced_somewhere() -> None:
    assert [name for name, each in PROTECTIONS.items() if not (each.server or each.device)] == []
