"""Notification attributes (Core TS 7.3) and the links that answer a Discover."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m.links import Link, link_path, parse_links
from lwm2m_server.lwm2m.paths import Path

# Seconds, whole numbers.
_PERIODS = ("pmin", "pmax", "epmin", "epmax")
# Thresholds of numeric resources.
_THRESHOLDS = ("gt", "lt", "st")
_NAMES = (*_PERIODS, *_THRESHOLDS, "con")
_MAX_PERIOD = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes to write, in the order given; None takes an attribute away.

    Periods `pmin`, `pmax`, `epmin`, `epmax` are whole seconds, thresholds `gt`, `lt`, `st` numbers, `con` 0
    or 1.
    """

    values: tuple[tuple[str, float | None], ...]

    @classmethod
    def from_mapping(cls, data: Mapping[str, object]) -> "Attributes":
        """Check a user's attributes one by one and together; raises InvalidInput (field = attribute)."""
        if not data:
            raise InvalidInput(
                "No attribute is given", field="attributes", hint=f"Give one of {', '.join(_NAMES)}"
            )
        attributes = cls(tuple((name, _checked(name, value)) for name, value in data.items()))
        attributes._check_together()
        return attributes

    def get(self, name: str) -> float | None:
        """Return an attribute's value; None when it isn't set here."""
        return dict(self.values).get(name)

    @property
    def has_thresholds(self) -> bool:
        """Tell whether gt, lt or st are written: only numeric resources take them."""
        return any(name in _THRESHOLDS for name, _ in self.values)

    def query(self) -> tuple[str, ...]:
        """Return the Uri-Query options of Write-Attributes; a name alone unsets (Core TS 6.3.4)."""
        return tuple(name if value is None else f"{name}={_text(value)}" for name, value in self.values)

    def _check_together(self) -> None:
        for low, high in (("pmin", "pmax"), ("epmin", "epmax")):
            least, most = self.get(low), self.get(high)
            if least is not None and most is not None and most < least:
                raise InvalidInput(
                    f"{high} {most:g} is less than {low} {least:g}", field=high, hint=f"Raise {high}"
                )
        below, above, step = self.get("lt"), self.get("gt"), self.get("st")
        if step is not None and step <= 0:
            raise InvalidInput(
                f"st {step:g} is not above 0", field="st", hint="Give the least change to be told"
            )
        if below is not None and above is not None and below + 2 * (step or 0) >= above:
            raise InvalidInput(
                f"lt {below:g} plus twice st {step or 0:g} must be less than gt {above:g}",
                field="lt",
                hint="Lower lt or st, or raise gt (Core TS 7.3.2)",
            )


@dataclass(frozen=True, slots=True)
class Discovered:
    """One link of a Discover or Bootstrap-Discover answer."""

    path: Path
    attributes: tuple[tuple[str, str | None], ...] = ()

    def get(self, name: str) -> str | None:
        """Return the text of an attribute such as `ver`, `ssid`, `uri` or `pmin`."""
        return Link("", self.attributes).get(name)

    @property
    def dimension(self) -> int | None:
        """Number of resource instances (`dim`), None when it isn't stated."""
        text = self.get("dim")
        return (
            int(text) if text is not None and len(text) <= 5 and text.isascii() and text.isdecimal() else None
        )

    @property
    def short_server_id(self) -> int | None:
        """Short server id (`ssid`) of a Security or Server instance in Bootstrap-Discover."""
        text = self.get("ssid")
        return (
            int(text) if text is not None and len(text) <= 5 and text.isascii() and text.isdecimal() else None
        )


def parse_discover(payload: bytes, root: tuple[str, ...] = ()) -> tuple[Discovered, ...]:
    """Read the answer to a Discover below the device's LwM2M root; raises InvalidInput for other content.

    An empty body is an empty answer. Levels that are only implied by deeper links (`</3/0/0>` without
    `</3/0>`) stand before them, without attributes; links that aren't LwM2M paths are left out.
    """
    found: dict[Path, tuple[tuple[str, str | None], ...]] = {}
    for link in parse_links(payload):
        path = link_path(link.target, root)
        if path is None:
            continue
        for depth in range(1, path.depth):
            found.setdefault(Path(path.ids[:depth]), ())
        found[path] = found.get(path, ()) + link.attributes
    return tuple(Discovered(path, attributes) for path, attributes in found.items())


def _checked(name: str, value: object) -> float | None:
    if name not in _NAMES:
        raise InvalidInput(
            f"{name!r} is not an attribute", field=name[:20], hint=f"Use one of {', '.join(_NAMES)}"
        )
    if value is None:
        return None
    if isinstance(value, bool) and name == "con":
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInput(f"{name} must be a number, not {value!r:.40}", field=name, hint=f"Write {name}=10")
    if name in _THRESHOLDS:
        return value
    whole = int(value)
    highest = 1 if name == "con" else _MAX_PERIOD
    if whole != value or not 0 <= whole <= highest:
        raise InvalidInput(
            f"{name} {value:g} is out of range", field=name, hint=f"Give a whole number 0..{highest}"
        )
    return whole


def _text(value: float) -> str:
    # Write-Attributes takes plain decimals, no exponents (Core TS 7.3, ABNF of the attributes).
    if isinstance(value, int) or value == int(value):
        return str(int(value))
    return format(value, ".15f").rstrip("0") if "e" in repr(value) else repr(value)
