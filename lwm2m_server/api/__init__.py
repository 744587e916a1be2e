"""The REST interface under `/api/v1`, with `/health` and `/metrics`. It holds no rule of its own."""

from lwm2m_server.api.app import create_app
from lwm2m_server.api.http_server import HttpServer

__all__ = ["HttpServer", "create_app"]
