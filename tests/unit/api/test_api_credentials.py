"""`/credentials` and `/authorities`: who may do what, and that keys are shown once."""

import base64

import pytest

from certificates import Issuer, public_key
from lwm2m_server.services.credential_import import MAX_BYTES

V1 = "/api/v1"
KEY = "00112233445566778899aabbccddeeff"


async def add(http, **body):
    return await http.post(f"{V1}/credentials", json={"kind": "psk", "endpoint": "meter-1", **body})


async def test_a_key_that_was_made_is_in_the_first_answer_alone(http, world) -> None:
    made = await add(http)
    assert made.status_code == 201
    key = made.json()["key"]
    assert len(bytes.fromhex(key)) == 16
    shown = [
        await http.get(f"{V1}/credentials/psk:meter-1"),
        await http.get(f"{V1}/credentials"),
        await http.get(f"{V1}/devices/meter-1/events"),
    ]
    assert all(key not in answer.text for answer in shown)
    assert "key" not in shown[0].json()
    assert (await add(http, identity="given", key=KEY)).json()["key"] is None


async def test_the_same_idempotency_key_gives_the_same_credential(http) -> None:
    body, headers = {"kind": "psk", "endpoint": "meter-1"}, {"Idempotency-Key": "k"}
    first = await http.post(f"{V1}/credentials", json=body, headers=headers)
    again = await http.post(f"{V1}/credentials", json=body, headers=headers)
    assert first.json() == again.json()
    assert (await add(http)).json()["code"] == "identity-taken"


@pytest.mark.parametrize("identity", ["a/b", "100%25", "ä", "x y", "import", "%00"])
async def test_identities_of_all_sorts_stand_in_addresses(http, identity) -> None:
    from urllib.parse import quote

    made = (await add(http, identity=identity)).json()["identity"]
    where = f"{V1}/credentials/{quote(made, safe='')}"
    assert (await http.get(where)).json()["identity"] == made
    assert (await http.post(f"{where}/rotate", json={})).status_code == 200
    assert (await http.delete(where)).status_code == 204
    assert (await http.get(where)).json()["revoked_at"] is not None


async def test_rotation_and_removal_reach_the_sessions(http, world) -> None:
    await add(http, key=KEY)
    rotated = await http.post(f"{V1}/credentials/psk:meter-1/rotate", json={"overlap": 60})
    assert rotated.json()["previous_until"] is not None
    assert rotated.json()["key"] != KEY
    await http.delete(f"{V1}/credentials/psk:meter-1")
    assert world.live.heard == [("rotated", "psk:meter-1"), ("revoke", "psk:meter-1")]
    assert (await http.get(f"{V1}/credentials")).json()["items"] == []
    assert len((await http.get(f"{V1}/credentials?revoked=true")).json()["items"]) == 1
    ended = await http.post(f"{V1}/credentials/psk:meter-1/rotate", json={})
    assert (ended.status_code, ended.json()["code"]) == (409, "revoked")


async def test_lists_come_in_pages_by_endpoint_and_kind(http) -> None:
    spki = public_key()
    await add(http)
    await add(http, identity="second")
    rpk = await add(http, kind="rpk", public_key=base64.b64encode(spki).decode())
    assert base64.b64decode(rpk.json()["public_key"]) == spki
    first = (await http.get(f"{V1}/credentials?limit=2")).json()
    rest = (await http.get(f"{V1}/credentials?limit=2&after={first['next']}")).json()
    assert len(first["items"]) == 2
    assert [each["kind"] for each in rest["items"]] == ["rpk"]
    assert len((await http.get(f"{V1}/credentials?kind=psk&endpoint=meter-1")).json()["items"]) == 2
    assert (await http.get(f"{V1}/credentials?endpoint=other")).json()["items"] == []


