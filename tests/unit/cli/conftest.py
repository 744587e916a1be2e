"""Runs commands in a folder and an environment of their own, against a made-up server."""

import json
import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from lwm2m_server.cli import client
from lwm2m_server.cli.commands import app


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in [name for name in os.environ if name.startswith("LWM2M_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


class Lwm2m:
    """The command; `requests` is what it asked the server, `answer` what that says."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(204)

    def __call__(self, *arguments: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=typed)

    def handle(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        return self.answer(request)

    @property
    def asked(self) -> list[tuple[str, str, Any]]:
        """Method, path with query, and JSON body of each request."""
        return [
            (
                request.method,
                request.url.raw_path.decode().removeprefix("/api/v1"),
                json.loads(request.content) if request.content[:1] in b"{[" and request.content else None,
            )
            for request in self.requests
        ]

    def problem(self, status: int, code: str, detail: str, **members: Any) -> None:
        """Answer everything with this problem."""
        body = {"status": status, "code": code, "detail": detail, **members}
        self.answer = lambda _: httpx.Response(status, json=body)

    def json(self, body: Any, status: int = 200) -> None:
        """Answer everything with this JSON."""
        self.answer = lambda _: httpx.Response(status, json=body)


@pytest.fixture
def lwm2m(monkeypatch: pytest.MonkeyPatch) -> Lwm2m:
    made = Lwm2m()
    transport = httpx.MockTransport(made.handle)
    monkeypatch.setattr(
        client, "make_http", lambda target: httpx.Client(base_url=target.url, transport=transport)
    )
    return made
