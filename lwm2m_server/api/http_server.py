"""The web server that the interface runs in."""

import contextlib
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI


class HttpServer(uvicorn.Server):
    """uvicorn, which leaves signals to us."""

    def __init__(self, app: FastAPI) -> None:
        """Serve `app`; what is under way has three seconds at the end."""
        super().__init__(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=3))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Change no handler."""
        yield
