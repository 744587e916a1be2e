"""`/tokens`: who may use this API."""

from fastapi import APIRouter, Depends

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import Admin, ServicesOf
from lwm2m_server.api.idempotency import IdempotentRoute, idempotency_key
from lwm2m_server.api.problems import problems

router = APIRouter(prefix="/tokens", tags=["tokens"], route_class=IdempotentRoute)


@router.post(
    "",
    status_code=201,
    summary="Make a token",
    responses=problems(409, 413, 422),
    dependencies=[Depends(idempotency_key)],
)
async def add_token(services: ServicesOf, who: Admin, body: models.TokenBody) -> models.NewToken:
    """Make a token. The answer shows it, this once; only a hash of it is kept."""
    expires = body.expires_at.timestamp() if body.expires_at is not None else None
    token, text = await services.access.create(body.name, body.role, expires_at=expires, actor=who.name)
    return models.NewToken(**models.Token.of(token).model_dump(), token=text)


@router.get("", summary="List tokens")
async def list_tokens(services: ServicesOf, _: Admin) -> models.Page[models.Token]:
    """List all tokens without their secrets, the revoked ones too."""
    return models.Page(items=[models.Token.of(token) for token in await services.access.list()])


@router.delete("/{token_id}", status_code=204, summary="Revoke a token", responses=problems(404, 422))
async def remove_token(services: ServicesOf, who: Admin, token_id: str) -> None:
    """End a token for good."""
    await services.access.revoke(token_id, actor=who.name)
