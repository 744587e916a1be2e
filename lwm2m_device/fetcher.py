"""Fetches a package by pull: an envelope as a whole, an image block by block into the slot (RFC 7959).

The device asks for one block at a time and stores it before it asks for the next, so what is stored is
what the next start goes on from. Losses and a server that is away cost patience, not the download.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from lwm2m_device.machine import Result
from lwm2m_device.pace import Backoff, Pace
from lwm2m_device.settings import Log
from lwm2m_device.uri import CoapUri
from lwm2m_server.firmware.refusals import RefusalCode
from lwm2m_server.transport import (
    Code,
    Peer,
    Response,
    Transport,
    TransportError,
    dotted,
    is_success,
)

_BUSY = (Code.SERVICE_UNAVAILABLE, Code.TOO_MANY_REQUESTS)
_MIN_BLOCK = 16


class FetchFailed(Exception):
    """The package can't be had; `result` is the Update Result that tells it best."""

    def __init__(self, result: Result, text: str) -> None:
        super().__init__(text)
        self.result = result
        self.text = text
        self.code = RefusalCode.FETCH_FAILED


class Expected(Protocol):
    """What is known of the bytes that come."""

    @property
    def size(self) -> int:
        """How many there are, 0 while unknown."""
        ...


class Target(Protocol):
    """Where the bytes go; `Updater` is the image's, `Application` that of an application."""

    @property
    def offset(self) -> int:
        """The next byte that is wanted."""
        ...

    @property
    def state(self) -> Expected:
        """What is known of what comes."""
        ...

    @property
    def package_limit(self) -> int:
        """The largest body in bytes that comes in one piece."""
        ...

    def expect(self, etag: bytes, size: int = 0) -> None:
        """Take note of what comes next; a changed tag starts over."""
        ...

    def store(self, data: bytes) -> None:
        """Store the next bytes."""
        ...


@dataclass
class Fetcher:
    """One download. `find` turns a host into a peer; `stored` is called after each block."""

    transport: Transport
    updater: Target
    pace: Pace
    find: Callable[[CoapUri], Awaitable[Peer]]
    log: Log
    block_size: int = 1024
    patience: float = 900.0
    stored: Callable[[], None] = lambda: None

    async def envelope(self, source: CoapUri) -> bytes:
        """Return the body behind the URI; raises FetchFailed."""
        response = await self._patiently(source, None)
        if len(response.payload) > self.updater.package_limit:
            raise FetchFailed(
                Result.NO_MEMORY,
                f"The package has {len(response.payload)} bytes, a manifest {self.updater.package_limit}.",
            )
        return response.payload

    async def image(self, source: CoapUri) -> None:
        """Store all bytes that are still missing; raises FetchFailed, and Refusal as `Updater.store`."""
        size = self.block_size
        more = True
        # Where the size is unknown only the last block tells the end: after a restart ask for it again.
        back = 1 if self.updater.offset and not self.updater.state.size else 0
        while more:
            number = (self.updater.offset - back) // size
            if self.updater.state.size and self.updater.offset >= self.updater.state.size:
                return
            response = await self._patiently(source, (number, size))
            start, more, size = _place(response, size)
            before = self.updater.offset
            self.updater.expect(response.etag or b"", response.size2 or 0)
            if self.updater.offset < before:
                self.log("The server has other bytes now (changed ETag): the download starts over.")
                if start:
                    back, more = 0, True
                    continue
            skip = self.updater.offset - start
            if not 0 <= skip <= len(response.payload) or (
                skip == len(response.payload) and more and not back
            ):
                raise FetchFailed(
                    Result.CONNECTION_LOST, f"The server sent byte {start} when asked for {before}."
                )
            back = 0
            self.updater.store(response.payload[skip:])
            self.stored()

    async def ask(self, code: Code, source: CoapUri) -> Response:
        """Send one small request to the same server; raises TransportError."""
        peer = await self.find(source)
        return await self.transport.request(peer, code, source.path, query=source.query)

    async def _patiently(self, source: CoapUri, block2: tuple[int, int] | None) -> Response:
        """Ask until there is an answer that means something; silence and 5.xx are worth another try."""
        backoff = Backoff()
        give_up = self.pace.now() + self.patience
        while True:
            try:
                peer = await self.find(source)
                response = await self.transport.request(
                    peer, Code.GET, source.path, query=source.query, block2=block2
                )
            except TransportError as error:
                trouble, pause = error.message, backoff.next()
            else:
                if is_success(response.code):
                    return response
                trouble = f"the server answered {dotted(response.code)}"
                if response.code == Code.NOT_FOUND:
                    raise FetchFailed(Result.INVALID_URI, f"{trouble}: there is nothing under the URI.")
                if response.code >> 5 == 4 and response.code not in _BUSY:
                    raise FetchFailed(Result.CONNECTION_LOST, f"{trouble}.")
                pause = max(backoff.next(), float(response.max_age or 0))
            if self.pace.now() + pause > give_up:
                raise FetchFailed(
                    Result.CONNECTION_LOST, f"No progress for {self.patience:.0f} seconds: {trouble}."
                )
            self.log(f"Download waits {pause:.0f} s: {trouble}")
            await self.pace.sleep(pause)


def _place(response: Response, size: int) -> tuple[int, bool, int]:
    """Return where the bytes of an answer begin, whether more follow, and the size to ask for from now on."""
    if response.block2 is None:
        return 0, False, size
    got, more, got_size = response.block2
    if not _MIN_BLOCK <= got_size <= size:
        raise FetchFailed(Result.CONNECTION_LOST, f"The server answered with blocks of {got_size} bytes.")
    return got * got_size, more, got_size
