"""What the routes have in common: who asks, which services, which page, which revision."""

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, cast

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from lwm2m_server.api.middleware import restore_slashes
from lwm2m_server.api.problems import PreconditionFailed
from lwm2m_server.errors import Conflict, InvalidInput
from lwm2m_server.services import Services
from lwm2m_server.services.access import BadToken, Principal, Role

MAX_LIMIT = 1000

_bearer = HTTPBearer(
    auto_error=False, scheme_name="token", description="An access token; `lwm2m tokens add` makes one."
)


def services(request: Request) -> Services:
    """Return the services that `create_app` got."""
    return cast("Services", request.app.state.services)


ServicesOf = Annotated[Services, Depends(services)]


async def authenticate(request: Request) -> Principal:
    """Return the holder of the request's token; raise `BadToken` when there is none or it does not count."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise BadToken(
            "this request needs an access token",
            field="Authorization",
            hint="send 'Authorization: Bearer <token>'; the CLI takes --token or LWM2M_TOKEN",
        )
    return await services(request).access.authenticate(text.strip())


async def _principal(
    request: Request,
    _described: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Principal:
    return await authenticate(request)


def _with(role: Role) -> Callable[..., Awaitable[Principal]]:
    async def check(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
        principal.require(role)
        return principal

    return check


Reader = Annotated[Principal, Depends(_with(Role.READER))]
Operator = Annotated[Principal, Depends(_with(Role.OPERATOR))]
Admin = Annotated[Principal, Depends(_with(Role.ADMIN))]

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items of a page")]
After = Annotated[
    str | None, Query(max_length=512, description="The `next` of the page before; none for the first page")
]
FilterText = Annotated[
    str,
    Query(
        alias="filter",
        max_length=4096,
        description="Which devices",
        examples=['manufacturer = "Acme" and firmware.version < 2.1'],
    ),
]


async def _endpoint(
    endpoint: Annotated[
        str, Path(min_length=1, max_length=512, description="Endpoint client name; a slash in it as %2F")
    ],
) -> str:
    return restore_slashes(endpoint)


Endpoint = Annotated[str, Depends(_endpoint)]

ObjectPath = Annotated[
    str,
    Path(max_length=64, description="Object, instance, resource, resource instance", examples=["3/0/9"]),
]


def absolute(path: str) -> str:
    """Give a path from the URL the leading slash that the services expect."""
    return "/" + path.strip("/")


_ETAG = re.compile(r'(?:W/)?"(\d{1,18})"|\*')

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=64,
        description="The ETag of what is edited; refuses to overwrite newer edits",
    ),
]


def expected_revision(if_match: str | None) -> int | None:
    """Read If-Match; None when any revision will do."""
    if if_match is None:
        return None
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise InvalidInput(
            "If-Match is not an ETag of this API",
            field="If-Match",
            hint="repeat the ETag header of the last answer, quotes included",
        )
    return int(match[1]) if match[1] else None


def etag(revision: int) -> str:
    """Write the ETag of a revision."""
    return f'"{revision}"'


def event_number(text: str | None, field: str) -> int | None:
    """Read an event's id from a header or `after`."""
    if text is None or not text.strip():
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise InvalidInput(
            f"'{text[:20]}' is not the id of an event", field=field, hint="ids are whole numbers"
        )
    return int(text)


@contextmanager
def precondition(revision: int | None) -> Iterator[None]:
    """Answer a stale revision with 412 when the client named one."""
    try:
        yield
    except Conflict as error:
        if revision is None or error.field != "revision":
            raise
        raise PreconditionFailed(error.message, field="If-Match", hint=error.hint) from None