async def test_roles(world) -> None:
    body = {"kind": "psk", "endpoint": "meter-1"}
    issuer = {"name": "f", "certificate": Issuer().pem, "source": "cn", "pattern": "{endpoint}"}
    async with world.client("reader") as reader, world.client("operator") as operator:
        for method, path in (
            ("POST", "/credentials"),
            ("POST", "/credentials/import"),
            ("POST", "/credentials/psk:x/rotate"),
            ("DELETE", "/credentials/psk:x"),
            ("POST", "/authorities"),
        ):
            answer = await reader.request(method, V1 + path, json=body)
            assert answer.status_code == 403, path
        assert (await operator.post(f"{V1}/credentials", json=body)).status_code == 201
        assert (await reader.get(f"{V1}/credentials/psk:meter-1")).status_code == 200
        assert (await operator.post(f"{V1}/authorities", json=issuer)).status_code == 403
        assert (await operator.delete(f"{V1}/authorities/00")).status_code == 403
        assert (await reader.get(f"{V1}/server-key")).json()["identity"].startswith("rpk:")


async def test_an_import_names_the_lines_that_it_did_not_take(http) -> None:
    text = f"endpoint,kind,key\nm1,psk,{KEY}\nm2,psk,bad\n"
    answer = await http.post(f"{V1}/credentials/import?strict=true", content=text)
    assert (answer.status_code, answer.json()["added"]) == (200, 0)
    answer = await http.post(f"{V1}/credentials/import", content=text)
    report = answer.json()
    assert (report["lines"], report["added"], report["refused"]) == (2, 1, 1)
    assert report["refusals"] == [
        {"line": 3, "code": "invalid", "field": "key", "detail": report["refusals"][0]["detail"]}
    ]
    nothing = await http.post(f"{V1}/credentials/import", content=b"")
    assert (nothing.status_code, nothing.json()["field"]) == (422, "file")


async def test_an_import_may_be_larger_than_other_bodies_but_not_endless(http) -> None:
    lines = b"".join(b"m%d,psk,%s\n" % (number, KEY.encode()) for number in range(3000))
    answer = await http.post(f"{V1}/credentials/import", content=b"endpoint,kind,key\n" + lines)
    assert answer.json()["added"] == 3000
    headers = {"Content-Length": str(MAX_BYTES + 1)}
    answer = await http.post(f"{V1}/credentials/import", content=b"x", headers=headers)
    assert answer.status_code == 413


async def test_an_authority_is_trusted_listed_and_removed(http, world) -> None:
    issuer = Issuer("factory 1")
    body = {"name": "factory", "certificate": issuer.pem, "source": "uri", "pattern": "urn:imei:{endpoint}"}
    made = await http.post(f"{V1}/authorities", json=body)
    assert (made.status_code, made.json()["subject"]) == (201, "CN=factory 1")
    assert (await http.post(f"{V1}/authorities", json=body)).status_code == 200
    assert (await http.get(f"{V1}/authorities")).json()["items"] == [made.json()]
    assert (await http.delete(f"{V1}/authorities/{made.json()['id']}")).status_code == 204
    assert world.live.heard == [("trust",), ("trust",)]
    bad = await http.post(f"{V1}/authorities", json={**body, "pattern": "x"})
    assert (bad.status_code, bad.json()["field"]) == (422, "pattern")


async def test_every_change_is_an_event_with_its_author(http, world) -> None:
    await add(http, key=KEY)
    await http.post(f"{V1}/credentials/psk:meter-1/rotate", json={})
    await http.delete(f"{V1}/credentials/psk:meter-1")
    await http.post(f"{V1}/credentials/import", content=f"endpoint,kind,key\nmeter-1,psk,{KEY}")
    events = await world.store.events.after(0, endpoint="meter-1")
    assert [(event.kind, event.data["by"]) for event in events] == [
        ("credential.added", "admin"),
        ("credential.rotated", "admin"),
        ("credential.removed", "admin"),
        ("credential.imported", "admin"),
    ]
    assert KEY not in repr(events)
