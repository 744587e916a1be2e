"""Stop rules: when does a campaign stop by itself. They fail closed: what can't be evaluated stops it.

A rule is a text such as `failures > 5`, `failures > 10 % after 20` or both joined by `or`. A percentage is
taken of the devices that came to an outcome (succeeded or failed); `after` is the least number of outcomes
for it to count. `never` is a rule too: it has to be said.
"""

import math
import re
from dataclasses import dataclass

from lwm2m_server.campaigns.statistics import Totals
from lwm2m_server.errors import InvalidInput

_CLAUSE = re.compile(r"failures\s*>\s*(\d+(?:\.\d+)?)\s*(%)?(?:\s*after\s+(\d+))?", re.IGNORECASE)
_MAX_TEXT = 200
_HINT = "Write e.g. 'failures > 5', 'failures > 10 % after 20', both joined by 'or', or 'never'."


@dataclass(frozen=True, slots=True)
class Clause:
    """Stop when failures exceed `bound` (a count, or a percentage of outcomes when `percent`)."""

    bound: float
    percent: bool
    after: int

    def met(self, totals: Totals) -> bool:
        """Return whether these totals exceed the bound."""
        outcomes = totals.succeeded + totals.failed
        if outcomes < self.after:
            return False
        if self.percent:
            return totals.failed * 100 > self.bound * outcomes
        return totals.failed > self.bound

    def __str__(self) -> str:
        unit = " %" if self.percent else ""
        after = f" after {self.after}" if self.after else ""
        return f"failures > {self.bound:g}{unit}{after}"


@dataclass(frozen=True, slots=True)
class StopRule:
    """Clauses of which one is enough; none means never."""

    clauses: tuple[Clause, ...]

    def met(self, totals: Totals) -> Clause | None:
        """Return the first clause that these totals meet."""
        return next((clause for clause in self.clauses if clause.met(totals)), None)


def parse_stop(text: str) -> StopRule:
    """Parse a rule; raise `InvalidInput` (field `stop`) for anything that is not one."""
    stripped = text.strip()
    if stripped.lower() == "never":
        return StopRule(())
    if not stripped or len(text) > _MAX_TEXT:
        raise InvalidInput("The stop rule is empty or too long.", field="stop", hint=_HINT)
    return StopRule(
        tuple(_clause(part.strip()) for part in re.split(r"\bor\b", stripped, flags=re.IGNORECASE))
    )


def _clause(part: str) -> Clause:
    match = _CLAUSE.fullmatch(part)
    if match is None:
        raise InvalidInput(f"'{part}' is not a stop rule.", field="stop", hint=_HINT)
    bound, percent, after = float(match[1]), match[2] is not None, int(match[3] or 0)
    if not math.isfinite(bound) or (percent and bound >= 100):
        raise InvalidInput(f"'{part}' can never be met.", field="stop", hint="A percentage is below 100.")
    if not percent and not bound.is_integer():
        raise InvalidInput(f"'{part}': a number of devices is whole.", field="stop", hint=_HINT)
    return Clause(bound, percent, after)
