"""The filter language: which devices are meant.

    manufacturer = "Acme" and firmware.version < 2.1 and not region = "eu"

One syntax tree (`filter_tree`), read by `parse`, decided in memory by `matches` and in SQL by the store; a
property test holds the two equal.

A device either matches or it doesn't; there is no third value. A comparison (also `!=`, `not in`, `not like`)
is false when the device has no value for the attribute; `not (...)` turns false into true. So
`region != "eu"` means 'has a region, and it is another one', and `not region = "eu"` also takes the devices
without a region.
"""

from lwm2m_server.devices.filter_evaluator import like, matches, resolve
from lwm2m_server.devices.filter_lexer import FilterError
from lwm2m_server.devices.filter_parser import parse
from lwm2m_server.devices.filter_tree import Ago, All, And, Filter, Not, Operator, Or, Test, names

__all__ = [
    "Ago",
    "All",
    "And",
    "Filter",
    "FilterError",
    "Not",
    "Operator",
    "Or",
    "Test",
    "like",
    "matches",
    "names",
    "parse",
    "resolve",
]
