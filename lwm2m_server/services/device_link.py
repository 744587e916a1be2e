"""What the update machine wants of one device, as requests; the answers become the machine's events.

Nothing here raises for a device's fault: no answer and an error code are answers too.
"""

from collections.abc import Callable
from dataclasses import fields

from lwm2m_server.devices.records import ComponentFacts
from lwm2m_server.errors import InvalidInput, Lwm2mError
from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.update_job import Shown
from lwm2m_server.lwm2m import operations as ops
from lwm2m_server.lwm2m.formats import ContentFormat, decode
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import Node, Value
from lwm2m_server.services.components import (
    ADVANCED_UPDATE,
    CAPACITIES,
    CONFLICTING,
    DIGESTS,
    LINKED,
    NAME,
    VERSION,
    Values,
    components_of,
    links_of,
)
from lwm2m_server.services.exchange import Exchange, Target
from lwm2m_server.transport import (
    Notification,
    Progress,
    RequestTimeout,
    Response,
    TransferFailed,
    Transport,
    is_success,
)

Post = Callable[[ev.PushProgress | ev.Notified], None]
_PACKAGE, _URI, _UPDATE, _STATE, _RESULT, _PACKAGE_VERSION, _PROTOCOLS, _DELIVERY = 0, 1, 2, 3, 5, 7, 8, 9
_SEVERITY, _MAX_DEFER = 11, 13
_VERSION = Path.of(3, 0, 3)
_AGENT = Path.of(SUIT_AGENT, 0)
_RUNNING_DIGEST, _REFUSAL_CODE, _REFUSAL_TEXT, _DEFERRED_UNTIL = (
    _AGENT.child(number) for number in (3, 4, 5, 6)
)
COMPONENTS = (DIGESTS, CAPACITIES)
"""Resources of the SUIT Update Agent that tell of components."""
_RESET_PACKAGE = b"\0"
_LAST_TIME = 253_402_300_799  # the end of the year 9999: beyond it a time can't be written

INSTANCES = "instances"  # what was learned: False for a device that never answers the Read of an instance


class InstanceLink:
    """One instance of one device's object in an update. `close` ends the observations that were made."""

    def __init__(
        self,
        exchange: Exchange,
        transport: Transport,
        endpoint: str,
        instance: Path,
        *,
        block_size: int = 1024,
    ) -> None:
        """`instance` is what is read, written and observed, such as `/5/0` or `/33629/1`."""
        self._exchange = exchange
        self._transport = transport
        self._endpoint = endpoint
        self._instance = instance
        self._block_size = block_size
        self._handles: list[int] = []

    def close(self) -> None:
        """Cancel the observations."""
        handles, self._handles = self._handles, []
        for handle in handles:
            self._transport.cancel(handle)

    async def observe(self, resources: tuple[int, ...], changed: Callable[[int, int], None]) -> None:
        """Observe integer resources; `changed` gets number and value. Failing is no matter: machines poll as well."""
        # Those of an earlier registration are gone on the device; here they must not pile up.
        self.close()
        for number in resources:
            path = self._instance.child(number)
            try:
                async with self._exchange.turn(self._endpoint):
                    target = await self._exchange.target(self._endpoint)
                    handle, response = await self._transport.observe(
                        target.peer,
                        target.root + path.segments,
                        on_notify=_notifier(path, target, changed),
                        on_end=lambda _: None,
                    )
            except Lwm2mError:
                return
            if response.observe is not None:
                self._handles.append(handle)

    async def write(
        self, number: int, resource: int, value: Value, *, instance: Path | None = None
    ) -> ev.Answered:
        """Write one resource, of this instance unless another one is named; the answer carries `number`."""
        node = Node((instance or self._instance).child(resource), value)
        try:
            async with self._exchange.turn(self._endpoint):
                target = await self._exchange.target(self._endpoint)
                _, response = await self._exchange.write(target, node.path, (node,), checked=False)
        except Lwm2mError:
            return ev.Answered(number, None)
        return ev.Answered(number, response.code, seconds_of(response.max_age))

    async def execute(self, number: int, resource: int, arguments: str = "") -> ev.Answered:
        """Execute a resource, without arguments where that will do: some devices refuse any."""
        path = self._instance.child(resource)
        try:
            async with self._exchange.turn(self._endpoint):
                target = await self._exchange.target(self._endpoint)
                response = await self._exchange.send(target, ops.execute(path, arguments, root=target.root))
        except Lwm2mError:
            return ev.Answered(number, None)
        return ev.Answered(number, response.code, seconds_of(response.max_age))

    async def push_blob(
        self, number: int, resource: int, digest: bytes, offset: int, post: Post
    ) -> ev.PushEnded:
        """Push a blob into a resource, from `offset` bytes on; nothing else is sent meanwhile."""
        reached = offset

        def progressed(progress: Progress) -> None:
            nonlocal reached
            reached = progress.offset
            post(ev.PushProgress(number, progress.offset))

        try:
            async with self._exchange.turn(self._endpoint, push=True):
                target = await self._exchange.target(self._endpoint)
                response = await self._transport.push(
                    target.peer,
                    target.root + self._instance.child(resource).segments,
                    digest,
                    offset=offset,
                    block_size=self._block_size,
                    content_format=ContentFormat.OPAQUE,
                    on_progress=progressed,
                )
        except TransferFailed as error:
            return ev.PushEnded(number, None, error.offset)
        except Lwm2mError:
            return ev.PushEnded(number, None, reached)
        return ev.PushEnded(number, response.code, reached, seconds_of(response.max_age))


