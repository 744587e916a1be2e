"""`/devices/{endpoint}/…`: operations that are carried out on the device itself (OMA LwM2M Core 6.3, 6.4).

| HTTP | LwM2M |
|---|---|
| GET objects/{path} | Read |
| PUT objects/{path} | Write (replace) |
| PATCH objects/{path} | Write (partial update) |
| POST objects/{object} | Create |
| POST objects/{object}/{instance}/{resource} | Execute |
| DELETE objects/{path} | Delete |
"""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Response

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import Endpoint, ObjectPath, Operator, Reader, ServicesOf, absolute
from lwm2m_server.api.problems import problems
from lwm2m_server.errors import InvalidInput
from lwm2m_server.services.operations import Json

router = APIRouter(prefix="/devices/{endpoint}", tags=["operations"])

DEVICE_PROBLEMS = problems(404, 409, 422, 502, 503, 504)


@router.get("/objects/{path:path}", summary="Read", responses=DEVICE_PROBLEMS)
async def read(
    *,
    services: ServicesOf,
    _: Reader,
    endpoint: Endpoint,
    path: ObjectPath,
    seconds: Annotated[
        float | None, Query(alias="timeout", gt=0, le=300, description="Seconds to wait for the device")
    ] = None,
) -> models.ReadAnswer:
    """Ask the device for an object, instance, resource or resource instance."""
    return models.ReadAnswer.of(await services.operations.read(endpoint, absolute(path), timeout=seconds))


@router.put("/objects/{path:path}", status_code=204, summary="Write (replace)", responses=DEVICE_PROBLEMS)
async def write(
    services: ServicesOf, who: Operator, endpoint: Endpoint, path: ObjectPath, body: models.WriteBody
) -> None:
    """Write a resource, or replace the resources of an instance by those in `value`."""
    await services.operations.write(endpoint, absolute(path), body.value, actor=who.name)


@router.patch("/objects/{path:path}", status_code=204, summary="Write (partial)", responses=DEVICE_PROBLEMS)
async def write_partially(
    services: ServicesOf, who: Operator, endpoint: Endpoint, path: ObjectPath, body: models.WriteBody
) -> None:
    """Write the resources in `value`; the others of the instance stay."""
    await services.operations.write(endpoint, absolute(path), body.value, partial=True, actor=who.name)


@router.post(
    "/objects/{path:path}",
    summary="Execute or create",
    responses={
        201: {"model": models.CreatedInstance, "description": "The instance was created"},
        204: {"description": "The resource was executed"},
        **DEVICE_PROBLEMS,
    },
    status_code=201,
)
async def act(
    *,
    services: ServicesOf,
    who: Operator,
    endpoint: Endpoint,
    path: ObjectPath,
    response: Response,
    body: models.ActionBody | None = None,
) -> models.CreatedInstance | None:
    """Execute the resource with `arguments`, or create an instance of the object with `value`."""
    wanted = body or models.ActionBody()
    where = absolute(path)
    depth = where.strip("/").count("/") + 1 if where != "/" else 0
    if depth == 3:
        if wanted.value is not None or wanted.instance is not None:
            raise InvalidInput(
                "an executable resource takes arguments alone",
                field="value",
                hint="to write it use PUT; arguments are a text such as 0='now'",
            )
        await services.operations.execute(endpoint, where, wanted.arguments or "", actor=who.name)
        response.status_code = 204
        return None
    if depth == 1:
        if wanted.arguments is not None:
            raise InvalidInput("arguments are for resources", field="arguments", hint="give value to create")
        created = await services.operations.create(
            endpoint,
            where,
            cast("dict[str, Json]", wanted.value or {}),
            instance=wanted.instance,
            actor=who.name,
        )
        return models.CreatedInstance(path=created)
    raise InvalidInput(
        f"POST does nothing on {where}",
        field="path",
        hint="POST to /3/0/4 executes that resource, POST to /3303 creates an instance of that object",
    )


@router.delete("/objects/{path:path}", status_code=204, summary="Delete", responses=DEVICE_PROBLEMS)
async def delete(services: ServicesOf, who: Operator, endpoint: Endpoint, path: ObjectPath) -> None:
    """Delete an instance on the device, or a resource instance."""
    await services.operations.delete(endpoint, absolute(path), actor=who.name)


@router.get("/discover/{path:path}", summary="Discover", responses=DEVICE_PROBLEMS)
async def discover(
    services: ServicesOf, _: Reader, endpoint: Endpoint, path: ObjectPath
) -> models.Page[models.Link]:
    """Ask the device what is under a path, and with which attributes."""
    links = await services.operations.discover(endpoint, absolute(path))
    return models.Page(items=[models.Link.of(link) for link in links])


@router.patch(
    "/notification-attributes/{path:path}",
    status_code=204,
    summary="Write-Attributes",
    responses=DEVICE_PROBLEMS,
)
async def write_attributes(
    *,
    services: ServicesOf,
    who: Operator,
    endpoint: Endpoint,
    path: ObjectPath,
    body: models.NotificationAttributes,
) -> None:
    """Set or unset the conditions under which the device notifies."""
    changes = {str(name): value for name, value in body.attributes.items()}
    await services.operations.write_attributes(endpoint, absolute(path), changes, actor=who.name)


@router.get("/observations", summary="List observations", responses=problems(404, 422))
async def observations(
    services: ServicesOf, _: Reader, endpoint: Endpoint
) -> models.Page[models.Observation]:
    """List what is observed on the device."""
    found = await services.operations.observations(endpoint)
    return models.Page(items=[models.Observation.of(observation) for observation in found])


@router.post("/observations", status_code=201, summary="Observe", responses=DEVICE_PROBLEMS)
async def observe(
    services: ServicesOf, who: Operator, endpoint: Endpoint, body: models.ObservationBody
) -> models.ReadAnswer:
    """Observe a path and return its value now; later ones are events of the kind `device.notified`."""
    return models.ReadAnswer.of(
        await services.operations.observe(endpoint, absolute(body.path), actor=who.name)
    )


@router.delete(
    "/observations/{path:path}", status_code=204, summary="Cancel an observation", responses=DEVICE_PROBLEMS
)
async def cancel(services: ServicesOf, who: Operator, endpoint: Endpoint, path: ObjectPath) -> None:
    """End an observation."""
    await services.operations.cancel(endpoint, absolute(path), actor=who.name)
