"""The object tree of the device, and the operations on it (LwM2M Core TS 6.3).

Values are read when they are asked for and written through callables, so the tree holds no state of its
own but which instances there are. What can't be done is a `RequestError` with the CoAP code of the
answer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from lwm2m_server.lwm2m.model import ObjectDefinition, ResourceDefinition, ResourceType, frozen_resources
from lwm2m_server.lwm2m.paths import ROOT, Path
from lwm2m_server.lwm2m.values import Node, Value, check_range, conform

BAD_REQUEST = 128
UNAUTHORIZED = 129
NOT_FOUND = 132
METHOD_NOT_ALLOWED = 133

Reading = Value | Mapping[int, Value] | None


class RequestError(Exception):
    """A request that gets an error: the CoAP code and a diagnostic text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Resource:
    """A resource with its behaviour.

    `read` gives a value, a mapping of resource instances, or None while there is nothing. `write` and
    `execute` may raise RequestError; `write` gets a value that fits type and range.
    """

    definition: ResourceDefinition
    read: Callable[[], Reading] | None = None
    write: Callable[[Value], None] | None = None
    execute: Callable[[str], None] | None = None


@dataclass
class Instance:
    """The resources of an object instance by id."""

    resources: dict[int, Resource] = field(default_factory=dict)

    @classmethod
    def of(cls, *resources: Resource) -> Self:
        """Make an instance of its resources."""
        return cls({resource.definition.id: resource for resource in resources})


@dataclass
class ObjectNode:
    """An object: `version` as registered, `hidden` from servers, `factory` where Create is allowed."""

    id: int
    version: str
    instances: dict[int, Instance]
    hidden: bool = False
    factory: Callable[[], Instance] | None = None


