"""`/objects`: the object definitions that the server has."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Path, Request

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import Reader
from lwm2m_server.api.problems import problems
from lwm2m_server.errors import NotFound
from lwm2m_server.lwm2m.model import ObjectRegistry

router = APIRouter(prefix="/objects", tags=["objects"])


def _registry(request: Request) -> ObjectRegistry:
    return cast("ObjectRegistry", request.app.state.objects)


Registry = Annotated[ObjectRegistry, Depends(_registry)]


@router.get("", summary="List object definitions")
async def list_objects(registry: Registry, _: Reader) -> models.Page[models.ObjectSummary]:
    """List every version of every object, by id."""
    return models.Page(items=[models.ObjectSummary.of(found) for found in registry.definitions()])


@router.get("/{object_id}", summary="Show an object definition", responses=problems(404, 422))
async def get_object(
    registry: Registry,
    _: Reader,
    object_id: Annotated[int, Path(ge=0, le=65535)],
    version: str | None = None,
) -> models.ObjectDetails:
    """Show an object with its resources; the newest version unless one is named."""
    found = registry.get(object_id, version)
    if found is None or (version is not None and found.version != version):
        wanted = f"{object_id} {version}" if version is not None else str(object_id)
        raise NotFound(
            f"there is no definition of object {wanted}",
            field="object_id",
            hint="put its DDF XML into a folder that the setting 'objects' names",
        )
    return models.ObjectDetails.of(found)
