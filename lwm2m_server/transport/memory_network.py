"""A network in memory with loss, delay, duplication and broken links, in virtual time.

It fakes exchanges, not CoAP: a lost exchange is one whose retransmissions were all lost. Nothing here sleeps.
Without delay everything happens in the next turns of the event loop and a lost exchange fails at once; with
delay, and for every time-out, a test moves the time by `advance`.
"""

import asyncio
import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from lwm2m_server.clock import ManualClock
from lwm2m_server.transport.api import TransportError

if TYPE_CHECKING:
    from lwm2m_server.transport.memory import MemoryTransport

EXCHANGE_LIFETIME = 93.0  # MAX_TRANSMIT_WAIT, seconds (RFC 7252 4.8.2)
_TURNS = 8  # of the event loop after each event, so that coroutines woken by it run


class Timer:
    """A callback that waits for its virtual time."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback."""
        self._callback = None

    def fire(self) -> None:
        """Run the callback once."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class MemoryNetwork:
    """Connects `MemoryTransport`s by address.

    `loss` is the probability that an exchange ends without an answer, half of the time after the request has
    arrived. `duplicate` is the probability that a request arrives a second time as a new exchange, as from a
    device that gave up on the answer. `delay` is the time of one way in seconds. All chance comes from
    `seed`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        delay: float = 0.0,
        clock: ManualClock | None = None,
    ) -> None:
        self.loss = loss
        self.duplicate = duplicate
        self.delay = delay
        self.clock = clock or ManualClock()
        self._random = random.Random(seed)  # noqa: S311  a simulation that must repeat
        self._order = count()
        self._timers: list[tuple[float, int, Timer]] = []
        self._transports: dict[str, MemoryTransport] = {}
        self._cut: set[str] = set()
        self._free_port = count(49152)

    async def advance(self, seconds: float) -> None:
        """Move the time forward, letting everything that falls due happen in its order."""
        end = self.clock.now() + seconds
        await self.settle()
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self.clock.advance(max(0.0, due - self.clock.now()))
            timer.fire()
            await self.settle()
        self.clock.advance(max(0.0, end - self.clock.now()))

    async def settle(self) -> None:
        """Let the event loop run what is due now."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def cut(self, host: str) -> None:
        """Break every link of this host: its exchanges get lost until `mend`."""
        self._cut.add(host)

    def mend(self, host: str) -> None:
        """Repair the links of this host."""
        self._cut.discard(host)

    def bind(self, transport: "MemoryTransport", host: str, port: int) -> str:
        """Take an address for a transport; port 0 takes a free one."""
        bracketed = f"[{host}]" if ":" in host else host
        address = f"{bracketed}:{port or next(self._free_port)}"
        if address in self._transports:
            raise TransportError(f"{address} is in use", field="port", hint="choose another port")
        self._transports[address] = transport
        return address

    def unbind(self, transport: "MemoryTransport") -> None:
        """Give all addresses of a transport back."""
        self._transports = {key: value for key, value in self._transports.items() if value is not transport}

    def find(self, address: str) -> "MemoryTransport | None":
        """Return who listens at this address."""
        return self._transports.get(address)

    def reachable(self, *hosts: str) -> bool:
        """Say whether none of these hosts is cut off."""
        return self._cut.isdisjoint(hosts)

    def number(self) -> int:
        """Return a number that nobody else has."""
        return next(self._order)

    def chance(self, probability: float) -> bool:
        """Throw the dice; a probability of 0 leaves the sequence of chances as it is."""
        return probability > 0 and self._random.random() < probability

    def send(self, callback: Callable[[], None]) -> None:
        """Run the callback at the other end of a way."""
        if self.delay > 0:
            self.later(self.delay, callback)
        else:
            asyncio.get_running_loop().call_soon(callback)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run the callback when the virtual time has moved on by so much."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (self.clock.now() + seconds, next(self._order), timer))
        return timer

    def silence(self, callback: Callable[[], None]) -> None:
        """Run the callback when a sender whose messages are lost gives up."""
        if self.delay > 0:
            self.later(EXCHANGE_LIFETIME, callback)
        else:
            asyncio.get_running_loop().call_soon(callback)
