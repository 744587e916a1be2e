"""A network in memory that does something to one message, chosen by its number, and to no other."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from lwm2m_server.transport.memory import MemoryNetwork

_LOSS, _DUPLICATE = 1e-9, 2e-9  # tell the two questions apart; the answers come from the fault


class Kind(StrEnum):
    """What happens to the message."""

    REQUEST_LOST = "request-lost"
    ANSWER_LOST = "answer-lost"
    DUPLICATED = "duplicated"
    DELAYED = "delayed"


@dataclass(frozen=True)
class Fault:
    """`number` counts exchanges (for `delayed`: ways of one message) from 0; `seconds` of a delay."""

    kind: Kind
    number: int
    seconds: float = 40.0


class FaultyNetwork(MemoryNetwork):
    """Counts what passes; without a fault it only counts."""

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__(loss=_LOSS, duplicate=_DUPLICATE, delay=0.02)
        self._fault = fault
        self._losing = False
        self.exchanges = 0
        self.ways = 0

    def chance(self, probability: float) -> bool:
        """Lose, or double, the one exchange that the fault is for."""
        if probability == _LOSS:
            self.exchanges += 1
            self._losing = self._is_due((Kind.REQUEST_LOST, Kind.ANSWER_LOST), self.exchanges - 1)
            return self._losing
        if probability == _DUPLICATE:
            return self._is_due((Kind.DUPLICATED,), self.exchanges - 1)
        # The network asks whether the lost exchange's request has arrived.
        return self._losing and self._fault is not None and self._fault.kind is Kind.ANSWER_LOST

    def send(self, callback: Callable[[], None]) -> None:
        """Keep back the one message that the fault is for."""
        self.ways += 1
        if self._fault is not None and self._is_due((Kind.DELAYED,), self.ways - 1):
            self.later(self._fault.seconds, callback)
        else:
            super().send(callback)

    def _is_due(self, kinds: tuple[Kind, ...], number: int) -> bool:
        return self._fault is not None and self._fault.kind in kinds and self._fault.number == number
