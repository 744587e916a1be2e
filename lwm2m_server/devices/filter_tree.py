"""The syntax tree of the filter language. `str()` of a tree is text that parses to an equal tree."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from lwm2m_server.devices.attributes import AttributeType


class Operator(StrEnum):
    """What a test does; the text is how it is written."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    IN = "in"
    NOT_IN = "not in"
    LIKE = "like"
    NOT_LIKE = "not like"
    STARTS_WITH = "starts with"
    NOT_STARTS_WITH = "not starts with"
    EXISTS = "exists"


ORDERING = frozenset({Operator.LESS, Operator.LESS_EQUAL, Operator.GREATER, Operator.GREATER_EQUAL})
LISTS = frozenset({Operator.IN, Operator.NOT_IN})
NEGATED = {
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.NOT_IN: Operator.IN,
    Operator.NOT_LIKE: Operator.LIKE,
    Operator.NOT_STARTS_WITH: Operator.STARTS_WITH,
}
"""Operators that are true when the other one is false and there is a value."""

_UNITS = (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Ago:
    """A time relative to the moment at which the filter is used, `seconds` before it."""

    seconds: int

    def __str__(self) -> str:
        unit, size = next((unit, size) for unit, size in _UNITS if self.seconds % size == 0)
        return f"{self.seconds // size}{unit} ago"


Literal = str | int | float | bool | Ago
"""Text, version and identifier (lower hex) as str; a time as float (seconds since the epoch) or `Ago`."""


@dataclass(frozen=True, slots=True)
class Test:
    """One test of one attribute; `values` are none for `exists`, many for the lists, one otherwise."""

    attribute: str
    type: AttributeType
    operator: Operator
    values: tuple[Literal, ...] = ()

    __test__ = False  # pytest takes the name for its own

    def __str__(self) -> str:
        if self.operator is Operator.EXISTS:
            return f"exists {self.attribute}"
        values = [_write(value, self.type) for value in self.values]
        right = f"({', '.join(values)})" if self.operator in LISTS else values[0]
        return f"{self.attribute} {self.operator} {right}"


@dataclass(frozen=True, slots=True)
class All:
    """Every device."""

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True, slots=True)
class Not:
    """The devices that `part` doesn't match."""

    part: "Filter"

    def __str__(self) -> str:
        return f"not {_group(self.part)}"


@dataclass(frozen=True, slots=True)
class And:
    """The devices that all of two or more parts match."""

    parts: tuple["Filter", ...]

    def __str__(self) -> str:
        return " and ".join(_group(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """The devices that at least one of two or more parts matches."""

    parts: tuple["Filter", ...]

    def __str__(self) -> str:
        return " or ".join(_group(part) for part in self.parts)


Filter = All | And | Or | Not | Test


def names(tree: Filter) -> frozenset[str]:
    """Return the attributes that a filter looks at."""
    match tree:
        case All():
            return frozenset()
        case Test():
            return frozenset({tree.attribute})
        case Not():
            return names(tree.part)
        case And() | Or():
            return frozenset().union(*(names(part) for part in tree.parts))


def _group(part: Filter) -> str:
    return f"({part})" if isinstance(part, And | Or) else str(part)


def _write(value: Literal, type_: AttributeType) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case float() if type_ is AttributeType.TIME:
            return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
        case _:
            return str(value)
