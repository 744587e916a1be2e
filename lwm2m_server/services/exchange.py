"""Requests to one device: where it is now, one at a time, in a content format that it can do.

Everything that talks to devices goes through here: operators' operations, inventory, and updates.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from lwm2m_server.clock import Clock
from lwm2m_server.devices.records import Device, Registration
from lwm2m_server.errors import NotFound, Unavailable
from lwm2m_server.lwm2m import operations as ops
from lwm2m_server.lwm2m.links import ObjectList, parse_object_list
from lwm2m_server.lwm2m.model import Model, ObjectRegistry
from lwm2m_server.lwm2m.negotiation import Negotiation
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import Node
from lwm2m_server.services.addresses import peer_of
from lwm2m_server.services.background import Timers
from lwm2m_server.store.ports import DeviceStore
from lwm2m_server.transport import Peer, RequestTimeout, Response, Transport, is_success

AWAKE = 93.0  # seconds that a device in queue mode stays reachable (RFC 7252 4.8.2, MAX_TRANSMIT_WAIT)
PATIENCE = 60.0  # seconds that a request waits for its turn
_TRIES = 8  # content formats


@dataclass(frozen=True, slots=True)
class Target:
    """A registered device, ready to be asked."""

    device: Device
    registration: Registration
    peer: Peer
    objects: ObjectList
    model: Model

    @property
    def root(self) -> tuple[str, ...]:
        """The path under which the device keeps its objects."""
        return self.objects.root


@dataclass(slots=True)
class _Turn:
    """Who talks to a device, and who waits; `push` says that a package is being pushed."""

    push: bool = False
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Exchange:
    """Requests by endpoint name."""

    def __init__(
        self,
        devices: DeviceStore,
        transport: Transport,
        clock: Clock,
        timers: Timers,
        registry: ObjectRegistry,
        *,
        heard: Callable[[str], float],
    ) -> None:
        """`heard` gives the time of a registration's last sign of life where it is not stored yet, else 0."""
        self._devices = devices
        self._transport = transport
        self._clock = clock
        self._timers = timers
        self._registry = registry
        self._heard = heard
        self._turns: dict[str, _Turn] = {}

    async def target(self, endpoint: str) -> Target:
        """Find the device. Raises `NotFound`, and `Unavailable` when it is not registered or asleep."""
        device = await self._devices.get(endpoint)
        if device is None:
            raise NotFound(f"There is no device '{endpoint}'.", field="endpoint")
        registration = device.registration
        if registration is None or not device.registered:
            raise Unavailable(
                f"Device '{endpoint}' is not registered.",
                code="not-registered",
                field="endpoint",
                hint="Repeat it when the device has registered again.",
            )
        if registration.queue_mode:
            heard = max(registration.last_seen, self._heard(registration.registration_id))
            if self._clock.now() - heard > AWAKE:
                raise _asleep(endpoint)
        objects = parse_object_list(registration.links.encode())
        model = self._registry.for_device(objects, registration.lwm2m_version)
        return Target(device, registration, peer_of(registration), objects, model)

    @asynccontextmanager
    async def turn(self, endpoint: str, *, push: bool = False) -> AsyncIterator[None]:
        """Talk to the device alone. Raises `Unavailable` (code `busy`) during a push or after `PATIENCE`.

        While a package is pushed nothing else may be sent: many clients answer 5.03 or lose the transfer.
        """
        turn = self._turns.get(endpoint)
        if turn is None:
            turn = self._turns[endpoint] = _Turn()
        else:
            await self._wait(endpoint, turn)
        turn.push = push
        try:
            yield
        finally:
            turn.push = False
            self._pass_on(endpoint, turn)

    async def send(
        self, target: Target, operation: ops.Operation, *, timeout: float | None = None
    ) -> Response:
        """Send one request (in one's turn) and return the answer, an error code too."""
        try:
            return await self._transport.request(
                target.peer,
                operation.code,
                operation.path,
                query=operation.query,
                payload=operation.payload,
                content_format=operation.content_format,
                accept=operation.accept,
                timeout=timeout,
            )
        except RequestTimeout as error:
            if target.registration.queue_mode:
                raise _asleep(target.device.endpoint) from error
            raise

    async def read(
        self,
        target: Target,
        path: Path,
        *,
        timeout: float | None = None,
    ) -> tuple[ops.Operation, Response]:
        """Read, in the first content format that the device takes; the last answer may be an error code."""
        return await self._negotiate(
            target,
            lambda known: known.accept(path, target.model),
            lambda chosen: ops.read(path, accept=chosen, root=target.root),
            timeout,
        )

    async def write(
        self, target: Target, path: Path, nodes: tuple[Node, ...], *, replace_all: bool = True, checked: bool
    ) -> tuple[ops.Operation, Response]:
        """Write, in the first content format that the device takes; `checked` holds it against the definition."""

        def build(chosen: int | None) -> ops.Operation:
            content_format = known_format if chosen is None else chosen
            operation = ops.write(
                path, nodes, content_format, replace=replace_all, model=target.model, root=target.root
            )
            if checked:
                ops.check(operation, target.model)
            return operation

        known_format = negotiation_of(target).write_format(path, target.model)
        return await self._negotiate(
            target, lambda known: known.write_format(path, target.model), build, None
        )

    async def learn(self, target: Target, name: str, *, value: bool) -> None:
        """Remember an ability of the device beside its content formats."""
        endpoint = target.device.endpoint
        device = await self._devices.get(endpoint)
        if device is not None:
            await self._devices.set_formats(endpoint, {**device.formats, name: value})

    async def _negotiate(
        self,
        target: Target,
        choose: Callable[[Negotiation], int | None],
        build: Callable[[int | None], ops.Operation],
        timeout: float | None,
    ) -> tuple[ops.Operation, Response]:
        before = known = negotiation_of(target)
        for _ in range(_TRIES):
            chosen = choose(known)
            operation = build(chosen)
            response = await self.send(target, operation, timeout=timeout)
            learned = known.after(chosen, response.code)
            if is_success(response.code) or learned == known or choose(learned) == chosen:
                break
            known = learned
        # Only a format that worked in the end proves that it was the format the device minded.
        if is_success(response.code) and learned != before:
            endpoint = target.device.endpoint
            await self._devices.set_formats(endpoint, _flat(learned, target.device.formats))
        return operation, response

    async def _wait(self, endpoint: str, turn: _Turn) -> None:
        if turn.push:
            raise _busy(endpoint, "it is taking a firmware package")
        future = asyncio.get_running_loop().create_future()
        turn.waiting.append(future)

        def give_up() -> None:
            if not future.done():
                future.set_exception(_busy(endpoint, "earlier requests to it are still waiting"))

        timer = self._timers.later(PATIENCE, give_up)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._pass_on(endpoint, turn)  # the turn came, but nobody is there to take it
            raise
        finally:
            timer.cancel()

    def _pass_on(self, endpoint: str, turn: _Turn) -> None:
        while turn.waiting:
            future = turn.waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        del self._turns[endpoint]