class DeviceLink(InstanceLink):
    """An instance of object 5 or 33629: their resources have the same numbers."""

    async def observe_update(self, post: Post) -> None:
        """Observe State and Result."""

        def changed(resource: int, value: int) -> None:
            post(ev.Notified(state=value) if resource == _STATE else ev.Notified(result=value))

        await self.observe((_STATE, _RESULT), changed)

    async def read_status(self, number: int, *, settings: bool = False, components: bool = False) -> ev.Event:
        """Read State, Result, versions and what else tells how an update stands.

        With `settings` resources 11 and 13 too, with `components` those of all instances of object 33629.
        """
        own = self._instance
        resources = (3, 5, 7, 8, 9, *((11, 13) if settings else ()), *((CONFLICTING,) if components else ()))
        shown: tuple[Shown, ...] | None = None
        try:
            async with self._exchange.turn(self._endpoint):
                target = await self._exchange.target(self._endpoint)
                values = await read_values(self._exchange, target, own, resources, needed=(3, 5))
                values |= await read_values(self._exchange, target, _VERSION.parent, (3,))
                if target.objects.get(SUIT_AGENT) is not None:
                    values |= await read_values(self._exchange, target, _AGENT, (3, 4, 5, 6, *COMPONENTS))
                if components:
                    found = await read_components(self._exchange, target, values)
                    shown = tuple(
                        Shown(**{item.name: getattr(each, item.name) for item in fields(each)})
                        for each in found
                    )
        except Refused as refused:
            return ev.Answered(number, refused.response.code, seconds_of(refused.response.max_age))
        except Lwm2mError:
            return ev.Answered(number, None)
        state, result = integer_of(values.get(own.child(_STATE))), integer_of(values.get(own.child(_RESULT)))
        if state is None or result is None:
            return ev.Answered(number, None)
        protocols = {
            value
            for path, value in values.items()
            if own.child(_PROTOCOLS).contains(path) and isinstance(value, int) and not isinstance(value, bool)
        }
        digest = values.get(_RUNNING_DIGEST)
        until = integer_of(values.get(_DEFERRED_UNTIL)) or 0
        return ev.StatusRead(
            number,
            state=state,
            result=result,
            version=_str(values.get(_VERSION)),
            package_version=_str(values.get(own.child(_PACKAGE_VERSION))),
            delivery=integer_of(values.get(own.child(_DELIVERY))),
            protocols=frozenset(protocols) if protocols else None,
            running_digest=digest if isinstance(digest, bytes) and digest else None,
            refusal_code=_str(values.get(_REFUSAL_CODE)) or "",
            refusal_text=_str(values.get(_REFUSAL_TEXT)) or "",
            severity=integer_of(values.get(own.child(_SEVERITY))),
            max_defer=integer_of(values.get(own.child(_MAX_DEFER))),
            deferred_until=float(until) if 0 < until <= _LAST_TIME else None,
            components=shown,
            conflicting=links_of(values, own.child(CONFLICTING)),
        )

    async def configure(self, number: int, severity: int | None, max_defer: int | None) -> ev.Event:
        """Write Severity and Maximum Defer Period, each unless None."""
        first: ev.Answered | None = None
        for resource, value in ((_SEVERITY, severity), (_MAX_DEFER, max_defer)):
            if value is None:
                continue
            answer = await self.write(number, resource, value)
            if answer.code is None:
                return answer
            if first is None or is_success(first.code or 0):
                first = answer
        return first or ev.Answered(number, None)

    async def reset(self, number: int, *, by_uri: bool, others: tuple[int, ...] = ()) -> ev.Event:
        """Write an empty URI, or a package of one NUL byte; to `others`, instances of the same object, first."""
        resource, value = (_URI, "") if by_uri else (_PACKAGE, _RESET_PACKAGE)
        for other in others:
            await self.write(number, resource, value, instance=Path.of(self._instance.ids[0], other))
        return await self.write(number, resource, value)

    async def write_uri(self, number: int, uri: str) -> ev.Event:
        """Write the Package URI."""
        return await self.write(number, _URI, uri)

    async def execute_update(self, number: int) -> ev.Event:
        """Execute Update; without arguments it is for this instance and those linked with it."""
        return await self.execute(number, _UPDATE)

    async def push(self, number: int, digest: bytes, offset: int, post: Post) -> ev.Event:
        """Push a blob into the Package, from `offset` bytes on."""
        return await self.push_blob(number, _PACKAGE, digest, offset, post)


