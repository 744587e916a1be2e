"""`/manifests`: signed SUIT envelopes, verified on arrival."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import After, Limit, Operator, Reader, ServicesOf
from lwm2m_server.api.idempotency import IdempotentRoute, idempotency_key
from lwm2m_server.api.problems import problems
from lwm2m_server.api.uploads import raw_body, raw_upload

MEDIA_TYPE = "application/suit-envelope+cose"

router = APIRouter(prefix="/manifests", tags=["manifests"], route_class=IdempotentRoute)


@router.post(
    "",
    status_code=201,
    summary="Upload a manifest",
    responses={
        200: {"model": models.Manifest, "description": "It was there already"},
        **problems(404, 409, 413, 415, 422),
    },
    openapi_extra=raw_body(MEDIA_TYPE),
    dependencies=[Depends(raw_upload), Depends(idempotency_key)],
)
async def add_manifest(
    *,
    services: ServicesOf,
    who: Operator,
    request: Request,
    response: Response,
    name: Annotated[str, Query(max_length=200, description="For people; derived when empty")] = "",
) -> models.Manifest:
    """Verify and store the envelope in the body. `code` of a refusal says what does not hold."""
    manifest, new = await services.releases.add_manifest(await request.body(), name=name, actor=who.name)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/api/v1/manifests/{manifest.id}"
    return models.Manifest.of(manifest)


@router.get("", summary="List manifests", responses=problems(422))
async def list_manifests(
    services: ServicesOf, _: Reader, after: After = None, limit: Limit = 100
) -> models.Page[models.Manifest]:
    """List manifests by id."""
    page = await services.releases.manifests(after=after, limit=limit)
    return models.Page(items=[models.Manifest.of(manifest) for manifest in page.items], next=page.next)


@router.get("/{manifest_id}", summary="Show a manifest", responses=problems(404, 422))
async def get_manifest(services: ServicesOf, _: Reader, manifest_id: str) -> models.Manifest:
    """Show a manifest by its id, or by the beginning of it where that is enough."""
    return models.Manifest.of(await services.releases.manifest(manifest_id))


@router.get(
    "/{manifest_id}/envelope",
    summary="Download a manifest",
    response_class=Response,
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
        **problems(404, 422),
    },
)
async def download_manifest(services: ServicesOf, _: Reader, manifest_id: str) -> Response:
    """Give the signed envelope, byte by byte as it was uploaded."""
    manifest = await services.releases.manifest(manifest_id)
    return Response(manifest.envelope, media_type=MEDIA_TYPE)


@router.delete(
    "/{manifest_id}", status_code=204, summary="Remove a manifest", responses=problems(404, 409, 422)
)
async def remove_manifest(services: ServicesOf, who: Operator, manifest_id: str) -> None:
    """Remove a manifest that no campaign names."""
    await services.releases.remove_manifest(manifest_id, actor=who.name)
