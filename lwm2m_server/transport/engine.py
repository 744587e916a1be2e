"""`EngineTransport`: the engine as asyncio sees it.

The engine raises a descriptor; one drain a wake-up gives every event to whom it belongs. Actions that are
submitted in one turn of the event loop go to the engine together at its end.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from lwm2m_server._engine import Engine, EngineError, Event
from lwm2m_server.transport.api import (
    Alive,
    Cancelled,
    Download,
    Failure,
    LookUp,
    Notification,
    Peer,
    PeerGone,
    Progress,
    Request,
    Response,
    SecurityEvent,
    TransferFailed,
    TransportError,
)
from lwm2m_server.transport.codes import Code, dotted, is_success
from lwm2m_server.transport.dispatch import (
    EngineErrors,
    Handlers,
    engine_errors,
    request_error,
    transfer_error,
)
from lwm2m_server.transport.security import Security


@dataclass
class _Call:
    """What waits for the events of one handle."""

    answer: asyncio.Future[Response]
    is_push: bool = False
    on_progress: Callable[[Progress], None] | None = None
    on_notify: Callable[[Notification], None] | None = None
    on_end: Callable[[str], None] | None = None


@dataclass
class _Batch:
    """What one drain brought for the handlers."""

    requests: list[Request] = field(default_factory=list)
    alive: list[tuple[str, float]] = field(default_factory=list)
    security: list[SecurityEvent] = field(default_factory=list)


class EngineTransport:
    """A `Transport` over the network; the settings are those of `Engine`.

    Raises `TransportError` when a setting cannot be used; the message names it.
    """

    def __init__(
        self,
        *,
        ack_timeout: float = 2.0,
        ack_random_factor: float = 1.5,
        max_retransmit: int = 4,
        nstart: int = 1,
        processing_delay: float = 0.5,
        transfer_timeout: float = 300.0,
        max_body: int = 1 << 20,
        max_assemblies: int = 1024,
        max_peers: int = 1 << 20,
        max_queued: int = 64,
        max_events: int = 8192,
        max_actions: int = 65536,
        busy_max_age: int = 5,
        progress_bytes: int = 65536,
        block_size: int = 1024,
        max_half_open: int = 4096,
        max_half_open_per_prefix: int = 16,
        key_operations_per_second: int = 2000,
        key_operations_per_second_per_prefix: int = 200,
        seed: int | None = None,
    ) -> None:
        with engine_errors:
            self._engine = Engine(
                ack_timeout=ack_timeout,
                ack_random_factor=ack_random_factor,
                max_retransmit=max_retransmit,
                nstart=nstart,
                processing_delay=processing_delay,
                transfer_timeout=transfer_timeout,
                max_body=max_body,
                max_assemblies=max_assemblies,
                max_peers=max_peers,
                max_queued=max_queued,
                max_events=max_events,
                max_actions=max_actions,
                busy_max_age=busy_max_age,
                progress_bytes=progress_bytes,
                block_size=block_size,
                max_half_open=max_half_open,
                max_half_open_per_prefix=max_half_open_per_prefix,
                key_operations_per_second=key_operations_per_second,
                key_operations_per_second_per_prefix=key_operations_per_second_per_prefix,
                seed=seed,
            )
        self._handlers = Handlers()
        self._calls: dict[int, _Call] = {}
        self._sizes: dict[bytes, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flushing = False
        self._closed = False
        self._submission = EngineErrors(self._flush_soon)

    async def start(self) -> None:
        """Watch the engine's descriptor on the running event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._engine.fileno(), self._drain)

    async def close(self) -> None:
        """Stop the engine; what still waits fails with `PeerGone`."""
        if self._closed:
            return
        self._closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._engine.fileno())
        self._engine.close()
        self._drain_last()
        self._fail_all("the transport was closed")

    async def listen(self, host: str, port: int, *, secure: bool = False) -> str:
        """Bind a socket."""
        with engine_errors:
            return self._engine.listen(host, port, secure=secure)

    async def bind(self, host: str, port: int, *, secure: bool = False) -> str:
        """Bind a socket and leave what arrives waiting."""
        with engine_errors:
            return self._engine.bind(host, port, secure=secure)

    def serve(self) -> None:
        """Take what arrives."""
        with engine_errors:
            self._engine.serve()

    def set_handlers(
        self,
        *,
        on_requests: Callable[[list[Request]], None],
        on_alive: Callable[[list[tuple[str, float]]], None] | None = None,
        on_download: Callable[[Download], None] | None = None,
        on_cancelled: Callable[[int], None] | None = None,
        on_security: Callable[[list[SecurityEvent]], None] | None = None,
    ) -> None:
        """Name the receivers."""
        self._handlers.on_requests = on_requests
        self._handlers.on_alive = on_alive
        self._handlers.on_download = on_download
        self._handlers.on_cancelled = on_cancelled
        self._handlers.on_security = on_security

    # as client

    async def request(
        self,
        peer: Peer,
        code: int,
        path: tuple[str, ...],
        *,
        query: tuple[str, ...] = (),
        payload: bytes = b"",
        content_format: int | None = None,
        accept: int | None = None,
        etag: bytes | None = None,
        block2: tuple[int, int] | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send a request and wait for its answer."""
        with engine_errors:
            handle = self._engine.request(
                peer,
                code,
                path,
                query=query,
                payload=payload,
                content_format=content_format,
                accept=accept,
                etag=etag,
                block2=block2,
                timeout=timeout,
            )
        return await self._answer(handle, _Call(self._future()))

    async def observe(
        self,
        peer: Peer,
        path: tuple[str, ...],
        *,
        accept: int | None = None,
        on_notify: Callable[[Notification], None],
        on_end: Callable[[str], None],
    ) -> tuple[int, Response]:
        """Register an observation."""
        with engine_errors:
            handle = self._engine.request(peer, Code.GET, path, accept=accept, observe=0)
        call = _Call(self._future(), on_notify=on_notify, on_end=on_end)
        return handle, await self._answer(handle, call)

    def cancel(self, handle: int) -> None:
        """Cancel an observation actively."""
        if self._calls.pop(handle, None) is not None:
            self._submit_cancel(handle)

    async def push(
        self,
        peer: Peer,
        path: tuple[str, ...],
        digest: bytes,
        *,
        offset: int = 0,
        block_size: int = 1024,
        content_format: int = 42,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Response:
        """PUT a blob by Block1."""
        with engine_errors:
            handle = self._engine.push(
                peer, path, digest, offset=offset, block_size=block_size, content_format=content_format
            )
        call, size = _Call(self._future(), is_push=True, on_progress=on_progress), self._sizes[digest]
        try:
            return await self._answer(handle, call)
        except asyncio.CancelledError:
            await self._tell_last_progress(handle, call, size)
            raise

    async def _tell_last_progress(self, handle: int, call: _Call, size: int) -> None:
        """Wait for the end of a push that was cancelled: the engine says then how far it has come."""
        if self._closed:
            return
        call.answer = self._future()
        self._calls[handle] = call
        with suppress(TransportError):
            try:
                await call.answer
            except TransferFailed as error:
                progress = Progress(handle=handle, offset=error.offset, size=size)
                self._handlers.call(call.on_progress, progress)

    # as server

    def respond(
        self,
        exchange: int,
        code: int,
        *,
        payload: bytes = b"",
        content_format: int | None = None,
        location_path: tuple[str, ...] = (),
        etag: bytes | None = None,
        max_age: int | None = None,
        block1: tuple[int, bool, int] | None = None,
        observe: bool = False,
    ) -> None:
        """Answer a request."""
        if self._closed:
            return
        with self._submission:
            self._engine.respond(
                exchange,
                code,
                payload=payload,
                content_format=content_format,
                location_path=location_path,
                etag=etag,
                max_age=max_age,
                block1=block1,
                observe=observe,
            )

    def notify(
        self,
        exchange: int,
        code: int,
        *,
        payload: bytes = b"",
        content_format: int | None = None,
        confirmable: bool = False,
    ) -> None:
        """Send a notification."""
        if self._closed:
            return
        with self._submission:
            self._engine.notify(
                exchange, code, payload=payload, content_format=content_format, confirmable=confirmable
            )

    def stream(self, path: tuple[str, ...]) -> None:
        """Give blocks of this path one by one."""
        with self._submission:
            self._engine.stream(path)

    def add_blob(self, digest: bytes, file: str) -> int:
        """Map a file."""
        with engine_errors:
            size = self._sizes[digest] = self._engine.add_blob(digest, file)
        return size

    def remove_blob(self, digest: bytes) -> None:
        """Forget a file."""
        if self._closed:
            return
        self._sizes.pop(digest, None)
        with self._submission:
            self._engine.remove_blob(digest)

    def offer(self, path: tuple[str, ...], digest: bytes, to: Peer) -> None:
        """Open a path to a peer."""
        with self._submission:
            self._engine.offer(path, digest, to)

    def withdraw(self, path: tuple[str, ...], to: Peer) -> None:
        """Take one offer back."""
        if self._closed:
            return
        with self._submission:
            self._engine.withdraw(path, to)

    def keep(self, location: str, peer: Peer) -> None:
        """Answer bare Updates of this location from this peer."""
        with self._submission:
            self._engine.keep(location, peer)

    def welcome(self, registrations: Sequence[tuple[int, str, Peer]]) -> None:
        """Answer Registers, and keep the registrations."""
        if self._closed:
            return
        with self._submission:
            self._engine.welcome(registrations)

    def keep_all(self, registrations: Sequence[tuple[str, str, str | None]]) -> None:
        """Do so for many."""
        with self._submission:
            self._engine.keep_all(registrations)

    def drop(self, location: str) -> None:
        """Stop doing so."""
        if self._closed:
            return
        with self._submission:
            self._engine.drop(location)

    def forget(self, peer: Peer) -> None:
        """End all that is under way with a peer that is no longer there."""
        if self._closed:
            return
        with self._submission:
            self._engine.forget(peer)

    # security

    def secure(self, security: Security) -> None:
        """Set credentials and trust."""
        with engine_errors:
            self._engine.secure(**vars(security))

    def provide_psks(self, answers: Sequence[tuple[int, Sequence[bytes]]]) -> None:
        """Give the keys of identities."""
        if self._closed:
            return
        with self._submission:
            self._engine.provide_psks(answers)

    def provide_verdict(self, handshake: int, *, accepted: bool) -> None:
        """Take a peer, or don't."""
        if self._closed:
            return
        with self._submission:
            self._engine.provide_verdict(handshake, accepted)

    def forget_key(self, identity: str) -> None:
        """Ask again next time."""
        if self._closed:
            return
        with self._submission:
            self._engine.forget_key(identity)

    def revoke(self, identity: str) -> None:
        """End all that this identity has."""
        if self._closed:
            return
        with self._submission:
            self._engine.revoke(identity)

    def restore(self, sessions: Sequence[tuple[int, int, bytes]]) -> dict[str, int]:
        """Go on with stored sessions."""
        with engine_errors:
            return self._engine.restore(sessions)

    def confirm_sessions(self, marks: Sequence[tuple[int, int]]) -> None:
        """Say that exports are durable."""
        if self._closed:
            return
        with self._submission:
            self._engine.confirm_sessions(marks)

    def statistics(self) -> dict[str, int]:
        """Return the engine's counters and queue depths."""
        return self._engine.statistics()

    # inside

    def _future(self) -> asyncio.Future[Response]:
        return asyncio.get_running_loop().create_future()

    async def _answer(self, handle: int, call: _Call) -> Response:
        """Wait for the end of a call; one that nobody waits for any more is cancelled."""
        self._calls[handle] = call
        self._flush_soon()
        try:
            return await call.answer
        except asyncio.CancelledError:
            if self._calls.pop(handle, None) is not None:
                self._submit_cancel(handle)
            raise

    def _submit_cancel(self, handle: int) -> None:
        if not self._closed:
            self._engine.cancel(handle)
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._engine.flush()

    def _drain(self) -> None:
        try:
            events = self._engine.drain()
        except EngineError as error:
            # The engine's thread has ended: nothing will ever come again.
            asyncio.get_running_loop().remove_reader(self._engine.fileno())
            self._fail_all(str(error))
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the engine has stopped", "exception": error}
            )
            return
        batch = _Batch()
        for event in events:
            # Most of what comes is of two classes: a chain of tests would cost as much as the rest of the drain.
            if isinstance(event, Request):
                batch.requests.append(event)
            elif isinstance(event, SecurityEvent):
                batch.security.append(event)
            else:
                self._dispatch(event, batch)
        if batch.security:
            self._security(batch.security)
        if batch.alive:
            self._handlers.call(self._handlers.on_alive, batch.alive)
        if batch.requests:
            self._handlers.requests(batch.requests, self._respond_bare)

    def _drain_last(self) -> None:
        """Report the liveness and the sessions that the engine had not reported yet; the rest has lost its meaning."""
        with suppress(EngineError):  # raised when nothing is left
            while True:
                security: list[SecurityEvent] = []
                for event in self._engine.drain():
                    if isinstance(event, Alive):
                        self._handlers.call(self._handlers.on_alive, event.updates)
                    elif isinstance(event, SecurityEvent):
                        security.append(event)
                if security:
                    self._handlers.call(self._handlers.on_security, security)

    def _dispatch(self, event: Event, batch: _Batch) -> None:
        match event:
            case Alive():
                batch.alive.extend(event.updates)
            case Response():
                self._answered(event)
            case Failure():
                self._failed(event)
            case Notification():
                self._notified(event)
            case Progress():
                call = self._calls.get(event.handle)
                if call is not None:
                    self._handlers.call(call.on_progress, event)
            case Download():
                self._handlers.call(self._handlers.on_download, event)
            case Cancelled():
                self._handlers.call(self._handlers.on_cancelled, event.exchange)

    def _security(self, events: list[SecurityEvent]) -> None:
        """Deliver a batch; without a receiver, and when it breaks, nobody is known."""
        if self._handlers.on_security is None or not self._handlers.call(self._handlers.on_security, events):
            for event in events:
                if isinstance(event, LookUp) and event.identity.startswith("psk:"):
                    self.provide_psks([(event.handshake, ())])
                elif isinstance(event, LookUp):
                    self.provide_verdict(event.handshake, accepted=False)

    def _answered(self, response: Response) -> None:
        call = self._calls.get(response.handle)
        if call is None:
            return
        if call.on_notify is None or response.observe is None:
            del self._calls[response.handle]
        if not call.answer.done():
            call.answer.set_result(response)

    def _notified(self, notification: Notification) -> None:
        call = self._calls.get(notification.handle)
        if call is None:
            return
        self._handlers.call(call.on_notify, notification)
        if not is_success(notification.code) and self._calls.pop(notification.handle, None) is not None:
            self._handlers.call(call.on_end, dotted(notification.code))

    def _failed(self, failure: Failure) -> None:
        call = self._calls.pop(failure.handle, None)
        if call is None:
            return
        if not call.answer.done():
            call.answer.set_exception(transfer_error(failure) if call.is_push else request_error(failure))
        else:
            self._handlers.call(call.on_end, failure.reason)

    def _fail_all(self, reason: str) -> None:
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.answer.done():
                call.answer.set_exception(PeerGone(reason))
            else:
                self._handlers.call(call.on_end, "peer-gone")

    def _respond_bare(self, exchange: int, code: int) -> None:
        self.respond(exchange, code)
