"""The routes of the API, by resource."""

from fastapi import APIRouter

from lwm2m_server.api.routes import (
    campaigns,
    credentials,
    definitions,
    deltas,
    devices,
    events,
    firmware,
    keys,
    manifests,
    operations,
    tokens,
    uploads,
)

__all__ = ["all_routes"]


def all_routes() -> APIRouter:
    """Everything under `/api/v1`."""
    router = APIRouter(prefix="/api/v1")
    for module in (
        devices,
        operations,
        uploads,  # before the images, whose digest could be any word
        firmware,
        keys,
        manifests,
        campaigns,
        definitions,
        deltas,
        events,
        credentials,
        tokens,
    ):
        router.include_router(module.router)
    router.include_router(credentials.uploads)
    return router
