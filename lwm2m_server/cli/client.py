"""The REST interface from the client's side: requests, pages, uploads, events, and errors as Lwm2mError."""

import builtins
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from lwm2m_server.cli.local import Target
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
from lwm2m_server.firmware.formats.refused import UNTRUSTED_CODES
from lwm2m_server.firmware.refusals import UNTRUSTED

PREFIX = "/api/v1"
CHUNK = 65536
PAGE = 500
_TIMEOUT = httpx.Timeout(10.0, read=330.0)  # a device may take its time to answer
_STREAM = httpx.Timeout(10.0, read=45.0)  # the server sends a comment every 15 s

_BY_STATUS: dict[int, type[Lwm2mError]] = {
    400: InvalidInput,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    405: InvalidInput,
    409: Conflict,
    412: Conflict,
    413: InvalidInput,
    415: InvalidInput,
    422: InvalidInput,
    502: DeviceError,
    503: Unavailable,
    504: Unavailable,
}
_UNTRUSTED = frozenset({"untrusted", *UNTRUSTED_CODES, *(code.value for code in UNTRUSTED)})


class InvalidFilter(InvalidInput):
    """A filter that the server can't use; `position` is the index of the character at fault."""

    def __init__(
        self, message: str, position: int, *, code: str | None, field: str | None, hint: str | None
    ) -> None:
        super().__init__(message, code=code, field=field, hint=hint)
        self.position = position


def make_http(target: Target) -> httpx.Client:
    """Open the connection; tests put their own here."""
    return httpx.Client(base_url=target.url, timeout=_TIMEOUT)


def segment(text: str) -> str:
    """Quote a name for use as one segment of a path."""
    return quote(text, safe="")


class Client:
    """One server."""

    def __init__(self, target: Target) -> None:
        self._url = target.url
        try:
            self._http = make_http(target)
        except (httpx.InvalidURL, ValueError) as error:
            raise _bad_url(target.url) from error
        if target.token:
            self._http.headers["Authorization"] = f"Bearer {target.token}"

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """GET and return the JSON."""
        return self._json("GET", path, params=_given(parameters))

    def bytes(self, path: str) -> bytes:
        """GET and return the body as it is."""
        return self._send("GET", path).content

    def post(self, path: str, body: Any = None, **parameters: Any) -> Any:
        """POST JSON and return the JSON of the answer, None when it has none."""
        return self._json("POST", path, json=body, params=_given(parameters))

    def put(self, path: str, body: Any) -> Any:
        """PUT JSON."""
        return self._json("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH JSON."""
        return self._json("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE."""
        self._send("DELETE", path)

    def items(self, path: str, *, limit: int = 0, **parameters: Any) -> tuple[list[dict[str, Any]], bool]:
        """Collect the items of all pages, or `limit` of them; say whether there are more."""
        found: list[dict[str, Any]] = []
        after = None
        while True:
            wanted = min(PAGE, limit - len(found)) if limit else PAGE
            page = self.get(path, limit=wanted, after=after, **parameters)
            found += page["items"]
            after = page.get("next")
            if after is None or (limit and len(found) >= limit):
                return found, after is not None

    def upload(
        self,
        path: str,
        file: Path,
        media_type: str,
        *,
        advance: Callable[[int], None] = lambda _: None,
        **parameters: Any,
    ) -> Any:
        """POST a file as it is."""
        length = file.stat().st_size

        def chunks() -> Iterator[bytes]:
            with file.open("rb") as source:
                while chunk := source.read(CHUNK):
                    yield chunk
                    advance(len(chunk))

        headers = {"Content-Type": media_type, "Content-Length": str(length)}
        return self._json("POST", path, content=chunks(), headers=headers, params=_given(parameters))

    def append(self, path: str, chunks: "Iterator[builtins.bytes]", offset: int, length: int) -> Any:
        """PATCH bytes of an upload, which belong at `offset`."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(length),
            "Upload-Offset": str(offset),
        }
        return self._json("PATCH", path, content=chunks, headers=headers)

    def events(self, *, last: int | None = None, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Follow events from now on, or after the one with the id `last`; ends when the connection does."""
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        with (
            _as_errors(self._url),
            self._http.stream(
                "GET", PREFIX + "/events", params=_given(parameters), headers=headers, timeout=_STREAM
            ) as response,
        ):
            if response.is_error:
                response.read()
                raise error_of(response)
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def _json(self, method: str, path: str, **arguments: Any) -> Any:
        response = self._send(method, path, **arguments)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise Unavailable(
                f"what answers at {self._url} is not an lwm2m server", field="url", hint="check --url"
            ) from None

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with _as_errors(self._url):
            response = self._http.request(method, PREFIX + path, **arguments)
        if response.is_error:
            raise error_of(response)
        return response


class _as_errors:  # noqa: N801  used like a function
    """Turns what httpx raises into errors for users."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            raise Unavailable(
                f"no server answers at {self._url}",
                field="url",
                hint="start one with 'lwm2m serve', or name another with --url or LWM2M_URL",
            ) from None
        if isinstance(error, httpx.TimeoutException):
            raise Unavailable(f"the server at {self._url} does not answer in time", field="url") from None
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            raise _bad_url(self._url) from None
        if isinstance(error, httpx.HTTPError):
            raise Unavailable(f"the connection to {self._url} broke: {error}", field="url") from None


def _bad_url(url: str) -> InvalidInput:
    return InvalidInput(
        f"'{url}' is not an address of a server", field="url", hint="write it as http://host:8080"
    )


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def error_of(response: httpx.Response) -> Lwm2mError:
    """Turn problem details (RFC 9457) into the error that they were."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    kind = _BY_STATUS.get(response.status_code, Lwm2mError)
    code = problem.get("code")
    if kind is InvalidInput and code in _UNTRUSTED:
        kind = Untrusted
    if kind is DeviceError:
        code = problem.get("coap_code") or code
    message = problem.get("detail") or f"the server answered {response.status_code} {response.reason_phrase}"
    field, hint, position = problem.get("field"), problem.get("hint"), problem.get("position")
    if kind is InvalidInput and isinstance(position, int):
        return InvalidFilter(message, position, code=code, field=field, hint=hint)
    return kind(message, code=code, field=field, hint=hint)
