"""`/firmware/uploads` and what is said of an image: an upload that breaks off goes on, a refusal leaves nothing."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from firmware_files import esp_app, mcuboot, private_key, public_pem, uf2
from lwm2m_server.services.background import LoopTimers
from lwm2m_server.services.uploads import SWEEP_INTERVAL, UploadLimits, UploadService
from lwm2m_server.store.files import FileStore
from lwm2m_server.store.uploads import UploadFiles

V1 = "/api/v1"
IMAGE = mcuboot("-s", "7", key="ecdsa-p256", payload=bytes(range(256)) * 100)
DIGEST = hashlib.sha256(IMAGE).hexdigest()
UPLOAD = f"{V1}/firmware/uploads/{DIGEST}"


def body(data: bytes = IMAGE, **claims: Any) -> dict[str, Any]:
    return {"name": "a.bin", "size": len(data), "digest": hashlib.sha256(data).hexdigest(), **claims}


async def patch(http: httpx.AsyncClient, offset: int, content: Any, url: str = UPLOAD) -> httpx.Response:
    return await http.patch(url, content=content, headers={"Upload-Offset": str(offset)})


def files_in(world: Any) -> list[str]:
    root = world.services.releases._files.root
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


async def test_an_upload_in_pieces_ends_in_the_image(http, world) -> None:
    begun = await http.post(f"{V1}/firmware/uploads", json=body(version="1.2.3", format="mcuboot"))
    assert (begun.status_code, begun.headers["upload-offset"], begun.json()["image"]) == (201, "0", None)
    assert begun.headers["location"] == UPLOAD
    await http.post(f"{V1}/firmware/uploads", json=body(version="9.9.9"))
    first = await patch(http, 0, IMAGE[:10_000])
    assert (first.status_code, first.json()["offset"], first.headers["upload-offset"]) == (
        200,
        10_000,
        "10000",
    )
    assert (await http.get(UPLOAD)).json()["offset"] == 10_000
    again = await http.post(f"{V1}/firmware/uploads", json=body(version="1.2.3", format="mcuboot"))
    assert (again.status_code, again.json()["offset"]) == (200, 10_000)
    last = await patch(http, 10_000, IMAGE[10_000:])
    image = last.json()["image"]
    assert (image["digest"], image["version"], image["format"]) == (DIGEST, "1.2.3", "mcuboot")
    assert image["details"]["security_counter"] == 7
    assert files_in(world) == [f"images/{DIGEST}"]
    assert world.services.releases._files.used == len(IMAGE)
    # the answer may have been lost: asking, sending and beginning again all give the image
    for answer in (
        await http.get(UPLOAD),
        await patch(http, 10_000, IMAGE[10_000:]),
        await http.post(f"{V1}/firmware/uploads", json=body()),
    ):
        assert (answer.status_code, answer.json()["image"]) == (200, image)
    other = await http.post(f"{V1}/firmware/uploads", json=body(version="9.9.9"))
    assert (other.status_code, other.json()["code"]) == (422, "version-mismatch")


async def test_bytes_that_came_before_a_connection_broke_count(http, world) -> None:
    await http.post(f"{V1}/firmware/uploads", json=body())

    async def broken():
        yield IMAGE[:7000]
        raise EOFError

    with pytest.raises(EOFError):
        await world.services.uploads.append(DIGEST, 0, broken(), actor="ann")
    assert (await http.get(UPLOAD)).json()["offset"] == 7000
    assert (await patch(http, 7000, IMAGE[7000:])).json()["image"]["digest"] == DIGEST


async def test_who_goes_on_ends_a_request_that_hangs(http, world) -> None:
    await http.post(f"{V1}/firmware/uploads", json=body())
    sent = asyncio.Event()

    async def hanging():
        yield IMAGE[:5000]
        sent.set()
        await asyncio.Event().wait()

    old = asyncio.create_task(world.services.uploads.append(DIGEST, 0, hanging(), actor="ann"))
    await sent.wait()
    answer = await patch(http, 0, b"")
    assert (answer.status_code, answer.json()["code"]) == (409, "upload-offset")
    with pytest.raises(Exception, match="another request") as caught:
        await old
    assert caught.value.code == "upload-superseded"
    assert (await patch(http, 5000, IMAGE[5000:])).json()["image"]["digest"] == DIGEST


async def test_an_upload_goes_on_after_a_restart_of_the_server(http, world, tmp_path) -> None:
    await http.post(f"{V1}/firmware/uploads", json=body(chip=None, security_counter=7))
    await patch(http, 0, IMAGE[:9000])
    files = FileStore(tmp_path / "files", max_file=1 << 20)
    await files.open()
    (tmp_path / "files/uploads/stray").write_bytes(b"x")
    restarted = UploadService(world.services.releases, UploadFiles(files), world.clock, LoopTimers())
    await restarted.open()
    assert files.used == len(IMAGE)
    progress = await restarted.state(DIGEST)
    assert progress.upload is not None
    assert (progress.upload.offset, progress.upload.data) == (9000, {"security_counter": 7})

    async def rest():
        yield IMAGE[9000:]

    done = await restarted.append(DIGEST, 9000, rest(), actor="ann")
    assert done.image is not None
    assert not (tmp_path / "files/uploads/stray").exists()
    await restarted.close()


@pytest.mark.parametrize(
    ("data", "claims", "code", "field"),
    [
        (IMAGE, {"version": "1.2.4"}, "version-mismatch", "version"),
        (IMAGE, {"format": "esp-idf"}, "format-mismatch", "format"),
        (IMAGE, {"security_counter": 8}, "security-counter-mismatch", "security_counter"),
        (IMAGE, {"vendor": "acme.example"}, "vendor-mismatch", "vendor"),
        (esp_app(), {"chip": "esp32"}, "chip-mismatch", "chip"),
        (esp_app(), {"project": "lamp"}, "project-mismatch", "project"),
        (uf2(bytes(600)), {}, "image-container", "image"),
        (IMAGE[:2000], {}, "image-malformed", "header.image_size"),
        (IMAGE[:2000] + b"x" + IMAGE[2001:], {}, "image-digest", "tlvs[0]"),
    ],
)
async def test_a_refused_image_leaves_nothing_whichever_way_it_came(
    http, world, data, claims, code, field
) -> None:
    url = f"{V1}/firmware/uploads/{hashlib.sha256(data).hexdigest()}"
    assert (await http.post(f"{V1}/firmware/uploads", json=body(data, **claims))).status_code == 201
    for answer in (
        await patch(http, 0, data, url),
        await http.post(f"{V1}/firmware", params={"name": "a.bin", **claims}, content=data),
    ):
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["field"]) == (422, code, field)
        assert problem["hint"]
    assert (await http.get(url)).status_code == 404
    assert files_in(world) == []
    assert world.services.releases._files.used == 0
    assert (await http.get(f"{V1}/firmware")).json()["items"] == []


async def test_another_file_than_was_announced_is_refused_and_gone(http, world) -> None:
    await http.post(f"{V1}/firmware/uploads", json=body())
    answer = await patch(http, 0, bytes(len(IMAGE)))
    assert (answer.status_code, answer.json()["code"]) == (422, "digest-mismatch")
    await http.post(f"{V1}/firmware/uploads", json=body())
    longer = await patch(http, 0, IMAGE + b"x")
    assert (longer.status_code, longer.json()["code"]) == (409, "upload-offset")
    assert (await http.delete(UPLOAD)).status_code == 204
    assert files_in(world) == []
    assert world.services.releases._files.used == 0


@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        ({"size": 0}, 422, "invalid", "size"),
        ({"digest": "00"}, 422, "invalid", "digest"),
        ({"name": ""}, 422, "invalid", "name"),
        ({"version": "new"}, 422, "invalid-version", "version"),
        ({"format": "tar"}, 422, "invalid", "format"),
        ({"class": "m1"}, 422, "invalid", "class"),
        ({"colour": "red"}, 422, "invalid", "colour"),
        ({"size": 1 << 21}, 422, "too-large", "file"),
    ],
)
async def test_an_upload_that_can_only_fail_does_not_begin(http, world, change, status, code, field) -> None:
    answer = await http.post(f"{V1}/firmware/uploads", json={**body(), **change})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (status, code, field)
    assert files_in(world) == []


async def test_bytes_without_an_upload_or_an_offset_are_refused(http) -> None:
    assert (await patch(http, 0, b"x")).status_code == 404
    assert (await http.patch(UPLOAD, content=b"x")).json()["field"] == "Upload-Offset"
    assert (await http.delete(UPLOAD)).status_code == 404


async def test_the_quota_holds_for_what_is_announced(world, tmp_path) -> None:
    files = FileStore(tmp_path / "few", max_file=1 << 20, quota=len(IMAGE) + 100)
    await files.open()
    uploads = UploadService(
        world.services.releases, UploadFiles(files), world.clock, LoopTimers(), UploadLimits(most=1)
    )
    await uploads.open()
    from lwm2m_server.firmware.image_checks import Expected

    def begin(digest: str, size: int):
        return uploads.begin(digest, size, name="a", expected=Expected(), actor="ann")

    await begin(DIGEST, len(IMAGE))
    with pytest.raises(Exception, match="under way already") as caught:
        await begin("0" * 64, 50)
    assert caught.value.code == "too-many-uploads"
    await uploads.remove(DIGEST)
    await begin("0" * 64, 101)
    with pytest.raises(Exception, match="would take more") as caught:
        await UploadService(
            world.services.releases, uploads._files, world.clock, LoopTimers(), UploadLimits(most=2)
        ).begin(DIGEST, len(IMAGE), name="a", expected=Expected(), actor="ann")
    assert caught.value.code == "storage-full"
    await uploads.close()


async def test_what_got_no_byte_for_too_long_is_removed(http, world) -> None:
    await http.post(f"{V1}/firmware/uploads", json=body())
    await patch(http, 0, IMAGE[:10])
    world.clock.advance(86_000)
    await patch(http, 10, IMAGE[10:20])
    world.clock.advance(86_000)
    await world.services.uploads.sweep()
    assert (await http.get(UPLOAD)).json()["offset"] == 20
    world.clock.advance(SWEEP_INTERVAL)
    await world.services.uploads.sweep()
    assert (await http.get(UPLOAD)).status_code == 404
    assert files_in(world) == []
    assert world.services.releases._files.used == 0


async def test_images_are_verified_with_the_keys_that_are_trusted(http) -> None:
    unknown = (await http.post(f"{V1}/firmware?name=a", content=IMAGE)).json()
    assert unknown["details"]["signatures"][0]["state"] == "unknown-key"
    assert "not trusted" in unknown["details"]["notes"][0]
    await http.delete(f"{V1}/firmware/{DIGEST}")
    added = await http.post(f"{V1}/firmware/keys?name=boot", content=public_pem("ecdsa-p256"))
    assert added.status_code == 201
    assert (
        await http.post(f"{V1}/firmware/keys?name=boot", content=public_pem("ecdsa-p256"))
    ).status_code == 200
    key = added.json()
    assert (await http.get(f"{V1}/firmware/keys")).json()["items"] == [key]
    known = (await http.post(f"{V1}/firmware?name=a", content=IMAGE)).json()
    assert known["details"]["signatures"] == [
        {"algorithm": "ecdsa-p256", "state": "verified", "key": key["id"]}
    ]
    forged = IMAGE[:-1] + bytes([IMAGE[-1] ^ 1])
    refused = await http.post(f"{V1}/firmware?name=a", content=forged)
    assert (refused.status_code, refused.json()["code"]) == (422, "image-signature")
    assert (await http.delete(f"{V1}/firmware/keys/{key['id']}")).status_code == 204
    assert (await http.delete(f"{V1}/firmware/keys/{key['id']}")).status_code == 404


async def test_only_public_keys_of_boot_loaders_get_in(http) -> None:
    from cryptography.hazmat.primitives import serialization

    private = private_key("ecdsa-p256").private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content, code in ((private, "private-key"), (b"junk", "invalid-key")):
        answer = await http.post(f"{V1}/firmware/keys?name=a", content=content)
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, "key")
    assert (await http.get(f"{V1}/firmware/keys")).json()["items"] == []


@pytest.mark.protection("server", "image-signature")
async def test_where_signatures_are_demanded_only_verified_images_get_in(world) -> None:
    releases = world.services.releases
    releases._require_signed = True

    async def add(data: bytes):
        async def chunks():
            yield data

        return await releases.add_image(chunks(), name="a", actor="ann")

    for data, code in (
        (b"raw", "image-unsigned"),
        (mcuboot(), "image-unsigned"),
        (IMAGE, "image-unknown-key"),
    ):
        with pytest.raises(Exception, match=r".") as caught:
            await add(data)
        assert caught.value.code == code
    assert files_in(world) == []
    await releases.add_image_key(public_pem("ecdsa-p256"), name="boot", actor="ann")
    assert (await add(IMAGE))[1]


def test_uploads_end_with_their_files(tmp_path: Path) -> None:
    """A description without its bytes, or one that can't be read, is a stray too."""
    folder = tmp_path / "files/uploads"
    folder.mkdir(parents=True)
    (folder / ("0" * 64 + ".json")).write_text("{}")
    (folder / ("1" * 64)).write_bytes(b"x")

    async def open_both() -> list[Any]:
        files = FileStore(tmp_path / "files")
        await files.open()
        uploads = UploadFiles(files)
        await uploads.open()
        return uploads.all()

    assert asyncio.run(open_both()) == []
    assert list(folder.iterdir()) == []
