"""Bodies that are files as they are, not JSON."""

from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException


async def raw_upload(request: Request) -> None:
    """Refuse forms, in which the file would be wrapped."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise HTTPException(
            415, "send the file itself as the body (curl --data-binary @FILE), not a form around it"
        )


def raw_body(media_type: str) -> dict[str, Any]:
    """Describe the body for OpenAPI."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "content": content}}
