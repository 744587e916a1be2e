"""Who may do what; errors of every kind are problem details; health and metrics."""

import json

import pytest
from structlog.testing import capture_logs

from lwm2m_server.api.middleware import Guard

V1 = "/api/v1"

READS = ["/devices", "/firmware", "/manifests", "/keys", "/campaigns", "/objects", "/filters/preview"]


async def test_without_a_token_nothing_under_api_answers(world) -> None:
    async with world.client(None) as anonymous:
        for path in [*READS, "/tokens", "/events", "/devices/x/objects/3/0"]:
            answer = await anonymous.get(V1 + path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["code"] == "bad-token"
        answer = await anonymous.post(f"{V1}/campaigns", json={}, headers={"Idempotency-Key": "x"})
        assert answer.status_code == 401


@pytest.mark.parametrize("header", ["Bearer lwm2m_wrong", "Bearer", "Basic YTpi", "lwm2m_x"])
async def test_a_token_that_does_not_count_is_401(world, header) -> None:
    async with world.client(None) as client:
        answer = await client.get(f"{V1}/devices", headers={"Authorization": header})
    assert answer.status_code == 401


async def test_roles_include_those_before_them(world) -> None:
    async with world.client("reader") as reader, world.client("operator") as operator:
        for path in READS:
            assert (await reader.get(V1 + path)).status_code == 200, path
        for method, path in (
            ("DELETE", "/devices/pump-1"),
            ("PUT", "/devices/pump-1/objects/1/0/1"),
            ("POST", "/firmware?name=x"),
            ("POST", "/campaigns/x/start"),
            ("GET", "/tokens"),
        ):
            answer = await reader.request(method, V1 + path, json={"value": 1})
            assert (answer.status_code, answer.json()["code"]) == (403, "role"), path
        assert (
            await operator.put(f"{V1}/devices/pump-1/objects/1/0/1", json={"value": 1})
        ).status_code == 204
        for method, path in (("POST", "/keys?name=x"), ("GET", "/tokens"), ("DELETE", "/keys/00")):
            assert (await operator.request(method, V1 + path)).status_code == 403, path


async def test_a_token_is_shown_once_works_and_ends(world, http) -> None:
    made = (await http.post(f"{V1}/tokens", json={"name": "ci", "role": "operator"})).json()
    async with world.client(None) as client:
        headers = {"Authorization": f"Bearer {made['token']}"}
        assert (await client.get(f"{V1}/devices", headers=headers)).status_code == 200
        listed = (await http.get(f"{V1}/tokens")).json()["items"]
        assert made["token"] not in json.dumps(listed)
        assert (await http.delete(f"{V1}/tokens/{made['id']}")).status_code == 204
        assert (await client.get(f"{V1}/devices", headers=headers)).status_code == 401
    assert (await http.delete(f"{V1}/tokens/none")).status_code == 404


async def test_a_token_expires(world, http) -> None:
    body = {"name": "short", "expires_at": "2027-01-15T08:10:00Z"}
    made = (await http.post(f"{V1}/tokens", json=body)).json()
    world.clock.advance(601)
    async with world.client(None) as client:
        answer = await client.get(f"{V1}/devices", headers={"Authorization": f"Bearer {made['token']}"})
    assert answer.status_code == 401
    past = await http.post(f"{V1}/tokens", json={"name": "past", "expires_at": "2001-01-01T00:00:00Z"})
    assert (past.status_code, past.json()["field"]) == (422, "expires_at")


async def test_a_revoked_token_gets_no_replayed_answer(world, http) -> None:
    made = (await http.post(f"{V1}/tokens", json={"name": "boss", "role": "admin"})).json()
    headers = {"Authorization": f"Bearer {made['token']}", "Idempotency-Key": "k"}
    async with world.client(None) as client:
        body = {"name": "second"}
        assert (await client.post(f"{V1}/tokens", json=body, headers=headers)).status_code == 201
        await http.delete(f"{V1}/tokens/{made['id']}")
        assert (await client.post(f"{V1}/tokens", json=body, headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", f"{V1}/nothing", 404, "not-found"),
        ("PUT", f"{V1}/devices", 405, "method-not-allowed"),
        ("GET", f"{V1}/devices?limit=0", 422, "invalid"),
        ("GET", f"{V1}/devices?limit=many", 422, "invalid"),
        ("GET", f"{V1}/objects/99999999", 422, "invalid"),
        ("GET", f"{V1}/campaigns/none", 404, "not-found"),
    ],
)
async def test_every_error_is_a_problem(http, method, path, status, code) -> None:
    answer = await http.request(method, path)
    problem = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"]
    assert problem["detail"]
    if status == 405:
        assert "GET" in answer.headers["allow"]


async def test_json_that_is_none_is_400_and_several_mistakes_are_all_named(http) -> None:
    broken = await http.post(
        f"{V1}/tokens", content=b'{"name": ', headers={"Content-Type": "application/json"}
    )
    assert (broken.status_code, broken.json()["code"]) == (400, "malformed")
    several = await http.post(f"{V1}/campaigns", json={"limit": 0, "retries": -1})
    fields = {item["field"] for item in several.json()["errors"]}
    assert fields == {"name", "manifest_id", "limit", "retries"}


async def test_bodies_beyond_the_limit_get_413(http) -> None:
    for content in (b"x" * 70_000, _chunks()):
        answer = await http.post(f"{V1}/keys?name=x", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


async def _chunks():
    for _ in range(10):
        yield b"x" * 10_000


async def test_what_nobody_foresaw_is_500_and_tells_nothing(world, http) -> None:
    world.devices.error = RuntimeError("secret of the inside")
    with capture_logs() as logs:
        answer = await http.get(f"{V1}/devices/pump-1/objects/3/0")
    assert [(entry["log_level"], entry["method"]) for entry in logs] == [("error", "GET")]
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret" not in answer.text


async def test_an_error_in_the_middle_of_an_answer_ends_it() -> None:
    async def broken(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    sent = []

    async def send(message) -> None:
        sent.append(message["type"])

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with capture_logs():
        await Guard(broken, limit=lambda _method, _path: 10)(scope, None, send)
    assert sent == ["http.response.start"]


async def test_health_tells_which_part_does_not_work(world) -> None:
    async with world.client(None) as client:
        assert (await client.get("/health/live")).json() == {"status": "ok", "parts": {}}
        assert (await client.get("/health/ready")).json() == {"status": "ok", "parts": {"store": "ok"}}
        world.broken.append("disk full")
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["detail"]) == (503, "store: disk full")
        assert answer.headers["retry-after"]
        metrics = await client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
