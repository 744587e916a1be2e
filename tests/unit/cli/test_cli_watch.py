"""`lwm2m campaigns watch`: a line for each change, and an exit code that tells how it ended."""

import json

import httpx
import pytest

from lwm2m_server.cli import output, watch

TOTALS = dict.fromkeys(
    ("targets", "pending", "active", "succeeded", "failed", "rejected", "skipped", "cancelled", "done"), 0
)


def look(state: str, text: str = "", **counts: int):
    """Return what the server says at one look."""
    campaign = {"id": "c1", "name": "pumps", "state": state, "reason": state, "text": text}
    totals = {**TOTALS, **counts}
    return campaign, {"totals": totals, "states": {}, "reasons": {}}


@pytest.fixture
def watched(lwm2m, monkeypatch):
    """Give the looks one after the other; the last one stays. None: the server is away."""
    slept: list[float] = []
    monkeypatch.setattr(watch, "sleep", slept.append)

    def run(looks, *arguments):
        def answer(request: httpx.Request) -> httpx.Response:
            now = looks[min(len(slept), len(looks) - 1)]
            if now is None:
                raise httpx.ConnectError("away")
            if request.url.path.endswith("/deployments"):
                item = {"endpoint": "pump-1", "offset": 512, "size": 1024, "attempt": 1}
                return httpx.Response(200, json={"items": [item], "next": None})
            return httpx.Response(200, json=now[request.url.path.endswith("/statistics")])

        lwm2m.answer = answer
        return lwm2m("campaigns", "watch", "pumps", *arguments)

    run.slept = slept
    return run


RUNNING = look("running", targets=2, pending=1, active=1)


def test_each_change_is_one_line_and_success_is_0(watched) -> None:
    half = look("running", targets=2, active=1, succeeded=1, done=1)
    result = watched([RUNNING, RUNNING, half, look("completed", targets=2, succeeded=2, done=2)])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "running: 0/2 done; 1 active, 1 pending",
        "running: 1/2 done; 1 succeeded, 1 active",
        "completed: 2/2 done; 2 succeeded",
    ]
    assert result.stderr == "pumps is completed: 2 succeeded\n"


def test_json_is_one_object_a_line(watched) -> None:
    result = watched([RUNNING, RUNNING, look("completed", targets=2, succeeded=2, done=2)], "--json")
    states = [json.loads(line)["state"] for line in result.stdout.splitlines()]
    assert states == ["running", "completed"]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (look("completed", targets=2, succeeded=1, rejected=1), 0),
        (look("completed", targets=2, succeeded=1, failed=1), 1),
        (look("halted", "too many failures", targets=2, failed=2), 1),
        (look("aborted", targets=2, cancelled=2), 1),
        (look("archived", targets=2, succeeded=2), 0),
    ],
)
def test_the_exit_code_tells_how_it_ended(watched, end, code) -> None:
    result = watched([RUNNING, end])
    assert result.exit_code == code
    if end[0]["text"]:
        assert "halted (too many failures)" in result.stderr


def test_an_aborted_campaign_is_watched_until_its_devices_have_ended(watched) -> None:
    installing = look("aborted", targets=1, active=1)
    result = watched([installing, installing, look("aborted", targets=1, succeeded=1)])
    assert len(watched.slept) == 2
    assert result.exit_code == 1


def test_a_server_that_restarts_is_waited_for(watched) -> None:
    result = watched([RUNNING, None, None, look("completed", targets=2, succeeded=2)])
    assert result.exit_code == 0
    assert result.stderr.count("trying again") == 1


def test_patience_ends(watched) -> None:
    result = watched([RUNNING, None], "--patience", "5", "--interval", "1")
    assert result.exit_code == 6
    assert sum(watched.slept) == 6


def test_an_unknown_campaign_is_not_waited_for(lwm2m) -> None:
    lwm2m.problem(404, "not-found", "There is no campaign 'x'.")
    assert lwm2m("campaigns", "watch", "x").exit_code == 3


def test_a_terminal_gets_bars(watched, monkeypatch) -> None:
    monkeypatch.setattr(watch, "is_terminal", lambda: True)
    monkeypatch.setattr(output, "PIPE_WIDTH", 200)
    result = watched([RUNNING, RUNNING, look("completed", targets=2, succeeded=2, done=2)])
    assert result.exit_code == 0
    assert "pumps" in result.stdout
    assert "512 of 1024 bytes" in result.stdout
