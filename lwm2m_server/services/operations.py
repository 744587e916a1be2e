"""Device management operations for operators: read, write, execute, discover, create, delete, observe."""

from collections.abc import Mapping
from dataclasses import dataclass

from lwm2m_server.clock import Clock
from lwm2m_server.devices.records import Observation
from lwm2m_server.errors import InvalidInput, NotFound
from lwm2m_server.lwm2m import operations as ops
from lwm2m_server.lwm2m.attributes import Attributes
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.lwm2m.model import Model
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.userjson import nodes_from_json
from lwm2m_server.lwm2m.values import Node, Value
from lwm2m_server.services.exchange import Exchange, Target, negotiation_of
from lwm2m_server.services.observations import Observations
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import JsonValue, NewEvent
from lwm2m_server.transport import Response

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class PathValue:
    """One value under a path. `name` is the resource's name in its object definition, None when unknown."""

    path: str
    value: Value
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The answer to a Read or Observe, in the order of paths, and the bytes it came as."""

    path: str
    values: tuple[PathValue, ...]
    content_format: int | None
    raw: bytes


@dataclass(frozen=True, slots=True)
class DiscoveredLink:
    """One link of a Discover with its attributes (`dim`, `ver`, `pmin`, ...); None for a bare one."""

    path: str
    attributes: Mapping[str, str | None]


class OperationService:
    """Operations on one device, by endpoint and path (a text such as `/3/0/3`).

    All raise `NotFound` for an unknown device, `Unavailable` for one that isn't registered, sleeps, is busy or
    doesn't answer, `DeviceError` (code such as `4.05`) for what the device refuses, `InvalidInput` for the rest.
    """

    def __init__(self, store: Store, exchange: Exchange, observations: Observations, clock: Clock) -> None:
        self._store = store
        self._exchange = exchange
        self._observations = observations
        self._clock = clock

    async def read(self, endpoint: str, path: str, *, timeout: float | None = None) -> ReadResult:
        """Read an object, instance, resource or resource instance; `timeout` in seconds."""
        where = Path.parse(path)
        async with self._exchange.turn(endpoint):
            target = await self._exchange.target(endpoint)
            operation, response = await self._exchange.read(target, where, timeout=timeout)
        return _result(operation, response, target.model)

    async def write(
        self, endpoint: str, path: str, value: Json, *, partial: bool = False, actor: str
    ) -> None:
        """Write a resource (a scalar, or {instance: scalar}) or an instance ({resource: value}).

        `partial` keeps the resources that are not named (POST); else the instance is replaced (PUT). Opaque
        values are hex digits, object links `3:0`.
        """
        where = Path.parse(path)
        async with self._exchange.turn(endpoint):
            target = await self._exchange.target(endpoint)
            nodes = nodes_from_json(where, value, target.model)
            operation, response = await self._exchange.write(
                target, where, nodes, replace_all=not partial, checked=True
            )
        ops.expect(operation, response.code, response.payload)
        await self._note("device.written", endpoint, where, actor)

    async def execute(self, endpoint: str, path: str, arguments: str = "", *, actor: str) -> None:
        """Execute a resource with arguments such as `0='text',1`."""
        where = Path.parse(path)
        async with self._exchange.turn(endpoint):
            target = await self._exchange.target(endpoint)
            operation = ops.execute(where, arguments, root=target.root)
            await self._send(target, operation)
        await self._note("device.executed", endpoint, where, actor)

    async def discover(self, endpoint: str, path: str) -> tuple[DiscoveredLink, ...]:
        """Discover an object, instance or resource."""
        where = Path.parse(path)
        async with self._exchange.turn(endpoint):
            target = await self._exchange.target(endpoint)
            operation = ops.discover(where, root=target.root)
            response = await self._exchange.send(target, operation)
        found = ops.discovered_of(operation, response.code, response.payload, target.root)
        return tuple(DiscoveredLink(str(link.path), dict(link.attributes)) for link in found)

    async def create(
        self,
        endpoint: str,
        path: str,
        value: Mapping[str, Json],
        *,
        instance: int | None = None,
        actor: str,
    ) -> str:
        """Create an instance of the object at `path` from {resource: value}; return the path of the instance.

        Without `instance` (and with an object's path) the device picks the id.
        """
        where = Path.parse(path)
        if instance is not None:
            where = _instance_of(where, instance)
        async with self._exchange.turn(endpoint):
            target = await self._exchange.target(endpoint)
            nodes = nodes_from_json(where if where.depth == 2 else where.child(0), value, target.model)
            operation = _creation(target, where, nodes)
            response = await self._send(target, operation)
        created = _created(where, response, target.root)
        await self._note("device.created", endpoint, created, actor)
        return str(created)

    async def delete(self, endpoint: str, path: str, *, actor: str) -> None:
        """Delete an instance (or a resource instance, from LwM2M 1.2 on)."""
        where = Path.parse(path)
        async with self._exchange.turn(endpoint):
            target = await self._exchange.target(endpoint)
            await self._send(target, ops.delete(where, root=target.root))
        await self._note("device.deleted-instance", endpoint, where, actor)

    async def write_attributes(
        self, endpoint: str, path: str, attributes: Mapping[str, float | None], *, actor: str
    ) -> None:
        """Set `pmin`, `pmax`, `gt`, `lt`, `st`, ... on a path; None unsets."""
        where = Path.parse(path)
        checked = Attributes.from_mapping(dict(attributes))
        async with self._exchange.turn(endpoint):
            target = await self._exchange.target(endpoint)
            operation = ops.write_attributes(where, checked, root=target.root)
            await self._send(target, operation)
        await self._note("device.attributes-written", endpoint, where, actor)

    async def observe(self, endpoint: str, path: str, *, actor: str) -> ReadResult:
        """Observe a path; it is kept, and made again after each registration, until it is cancelled.

        Values that come later are events of the kind `device.notified`.
        """
        where = Path.parse(path)
        operation, response, target = await self._observations.begin(endpoint, where)
        await self._note("device.observed", endpoint, where, actor)
        return _result(operation, response, target.model)

    async def cancel(self, endpoint: str, path: str, *, actor: str) -> None:
        """End an observation. Raises `NotFound` when there is none."""
        where = Path.parse(path)
        if not await self._observations.end(endpoint, where):
            raise NotFound(
                f"{where} of device '{endpoint}' is not observed.",
                field="path",
                hint="List what is: lwm2m observe --list.",
            )
        await self._note("device.observation-cancelled", endpoint, where, actor)

    async def observations(self, endpoint: str) -> tuple[Observation, ...]:
        """Return what is observed on a device for operators."""
        return tuple(await self._observations.of(endpoint))

    async def _send(self, target: Target, operation: ops.Operation) -> Response:
        """Hold the operation against the object's definition, send it, and refuse an error code."""
        ops.check(operation, target.model)
        response = await self._exchange.send(target, operation)
        ops.expect(operation, response.code, response.payload)
        return response

    async def _note(self, kind: str, endpoint: str, path: Path, actor: str) -> None:
        """Write what an operator did to a device into its history."""
        data: dict[str, JsonValue] = {"path": str(path), "by": actor}
        event = NewEvent(kind=kind, at=self._clock.now(), endpoint=endpoint, data=data)
        await self._store.events.append([event])


def _instance_of(path: Path, instance: int) -> Path:
    if path.depth != 1:
        raise InvalidInput(
            f"{path} is not an object, so it can't have an instance {instance}.",
            field="path",
            hint=f"Create /{path.object}, with the instance apart." if path.ids else "Name an object: /9.",
        )
    return path.child(instance)


def _creation(target: Target, path: Path, nodes: tuple[Node, ...]) -> ops.Operation:
    # Only TLV can leave the id or the resources out (Core TS 6.3.6).
    free = path.depth == 1 or not nodes
    chosen = ContentFormat.TLV if free else negotiation_of(target).write_format(path, target.model)
    return ops.create(path, nodes, chosen, model=target.model, root=target.root)


def _created(path: Path, response: Response, root: tuple[str, ...]) -> Path:
    """Return the instance that the answer's Location names, else the one that was wanted."""
    location = response.location_path
    if location[: len(root)] == root and len(location) > len(root):
        try:
            return Path.parse("/" + "/".join(location[len(root) :]))
        except InvalidInput:
            return path
    return path


def _result(operation: ops.Operation, response: Response, model: Model) -> ReadResult:
    nodes = ops.nodes_of(operation, response.code, response.content_format, response.payload, model)
    values = []
    for node in sorted(nodes, key=lambda node: node.path):
        definition = model.resource(node.path)
        values.append(PathValue(str(node.path), node.value, definition.name if definition else None))
    return ReadResult(str(operation.target), tuple(values), response.content_format, response.payload)
