"""The registration interface as a client: Register, Update, De-register (LwM2M Core TS 6.2).

Registers until it is told to stop: back-off when the server is silent or busy, a new Register at once
when the server does not know the registration any more, an Update at about half of the lifetime or when
something has changed. The server's name is looked up again for every Register, so a server that has
moved is found. A server that stays silent over DTLS may have lost the association: the next Register
begins with a handshake.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lwm2m_device.objects import Account
from lwm2m_device.pace import Backoff, Pace, wait_for
from lwm2m_device.settings import Log
from lwm2m_server.transport import (
    Code,
    Peer,
    RequestTimeout,
    Response,
    Transport,
    TransportError,
    dotted,
    is_success,
)

_VERSIONS = ("1.2", "1.1", "1.0")
_LINK_FORMAT = 40
_DEREGISTER_TIMEOUT = 5.0
_EARLY = (0.40, 0.55)  # part of the lifetime after which the Update goes out, chosen anew each time


@dataclass
class Registration:
    """One registration with the server.

    `find` gives the server's peer, `objects` the link list. `registered` is called after each accepted
    Register.
    """

    transport: Transport
    endpoint: str
    account: Account
    lwm2m_version: str
    find: Callable[[], Awaitable[Peer]]
    objects: Callable[[], bytes]
    pace: Pace
    log: Log
    registered: Callable[[], None] = lambda: None
    location: tuple[str, ...] | None = None
    peer: Peer | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)  # no Register waits for its answer
    _announced: tuple[int, bytes] = (0, b"")
    _disabled_for: float | None = None

    def __post_init__(self) -> None:
        # Not for secrets: spreads the Updates of a fleet, in the same way each time for one endpoint.
        self._random = random.Random(self.endpoint)  # noqa: S311
        self._settled.set()

    def update_soon(self) -> None:
        """Send an Update now."""
        self._wake.set()

    def update_if_changed(self) -> None:
        """Send an Update now if there are other objects than the server was told of."""
        if self.location is not None and self.objects() != self._announced[1]:
            self._wake.set()

    def disable(self) -> None:
        """De-register, and register again after the Disable Timeout."""
        self._disabled_for = float(self.account.disable_timeout)
        self._wake.set()

    async def run(self) -> None:
        """Stay registered until the task is cancelled."""
        backoff = Backoff()
        while True:
            self._settled.clear()
            pause = await self._register()
            self._settled.set()
            if self.location is None:
                await self.pace.sleep(max(backoff.next(), pause))
                continue
            backoff.reset()
            await self._stay()

    async def deregister(self) -> None:
        """Say good-bye, if the server can be reached at once; a Register under way may end first."""
        await wait_for(self._settled, _DEREGISTER_TIMEOUT, self.pace)
        if self.location is None or self.peer is None:
            return
        location, self.location = self.location, None
        try:
            await self.transport.request(self.peer, Code.DELETE, location, timeout=_DEREGISTER_TIMEOUT)
        except TransportError as error:
            self.log(f"De-register was not answered: {error.message}")
        else:
            self.log("De-registered")

    async def _register(self) -> float:
        """Try once; return the least pause in seconds before the next try when it failed."""
        links = self.objects()
        lifetime = self.account.lifetime
        try:
            self.peer = await self.find()
            for version in _VERSIONS[_VERSIONS.index(self.lwm2m_version) :]:
                response = await self._send_register(self.peer, version, lifetime, links)
                if response.code != Code.PRECONDITION_FAILED:
                    break
                self.log(f"The server does not speak LwM2M {version}")
        except TransportError as error:
            self.log(f"Register failed: {error.message}")
            self._forget(error)
            return 0.0
        if response.code != Code.CREATED or not response.location_path:
            said = response.payload.decode("utf-8", "replace")
            self.log(f"Register was refused: {dotted(response.code)} {said}".rstrip())
            return float(response.max_age or 0)
        self.location = response.location_path
        self._announced = (lifetime, links)
        self._wake.clear()
        self.log(f"Registered as {self.endpoint} with {self.peer.address} at /{'/'.join(self.location)}")
        self.registered()
        return 0.0

    def _forget(self, error: TransportError) -> None:
        if isinstance(error, RequestTimeout) and self.peer is not None and self.peer.scheme == "coaps":
            self.transport.forget(self.peer)

    async def _send_register(self, peer: Peer, version: str, lifetime: int, links: bytes) -> Response:
        query = (f"ep={self.endpoint}", f"lt={lifetime}", f"lwm2m={version}", f"b={self.account.binding}")
        return await self.transport.request(
            peer, Code.POST, ("rd",), query=query, payload=links, content_format=_LINK_FORMAT
        )

    async def _stay(self) -> None:
        """Send Updates until the registration is lost or given up."""
        pause: float | None = None
        while self.location is not None:
            lifetime = self.account.lifetime
            if pause is None:
                pause = lifetime * self._random.uniform(*_EARLY) if lifetime else None
            await wait_for(self._wake, pause, self.pace)
            self._wake.clear()
            if self._disabled_for is not None:
                wait, self._disabled_for = self._disabled_for, None
                await self.deregister()
                self.log(f"Disabled for {wait:.0f} s")
                await self.pace.sleep(wait)
                return
            pause = await self._update()

    async def _update(self) -> float | None:
        """Send one Update, after which the registration may be gone; return the pause asked for."""
        lifetime, links = self.account.lifetime, self.objects()
        changed_links = links != self._announced[1]
        query = (f"lt={lifetime}",) if lifetime != self._announced[0] else ()
        location, peer = self.location, self.peer
        if location is None or peer is None:
            return None
        try:
            response = await self.transport.request(
                peer,
                Code.POST,
                location,
                query=query,
                payload=links if changed_links else b"",
                content_format=_LINK_FORMAT if changed_links else None,
            )
        except TransportError as error:
            self.log(f"Update was not answered ({error.message}); registering again")
            self.location = None
            self._forget(error)
            return None
        if is_success(response.code):
            self._announced = (lifetime, links)
            return None
        if response.code == Code.SERVICE_UNAVAILABLE:
            return float(response.max_age or 5)
        self.log(f"Update was refused ({dotted(response.code)}); registering again")
        self.location = None
        return None
