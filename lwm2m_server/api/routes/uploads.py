"""`/firmware/uploads`: images in as many requests as it takes; `/firmware/keys`: who may have signed them.

After the manner of draft-ietf-httpbis-resumable-upload: `Upload-Offset` says where the bytes of a request belong,
and where an upload stands.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import Admin, Operator, Reader, ServicesOf
from lwm2m_server.api.models.images import ImageKey, Upload, UploadBody
from lwm2m_server.api.problems import problems
from lwm2m_server.api.uploads import raw_body, raw_upload
from lwm2m_server.services.uploads import Progress, expected_of

router = APIRouter(prefix="/firmware", tags=["firmware"])
OFFSET = "Upload-Offset"

Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the whole file")]


def _answer(progress: Progress, response: Response) -> Upload:
    found = Upload.of(progress)
    response.headers[OFFSET] = str(found.offset)
    return found


@router.post(
    "/uploads",
    status_code=201,
    summary="Begin an upload, or find it",
    responses={
        200: {"model": Upload, "description": "It is under way, or done; go on at its offset"},
        **problems(409, 422),
    },
)
async def begin_upload(services: ServicesOf, who: Operator, body: UploadBody, response: Response) -> Upload:
    """Announce a file by size and digest. Of one that is here already the answer has the image."""
    claims = body.model_dump(exclude={"name", "size", "digest"})
    progress = await services.uploads.begin(
        body.digest, body.size, name=body.name, expected=expected_of(claims), actor=who.name
    )
    response.status_code = 201 if progress.new else 200
    response.headers["Location"] = f"/api/v1/firmware/uploads/{body.digest}"
    return _answer(progress, response)


@router.get("/uploads/{digest}", summary="Show where an upload stands", responses=problems(404, 422))
async def get_upload(services: ServicesOf, _: Operator, digest: Digest, response: Response) -> Upload:
    """Show its offset; the image when it has ended well. An upload that was refused is not there any more."""
    return _answer(await services.uploads.state(digest), response)


@router.patch(
    "/uploads/{digest}",
    summary="Send bytes of an upload",
    responses=problems(404, 409, 413, 415, 422),
    openapi_extra=raw_body("application/octet-stream"),
    dependencies=[Depends(raw_upload)],
)
async def append_upload(
    *,
    services: ServicesOf,
    who: Operator,
    request: Request,
    digest: Digest,
    response: Response,
    offset: Annotated[
        int, Header(alias=OFFSET, ge=0, le=1 << 40, description="Where the body belongs: the offset so far")
    ],
) -> Upload:
    """Add the body. What came of a request that broke off counts; the last byte ends in the image or a refusal."""
    return _answer(await services.uploads.append(digest, offset, request.stream(), actor=who.name), response)


@router.delete("/uploads/{digest}", status_code=204, summary="End an upload", responses=problems(404, 422))
async def remove_upload(services: ServicesOf, _: Operator, digest: Digest) -> None:
    """Give it up; its bytes are removed."""
    await services.uploads.remove(digest)


@router.post(
    "/keys",
    status_code=201,
    summary="Trust a boot loader's key",
    responses={200: {"model": ImageKey, "description": "It was trusted already"}, **problems(413, 415, 422)},
    openapi_extra=raw_body("application/x-pem-file"),
    dependencies=[Depends(raw_upload)],
)
async def add_image_key(
    *,
    services: ServicesOf,
    who: Admin,
    request: Request,
    response: Response,
    name: Annotated[str, Query(min_length=1, max_length=100, examples=["mcuboot-2026"])],
) -> ImageKey:
    """Verify MCUboot and ESP-IDF images with the public key in the body (PEM). A private key is refused."""
    key, new = await services.releases.add_image_key(await request.body(), name=name, actor=who.name)
    response.status_code = 201 if new else 200
    return ImageKey.of(key)


@router.get("/keys", summary="List the boot loaders' keys")
async def list_image_keys(services: ServicesOf, _: Reader) -> models.Page[ImageKey]:
    """List the keys that images are verified with."""
    return models.Page(items=[ImageKey.of(key) for key in await services.releases.image_keys()])


@router.delete(
    "/keys/{key_id}",
    status_code=204,
    summary="Trust a boot loader's key no longer",
    responses=problems(404, 422),
)
async def remove_image_key(services: ServicesOf, who: Admin, key_id: str) -> None:
    """Verify no further images with it; those that are stored stay."""
    await services.releases.remove_image_key(key_id, actor=who.name)
