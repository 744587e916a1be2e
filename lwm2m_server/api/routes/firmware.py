"""`/firmware`: images, found by the SHA-256 of their bytes."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from lwm2m_server.api import models
from lwm2m_server.api.dependencies import After, Limit, Operator, Reader, ServicesOf
from lwm2m_server.api.problems import problems
from lwm2m_server.api.uploads import raw_body, raw_upload
from lwm2m_server.firmware.image_checks import Expected
from lwm2m_server.services.uploads import expected_of

router = APIRouter(prefix="/firmware", tags=["firmware"])


class Claims:
    """What the query says of an image: the same as the body of an upload does."""

    def __init__(
        self,
        version: Annotated[str | None, Query(max_length=128, examples=["2.1.0"])] = None,
        format_: Annotated[
            str | None, Query(alias="format", max_length=20, description="What it must be recognised as")
        ] = None,
        project: Annotated[str | None, Query(max_length=64, description="ESP-IDF's project name")] = None,
        chip: Annotated[str | None, Query(max_length=32, examples=["ESP32-S3"])] = None,
        security_counter: Annotated[
            int | None, Query(ge=0, le=0xFFFFFFFF, description="Also ESP-IDF's secure version")
        ] = None,
        vendor: Annotated[str | None, Query(max_length=200, description="Domain or UUID")] = None,
        device_class: Annotated[
            str | None, Query(alias="class", max_length=200, description="Name (with the vendor) or UUID")
        ] = None,
    ) -> None:
        self._values = {
            "version": version,
            "format": format_,
            "project": project,
            "chip": chip,
            "security_counter": security_counter,
            "vendor": vendor,
            "device_class": device_class,
        }

    def expected(self) -> Expected:
        """Return it as the services take it."""
        return expected_of(self._values)


@router.post(
    "",
    status_code=201,
    summary="Upload an image",
    responses={
        200: {"model": models.Image, "description": "These bytes were there already"},
        **problems(413, 415, 422),
    },
    openapi_extra=raw_body("application/octet-stream"),
    dependencies=[Depends(raw_upload)],
)
async def add_image(
    *,
    services: ServicesOf,
    who: Operator,
    request: Request,
    response: Response,
    name: Annotated[
        str, Query(min_length=1, max_length=200, description="File name", examples=["pump-2.1.0.bin"])
    ],
    claims: Annotated[Claims, Depends()],
) -> models.Image:
    """Store the body, which is the image itself. The same bytes again give the same image (200).

    What is said of it must agree with what it says itself.
    """
    image, new = await services.releases.add_image(
        request.stream(), name=name, expected=claims.expected(), actor=who.name
    )
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/api/v1/firmware/{image.digest.hex()}"
    return models.Image.of(image)


@router.get("", summary="List images", responses=problems(422))
async def list_images(
    services: ServicesOf, _: Reader, after: After = None, limit: Limit = 100
) -> models.Page[models.Image]:
    """List images by digest."""
    page = await services.releases.images(after=after, limit=limit)
    return models.Page(items=[models.Image.of(image) for image in page.items], next=page.next)


@router.get("/{digest}", summary="Show an image", responses=problems(404, 422))
async def get_image(services: ServicesOf, _: Reader, digest: str) -> models.Image:
    """Show an image by its digest, or by the beginning of it where that is enough."""
    return models.Image.of(await services.releases.image(digest))


@router.delete("/{digest}", status_code=204, summary="Remove an image", responses=problems(404, 409, 422))
async def remove_image(services: ServicesOf, who: Operator, digest: str) -> None:
    """Remove an image that no manifest names."""
    await services.releases.remove_image(digest, actor=who.name)
