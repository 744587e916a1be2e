"""Idempotency-Key on creates: a repeated POST gets the first answer again instead of making a second thing.

The answers of the last day are kept in memory, for this process: what outlives a restart is guarded by the
uniqueness of names and digests. A key belongs to one token, method and path; with another body it is refused.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from lwm2m_server.api.dependencies import authenticate
from lwm2m_server.clock import Clock
from lwm2m_server.errors import Conflict, InvalidInput

MAX_KEY = 255
MAX_ENTRIES = 1024
LIFETIME = 86400.0  # seconds

_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    at: float
    answer: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None


@dataclass(slots=True)
class Answers:
    """The answers given to keys."""

    clock: Clock
    entries: OrderedDict[_Key, _Entry] = field(default_factory=OrderedDict)

    def begin(self, key: _Key, fingerprint: bytes) -> _Entry | None:
        """Return the entry that is there, or None and hold the key for the caller."""
        now = self.clock.now()
        while self.entries and next(iter(self.entries.values())).at < now - LIFETIME:
            self.entries.popitem(last=False)
        entry = self.entries.get(key)
        if entry is None:
            if len(self.entries) >= MAX_ENTRIES:
                self.entries.popitem(last=False)
            self.entries[key] = _Entry(fingerprint, now)
        return entry

    def finish(self, key: _Key, response: Response) -> None:
        """Keep the answer of a request that succeeded."""
        if key in self.entries:
            self.entries[key].answer = (
                response.status_code,
                list(response.raw_headers),
                bytes(response.body),
            )

    def release(self, key: _Key) -> None:
        """Let the key go: nothing was made."""
        self.entries.pop(key, None)


def _repeat(entry: _Entry, fingerprint: bytes) -> Response:
    if entry.fingerprint != fingerprint:
        raise InvalidInput(
            "this Idempotency-Key was used with another body",
            field="Idempotency-Key",
            hint="take a fresh key",
        )
    if entry.answer is None:
        raise Conflict(
            "the first request with this Idempotency-Key is still under way",
            code="in-progress",
            field="Idempotency-Key",
            hint="repeat it a little later",
        )
    status, headers, body = entry.answer
    response = Response(body, status)
    response.raw_headers = [*headers, (b"idempotency-replayed", b"true")]
    return response


async def idempotency_key(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=MAX_KEY,
            description="The same key with the same body again gives the first answer again",
        ),
    ] = None,
) -> str | None:
    """Describe and check the header; `IdempotentRoute` acts on it."""
    return key


class IdempotentRoute(APIRoute):
    """A create that honours Idempotency-Key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if request.method != "POST" or key is None or not 0 < len(key) <= MAX_KEY:
                return await handler(request)
            principal = await authenticate(request)
            fingerprint = hashlib.sha256(request.url.query.encode() + b"\n" + await request.body()).digest()
            answers: Answers = request.app.state.answers
            full = (principal.token_id, request.method, request.url.path, key)
            entry = answers.begin(full, fingerprint)
            if entry is not None:
                return _repeat(entry, fingerprint)
            try:
                response = await handler(request)
            except BaseException:
                answers.release(full)
                raise
            answers.finish(full, response)
            return response

        return handle
