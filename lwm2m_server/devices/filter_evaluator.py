"""Decides in memory whether a device matches a filter.  The store's SQL decides the same (property test)."""

from collections.abc import Mapping

from lwm2m_server import versions
from lwm2m_server.devices.attributes import AttributeType, Fact, value_of
from lwm2m_server.devices.filter_tree import NEGATED, Ago, All, And, Filter, Literal, Not, Operator, Or, Test
from lwm2m_server.devices.records import Device

_SHAPES: Mapping[AttributeType, type | tuple[type, ...]] = {
    AttributeType.TEXT: str,
    AttributeType.VERSION: str,
    AttributeType.IDENTIFIER: bytes,
    AttributeType.NUMBER: (int, float),
    AttributeType.BOOLEAN: (int, float),
    AttributeType.TIME: (int, float),
}


def matches(tree: Filter, device: Device, now: float) -> bool:
    """Return whether `device` matches; `now` (seconds since the epoch) resolves `2d ago`."""
    match tree:
        case All():
            return True
        case Test():
            return _test(tree, value_of(device, tree.attribute), now)
        case Not():
            return not matches(tree.part, device, now)
        case And():
            return all(matches(part, device, now) for part in tree.parts)
        case Or():
            return any(matches(part, device, now) for part in tree.parts)


def resolve(value: Literal, now: float) -> str | float:
    """Return a literal as it is compared: `2d ago` as the time that it means now."""
    return now - value.seconds if isinstance(value, Ago) else value


def like(text: str, pattern: str) -> bool:
    """Return whether the whole `text` fits: `*` stands for any run of characters, `?` for one."""
    at, star, mark, i = 0, -1, 0, 0
    while i < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, mark = at, i
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[i]):
            at += 1
            i += 1
        elif star >= 0:
            mark += 1
            at, i = star + 1, mark
        else:
            return False
    return all(character == "*" for character in pattern[at:])


def _test(test: Test, value: Fact, now: float) -> bool:
    if test.operator is Operator.EXISTS:
        return value is not None
    if not isinstance(value, _SHAPES[test.type]):  # no value, or one of a type that the name had before
        return False
    operator = NEGATED.get(test.operator)
    if operator is not None:
        return not _compare(operator, test, value, now)
    return _compare(test.operator, test, value, now)


def _compare(operator: Operator, test: Test, value: Fact, now: float) -> bool:
    text = value.hex() if isinstance(value, bytes) else value
    if operator is Operator.LIKE:
        return like(str(text), str(test.values[0]))
    if operator is Operator.STARTS_WITH:
        return str(text).startswith(str(test.values[0]))
    if test.type is AttributeType.VERSION:
        return any(_compare_version(operator, str(text), str(literal)) for literal in test.values)
    return any(_ordered(operator, text, resolve(literal, now)) for literal in test.values)


def _compare_version(operator: Operator, value: str, literal: str) -> bool:
    right = versions.try_sort_key(literal)
    if right is None:  # only `=` and its kin take such a literal: the parser sees to it
        return value == literal
    left = versions.try_sort_key(value)
    return left is not None and _ordered(operator, left, right)


def _ordered(operator: Operator, left: Fact, right: str | float) -> bool:
    match operator:
        case Operator.LESS:
            return left < right  # type: ignore[operator]
        case Operator.LESS_EQUAL:
            return left <= right  # type: ignore[operator]
        case Operator.GREATER:
            return left > right  # type: ignore[operator]
        case Operator.GREATER_EQUAL:
            return left >= right  # type: ignore[operator]
        case _:
            return left == right
