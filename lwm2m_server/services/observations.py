"""Observations for operators: kept in the store, made again after each registration, turned into events.

A device forgets its observations when it restarts; the wish to observe outlives that (and restarts of the server).
"""

import asyncio

import structlog

from lwm2m_server.clock import Clock
from lwm2m_server.devices.records import Observation
from lwm2m_server.errors import InvalidInput, Lwm2mError
from lwm2m_server.lwm2m import operations as ops
from lwm2m_server.lwm2m.formats import decode
from lwm2m_server.lwm2m.model import Model
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import to_json
from lwm2m_server.services.background import Background, Pump, Timers, report
from lwm2m_server.services.exchange import Exchange, Target, negotiation_of
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import JsonValue, NewEvent
from lwm2m_server.transport import Code, Notification, Request, Response, Transport, is_success

_log = structlog.get_logger(__name__)

OWNER = "operator"
_CHUNK = 64  # devices whose observations are made anew at the same time
_RETRY_AFTER = 5  # Max-Age of 5.03, seconds
_MAX_WAITING = 10_000  # events of values not stored yet; beyond it the newest are dropped and counted


class Observations:
    """What operators observe, and what devices tell by themselves (Notify and Send)."""

    def __init__(
        self, store: Store, transport: Transport, exchange: Exchange, clock: Clock, timers: Timers
    ) -> None:
        self._store = store
        self._transport = transport
        self._exchange = exchange
        self._clock = clock
        self._handles: dict[tuple[str, Path], int] = {}
        self._waiting: list[tuple[NewEvent, int | None]] = []  # with the exchange that waits for its answer
        self._pump = Pump("notifications", self._flush, timers=timers)
        self._background = Background("observations")
        self.dropped = 0

    def start(self) -> None:
        """Begin to make the observations of all registered devices anew: the engine has forgotten them."""
        self._background.spawn(self._resume())

    async def close(self) -> None:
        """Stop storing values; those that wait are stored."""
        await self._background.close()
        await self._pump.close()
        try:
            await self._flush()
        except Lwm2mError as error:
            _log.error("notifications lost", count=len(self._waiting), error=error.message)

    async def of(self, endpoint: str) -> list[Observation]:
        """Return the operators' observations of a device."""
        return [wish for wish in await self._store.observations.of(endpoint) if wish.owner == OWNER]

    async def begin(self, endpoint: str, path: Path) -> tuple[ops.Operation, Response, Target]:
        """Observe a path and keep the wish. Raises what the device or the way to it says; then nothing is kept."""
        async with self._exchange.turn(endpoint):
            target = await self._exchange.target(endpoint)
            operation, response = await self._observe(target, path)
            ops.expect(operation, response.code, response.payload)
        if (endpoint, path) not in self._handles:
            raise InvalidInput(
                f"The device answered, but does not observe {path}.",
                code="not-observable",
                field="path",
                hint="Read it instead.",
            )
        wish = Observation(
            endpoint=endpoint,
            path=str(path),
            owner=OWNER,
            created_at=self._clock.now(),
            accept=operation.accept,
        )
        await self._store.observations.add(wish)
        return operation, response, target

    async def end(self, endpoint: str, path: Path) -> bool:
        """Give an observation up; False when there was none."""
        handle = self._handles.pop((endpoint, path), None)
        if handle is not None:
            self._transport.cancel(handle)
        return await self._store.observations.remove(endpoint, str(path), OWNER)

    async def forget(self, endpoint: str) -> None:
        """End all observations of a device that is being deleted."""
        for known in [known for known in self._handles if known[0] == endpoint]:
            self._transport.cancel(self._handles.pop(known))

    async def restore(self, endpoint: str) -> None:
        """Make the observations of a device anew, after it has registered."""
        for wish in await self.of(endpoint):
            try:
                async with self._exchange.turn(endpoint):
                    target = await self._exchange.target(endpoint)
                    await self._observe(target, Path.parse(wish.path))
            except Lwm2mError as error:
                _log.info("observation not restored", endpoint=endpoint, path=wish.path, error=error.message)

    def sent(self, endpoint: str, request: Request) -> None:
        """Take a Send (Core TS 6.4.3): store its values as an event, and answer it when that is durable."""
        try:
            nodes = decode(request.content_format, request.payload, Path(), now=self._clock.now())
        except InvalidInput as error:
            self._transport.respond(request.exchange, Code.BAD_REQUEST, payload=error.message.encode())
            return
        values: list[JsonValue] = [
            {"path": str(node.path), "value": to_json(node.value), "time": node.time} for node in nodes
        ]
        if not self._put("device.sent", endpoint, {"values": values}, request.exchange):
            self._refuse(request.exchange)

    async def _resume(self) -> None:
        after: str | None = None
        while True:
            page = await self._store.observations.observed(after=after, limit=_CHUNK)
            # Together: a device that does not answer keeps few others waiting.
            work = (self.restore(endpoint) for endpoint in page.items)
            for error in await asyncio.gather(*work, return_exceptions=True):
                if error is not None:
                    report(error, "observations not restored")
            after = page.next
            if after is None:
                return

    async def _observe(self, target: Target, path: Path) -> tuple[ops.Operation, Response]:
        endpoint = target.device.endpoint
        accept = negotiation_of(target).accept(path, target.model)
        operation = ops.observe(path, accept=accept, root=target.root)
        old = self._handles.pop((endpoint, path), None)
        if old is not None:
            self._transport.cancel(old)
        handle, response = await self._transport.observe(
            target.peer,
            operation.path,
            accept=operation.accept,
            on_notify=lambda notification: self._notified(endpoint, path, target.model, notification),
            on_end=lambda reason: self._ended(endpoint, path, reason),
        )
        if response.observe is not None and is_success(response.code):
            self._handles[endpoint, path] = handle
        return operation, response

    def _notified(self, endpoint: str, path: Path, model: Model, notification: Notification) -> None:
        if not is_success(notification.code):
            return
        try:
            nodes = decode(notification.content_format, notification.payload, path, model)
        except InvalidInput as error:
            data: dict[str, JsonValue] = {"path": str(path), "error": error.message}
        else:
            values: list[JsonValue] = [
                {"path": str(node.path), "value": to_json(node.value)} for node in nodes
            ]
            data = {"path": str(path), "values": values}
        self._put("device.notified", endpoint, data)

    def _ended(self, endpoint: str, path: Path, reason: str) -> None:
        # The wish stays: the next registration makes the observation again.
        self._handles.pop((endpoint, path), None)
        self._put("device.observation-ended", endpoint, {"path": str(path), "reason": reason})

    def _put(self, kind: str, endpoint: str, data: dict[str, JsonValue], exchange: int | None = None) -> bool:
        if len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
            return False
        event = NewEvent(kind=kind, at=self._clock.now(), endpoint=endpoint, data=data)
        self._waiting.append((event, exchange))
        self._pump.wake()
        return True

    async def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        try:
            await self._store.events.append([event for event, _ in batch])
        except BaseException:
            # A device sends again what is not acknowledged; what was notified waits for the next round.
            self._waiting = [(event, None) for event, exchange in batch if exchange is None] + self._waiting
            for _, exchange in batch:
                if exchange is not None:
                    self._refuse(exchange)
            raise
        for _, exchange in batch:
            if exchange is not None:
                self._transport.respond(exchange, Code.CHANGED)

    def _refuse(self, exchange: int) -> None:
        self._transport.respond(exchange, Code.SERVICE_UNAVAILABLE, max_age=_RETRY_AFTER)
