"""Observations of the device's own resources: what to notify and when (LwM2M Core TS 5.1.2 and 6.4).

No clock and no network: `poll` gets the time and returns the notifications that are due and the next
time to look. Times are seconds on any clock that only moves forward.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lwm2m_device.tree import BAD_REQUEST, RequestError
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import Node

_PERIODS = ("pmin", "pmax", "epmin", "epmax")
_NUMERIC = ("gt", "lt", "st")


@dataclass(frozen=True)
class Attributes:
    """Notification attributes of one level; None: not set there. Periods in seconds."""

    pmin: int | None = None
    pmax: int | None = None
    gt: float | None = None
    lt: float | None = None
    st: float | None = None
    epmin: int | None = None
    epmax: int | None = None

    def over(self, lower: "Attributes") -> "Attributes":
        """Return these, completed by those of the level above."""
        own = {name: value for name in (*_PERIODS, *_NUMERIC) if (value := getattr(self, name)) is not None}
        return replace(lower, **own)

    def items(self) -> list[tuple[str, str]]:
        """Return name and text of what is set, as Discover writes them."""
        return [
            (name, f"{value:g}" if isinstance(value, float) else str(value))
            for name in (*_PERIODS, *_NUMERIC)
            if (value := getattr(self, name)) is not None
        ]


def parse_attributes(query: tuple[str, ...], present: Attributes) -> Attributes:
    """Apply the query of a Write-Attributes to the present attributes; a name without value unsets it."""
    changes: dict[str, int | float | None] = {}
    for parameter in query:
        name, separator, text = parameter.partition("=")
        if name not in (*_PERIODS, *_NUMERIC):
            raise RequestError(BAD_REQUEST, f"There is no notification attribute {name[:20]!r}.")
        changes[name] = _number(name, text) if separator and text else None
    wanted = replace(present, **changes)  # type: ignore[arg-type]
    if wanted.pmin is not None and wanted.pmax is not None and wanted.pmax < wanted.pmin:
        raise RequestError(BAD_REQUEST, "pmax is smaller than pmin.")
    if wanted.gt is not None and wanted.lt is not None and wanted.lt + 2 * (wanted.st or 0) >= wanted.gt:
        raise RequestError(BAD_REQUEST, "lt + 2 * st is not smaller than gt.")
    return wanted


@dataclass
class Observation:
    """One observation: the exchange to notify in, what was sent last, and since when it is so."""

    exchange: int
    path: Path
    accept: int | None
    sent: tuple[Node, ...]
    sent_at: float


@dataclass(frozen=True)
class Due:
    """A notification to send now: the present leaves, or the code of the error that ends the observation."""

    observation: Observation
    nodes: tuple[Node, ...]
    error: int | None = None


@dataclass
class Observations:
    """All observations and notification attributes of the device.

    `read` gives the leaves of a path, `defaults` the default periods of the server account.
    """

    read: Callable[[Path], list[Node]]
    defaults: Callable[[], Attributes] = Attributes
    attributes: dict[Path, Attributes] = field(default_factory=dict)
    _running: dict[int, Observation] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._running)

    def add(self, exchange: int, path: Path, accept: int | None, nodes: list[Node], now: float) -> None:
        """Begin an observation whose first answer carried these leaves."""
        self._running[exchange] = Observation(exchange, path, accept, tuple(nodes), now)

    def remove(self, exchange: int) -> None:
        """End an observation; unknown ones are ignored."""
        self._running.pop(exchange, None)

    def clear(self) -> None:
        """End all, as at a reboot."""
        self._running.clear()

    def effective(self, path: Path) -> Attributes:
        """Return the attributes that hold for a path: its own, then the levels above, then defaults."""
        found = self.defaults()
        for depth in range(1, path.depth + 1):
            found = self.attributes.get(Path(path.ids[:depth]), Attributes()).over(found)
        return found

    def poll(self, now: float) -> tuple[list[Due], float | None]:
        """Return the notifications that are due now, and the time of the next that is sure to come."""
        due: list[Due] = []
        deadline: float | None = None
        for observation in list(self._running.values()):
            try:
                nodes = tuple(self.read(observation.path))
            except RequestError as error:
                self.remove(observation.exchange)
                due.append(Due(observation, (), error.code))
                continue
            at = notify_at(self.effective(observation.path), observation, nodes)
            if at is not None and at <= now:
                observation.sent, observation.sent_at = nodes, now
                due.append(Due(observation, nodes))
                at = notify_at(self.effective(observation.path), observation, nodes)
            if at is not None:
                deadline = at if deadline is None else min(deadline, at)
        return due, deadline


def notify_at(attributes: Attributes, observation: Observation, nodes: tuple[Node, ...]) -> float | None:
    """Return when to notify: after pmin if the change matters, else at pmax; None: not before a change."""
    pmax = attributes.pmax if attributes.pmax and attributes.pmax >= (attributes.pmin or 0) else None
    latest = observation.sent_at + pmax if pmax else None
    if nodes != observation.sent and _matters(attributes, observation.sent, nodes):
        return observation.sent_at + (attributes.pmin or 0)
    return latest


def _matters(attributes: Attributes, before: tuple[Node, ...], after: tuple[Node, ...]) -> bool:
    """Apply gt, lt and st, which only concern a single number; every other change matters."""
    if attributes.gt is None and attributes.lt is None and attributes.st is None:
        return True
    if len(before) != 1 or len(after) != 1:
        return True
    old, new = before[0].value, after[0].value
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return True
    crossed = any(
        limit is not None and (old > limit) != (new > limit) for limit in (attributes.gt, attributes.lt)
    )
    return crossed or (attributes.st is not None and abs(new - old) >= attributes.st)


def _number(name: str, text: str) -> int | float:
    try:
        if name in _NUMERIC:
            number = float(text)
            if number not in (float("inf"), float("-inf")) and number == number:  # noqa: PLR0124  not NaN
                return number
        elif text.isascii() and text.isdecimal() and len(text) <= 10:
            return int(text)
    except ValueError:
        pass
    raise RequestError(BAD_REQUEST, f"{name}={text[:20]!r} is not a number.")
