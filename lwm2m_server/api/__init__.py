"""The REST interface under `/api/v1`, with `/health` and `/metrics`. It holds no rule of its own."""

from lwm2m_server.api.app import create_app

__all__ = ["create_app"]