def negotiation_of(target: Target) -> Negotiation:
    """Return what is known of the device's content formats."""
    formats = target.device.formats
    known = Negotiation.initial(target.registration.lwm2m_version, target.objects.content_formats)
    worked = formats.get("worked")
    refused = tuple(int(name[3:]) for name in formats if name.startswith("no-") and name[3:].isdecimal())
    return replace(known, worked=None if worked is None else int(worked), refused=refused)


def _flat(known: Negotiation, formats: Mapping[str, int | bool]) -> dict[str, int | bool]:
    """Write a negotiation as the flat mapping that a device record holds, keeping what else is in it."""
    kept = {name: value for name, value in formats.items() if name != "worked" and not name.startswith("no-")}
    if known.worked is not None:
        kept["worked"] = known.worked
    return {**kept, **{f"no-{number}": True for number in known.refused}}


def _asleep(endpoint: str) -> Unavailable:
    return Unavailable(
        f"Device '{endpoint}' is in queue mode and asleep.",
        code="asleep",
        field="endpoint",
        hint="It can be asked for a short time after each registration update.",
    )


def _busy(endpoint: str, why: str) -> Unavailable:
    return Unavailable(
        f"Device '{endpoint}' is busy: {why}.",
        code="busy",
        field="endpoint",
        hint="Try again later.",
    )
