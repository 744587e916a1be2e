"""`/deltas`: patches between images, and what they save."""

from typing import Annotated

from fastapi import APIRouter, Query

from lwm2m_server.api.dependencies import Operator, Reader, ServicesOf
from lwm2m_server.api.models.deltas import Comparison, Delta, Savings
from lwm2m_server.api.problems import problems

router = APIRouter(prefix="/deltas", tags=["deltas"])

_Image = Annotated[str, Query(min_length=4, max_length=72, examples=["4a54ff8c476b0a03"])]


@router.get("/savings", summary="Bytes saved by deltas", responses=problems(404, 422))
async def savings(
    services: ServicesOf,
    _: Reader,
    campaign: Annotated[str | None, Query(max_length=128, description="Id or name")] = None,
    device: Annotated[str | None, Query(max_length=255, description="Endpoint name")] = None,
) -> Savings:
    """Add up the updates that ended well: of a campaign, of a device, of a device in a campaign, or of all."""
    known = None if campaign is None else (await services.campaigns.get(campaign)).id
    if device is not None:
        await services.directory.get(device)
    return Savings.of(await services.deltas.savings(campaign_id=known, endpoint=device))


@router.get("", summary="Compare the methods", responses=problems(404, 422))
async def compare(services: ServicesOf, _: Operator, base: _Image, target: _Image) -> Comparison:
    """Make the deltas from one image to another that are missing, and show all."""
    old, new = await services.releases.image(base), await services.releases.image(target)
    found = await services.deltas.compare(old.digest, new.digest)
    return Comparison(
        base=old.digest.hex(),
        target=new.digest.hex(),
        size=new.size,
        deltas=[Delta.of(delta, new.size) for delta in found],
    )