class Refused(Lwm2mError):
    """The device answered with an error code."""

    def __init__(self, response: Response) -> None:
        super().__init__("the device refused")
        self.response = response


async def read_values(
    exchange: Exchange,
    target: Target,
    instance: Path,
    resources: tuple[int, ...],
    *,
    needed: tuple[int, ...] = (),
) -> Values:
    """Read an instance as one; where that is refused or never answered, its resources one by one.

    What can't be read is left out. Raises `Refused`, or the transport's error, when a `needed` one can't.
    """
    values: Values = {}
    silent = False
    if target.device.formats.get(INSTANCES, True):
        try:
            values = await _read(exchange, target, instance)
        except RequestTimeout:
            silent = True
        except (Refused, InvalidInput):
            values = {}
    missing = [number for number in resources if not _has(values, instance.child(number))]
    if values and all(_has(values, instance.child(number)) for number in needed):
        return values
    for number in missing:
        try:
            # A device that answers nothing at all ends here, by the transport's error.
            values |= await _read(exchange, target, instance.child(number))
        except (Refused, InvalidInput):
            if number in needed:
                raise
    if silent and values:
        await exchange.learn(target, INSTANCES, value=False)
    return values


async def read_components(exchange: Exchange, target: Target, agent: Values) -> tuple[ComponentFacts, ...]:
    """Read what the device shows of its components; `agent` is what was read of the SUIT Update Agent."""
    entry = target.objects.get(ADVANCED_UPDATE)
    if entry is None:
        return ()
    values = dict(agent)
    for instance in entry.instances:
        values |= await read_values(
            exchange, target, Path.of(ADVANCED_UPDATE, instance), (NAME, VERSION, LINKED, CONFLICTING)
        )
    return components_of(values, entry.instances)


async def _read(exchange: Exchange, target: Target, path: Path) -> Values:
    operation, response = await exchange.read(target, path)
    if not is_success(response.code):
        raise Refused(response)
    nodes = ops.nodes_of(operation, response.code, response.content_format, response.payload, target.model)
    return {node.path: node.value for node in nodes}


def _has(values: Values, path: Path) -> bool:
    return any(path.contains(known) for known in values)


def _notifier(
    path: Path, target: Target, changed: Callable[[int, int], None]
) -> Callable[[Notification], None]:
    def notified(notification: Notification) -> None:
        if not is_success(notification.code):
            return
        try:
            nodes = decode(notification.content_format, notification.payload, path, target.model)
        except InvalidInput:
            return
        value = integer_of(next((node.value for node in nodes if node.path == path), None))
        if value is not None:
            changed(path.ids[2], value)

    return notified


def integer_of(value: Value | None) -> int | None:
    """Return the number that was read, None when it is none."""
    if isinstance(value, int):
        return int(value)
    # Text without a definition, or a device that answers with the wrong type.
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():
        return int(value)
    return None


def _str(value: Value | None) -> str | None:
    return value if isinstance(value, str) else None


def seconds_of(max_age: int | None) -> float | None:
    """Return a Max-Age as the machines take it."""
    return None if max_age is None else float(max_age)
