"""`/campaigns`: drafts, actions, statistics, devices."""

import asyncio

import pytest

from lwm2m_server.store.delta_ports import Transfer

V1 = "/api/v1"


@pytest.fixture
async def draft(http, release):
    manifest_id = await release.publish(http)
    answer = await http.post(f"{V1}/campaigns", json={"name": "pumps", "manifest_id": manifest_id})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_draft_takes_defaults_and_is_found_by_id_and_name(http, draft) -> None:
    assert draft["state"] == "draft"
    assert draft["created_by"] == "admin"
    for name in (draft["id"], "pumps"):
        answer = await http.get(f"{V1}/campaigns/{name}")
        assert answer.json() == draft
        assert answer.headers["etag"] == f'"{draft["revision"]}"'
    assert [item["id"] for item in (await http.get(f"{V1}/campaigns")).json()["items"]] == [draft["id"]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"manifest_id": "00"}, "manifest_id"),
        ({"filter": "a ="}, "filter"),
        ({"limit": 0}, "limit"),
        ({"retries": -1}, "retries"),
        ({"stop": "sometimes"}, "stop"),
        ({"start_at": "2027-01-01T00:00:00"}, "start_at"),
        ({"severity": "high"}, "severity"),
        ({"max_defer": -1}, "max_defer"),
        ({"max_defer": 2**32}, "max_defer"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_bad_campaign_names_the_field_and_is_not_made(http, draft, change, field) -> None:
    body = {"name": "other", "manifest_id": draft["manifest_id"], **change}
    answer = await http.post(f"{V1}/campaigns", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert len((await http.get(f"{V1}/campaigns")).json()["items"]) == 1


async def test_a_taken_name_is_a_conflict(http, draft) -> None:
    answer = await http.post(f"{V1}/campaigns", json={"name": "pumps", "manifest_id": draft["manifest_id"]})
    assert answer.status_code == 409


async def test_a_draft_can_be_changed_with_if_match_but_not_once_it_runs(http, draft) -> None:
    url = f"{V1}/campaigns/{draft['id']}"
    etag = f'"{draft["revision"]}"'
    changed = await http.patch(url, json={"limit": 5}, headers={"If-Match": etag})
    assert changed.json()["limit"] == 5
    stale = await http.patch(url, json={"limit": 6}, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    null = await http.patch(url, json={"limit": None})
    assert (null.status_code, null.json()["field"]) == (422, "limit")
    await http.post(f"{url}/start")
    late = await http.patch(url, json={"limit": 6})
    assert (late.status_code, late.json()["code"]) == (409, "immutable")


async def test_actions_move_it_and_doing_them_twice_changes_nothing(http, draft) -> None:
    url = f"{V1}/campaigns/{draft['id']}"
    for action, state in (
        ("start", "running"),
        ("start", "running"),
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "running"),
        ("abort", "aborted"),
        ("archive", "archived"),
    ):
        answer = await http.post(f"{url}/{action}")
        assert (answer.status_code, answer.json()["state"]) == (200, state), action
    assert (await http.post(f"{url}/start")).status_code == 409
    assert (await http.get(f"{V1}/campaigns")).json()["items"] == []
    assert len((await http.get(f"{V1}/campaigns?archived=true")).json()["items"]) == 1
    events = (await http.get(f"{url}/events")).json()["items"]
    assert events[0]["kind"] == "campaign.archived"


async def test_approval_needs_someone_else(world, http, draft) -> None:
    body = {"name": "careful", "manifest_id": draft["manifest_id"], "approval": True}
    url = f"{V1}/campaigns/{(await http.post(f'{V1}/campaigns', json=body)).json()['id']}"
    assert (await http.post(f"{url}/start")).json()["state"] == "awaiting_approval"
    own = await http.post(f"{url}/approve")
    assert (own.status_code, own.json()["code"]) == (403, "four-eyes")
    assert (await http.post(f"{url}/refuse")).json()["state"] == "draft"
    await http.post(f"{url}/start")
    async with world.client("operator") as other:
        assert (await other.post(f"{url}/approve")).json()["approved_by"] == "operator"


async def test_statistics_and_deployments_by_state_and_reason(world, http, draft) -> None:
    url = f"{V1}/campaigns/{draft['id']}"
    for endpoint, state, reason in (
        ("pump-1", "succeeded", "confirmed"),
        ("pump-2", "failed", "digest-mismatch"),
        ("pump-3", "downloading", ""),
    ):
        await world.register(endpoint)
        await world.deploy(draft["id"], endpoint, state, reason)
    row = Transfer(
        campaign_id=draft["id"],
        endpoint="pump-1",
        digest=bytes(32),
        method="bsdiff",
        size=300,
        image_size=1000,
        sent=300,
        updated_at=0.0,
        applied=True,
    )
    await world.store.deltas.record([row])
    counts = (await http.get(f"{url}/statistics")).json()
    assert counts["totals"]["targets"] == 3
    assert counts["savings"] == {
        "updates": 1,
        "deltas": 1,
        "image_bytes": 1000,
        "sent_bytes": 300,
        "saved_bytes": 700,
    }
    assert counts["totals"]["active"] == 1
    assert counts["states"]["failed"] == 1
    assert counts["reasons"]["failed"] == {"digest-mismatch": 1}
    failed = (await http.get(f"{url}/deployments", params={"state": "failed"})).json()["items"]
    assert [deployment["endpoint"] for deployment in failed] == ["pump-2"]
    by_reason = await http.get(f"{url}/deployments", params={"reason": "confirmed"})
    assert [deployment["endpoint"] for deployment in by_reason.json()["items"]] == ["pump-1"]
    one = (await http.get(f"{url}/deployments/pump-3")).json()
    assert (one["deployment"]["offset"], one["deployment"]["size"]) == (1024, 2048)
    assert one["events"] == []
    assert (await http.get(f"{url}/deployments/nobody")).status_code == 404
    unknown = await http.get(f"{url}/deployments", params={"state": "lost"})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "state")
    own = (await http.get(f"{V1}/devices/pump-1/deployments")).json()["items"]
    assert own[0]["campaign_id"] == draft["id"]


async def test_only_drafts_can_be_deleted(http, draft) -> None:
    url = f"{V1}/campaigns/{draft['id']}"
    await http.post(f"{url}/start")
    assert (await http.delete(url)).status_code == 409


async def test_an_idempotency_key_makes_one_campaign_of_two_requests(world, http, draft) -> None:
    body = {"name": "once", "manifest_id": draft["manifest_id"]}
    headers = {"Idempotency-Key": "k1"}
    first = await http.post(f"{V1}/campaigns", json=body, headers=headers)
    again = await http.post(f"{V1}/campaigns", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = await http.post(f"{V1}/campaigns", json={**body, "limit": 1}, headers=headers)
    assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")
    async with world.client("operator") as someone:
        theirs = await someone.post(f"{V1}/campaigns", json=body, headers=headers)
    assert theirs.status_code == 409  # the name is taken: the key is not shared between tokens


async def test_a_failed_create_does_not_use_up_its_key(http, draft) -> None:
    headers = {"Idempotency-Key": "k2"}
    bad = await http.post(f"{V1}/campaigns", json={"name": "x", "manifest_id": "0"}, headers=headers)
    assert bad.status_code == 422
    body = {"name": "x", "manifest_id": draft["manifest_id"]}
    assert (await http.post(f"{V1}/campaigns", json=body, headers=headers)).status_code == 201


async def test_two_requests_at_once_with_one_key_make_one_campaign(http, draft) -> None:
    body = {"name": "twin", "manifest_id": draft["manifest_id"]}
    answers = await asyncio.gather(
        *(http.post(f"{V1}/campaigns", json=body, headers={"Idempotency-Key": "k3"}) for _ in range(2))
    )
    assert sorted(answer.status_code for answer in answers) in ([201, 201], [201, 409])
    assert len((await http.get(f"{V1}/campaigns")).json()["items"]) == 2


async def test_a_key_is_forgotten_after_a_day(world, http, draft) -> None:
    body = {"name": "daily", "manifest_id": draft["manifest_id"]}
    headers = {"Idempotency-Key": "k4"}
    await http.post(f"{V1}/campaigns", json=body, headers=headers)
    world.clock.advance(86401)
    assert (await http.post(f"{V1}/campaigns", json=body, headers=headers)).status_code == 409
