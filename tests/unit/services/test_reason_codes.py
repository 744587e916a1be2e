"""Reason codes: whatever ends up as a deployment's reason has its sentence, and both tables agree on retries."""

import ast
from pathlib import Path

import pytest

from lwm2m_server.campaigns.reasons import REASONS
from lwm2m_server.firmware import outcomes
from lwm2m_server.firmware.outcomes import Ending, Outcome, by_refusal
from lwm2m_server.firmware.refusals import RefusalCode

ROOT = Path(outcomes.__file__).resolve().parent.parent
MAKERS = {"failed": True, "failed_for_good": False, "rejected": False, "succeeded": False}


def outcomes_in_code() -> list[tuple[str, bool]]:
    """Return every code that the update machine ends with, and whether it ever lets it be tried again."""
    found: dict[str, bool] = {}
    for file in sorted((ROOT / "firmware").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in MAKERS
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                code = str(node.args[0].value)
                found[code] = found.get(code, False) or MAKERS[node.func.id]
    return sorted(found.items())


def reasons_in_services() -> list[str]:
    """Return every code that a service gives to a transition."""
    found = set()
    for file in sorted((ROOT / "services").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "reason"
                and isinstance(node.value, ast.Constant)
            ):
                found.add(str(node.value.value))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                at = {"_end": 2, "_postpone": 1, "_fail": 1, "_move": 2, "_to": 3, "Verdict": 1}.get(name)
                if at is not None and len(node.args) > at and isinstance(node.args[at], ast.Constant):
                    found.add(str(node.args[at].value))
    return sorted(found)


def test_something_is_found() -> None:
    assert len(outcomes_in_code()) > 15
    assert {"paused", "not-registered", "already-current", "artefact-missing"} <= set(reasons_in_services())


def every_outcome() -> dict[str, bool]:
    """Return every code that an attempt may end with, and whether any way to it may be tried again."""
    found = dict(outcomes_in_code())
    known = [by_refusal(code.value, "") for code in RefusalCode] + list(outcomes.BY_RESULT.values())
    for outcome in known:
        found[outcome.reason] = found.get(outcome.reason, False) or outcome.retryable
    return found


@pytest.mark.parametrize(("code", "retryable"), sorted(every_outcome().items()))
def test_outcomes_of_updates(code: str, *, retryable: bool) -> None:
    assert code in REASONS
    assert REASONS[code].retry == retryable


@pytest.mark.parametrize("outcome", list(outcomes.BY_RESULT.values()), ids=lambda outcome: outcome.reason)
def test_only_failures_are_tried_again(outcome: Outcome) -> None:
    assert outcome.retryable <= (outcome.ending is Ending.FAILED)


@pytest.mark.parametrize("code", reasons_in_services())
def test_reasons_that_services_give(code: str) -> None:
    assert code in REASONS
