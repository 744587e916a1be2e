"""A filter's tree as a condition of SQL over `devices`.  Decides the same as `devices.filter.matches`.

Every condition is true or false, never NULL: that is how `not` keeps its meaning (see `devices.filter`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, false, not_, or_, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import Boolean

from lwm2m_server import versions
from lwm2m_server.devices.attributes import AttributeType, application_of, component_of
from lwm2m_server.devices.filter import All, And, Filter, Not, Operator, Or, Test, resolve
from lwm2m_server.devices.filter_tree import NEGATED
from lwm2m_server.store.schema import (
    LAST_SEEN,
    device_applications,
    device_attributes,
    device_components,
    devices,
)


class Glob(GenericFunction[bool]):
    """`glob(text, pattern)`: whether the text fits a pattern of `*` and `?`, letter case counting."""

    type = Boolean()
    inherit_cache = True
    name = "glob_match"


@compiles(Glob)
def _glob(element: Glob, compiler: SQLCompiler, **options: Any) -> str:
    text, pattern = element.clauses
    return f"({compiler.process(text, **options)} GLOB {compiler.process(pattern, **options)})"


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where an attribute's value is: as it stands, and its sort key if it is text."""

    value: ColumnElement[Any]
    key: ColumnElement[Any]


_d = devices.c
_BUILT_IN: Mapping[str, _Columns] = {
    name: _Columns(value, value if key is None else key)
    for name, value, key in (
        ("endpoint", _d.endpoint, None),
        ("created", _d.created_at, None),
        ("registered", _d.registered, None),
        ("registered_at", _d.registered_at, None),
        ("last_seen", LAST_SEEN.element, None),
        ("address", _d.address, None),
        ("lwm2m", _d.lwm2m_version, _d.lwm2m_key),
        ("lifetime", _d.lifetime, None),
        ("binding", _d.binding, None),
        ("queue", _d.queue_mode, None),
        ("manufacturer", _d.manufacturer, None),
        ("model", _d.model, None),
        ("serial", _d.serial, None),
        ("hardware.version", _d.hardware_version, _d.hardware_key),
        ("firmware.version", _d.firmware_version, _d.firmware_key),
        ("firmware.digest", _d.running_digest, None),
        ("firmware.sequence", _d.sequence, None),
        ("vendor", _d.vendor_id, None),
        ("class", _d.class_id, None),
        ("manifests", _d.understands_manifests, None),
    )
}
_ORDER: Mapping[Operator, Callable[[Any, Any], ColumnElement[bool]]] = {
    Operator.LESS: lambda left, right: left < right,
    Operator.LESS_EQUAL: lambda left, right: left <= right,
    Operator.GREATER: lambda left, right: left > right,
    Operator.GREATER_EQUAL: lambda left, right: left >= right,
}


def condition(tree: Filter, now: float) -> ColumnElement[bool]:
    """Return the condition; `now` (seconds since the epoch) resolves `2d ago`."""
    match tree:
        case All():
            return true()
        case Not():
            return not_(condition(tree.part, now))
        case And():
            return and_(*(condition(part, now) for part in tree.parts))
        case Or():
            return or_(*(condition(part, now) for part in tree.parts))
        case Test():
            return _test(tree, now)


def _test(test: Test, now: float) -> ColumnElement[bool]:
    columns = _BUILT_IN.get(test.attribute)
    if columns is not None:
        return _compare(test, columns, now)
    if component := component_of(test.attribute):
        return _component(test, *component, now)
    if application := application_of(test.attribute):
        return _application(test, *application, now)
    own = device_attributes.c
    value = own.number if test.type in (AttributeType.NUMBER, AttributeType.BOOLEAN) else own.text
    rows = exists().where(own.endpoint == _d.endpoint, own.name == test.attribute)
    if test.operator is Operator.EXISTS:
        return rows
    return rows.where(_compare(test, _Columns(value, own.sort_key), now))


def _component(test: Test, name: str, value: str, now: float) -> ColumnElement[bool]:
    own = device_components.c
    columns = (
        _Columns(own.version, own.version_key) if value == "version" else _Columns(own.digest, own.digest)
    )
    rows = exists().where(own.endpoint == _d.endpoint, own.name == name)
    return rows.where(_compare(test, columns, now))


def _application(test: Test, name: str, value: str, now: float) -> ColumnElement[bool]:
    own = device_applications.c
    columns = (
        _Columns(own.version, own.version_key) if value == "version" else _Columns(own.active, own.active)
    )
    rows = exists().where(own.endpoint == _d.endpoint, own.name == name)
    return rows.where(_compare(test, columns, now))


def _compare(test: Test, columns: _Columns, now: float) -> ColumnElement[bool]:
    present = columns.value.is_not(None)
    if test.operator is Operator.EXISTS:
        return present
    operator = NEGATED.get(test.operator)
    if operator is not None:
        return and_(present, not_(_positive(operator, test, columns, now)))
    return and_(present, _positive(test.operator, test, columns, now))


def _positive(operator: Operator, test: Test, columns: _Columns, now: float) -> ColumnElement[bool]:
    """Return a condition that is NULL at most where the value is."""
    if operator is Operator.LIKE:
        return Glob(columns.value, str(test.values[0]).replace("[", "[[]"))
    if operator is Operator.STARTS_WITH:
        return Glob(columns.value, _literal_glob(str(test.values[0])) + "*")
    if test.type is AttributeType.VERSION:
        return _version(operator, [str(value) for value in test.values], columns)
    values = [_bound(resolve(value, now), test) for value in test.values]
    if operator in _ORDER:
        return _ORDER[operator](columns.value, values[0])
    return columns.value.in_(values)


def _version(operator: Operator, texts: Sequence[str], columns: _Columns) -> ColumnElement[bool]:
    keys = [(text, versions.try_sort_key(text)) for text in texts]
    known = columns.key.is_not(None)
    if operator in _ORDER:
        return and_(known, _ORDER[operator](columns.key, keys[0][1]))
    parts: list[ColumnElement[bool]] = []
    if same := [key for _, key in keys if key is not None]:
        parts.append(and_(known, columns.key.in_(same)))
    if verbatim := [text for text, key in keys if key is None]:
        parts.append(columns.value.in_(verbatim))
    return or_(false(), *parts)


def _bound(value: str | float, test: Test) -> object:
    if test.type is AttributeType.IDENTIFIER:
        return bytes.fromhex(str(value))
    if test.type is AttributeType.BOOLEAN and test.attribute not in _BUILT_IN:
        return float(value)
    return value


def _literal_glob(text: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)
