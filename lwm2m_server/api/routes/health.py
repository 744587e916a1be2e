"""`/health` and `/metrics`: for supervisors; no token needed, nothing secret told."""

from fastapi import APIRouter, Response

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import ServicesOf
from lwm2m_server.api.problems import RETRY_AFTER, FieldProblem, problem, problems

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Alive?")
async def live(services: ServicesOf) -> models.Health:
    """Say that the process turns; restart it when this does not answer."""
    services.health.live()
    return models.Health(status="ok")


@router.get("/health/ready", summary="Ready?", response_model=models.Health, responses=problems(503))
async def ready(services: ServicesOf) -> models.Health | Response:
    """Say that every part works; send no traffic while this is 503."""
    parts = await services.health.ready()
    broken = [FieldProblem(field=name, detail=text) for name, text in parts.items() if text != "ok"]
    if broken:
        detail = "; ".join(f"{part.field}: {part.detail}" for part in broken)
        return problem(503, "not-ready", detail, errors=broken, headers={"Retry-After": RETRY_AFTER})
    return models.Health(status="ok", parts=parts)


@router.get(
    "/metrics",
    summary="Counters",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(services: ServicesOf) -> Response:
    """Give counters in the text format of Prometheus."""
    return Response(services.health.metrics(), media_type=METRICS_TYPE)
