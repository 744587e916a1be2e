"""`/firmware`, `/keys`, `/manifests`: uploads and what is refused."""

import pytest

V1 = "/api/v1"
IMAGE_TYPE = {"Content-Type": "application/octet-stream"}


async def test_an_image_is_stored_once_and_found_by_the_beginning_of_its_digest(http, release) -> None:
    url = f"{V1}/firmware?name=pump.bin"
    first = await http.post(url, content=release.image, headers=IMAGE_TYPE)
    again = await http.post(url, content=release.image, headers=IMAGE_TYPE)
    assert (first.status_code, again.status_code) == (201, 200)
    image = first.json()
    assert image["digest"] == release.digest
    assert (image["size"], image["version"]) == (len(release.image), "2.1.0")
    assert first.headers["location"] == f"{V1}/firmware/{release.digest}"
    assert (await http.get(f"{V1}/firmware/{release.digest[:12]}")).json() == image
    assert [item["digest"] for item in (await http.get(f"{V1}/firmware")).json()["items"]] == [release.digest]
    assert (await http.delete(f"{V1}/firmware/{release.digest}")).status_code == 204
    assert (await http.get(f"{V1}/firmware/{release.digest}")).status_code == 404


async def test_an_upload_without_length_is_streamed(http, release) -> None:
    async def chunks():
        for start in range(0, len(release.image), 100):
            yield release.image[start : start + 100]

    answer = await http.post(f"{V1}/firmware?name=pump.bin", content=chunks())
    assert answer.json()["digest"] == release.digest


@pytest.mark.parametrize(
    ("query", "content", "status", "field"),
    [
        ("", b"x", 422, "name"),
        ("?name=", b"x", 422, "name"),
        ("?name=a", b"", 422, "image"),
        ("?name=a&version=new", b"x", 422, "version"),
    ],
)
async def test_a_bad_upload_names_the_field_and_keeps_nothing(http, query, content, status, field) -> None:
    answer = await http.post(f"{V1}/firmware{query}", content=content)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert (await http.get(f"{V1}/firmware")).json()["items"] == []


async def test_a_form_around_the_file_is_refused_with_a_way_out(http) -> None:
    answer = await http.post(f"{V1}/firmware?name=a", files={"file": b"x"})
    assert answer.status_code == 415
    assert "--data-binary" in answer.json()["detail"]


async def test_images_beyond_the_limit_get_413_with_or_without_length(http) -> None:
    async def chunks():
        for _ in range(20):
            yield bytes(65536)

    for content in (bytes((1 << 20) + 1), chunks()):
        answer = await http.post(f"{V1}/firmware?name=a", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    assert (await http.get(f"{V1}/firmware")).json()["items"] == []


async def test_a_key_is_trusted_listed_and_revoked(http, release) -> None:
    pem = release.key.public.pem()
    first = await http.post(f"{V1}/keys?name=release", content=pem)
    assert first.status_code == 201
    assert (await http.post(f"{V1}/keys?name=release", content=pem)).status_code == 200
    key = first.json()
    assert key["id"] == release.key.public.key_id.hex()
    assert (await http.get(f"{V1}/keys")).json()["items"] == [key]
    assert (await http.delete(f"{V1}/keys/{key['id']}")).status_code == 204
    assert (await http.get(f"{V1}/keys")).json()["items"] == []
    revoked = (await http.get(f"{V1}/keys?revoked=true")).json()["items"]
    assert revoked[0]["revoked_at"] is not None


async def test_a_private_key_never_gets_in(http, release) -> None:
    answer = await http.post(f"{V1}/keys?name=oops", content=release.key.pem())
    assert (answer.status_code, answer.json()["code"]) == (422, "private-key")
    assert (await http.get(f"{V1}/keys")).json()["items"] == []


async def test_a_manifest_is_verified_stored_and_given_back_byte_by_byte(http, release) -> None:
    manifest_id = await release.publish(http)
    manifest = (await http.get(f"{V1}/manifests/{manifest_id}")).json()
    assert (manifest["version"], manifest["image_digest"]) == ("2.1.0", release.digest)
    assert [item["id"] for item in (await http.get(f"{V1}/manifests")).json()["items"]] == [manifest_id]
    envelope = await http.get(f"{V1}/manifests/{manifest_id[:10]}/envelope")
    assert envelope.content == release.envelope
    assert envelope.headers["content-type"] == "application/suit-envelope+cose"
    in_use = await http.delete(f"{V1}/firmware/{release.digest}")
    assert in_use.status_code == 409
    assert (await http.delete(f"{V1}/manifests/{manifest_id}")).status_code == 204


async def test_manifests_that_do_not_hold_are_refused_with_the_reason(http, release) -> None:
    stranger = type(release)()
    await http.post(f"{V1}/keys?name=release", content=release.key.public.pem())
    no_image = await http.post(f"{V1}/manifests", content=release.envelope)
    await http.post(f"{V1}/firmware?name=pump.bin", content=release.image)
    flipped = bytearray(release.envelope)
    flipped[len(flipped) // 2] ^= 1
    bad = {
        "digest-mismatch": no_image,
        "unknown-key": await http.post(f"{V1}/manifests", content=stranger.envelope),
        "malformed": await http.post(f"{V1}/manifests", content=b"not cbor"),
        "signature": await http.post(f"{V1}/manifests", content=bytes(flipped)),
    }
    unsigned = await http.post(f"{V1}/manifests", content=release.unsigned)
    assert unsigned.status_code == 422
    for code, answer in bad.items():
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert (await http.get(f"{V1}/manifests")).json()["items"] == []


async def test_roles_and_validity_of_a_key_are_given_and_changed(http, release) -> None:
    query = "name=release&role=image-author&role=operator-approval&not_after=2030-01-01T00:00:00Z"
    added = await http.post(f"{V1}/keys?{query}&requires=ml-dsa-44", content=release.key.public.pem())
    key = added.json()
    assert (added.status_code, key["roles"]) == (201, ["image-author", "operator-approval"])
    assert (key["not_before"], key["not_after"], key["requires"]) == (
        None,
        "2030-01-01T00:00:00Z",
        "ml-dsa-44",
    )
    url = f"{V1}/keys/{key['id']}"
    changed = (await http.patch(url, json={"not_after": None, "roles": ["image-author"]})).json()
    assert (changed["roles"], changed["not_after"], changed["requires"]) == (
        ["image-author"],
        None,
        "ml-dsa-44",
    )
    for body in (
        {"roles": ["boss"]},
        {"roles": []},
        {"algorithm": "x"},
        {"not_after": "tomorrow"},
        {"name": ""},
    ):
        assert (await http.patch(url, json=body)).status_code == 422
    assert (await http.patch(f"{V1}/keys/00", json={})).status_code == 404
    await http.delete(url)
    assert (await http.patch(url, json={"name": "x"})).status_code == 409
