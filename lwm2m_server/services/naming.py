"""Names and ids that people give: checked, and completed where the beginning is enough."""

import re
from typing import TypeVar

from lwm2m_server.errors import InvalidInput, NotFound

MAX_PAGE = 1000
_MAX_NAME = 200
_HEX = re.compile(r"[0-9a-f]{4,64}")
DIGEST_LENGTH = 64

T = TypeVar("T")


def hex_of(what: str, text: str) -> str:
    """Return a digest or its beginning in lower hex; `InvalidInput` when it is none."""
    wanted = text.strip().lower().removeprefix("sha256:")
    if not _HEX.fullmatch(wanted):
        raise InvalidInput(
            f"'{text[:80]}' does not name an {what}."
            if what == "image"
            else f"'{text[:80]}' names no {what}.",
            field=what,
            hint="Give 4 to 64 hex digits.",
        )
    return wanted


def before(prefix: str) -> str | None:
    """Return a key that sorts right before everything that begins with `prefix` (64 hex digits)."""
    number = int(prefix.ljust(DIGEST_LENGTH, "0"), 16) - 1
    return None if number < 0 else format(number, "064x")


def only(what: str, wanted: str, found: list[T]) -> T:
    """Return the one thing that begins with `wanted`; `NotFound`, or `InvalidInput` (`ambiguous`)."""
    if not found:
        raise missing(what, wanted)
    if len(found) > 1:
        raise InvalidInput(
            f"Several begin with '{wanted}'.", code="ambiguous", field=what, hint="Give more digits."
        )
    return found[0]


def missing(what: str, key: str) -> NotFound:
    """Return the error for an image or a manifest that is not there."""
    command = "firmware" if what == "image" else what
    return NotFound(
        f"There is no {what} '{key}'.", field=what, hint=f"See what is there: lwm2m {command} list."
    )


def check_name(name: str) -> None:
    """Raise `InvalidInput` for what is no name."""
    stripped = name.strip()
    if not stripped or len(stripped) > _MAX_NAME or not stripped.isprintable():
        raise InvalidInput(f"A name has 1 to {_MAX_NAME} printable characters.", field="name")
