"""Finds every state of the flash that a power cut can leave behind.

One run without a cut, recorded, gives all states that a cut in it leads to: the flash before each operation,
and that operation torn by the simulation's own rules. No run has to be repeated up to its cut.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lwm2m_device.flash import Flash, Mains, Operation, PowerCut, Tear
from powercuts.bench import Bench
from powercuts.invariants import Seen
from powercuts.life import Life

SHARES = (0.0, 0.5, 1.0)  # nothing done but damage, half done, all done: then the power is gone


@dataclass
class Cut(Mains):
    """Lets `after` operations finish and tears the next one."""

    after: int
    tear: Tear
    count: int = 0

    def spend(self, operation: Operation, offset: int, size: int) -> Tear | None:
        self.count += 1
        return self.tear if self.count == self.after + 1 else None


class Moment(NamedTuple):
    """The flash just before an operation, and what the device had shown by then."""

    contents: bytes
    operation: Operation
    offset: int
    size: int
    seen: Seen


class State(NamedTuple):
    """A flash to start from, with what was seen before."""

    contents: bytes
    seen: Seen


@dataclass
class Recorder(Mains):
    """Never cuts, but keeps each moment at which it could have."""

    life: Life
    moments: list[Moment]

    def spend(self, operation: Operation, offset: int, size: int) -> Tear | None:
        contents = self.life.bench.contents()
        self.moments.append(Moment(contents, operation, offset, size, self.life.seen))
        return None


class Explorer:
    """Runs lives from states of the flash, and knows the states that were proven already."""

    def __init__(self, bench: Bench, make: Callable[[Seen], Life], expected: str) -> None:
        self._bench = bench
        self._make = make
        self._expected = expected
        self._proven: set[tuple[bytes, Seen]] = set()
        self._descriptor = os.memfd_create("torn")
        self._torn = Path(f"/proc/self/fd/{self._descriptor}")
        self.runs = 0

    def close(self) -> None:
        os.close(self._descriptor)

    def is_new(self, state: State) -> bool:
        """Say whether no life was led from here yet; wear doesn't count."""
        return self._key(state) not in self._proven

    def prove(self, state: State) -> None:
        """Live from here without a cut to the expected end."""
        self._live(state, None)

    def live(self, state: State) -> list[Moment]:
        """Do the same and return the moments on the way."""
        moments: list[Moment] = []
        life = self._live(state, moments)
        return [*moments, Moment(self._bench.contents(), "write", 0, 0, life.seen)]

    def _live(self, state: State, moments: list[Moment] | None) -> Life:
        self._bench.restore(state.contents)
        life = self._make(state.seen)
        assert life.run(Mains() if moments is None else Recorder(life, moments)) == self._expected
        self._proven.add(self._key(state))
        self.runs += 1
        return life

    def cuts(self, moments: list[Moment], tear: Callable[[int], list[Tear]]) -> Iterator[State]:
        """Give the state after each cut; `tear` gives the tears of an operation by its number."""
        for number, (now, following) in enumerate(itertools.pairwise(moments)):
            data = following.contents[now.offset : now.offset + now.size]
            for each in tear(number):
                yield State(self._apply(now, data, each), now.seen)

    def _apply(self, moment: Moment, data: bytes, tear: Tear) -> bytes:
        self._torn.write_bytes(moment.contents)
        layout = self._bench.layout
        flash = Flash(
            self._torn,
            size=layout.size,
            page_size=layout.page_size,
            write_size=layout.write_size,
            supply=Cut(0, tear),
        )
        try:
            if moment.operation == "write":
                flash.write(moment.offset, data)
            else:
                flash.erase(moment.offset, moment.size)
        except PowerCut:
            return self._torn.read_bytes()
        finally:
            flash.close()
        raise AssertionError("the operation was not torn")

    def _key(self, state: State) -> tuple[bytes, Seen]:
        return state.contents[: self._bench.layout.size], state.seen
