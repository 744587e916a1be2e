"""The outermost layer of the API: bounds bodies, keeps slashes inside names, and lets no exception out."""

from collections.abc import Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lwm2m_server.api.problems import problem

# Endpoint names may contain slashes (any UTF-8, OMA TS Core 6.2.1); %2F must not split the path. In routing
# it is this character, which is a non-character in Unicode and thus in no name.
SLASH = "\ufdd0"

HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


def restore_slashes(text: str) -> str:
    """Give a path parameter its slashes back."""
    return text.replace(SLASH, "/")


class Guard:
    """Wraps the application. `limit` gives the bytes that a request to (method, path) may have."""

    def __init__(self, app: ASGIApp, *, limit: Callable[[str, str], int]) -> None:
        self.app = app
        self.limit = limit
        self.log = structlog.get_logger("api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        raw: bytes = scope.get("raw_path") or b""
        if b"%2f" in raw.lower():
            encoded = raw.decode("ascii", "replace").replace("%2F", SLASH).replace("%2f", SLASH)
            scope = {**scope, "path": unquote(encoded)}
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message)
            await send(message)

        try:
            limit = self.limit(scope["method"], scope["path"])
            await self.app(scope, _bounded(scope, receive, limit), guarded_send)
        except Exception:
            self.log.exception("request failed", method=scope["method"], path=scope["path"])
            if started:  # nothing sensible can follow; ending the response early tells the client
                return
            answer = problem(
                500,
                "internal",
                "an error of the server; nothing more is told here",
                hint="see the server's log",
            )
            await answer(scope, receive, guarded_send)


def _add_headers(message: MutableMapping[str, Any]) -> None:
    present = {name.lower() for name, _ in message.get("headers", [])}
    message["headers"] = [*message.get("headers", []), *(h for h in HEADERS if h[0] not in present)]


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body has more than {limit} bytes")


def _bounded(scope: Scope, receive: Receive, limit: int) -> Receive:
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    size = int(declared) if declared.isdigit() else 0
    seen = 0

    async def bounded_receive() -> Message:
        nonlocal seen
        if size > limit:
            raise _too_large(limit)
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
        return message

    return bounded_receive
