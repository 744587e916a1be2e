"""Sending an image so that a broken connection costs nothing: it goes on where the server says that it stands."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lwm2m_server.cli.client import CHUNK, Client, segment
from lwm2m_server.errors import Conflict, InvalidInput, NotFound, Unavailable

ATTEMPTS = 8
"""Broken connections in a row, without a byte between them, after which it is given up."""
_LONGEST = 10.0  # seconds
_AGAIN = frozenset({"upload-offset", "upload-superseded"})


def pause(attempt: int) -> None:
    """Wait before the next attempt; tests put their own here."""
    time.sleep(min(_LONGEST, 0.5 * 2**attempt))


def digest_of(file: Path) -> str:
    """SHA-256 of a file in hex."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def send(
    client: Client,
    file: Path,
    claims: dict[str, Any],
    *,
    advance: Callable[[int], None],
    note: Callable[[str], None],
) -> Any:
    """Upload a file, or the rest of it, and return the image.

    Raises `Unavailable` when the server stays away: the same call later goes on.
    """
    size = file.stat().st_size
    digest = digest_of(file)
    body = {"size": size, "digest": digest, **claims}
    path = f"/firmware/uploads/{segment(digest)}"
    shown = failures = reached = 0
    begun = False
    while True:
        try:
            state = client.get(path) if begun else client.post("/firmware/uploads", body)
            if state["offset"] and not begun and state["image"] is None:
                note(f"going on at byte {state['offset']} of {size}")
            begun = True
            offset = int(state["offset"])
            advance(offset - shown)
            shown = offset
            if state["image"] is not None:
                return state["image"]
            if offset > reached:
                reached, failures = offset, 0
            state = client.append(path, _rest(file, offset), offset, size - offset)
            if state["image"] is not None:
                advance(size - shown)
                return state["image"]
        except NotFound:
            if not begun:
                raise
            begun = False  # removed meanwhile, by somebody or for its age
            failures += 1
        except Conflict as error:
            if error.code not in _AGAIN:
                raise
            failures += 1
        except Unavailable as error:
            failures += 1
            if not reached and not begun:
                raise
            note(f"{error.message}; trying again")
        except OSError as error:
            raise InvalidInput(f"{file}: {error.strerror or error}", field="FILE") from None
        if failures >= ATTEMPTS:
            raise Unavailable(
                f"the upload broke off at byte {shown} of {size}",
                field="FILE",
                hint="run the same command again, it goes on there",
            )
        pause(failures)


def _rest(file: Path, offset: int) -> Iterator[bytes]:
    with file.open("rb") as source:
        source.seek(offset)
        while chunk := source.read(CHUNK):
            yield chunk
