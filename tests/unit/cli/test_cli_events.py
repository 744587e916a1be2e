"""`lwm2m observe --follow`: server-sent events become lines."""

import json

import httpx
import pytest

EVENTS = """\
: keep-alive

id: 7
event: device.notified
data: {"id": 7, "kind": "device.notified", "at": "2027-01-15T08:00:00Z", "endpoint": "pump-1", \
"data": {"path": "/3303/0/5700", "values": [{"path": "/3303/0/5700", "value": 21.5}]}}

id: 8
event: device.notified
data: {"id": 8, "kind": "device.notified", "at": "2027-01-15T08:00:01Z", "endpoint": "pump-1", \
"data": {"path": "/3/0/9", "values": []}}

id: 9
event: device.updated
data: {"id": 9, "kind": "device.updated", "at": "2027-01-15T08:00:02Z", "endpoint": "pump-1", "data": {}}

"""


@pytest.fixture
def observed(lwm2m):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, text=EVENTS)
        return httpx.Response(201, json={"path": "/3303/0/5700", "values": []})

    lwm2m.answer = answer
    return lwm2m


def test_values_of_the_path_are_printed_as_they_come(observed) -> None:
    result = observed("observe", "pump-1", "3303/0/5700", "--follow")
    assert result.stdout == "2027-01-15 08:00:00Z /3303/0/5700 21.5\n"
    assert observed.asked == [
        ("POST", "/devices/pump-1/observations", {"path": "/3303/0/5700"}),
        ("GET", "/events?endpoint=pump-1", None),
    ]


def test_json_is_one_event_a_line(observed) -> None:
    result = observed("observe", "pump-1", "3303/0/5700", "--follow", "--json")
    assert json.loads(result.stdout.splitlines()[-1])["id"] == 7


def test_a_stream_that_is_refused_is_an_error(lwm2m) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(403, json={"status": 403, "code": "role", "detail": "not for you"})
        return httpx.Response(201, json={"path": "/3303/0/5700", "values": []})

    lwm2m.answer = answer
    result = lwm2m("observe", "pump-1", "/3303/0/5700", "-f")
    assert (result.exit_code, "not for you" in result.stderr) == (5, True)


def test_the_version_is_told(lwm2m) -> None:
    result = lwm2m("--version")
    assert result.exit_code == 0
    assert result.stdout.strip()
