"""Machine-readable versions of manifests and how they are compared (update-management-14, suit-parameter-version).

A version is a list of integers: one to three numbers, then for a pre-release -1 (rc), -2 (beta) or -3 (alpha)
with numbers of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from lwm2m_server import versions
from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.refusals import Malformed
from lwm2m_server.versions import Version, try_parse

MAX_PARTS: Final = 16

_PRERELEASE: Final = {"alpha": -3, "beta": -2, "rc": -1}


def version_to_integers(version: Version) -> tuple[int, ...] | None:
    """Encode a machine-readable version: numbers, then -1 rc, -2 beta, -3 alpha with their numbers.

    `None` for what that form cannot hold without loss: a fourth number, other pre-release words. Build
    metadata has no place in it.
    """
    if version.numbers[3]:
        return None
    release = version.numbers[:3]
    if not version.prerelease:
        return release
    word, *rest = version.prerelease
    indicator = _PRERELEASE.get(word) if isinstance(word, str) else None
    numbers = tuple(part for part in rest if isinstance(part, int))
    if indicator is None or len(numbers) != len(rest):
        return None
    return (*release, indicator, *numbers)


def version_from_integers(integers: tuple[int, ...]) -> str | None:
    """Text of a machine-readable version; `None` when it has no such form."""
    split = next((index for index, number in enumerate(integers) if number < 0), len(integers))
    release, pre = integers[:split], integers[split:]
    if not 1 <= len(release) <= 3 or any(number < 0 for number in pre[1:]) or (pre and pre[0] < -3):
        return None
    text = ".".join(str(number) for number in (*release, *[0] * (3 - len(release))))
    if pre:
        word = {value: key for key, value in _PRERELEASE.items()}[pre[0]]
        text += "-" + ".".join([word, *(str(number) for number in pre[1:])])
    return text if try_parse(text) is not None else None


class Comparison(IntEnum):
    """How a present version is compared with the one in the manifest."""

    GREATER = 1
    GREATER_EQUAL = 2
    EQUAL = 3
    LESSER_EQUAL = 4
    LESSER = 5


_SIGNS: Final = {
    Comparison.GREATER: ">",
    Comparison.GREATER_EQUAL: ">=",
    Comparison.EQUAL: "=",
    Comparison.LESSER_EQUAL: "<=",
    Comparison.LESSER: "<",
}
_REQUIREMENT: Final = re.compile(r"\s*(>=|<=|==|=|>|<)\s*([^\s,<>=]+)\s*")


@dataclass(frozen=True, slots=True)
class VersionMatch:
    """SUIT_Parameter_Version_Match. `wrapped`: in a byte string of its own, as most write it."""

    comparison: Comparison
    integers: tuple[int, ...]
    wrapped: bool = True

    @classmethod
    def parse(cls, value: object, field: str) -> VersionMatch:
        """From the decoded parameter: the array, or a byte string with it."""
        wrapped = isinstance(value, bytes)
        items = cbor.as_list(cbor.decode(value, field=field) if isinstance(value, bytes) else value, field)
        if len(items) != 2:
            raise Malformed(f"{field} must hold a comparison and a version", field=field)
        comparison = Comparison(cbor.as_int(items[0], field, low=1, high=5))
        return cls(comparison, parse_integers(items[1], field), wrapped)

    def to_cbor(self) -> list[object] | bytes:
        """Return the value for the encoder, in the form in which it was read."""
        value: list[object] = [int(self.comparison), list(self.integers)]
        return cbor.encode(value) if self.wrapped else value

    def holds(self, present: tuple[int, ...]) -> bool:
        """Compare number by number until they differ or the manifest's are used up."""
        # what the present version does not say is 0, so that 1.2 and 1.2.0 are the same
        padded = (*present, *[0] * len(self.integers))[: len(self.integers)]
        match self.comparison:
            case Comparison.GREATER:
                return padded > self.integers
            case Comparison.GREATER_EQUAL:
                return padded >= self.integers
            case Comparison.EQUAL:
                return padded == self.integers
            case Comparison.LESSER_EQUAL:
                return padded <= self.integers
            case Comparison.LESSER:
                return padded < self.integers

    @property
    def text(self) -> str:
        """For people, such as `>= 1.2.0`."""
        shown = version_from_integers(self.integers) or ".".join(str(number) for number in self.integers)
        return f"{_SIGNS[self.comparison]} {shown}"


def parse_integers(value: object, field: str) -> tuple[int, ...]:
    """From a decoded array of integers."""
    integers = cbor.as_list(value, field)
    if not 1 <= len(integers) <= MAX_PARTS:
        raise Malformed(f"{field} is no version", field=field)
    return tuple(cbor.as_int(item, field, low=-3, high=2**63) for item in integers)


def requirements(text: str, field: str = "requires") -> tuple[VersionMatch, ...]:
    """From text such as `>= 1.0, < 2.0`; `InvalidInput` for anything else."""
    found: list[VersionMatch] = []
    signs = {sign: comparison for comparison, sign in _SIGNS.items()} | {"==": Comparison.EQUAL}
    for part in text.split(","):
        match = _REQUIREMENT.fullmatch(part)
        version = versions.try_parse(match[2]) if match else None
        integers = version_to_integers(version) if version else None
        if match is None or integers is None:
            raise InvalidInput(
                f"{part.strip()!r} does not require a version",
                field=field,
                hint="write such as: '>= 1.0, < 2.0'",
            )
        found.append(VersionMatch(signs[match[1]], integers))
    return tuple(found)
