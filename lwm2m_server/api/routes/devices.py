"""`/devices`: what the server knows of devices; `/attributes` and `/filters`: what they are chosen by."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import (
    After,
    Endpoint,
    FilterText,
    IfMatch,
    Limit,
    Operator,
    Reader,
    ServicesOf,
    etag,
    event_number,
    expected_revision,
    precondition,
)
from lwm2m_server.api.problems import problems
from lwm2m_server.devices.attributes import BUILT_IN, MAX_NAME, AttributeType

router = APIRouter(tags=["devices"])


@router.get("/devices", summary="List devices", responses=problems(422))
async def list_devices(
    services: ServicesOf, _: Reader, wanted: FilterText = "", after: After = None, limit: Limit = 100
) -> models.Page[models.Device]:
    """List devices that match the filter, by endpoint."""
    page = await services.directory.list(filter=wanted, after=after, limit=limit)
    return models.Page(items=[models.Device.of(device) for device in page.items], next=page.next)


@router.get("/devices/{endpoint}", summary="Show a device", responses=problems(404, 422))
async def get_device(services: ServicesOf, _: Reader, endpoint: Endpoint) -> models.Device:
    """Show all that is known of one device."""
    return models.Device.of(await services.directory.get(endpoint))


@router.delete(
    "/devices/{endpoint}", status_code=204, summary="Forget a device", responses=problems(404, 409, 422)
)
async def delete_device(services: ServicesOf, who: Operator, endpoint: Endpoint) -> None:
    """Forget it with its attributes; its history stays. It comes back as a new one if it registers again."""
    await services.directory.delete(endpoint, actor=who.name)


@router.get("/devices/{endpoint}/attributes", summary="Show attributes", responses=problems(404, 422))
async def get_attributes(
    services: ServicesOf, _: Reader, endpoint: Endpoint, response: Response
) -> models.Attributes:
    """Show the operators' attributes of a device; the ETag is for If-Match."""
    device = await services.directory.get(endpoint)
    response.headers["ETag"] = etag(device.revision)
    return models.Attributes(attributes=dict(device.attributes))


@router.patch(
    "/devices/{endpoint}/attributes",
    summary="Set or remove attributes",
    responses=problems(404, 409, 412, 422),
)
async def patch_attributes(
    *,
    services: ServicesOf,
    who: Operator,
    endpoint: Endpoint,
    body: models.AttributesPatch,
    response: Response,
    if_match: IfMatch = None,
) -> models.Attributes:
    """Set or remove some. The first value of a name fixes its type (text, number, boolean) for all."""
    revision = expected_revision(if_match)
    with precondition(revision):
        device = await services.directory.set_attributes(
            endpoint, body.attributes, expected_revision=revision, actor=who.name
        )
    response.headers["ETag"] = etag(device.revision)
    return models.Attributes(attributes=dict(device.attributes))


@router.get("/devices/{endpoint}/events", summary="History of a device", responses=problems(422))
async def device_events(
    services: ServicesOf, _: Reader, endpoint: Endpoint, after: After = None, limit: Limit = 100
) -> models.Page[models.Event]:
    """Tell what happened to a device, the newest first; also of one that was deleted."""
    before = event_number(after, "after")
    page = await services.directory.history(endpoint, before=before, limit=limit)
    return models.Page(items=[models.Event.of(event) for event in page.items], next=page.next)


@router.get("/devices/{endpoint}/deployments", summary="Campaigns of a device", responses=problems(422))
async def device_deployments(
    services: ServicesOf, _: Reader, endpoint: Endpoint
) -> models.Page[models.Deployment]:
    """List every deployment that the device was part of, the newest first."""
    found = await services.directory.deployments(endpoint)
    return models.Page(items=[models.Deployment.of(deployment) for deployment in found])


@router.get("/attributes", tags=["attributes"], summary="List attributes")
async def list_attributes(services: ServicesOf, _: Reader) -> models.Page[models.AttributeDefinition]:
    """List all names that a filter may use with their types: the server's own, then the operators'."""
    names = [
        models.AttributeDefinition(name=name, type=type_, built_in=built_in)
        for built_in, types in ((True, BUILT_IN), (False, await services.directory.attribute_types()))
        for name, type_ in types.items()
    ]
    return models.Page(items=names)


@router.put(
    "/attributes/{name}", tags=["attributes"], summary="Define an attribute", responses=problems(409, 422)
)
async def define_attribute(
    services: ServicesOf,
    who: Operator,
    name: Annotated[str, Path(max_length=MAX_NAME, examples=["boot.version"])],
    body: models.AttributeBody,
) -> models.AttributeDefinition:
    """Say what the values are before the first is set: text that is to be compared as versions is known only so."""
    type_ = AttributeType(body.type)
    await services.directory.define_attribute(name, type_, actor=who.name)
    return models.AttributeDefinition(name=name, type=type_, built_in=False)


@router.get("/filters/preview", tags=["filters"], summary="Try a filter", responses=problems(422))
async def preview_filter(
    *,
    services: ServicesOf,
    _: Reader,
    wanted: FilterText = "",
    sample: Annotated[int, Query(ge=0, le=100, description="Endpoints to show")] = 10,
) -> models.FilterPreview:
    """Count the devices that a filter matches now; a mistake in it is answered with its position."""
    count = await services.directory.count(wanted)
    found = await services.directory.list(filter=wanted, limit=sample) if sample else None
    names = [device.endpoint for device in found.items] if found is not None else []
    return models.FilterPreview(filter=wanted, count=count, sample=names)
