"""Versions of firmware: parsing, total order and a text key for databases.

Semantic Versioning 2.0.0, read tolerantly because devices are: a leading `v`, one to four numbers (`2.1`,
`1.2.3.4` as MCUboot counts), leading zeros. Missing numbers are 0. Build metadata (`+…`) has no part in the
order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from lwm2m_server.errors import InvalidInput

MAX_TEXT = 128
MAX_DIGITS = 18
NUMBERS = 4

_PATTERN = re.compile(
    r"[vV]?(?P<numbers>[0-9]+(?:\.[0-9]+){0,3})"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
    r"(?:\+(?P<build>[0-9A-Za-z.-]+))?"
)

Identifier = int | str


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """One version; equal means "same precedence" (build metadata ignored), `text` is what was read.

    `numbers` has always four elements. `prerelease` is empty for a release.
    """

    numbers: tuple[int, int, int, int]
    prerelease: tuple[Identifier, ...]
    build: str
    text: str

    @property
    def key(self) -> str:
        """Text of `0-9a-f` only whose plain order is the order of versions, whatever the collation."""
        parts = [_number_key(number) for number in self.numbers]
        if not self.prerelease:
            return "".join([*parts, "f"])
        parts.append("0")
        for identifier in self.prerelease:
            if isinstance(identifier, int):
                parts.append("1" + _number_key(identifier))
            else:
                # ASCII order; the closing 00 keeps "rc" below "rc1"
                parts.append("2" + identifier.encode("ascii").hex() + "00")
        parts.append("0")
        return "".join(parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self.numbers == other.numbers and self.prerelease == other.prerelease

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self._order() < other._order()

    def __hash__(self) -> int:
        return hash((self.numbers, self.prerelease))

    def __str__(self) -> str:
        return self.text

    def _order(self) -> tuple[object, ...]:
        # A release stands above its pre-releases; numeric identifiers stand below alphanumeric ones (§11.4).
        identifiers = tuple(
            (0, part, "") if isinstance(part, int) else (1, 0, part) for part in self.prerelease
        )
        return (self.numbers, not self.prerelease, identifiers)


def parse(text: str) -> Version:
    """Read a version; `InvalidInput` with code `invalid-version` when it is none."""
    stripped = text.strip()
    match = _PATTERN.fullmatch(stripped) if len(stripped) <= MAX_TEXT else None
    if match is None:
        shown = stripped if len(stripped) <= 40 else stripped[:40] + "…"
        raise InvalidInput(
            f"{shown!r} is not a version",
            code="invalid-version",
            field="version",
            hint="write one to four numbers with dots, such as 2.1.0, 1.10.0-rc.1 or 1.2.3.4",
        )
    words = match["numbers"].split(".")
    pre = match["pre"].split(".") if match["pre"] else []
    if any(
        len(word.lstrip("0")) > MAX_DIGITS for word in [*words, *(part for part in pre if part.isdigit())]
    ):
        raise InvalidInput(
            f"a number in version {stripped!r} has more than {MAX_DIGITS} digits",
            code="invalid-version",
            field="version",
            hint="shorten the number",
        )
    first, second, third, fourth = [int(word) for word in words] + [0] * (NUMBERS - len(words))
    identifiers: tuple[Identifier, ...] = tuple(int(part) if part.isdigit() else part for part in pre)
    return Version((first, second, third, fourth), identifiers, match["build"] or "", stripped)


def try_parse(text: str | None) -> Version | None:
    """`parse`, with `None` for what is no version: devices report anything."""
    if text is None:
        return None
    try:
        return parse(text)
    except InvalidInput:
        return None


def compare(left: str, right: str) -> int:
    """Return -1, 0 or 1 as `left` is older than, equal to or newer than `right`.

    `InvalidInput` for no version.
    """
    one, two = parse(left), parse(right)
    return (one > two) - (one < two)


def sort_key(text: str) -> str:
    """Return a key for databases whose plain order is that of versions; `InvalidInput` when it is none."""
    return parse(text).key


def try_sort_key(text: str | None) -> str | None:
    """`sort_key`, with `None` (SQL NULL: no comparison holds) for what is no version."""
    version = try_parse(text)
    return version.key if version is not None else None


def same(reported: str | None, wanted: str) -> bool:
    """Whether a device that reports `reported` runs `wanted`.

    Same precedence, and the same build metadata where both name some: 1.0.0+7 is not 1.0.0+8. Texts that are
    no versions must be equal as they stand.
    """
    if reported is None:
        return False
    if reported.strip() == wanted.strip():
        return True
    one, two = try_parse(reported), try_parse(wanted)
    if one is None or two is None:
        return False
    return one == two and (not one.build or not two.build or one.build == two.build)


def _number_key(number: int) -> str:
    digits = str(number)
    return f"{len(digits):02d}{digits}"
