"""Puts the API together."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lwm2m_server.api import problems
from lwm2m_server.api.idempotency import Answers
from lwm2m_server.api.middleware import Guard
from lwm2m_server.api.routes import all_routes, health
from lwm2m_server.clock import Clock, SystemClock
from lwm2m_server.config import Settings
from lwm2m_server.lwm2m.model import ObjectRegistry
from lwm2m_server.services import Services
from lwm2m_server.services.credential_import import MAX_BYTES

PREFIX = "/api/v1"
_DESCRIPTION = """Devices, operations on them, firmware, manifests and campaigns.

Send `Authorization: Bearer <token>`. Errors are problem details (RFC 9457) with a stable `code`. Lists come
in pages: give `next` as `after`. Edits take `If-Match`. Creates take `Idempotency-Key`: the same request with
the same key gives the first answer again, for a day while the server runs."""


def create_app(
    services: Services, settings: Settings, objects: ObjectRegistry, *, clock: Clock | None = None
) -> FastAPI:
    """Make the ASGI application; `objects` is what `/objects` shows."""
    app = FastAPI(
        title="lwm2m-server",
        version=_version(),
        description=_DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    app.state.objects = objects
    app.state.answers = Answers(clock or SystemClock())
    app.include_router(all_routes())
    app.include_router(health.router)
    problems.install(app)

    def limit(method: str, path: str) -> int:
        uploads = {f"{PREFIX}/firmware": settings.max_image_size, f"{PREFIX}/credentials/import": MAX_BYTES}
        if method == "PATCH" and path.startswith(f"{PREFIX}/firmware/uploads/"):
            return settings.max_image_size
        return uploads.get(path, settings.api.max_body) if method == "POST" else settings.api.max_body

    app.add_middleware(Guard, limit=limit)
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(_describe(app))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to adapt it
    return app


def _version() -> str:
    try:
        return version("lwm2m-server")
    except PackageNotFoundError:  # run from a source tree
        return "0"


def _describe(app: FastAPI) -> dict[str, Any]:
    """Make the OpenAPI document, with the answers that every operation shares."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["FieldProblem"] = problems.FieldProblem.model_json_schema()
    schemas["Problem"] = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas["Problem"].pop("$defs", None)
    for path, item in document["paths"].items():
        for operation in item.values():
            shared = [400, 401, 403, 500, 503] if path.startswith(PREFIX) else [500]
            if "requestBody" in operation:
                shared.append(413)
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422")):
                answers.update(_texts(problems.problems(422)))
            for status, answer in _texts(problems.problems(*shared)).items():
                answers.setdefault(status, answer)
    return document


def _texts(answers: dict[int | str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(status): answer for status, answer in answers.items()}
