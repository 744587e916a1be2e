"""Every error of the API as problem details (RFC 9457), with the members that Lwm2mError carries.

`type` is a URN made of the stable `code`; `field` names the input at fault, `hint` the way out, `errors` has
one entry for each mistake when there are several, `coap_code` is what a device answered, `position` the index
of the character at fault in a filter.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response

from lwm2m_server.devices.filter import FilterError
from lwm2m_server.errors import (
    Conflict,
    DeviceError,
    Forbidden,
    InvalidInput,
    Lwm2mError,
    NotFound,
    Unavailable,
    Untrusted,
)
from lwm2m_server.services.access import BadToken
from lwm2m_server.transport import TransportBusy, TransportError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "5"  # seconds, with 503


class PreconditionFailed(Lwm2mError):
    """If-Match names another revision than the present one (RFC 9110 13.1.1)."""

    code = "stale"


STATUS: dict[type[Lwm2mError], HTTPStatus] = {
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    Untrusted: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    BadToken: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    DeviceError: HTTPStatus.BAD_GATEWAY,
    TransportBusy: HTTPStatus.SERVICE_UNAVAILABLE,
    TransportError: HTTPStatus.GATEWAY_TIMEOUT,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

DESCRIPTIONS: dict[int, str] = {
    400: "The body is not what its Content-Type says, or the request is not valid HTTP",
    401: "No token, or one that is unknown, expired or revoked",
    403: "The token's role does not allow this",
    404: "What was named does not exist",
    405: "The method does not exist here; see Allow",
    409: "The request does not fit the present state",
    412: "If-Match names a revision that is no longer the present one",
    413: "The body is too large",
    415: "The Content-Type is not understood",
    422: "An input is malformed or out of range, or a signature or digest does not hold; nothing was changed",
    500: "An error of the server; details are in its log",
    502: "The device answered with an error; see coap_code",
    503: "A part of the server is not ready or overloaded; see Retry-After",
    504: "The device did not answer",
}


_CODES = {
    400: "malformed",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # as RFC 9110, in every version of Python


class FieldProblem(BaseModel):
    """One of several mistakes."""

    field: str
    detail: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:lwm2m-server:problem:not-found",
                "title": "Not Found",
                "status": 404,
                "detail": "no device 'pump-17'",
                "code": "not-found",
                "field": "endpoint",
                "hint": "GET /api/v1/devices lists them",
            }
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
    hint: str | None = None
    coap_code: str | None = None
    position: int | None = None
    errors: list[FieldProblem] | None = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe these error answers for OpenAPI (`responses=` of a route)."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        s: {"description": DESCRIPTIONS[s], "content": {MEDIA_TYPE: {"schema": schema}}} for s in statuses
    }


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    field: str | None = None,
    hint: str | None = None,
    coap_code: str | None = None,
    position: int | None = None,
    errors: Sequence[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Make the answer."""
    body = Problem(
        type=f"urn:lwm2m-server:problem:{code}",
        title=_TITLES.get(status) or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        field=field,
        hint=hint,
        coap_code=coap_code,
        position=position,
        errors=list(errors) if errors else None,
    )
    content = body.model_dump(exclude_none=True)
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def from_error(error: Lwm2mError) -> JSONResponse:
    """Turn an error of the lower layers into its answer."""
    status = next(
        (STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), HTTPStatus.INTERNAL_SERVER_ERROR
    )
    headers: dict[str, str] = {}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = RETRY_AFTER
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="lwm2m-server"'
    code, coap_code = error.code, None
    if isinstance(error, DeviceError):
        code, coap_code = DeviceError.code, error.code
    return problem(
        status,
        code,
        error.message,
        field=error.field,
        hint=error.hint,
        coap_code=coap_code,
        position=error.position if isinstance(error, FilterError) else None,
        headers=headers,
    )


def _from_validation(error: RequestValidationError) -> JSONResponse:
    found = []
    status, code = HTTPStatus.UNPROCESSABLE_ENTITY, "invalid"
    for item in error.errors():
        where = [str(part) for part in item["loc"]]
        if item["type"] == "json_invalid":
            status, code = HTTPStatus.BAD_REQUEST, "malformed"
            reason = item.get("ctx", {}).get("error", "")
            found.append(
                FieldProblem(field="body", detail=f"not valid JSON: {reason} at character {where[-1]}")
            )
            continue
        field = ".".join(where[1:]) if len(where) > 1 else where[0]
        found.append(FieldProblem(field=field, detail=item["msg"].removeprefix("Value error, ")))
    detail = "; ".join(f"{item.field}: {item.detail}" for item in found[:5])
    return problem(status, code, detail, field=found[0].field, errors=found if len(found) > 1 else None)


def _from_http(error: HTTPException) -> JSONResponse:
    status = HTTPStatus(error.status_code)
    hint = None
    detail = str(error.detail)
    if status is HTTPStatus.NOT_FOUND:
        detail, hint = "no such resource", "the resources are described by /api/v1/openapi.json"
    elif status is HTTPStatus.METHOD_NOT_ALLOWED:
        detail = "this resource does not know the method"
        hint = f"it knows {error.headers['Allow']}" if error.headers and "Allow" in error.headers else None
    return problem(status, _CODES.get(status, "http"), detail, hint=hint, headers=error.headers)


def install(app: FastAPI) -> None:
    """Register the handlers."""

    async def lwm2m_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, Lwm2mError)  # noqa: S101  the registration below says so
        return from_error(error)

    async def validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return _from_validation(error)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return _from_http(error)

    app.add_exception_handler(Lwm2mError, lwm2m_error)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