class Tree:
    """The objects of one device."""

    def __init__(self, objects: Iterable[ObjectNode]) -> None:
        self.objects = {node.id: node for node in sorted(objects, key=lambda node: node.id)}

    def definition(self, object_id: int) -> ObjectDefinition | None:
        """Return what this device knows of an object; with `resource` it makes the tree the codecs' model."""
        node = self.objects.get(object_id)
        if node is None:
            return None
        known = (
            each.definition for instance in node.instances.values() for each in instance.resources.values()
        )
        urn = f"urn:oma:lwm2m:oma:{node.id}"
        return ObjectDefinition(
            node.id, node.version, "", urn, mandatory=False, multiple=True, resources=frozen_resources(known)
        )

    def resource(self, path: Path) -> ResourceDefinition | None:
        """Return the definition behind a path of this tree; any instance of the object will do."""
        node = self.objects.get(-1 if path.object is None else path.object)
        if node is None or path.resource is None:
            return None
        for instance in node.instances.values():
            if path.resource in instance.resources:
                return instance.resources[path.resource].definition
        return None

    def read(self, path: Path) -> list[Node]:
        """Return the leaves at or below a path; unreadable resources of an instance are passed over."""
        if path.depth >= 3:
            resource = self._resource(path)
            if resource.read is None:
                raise RequestError(METHOD_NOT_ALLOWED, f"{path} can't be read.")
            leaves = _leaves(Path(path.ids[:3]), resource)
            found = [leaf for leaf in leaves if path.contains(leaf.path)]
            if not found and (path.depth == 4 or not resource.definition.multiple):
                raise RequestError(NOT_FOUND, f"{path} has no value.")
            return found
        node = self._object(path)
        instances = sorted(node.instances.items()) if path.depth == 1 else [self._instance(path)]
        nodes: list[Node] = []
        for number, instance in instances:
            for resource_id, resource in sorted(instance.resources.items()):
                if resource.read is not None:
                    nodes += _leaves(Path.of(node.id, number, resource_id), resource)
        return nodes

    def write(self, path: Path, nodes: list[Node], *, replace: bool) -> None:
        """Write leaves at or below a path: all are checked before the first takes effect.

        `replace` on an instance only resets what the payload names: resources of this device that are
        not named keep their value, as they have no default to fall back to.
        """
        if path.depth < 2:
            raise RequestError(METHOD_NOT_ALLOWED, "Write goes to an instance or a resource.")
        if not nodes and not replace:
            raise RequestError(BAD_REQUEST, "The payload holds no value.")
        prepared: list[tuple[Callable[[Value], None], Value]] = []
        for node in nodes:
            if not path.contains(node.path):
                raise RequestError(BAD_REQUEST, f"{node.path} is not below {path}.")
            prepared.append(self._prepare(node))
        self._instance(path)
        for write, value in prepared:
            write(value)

    def execute(self, path: Path, arguments: str) -> None:
        """Execute a resource."""
        if path.depth != 3:
            raise RequestError(METHOD_NOT_ALLOWED, "Execute goes to a resource.")
        resource = self._resource(path)
        if resource.execute is None:
            raise RequestError(METHOD_NOT_ALLOWED, f"{path} can't be executed.")
        resource.execute(arguments)

    def create(self, object_id: int, nodes: list[Node], instance_id: int | None) -> int:
        """Make an instance with the values that came along; return its id, by default the lowest free."""
        node = self._object(Path.of(object_id))
        if node.factory is None:
            raise RequestError(METHOD_NOT_ALLOWED, f"Instances of /{object_id} can't be created.")
        number = instance_id if instance_id is not None else _lowest_free(node.instances)
        if number in node.instances:
            raise RequestError(BAD_REQUEST, f"/{object_id}/{number} exists already.")
        node.instances[number] = node.factory()
        try:
            if nodes:
                moved = [Node(Path((object_id, number, *leaf.path.ids[2:])), leaf.value) for leaf in nodes]
                self.write(Path.of(object_id, number), moved, replace=True)
        except RequestError:
            del node.instances[number]
            raise
        return number

    def delete(self, path: Path) -> None:
        """Remove an instance."""
        if path.depth != 2:
            raise RequestError(METHOD_NOT_ALLOWED, "Delete goes to an instance.")
        node = self._object(path)
        number, _ = self._instance(path)
        if node.factory is None:
            raise RequestError(METHOD_NOT_ALLOWED, f"Instances of /{node.id} can't be deleted.")
        del node.instances[number]

    def discover(self, path: Path) -> list[Path]:
        """Return the paths that Discover lists: the path itself and what is below, down to resources."""
        if path.depth >= 3:
            resource = self._resource(path)
            dimension = (
                [leaf.path for leaf in _leaves(path, resource)] if resource.definition.multiple else []
            )
            return [path, *dimension]
        node = self._object(path)
        paths = [path]
        for number, instance in sorted(node.instances.items()) if path.depth == 1 else [self._instance(path)]:
            own = Path.of(node.id, number)
            paths += [own] if own != path else []
            paths += [own.child(resource_id) for resource_id in sorted(instance.resources)]
        return paths

    def dimension(self, path: Path) -> int | None:
        """Return the number of instances of a multiple resource (`dim`), None for everything else."""
        if path.depth != 3:
            return None
        resource = self._resource(path)
        return len(_leaves(path, resource)) if resource.definition.multiple and resource.read else None

    def _prepare(self, node: Node) -> tuple[Callable[[Value], None], Value]:
        resource = self._resource(node.path)
        if resource.write is None:
            raise RequestError(METHOD_NOT_ALLOWED, f"{node.path} can't be written.")
        try:
            value = conform(node.value, resource.definition.type)
            check_range(value, resource.definition)
        except ValueError as error:
            raise RequestError(BAD_REQUEST, f"{node.path}: {error}.") from None
        return resource.write, value

    def _object(self, path: Path) -> ObjectNode:
        if path == ROOT or path.object is None:
            raise RequestError(METHOD_NOT_ALLOWED, "The root takes no operation.")
        node = self.objects.get(path.object)
        if node is None:
            raise RequestError(NOT_FOUND, f"There is no object {path.object}.")
        if node.hidden:
            raise RequestError(UNAUTHORIZED, f"Object {path.object} is not for servers.")
        return node

    def _instance(self, path: Path) -> tuple[int, Instance]:
        node = self._object(path)
        if path.instance is None or path.instance not in node.instances:
            raise RequestError(NOT_FOUND, f"There is no instance {path}.")
        return path.instance, node.instances[path.instance]

    def _resource(self, path: Path) -> Resource:
        _, instance = self._instance(path)
        if path.resource is None or path.resource not in instance.resources:
            raise RequestError(NOT_FOUND, f"There is no resource {path}.")
        return instance.resources[path.resource]


def _leaves(path: Path, resource: Resource) -> list[Node]:
    value = None if resource.read is None else resource.read()
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [Node(path.child(number), each) for number, each in sorted(value.items())]
    return [Node(path, value)]


def _lowest_free(instances: Mapping[int, Instance]) -> int:
    return next(number for number in range(len(instances) + 1) if number not in instances)


def define(
    number: int,
    name: str,
    kind: ResourceType,
    *,
    multiple: bool = False,
    mandatory: bool = False,
    limits: str = "",
    units: str = "",
    operations: str = "R",
) -> ResourceDefinition:
    """Make a definition of a resource as short as the tables of the object definitions."""
    return ResourceDefinition(number, name, operations, multiple, mandatory, kind, limits, units)
