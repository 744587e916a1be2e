"""`/keys`: public keys whose manifests are accepted. Private keys never come here."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import Admin, Reader, ServicesOf
from lwm2m_server.api.idempotency import IdempotentRoute, idempotency_key
from lwm2m_server.api.problems import problems
from lwm2m_server.api.uploads import raw_body, raw_upload

router = APIRouter(prefix="/keys", tags=["keys"], route_class=IdempotentRoute)


@router.post(
    "",
    status_code=201,
    summary="Trust a key",
    responses={
        200: {"model": models.Key, "description": "It was trusted already"},
        **problems(409, 413, 415, 422),
    },
    openapi_extra=raw_body("application/x-pem-file"),
    dependencies=[Depends(raw_upload), Depends(idempotency_key)],
)
async def add_key(
    *,
    services: ServicesOf,
    who: Admin,
    request: Request,
    response: Response,
    name: Annotated[str, Query(min_length=1, max_length=100, examples=["release-2026"])],
    role: Annotated[
        list[str] | None, Query(description="image-author (the default), operator-approval; may be repeated")
    ] = None,
    not_before: Annotated[AwareDatetime | None, Query(description="It counts from then on")] = None,
    not_after: Annotated[AwareDatetime | None, Query(description="It counts until before then")] = None,
    requires: Annotated[
        str | None,
        Query(description="Algorithm of a second signature that must be there too", examples=["ml-dsa-44"]),
    ] = None,
) -> models.Key:
    """Trust the public key in the body (PEM). A private key is refused and not kept."""
    key, new = await services.releases.add_key(
        await request.body(),
        name=name,
        actor=who.name,
        roles=role or ["image-author"],
        not_before=None if not_before is None else not_before.timestamp(),
        not_after=None if not_after is None else not_after.timestamp(),
        requires=requires,
    )
    response.status_code = 201 if new else 200
    return models.Key.of(key)


@router.get("", summary="List keys", responses=problems(422))
async def list_keys(
    services: ServicesOf,
    _: Reader,
    revoked: Annotated[bool, Query(description="Also those that are trusted no longer")] = False,
) -> models.Page[models.Key]:
    """List the trusted keys."""
    found = await services.releases.keys(revoked=revoked)
    return models.Page(items=[models.Key.of(key) for key in found])


@router.patch("/{key_id}", summary="Change a key", responses=problems(404, 409, 422))
async def change_key(services: ServicesOf, who: Admin, key_id: str, body: models.KeyChange) -> models.Key:
    """Change name, roles, validity or policy. A key is rotated by ending its time beside its successor's."""
    return models.Key.of(await services.releases.change_key(key_id, body.changes(), actor=who.name))


@router.delete("/{key_id}", status_code=204, summary="Trust a key no longer", responses=problems(404, 422))
async def remove_key(services: ServicesOf, who: Admin, key_id: str) -> None:
    """Accept no further manifests that it signed; it stays known, for their history."""
    await services.releases.remove_key(key_id, actor=who.name)
