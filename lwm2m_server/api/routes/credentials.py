"""`/credentials` and `/authorities`: what proves who a device is. Keys are shown once, to who had them made."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import Admin, After, Limit, Operator, Reader, ServicesOf
from lwm2m_server.api.idempotency import IdempotentRoute, idempotency_key
from lwm2m_server.api.middleware import restore_slashes
from lwm2m_server.api.problems import problems
from lwm2m_server.api.uploads import raw_body, raw_upload
from lwm2m_server.devices.identities import Kind

router = APIRouter(tags=["credentials"], route_class=IdempotentRoute)
uploads = APIRouter(tags=["credentials"])  # not idempotent by key: bodies are streamed, lines recognised


async def _identity(
    identity: Annotated[
        str,
        Path(min_length=1, max_length=512, description="Identity, such as psk:meter-1; / as %2F, % as %25"),
    ],
) -> str:
    return restore_slashes(identity)


Identity = Annotated[str, Depends(_identity)]


@router.post(
    "/credentials",
    status_code=201,
    summary="Add a credential",
    responses=problems(409, 413, 422),
    dependencies=[Depends(idempotency_key)],
)
async def add_credential(
    services: ServicesOf, who: Operator, body: models.CredentialBody
) -> models.NewCredential:
    """Add a pre-shared key, a raw public key or a certificate. A key that is made here is shown this once."""
    made = await services.credentials.add(body.kind, body.endpoint, body.material(), actor=who.name)
    return models.NewCredential.made(*made)


@uploads.post(
    "/credentials/import",
    summary="Import credentials",
    responses=problems(409, 413, 415, 422),
    openapi_extra=raw_body("text/csv"),
    dependencies=[Depends(raw_upload)],
)
async def import_credentials(
    services: ServicesOf,
    who: Operator,
    request: Request,
    strict: Annotated[bool, Query(description="All lines or none; else those that can be taken")] = False,
) -> models.Import:
    """Add a credential a line. The answer names each line that was refused; taken lines may be sent again."""
    report = await services.credentials.import_csv(request.stream(), strict=strict, actor=who.name)
    return models.Import.of(report)


@router.get("/credentials", summary="List credentials", responses=problems(422))
async def list_credentials(
    services: ServicesOf,
    _: Reader,
    endpoint: Annotated[str | None, Query(max_length=255, description="Of this device")] = None,
    kind: Kind | None = None,
    revoked: Annotated[bool, Query(description="Also those that were removed or have ended")] = False,
    after: After = None,
    limit: Limit = 100,
) -> models.Page[models.Credential]:
    """List credentials by identity, without pre-shared keys."""
    page = await services.credentials.page(
        endpoint=endpoint, kind=kind, revoked=revoked, after=after, limit=limit
    )
    return models.Page(items=[models.Credential.of(each) for each in page.items], next=page.next)


@router.get("/credentials/{identity}", summary="Show a credential", responses=problems(404, 422))
async def get_credential(services: ServicesOf, _: Reader, identity: Identity) -> models.Credential:
    """Show a credential, also one that was removed; never a pre-shared key."""
    return models.Credential.of(await services.credentials.get(identity))


@router.post(
    "/credentials/{identity}/rotate",
    summary="Rotate a credential",
    responses=problems(404, 409, 413, 422),
    dependencies=[Depends(idempotency_key)],
)
async def rotate_credential(
    services: ServicesOf, who: Operator, identity: Identity, body: models.RotationBody
) -> models.NewCredential:
    """Give a device a new key; the old one counts beside it for a while. A public key or a certificate has a new
    identity.
    """
    made = await services.credentials.rotate(identity, body.material(), overlap=body.overlap, actor=who.name)
    return models.NewCredential.made(*made)


@router.delete(
    "/credentials/{identity}",
    status_code=204,
    summary="Remove a credential",
    responses=problems(404, 409, 422),
)
async def remove_credential(services: ServicesOf, who: Operator, identity: Identity) -> None:
    """Take it no longer, and end its sessions at once. It stays known, without its key, to explain refusals."""
    await services.credentials.remove(identity, actor=who.name)


@router.post(
    "/authorities",
    status_code=201,
    summary="Trust an authority",
    responses={
        200: {"model": models.Authority, "description": "It was trusted already, with this rule"},
        **problems(409, 413, 422),
    },
    dependencies=[Depends(idempotency_key)],
)
async def add_authority(
    services: ServicesOf, who: Admin, response: Response, body: models.AuthorityBody
) -> models.Authority:
    """Take certificates that this issuer has signed itself; a name in them gives the endpoint name."""
    authority, new = await services.credentials.add_authority(
        body.certificate, name=body.name, source=body.source, pattern=body.pattern, actor=who.name
    )
    response.status_code = 201 if new else 200
    return models.Authority.of(authority)


@router.get("/authorities", summary="List authorities")
async def list_authorities(services: ServicesOf, _: Reader) -> models.Page[models.Authority]:
    """List the issuers that are trusted."""
    found = await services.credentials.authorities()
    return models.Page(items=[models.Authority.of(each) for each in found])


@router.delete(
    "/authorities/{authority_id}",
    status_code=204,
    summary="Trust an authority no longer",
    responses=problems(404, 422),
)
async def remove_authority(services: ServicesOf, who: Admin, authority_id: str) -> None:
    """Take its certificates no longer; the sessions of devices that it vouched for end at once."""
    await services.credentials.remove_authority(authority_id, actor=who.name)


@router.get("/server-key", summary="Show the server's key")
async def get_server_key(services: ServicesOf, _: Reader) -> models.ServerIdentity:
    """Show how devices know the server: its public key, and its certificate if it has one."""
    return models.ServerIdentity.of(services.server_keys.current)
