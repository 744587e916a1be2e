"""A user's JSON for a path, as the REST API and the CLI take it, turned into leaves and checked."""

from collections.abc import Mapping

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m.model import Model
from lwm2m_server.lwm2m.paths import MAX_DEPTH, Path
from lwm2m_server.lwm2m.values import MAX_NODES, Node, from_json


def nodes_from_json(path: Path, value: object, model: Model | None = None) -> tuple[Node, ...]:
    """Turn a scalar, or an object of what lies below `path` (`{resource: {instance: scalar}}`), into leaves.

    Keys are ids, as numbers or text, or a resource's name where the definition is known. Types and ranges are
    checked. Raises InvalidInput whose `field` is the path at fault.
    """
    nodes: list[Node] = []
    _collect(path, value, model, nodes)
    return tuple(nodes)


def _collect(path: Path, value: object, model: Model | None, nodes: list[Node]) -> None:
    # The depth of a path bounds the recursion.
    if isinstance(value, Mapping):
        if path.depth == MAX_DEPTH:
            raise InvalidInput(f"{path} takes one value, not several", field=str(path), hint="Give a scalar")
        for key, inner in value.items():
            _collect(path.child(_id(path, key, model)), inner, model, nodes)
        return
    definition = model.resource(path) if model is not None else None
    if path.depth < 3 or (definition is not None and definition.multiple and path.depth == 3):
        raise InvalidInput(
            f"{path} takes several values",
            field=str(path),
            hint='Give an object of ids and values, such as {"0": 1}',
        )
    if len(nodes) >= MAX_NODES:
        raise InvalidInput(f"More than {MAX_NODES} values at once", field=str(path))
    nodes.append(Node(path, from_json(value, definition, path)))


def _id(path: Path, key: object, model: Model | None) -> int:
    text = str(key)
    if text.isascii() and text.isdecimal() and len(text) <= 5:
        return int(text)
    if path.depth == 2 and model is not None:
        definition = model.definition(path.ids[0])
        for resource in definition.resources.values() if definition is not None else ():
            if resource.name.casefold() == text.casefold():
                return resource.id
    raise InvalidInput(
        f"{text[:40]!r} is not an id below {path}",
        field=str(path),
        hint="Use ids, such as 1, or a resource's exact name",
    )
