"""From a CoAP request of the server to the operation it means, and back (LwM2M Transport TS 6.4)."""

from dataclasses import dataclass

from lwm2m_device.observe import Attributes, Observations, parse_attributes
from lwm2m_device.tree import BAD_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, RequestError, Tree
from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m.formats import SINGLE_VALUE, ContentFormat, decode, encode
from lwm2m_server.lwm2m.links import Link, format_links
from lwm2m_server.lwm2m.model import ResourceType
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import CodecError, Node
from lwm2m_server.transport import Code, Request

_FORMATS_1_0 = frozenset({ContentFormat.TEXT, ContentFormat.OPAQUE, ContentFormat.TLV})
_FORMATS_1_1 = _FORMATS_1_0 | {ContentFormat.CBOR, ContentFormat.SENML_JSON, ContentFormat.SENML_CBOR}

_TLV_KIND = 0xC0  # the bits of an entry's first byte that are zero for an object instance


@dataclass(frozen=True)
class Answer:
    """What goes back. `observe` accepts the observation that the request asked for."""

    code: int
    payload: bytes = b""
    content_format: int | None = None
    location_path: tuple[str, ...] = ()
    observe: bool = False


class Dispatcher:
    """Answers the requests of the server out of the tree. `now` is the time for observations."""

    def __init__(self, tree: Tree, observations: Observations, *, lwm2m_version: str) -> None:
        self.tree = tree
        self.observations = observations
        self._formats = _FORMATS_1_0 if lwm2m_version == "1.0" else _FORMATS_1_1

    @property
    def formats(self) -> tuple[int, ...]:
        """The content formats that this device speaks, for the root link of the registration."""
        return tuple(sorted(int(each) for each in self._formats))

    def answer(self, request: Request, now: float) -> Answer:
        """Do what the request says and return its answer; errors are answers too."""
        try:
            path = _path(request.path)
            match request.code:
                case Code.GET if request.accept == ContentFormat.LINK_FORMAT:
                    return self._discover(path)
                case Code.GET:
                    return self._read(request, path, now)
                case Code.PUT:
                    return self._put(request, path)
                case Code.POST:
                    return self._post(request, path)
                case Code.DELETE:
                    self.tree.delete(path)
                    return Answer(Code.DELETED)
                case _:
                    return _refusal(METHOD_NOT_ALLOWED, "Composite operations are not supported.")
        except RequestError as error:
            return _refusal(error.code, error.text)

    def represent(self, path: Path, nodes: list[Node], accept: int | None) -> tuple[int, bytes]:
        """Encode leaves in the format asked for, or the natural one; raises RequestError (4.06)."""
        chosen = self._choose(path, nodes, accept)
        try:
            return chosen, encode(chosen, path, nodes, self.tree)
        except CodecError as error:
            raise RequestError(Code.NOT_ACCEPTABLE, error.message) from None

    def _choose(self, path: Path, nodes: list[Node], accept: int | None) -> int:
        if accept is not None:
            if accept not in self._formats:
                raise RequestError(Code.NOT_ACCEPTABLE, f"Content format {accept} is not supported.")
            return accept
        if path.depth >= 3 and len(nodes) == 1 and nodes[0].path == path:
            opaque = isinstance(nodes[0].value, bytes)
            return ContentFormat.OPAQUE if opaque else ContentFormat.TEXT
        return ContentFormat.TLV

    def _read(self, request: Request, path: Path, now: float) -> Answer:
        if path.depth == 0:
            raise RequestError(METHOD_NOT_ALLOWED, "Read the objects one by one.")
        nodes = self.tree.read(path)
        content_format, payload = self.represent(path, nodes, request.accept)
        if request.observe == 0:
            self.observations.add(request.exchange, path, request.accept, nodes, now)
        return Answer(Code.CONTENT, payload, content_format, observe=request.observe == 0)

    def _discover(self, path: Path) -> Answer:
        if path.depth == 0:
            links = [Link("/", (("rt", "oma.lwm2m"),))]
            links += [Link(str(Path.of(node.id))) for node in self.tree.objects.values() if not node.hidden]
            return Answer(Code.CONTENT, format_links(links), ContentFormat.LINK_FORMAT)
        links = []
        for found in self.tree.discover(path):
            attributes: list[tuple[str, str | None]] = []
            if found.depth == 1:
                attributes.append(("ver", self.tree.objects[found.ids[0]].version))
            dimension = self.tree.dimension(found)
            if dimension is not None:
                attributes.append(("dim", str(dimension)))
            attributes += self.observations.attributes.get(found, Attributes()).items()
            links.append(Link(str(found), tuple(attributes)))
        return Answer(Code.CONTENT, format_links(links), ContentFormat.LINK_FORMAT)

    def _put(self, request: Request, path: Path) -> Answer:
        if request.query and not request.payload:
            self._existing(path)
            present = self.observations.attributes.get(path, Attributes())
            self.observations.attributes[path] = parse_attributes(request.query, present)
        else:
            self.tree.write(path, self._decode(request, path), replace=True)
        return Answer(Code.CHANGED)

    def _post(self, request: Request, path: Path) -> Answer:
        if path.depth == 1:
            nodes = self._decode(request, path)
            number = self.tree.create(path.ids[0], nodes, _named_instance(request, nodes))
            return Answer(Code.CREATED, location_path=(str(path.ids[0]), str(number)))
        definition = self.tree.resource(path)
        if path.depth == 3 and (definition is None or definition.type is ResourceType.NONE):
            self.tree.execute(path, _arguments(request))
        else:
            self.tree.write(path, self._decode(request, path), replace=False)
        return Answer(Code.CHANGED)

    def _existing(self, path: Path) -> None:
        if path.depth == 0:
            raise RequestError(METHOD_NOT_ALLOWED, "Attributes go to an object or below.")
        self.tree.discover(path)

    def _decode(self, request: Request, path: Path) -> list[Node]:
        content_format = request.content_format
        if content_format is None and not request.payload:
            return self._empty(path)
        if content_format is None or content_format not in self._formats:
            raise RequestError(
                Code.UNSUPPORTED_CONTENT_FORMAT, f"Content format {content_format} is not supported."
            )
        if content_format in SINGLE_VALUE and path.depth < 3:
            raise RequestError(BAD_REQUEST, "This content format holds a single value.")
        try:
            return list(decode(content_format, request.payload, path, self.tree, strict=True))
        except CodecError as error:
            raise RequestError(BAD_REQUEST, error.message) from None

    def _empty(self, path: Path) -> list[Node]:
        """Read a write without payload as the empty string or no bytes; elsewhere as no values."""
        definition = self.tree.resource(path)
        if path.depth < 3 or definition is None:
            return []
        return [Node(path, b"" if definition.type is ResourceType.OPAQUE else "")]


def _path(segments: tuple[str, ...]) -> Path:
    try:
        return Path.parse("/".join(segments))
    except InvalidInput:
        raise RequestError(NOT_FOUND, "There is no such path.") from None


def _arguments(request: Request) -> str:
    if request.content_format not in (None, ContentFormat.TEXT):
        raise RequestError(Code.UNSUPPORTED_CONTENT_FORMAT, "Arguments of Execute are text.")
    try:
        return request.payload.decode("ascii")
    except UnicodeDecodeError:
        raise RequestError(BAD_REQUEST, "Arguments of Execute are ASCII.") from None


def _named_instance(request: Request, nodes: list[Node]) -> int | None:
    """Return the instance that a Create names. A TLV of bare resources names none."""
    if request.content_format == ContentFormat.TLV and request.payload and request.payload[0] & _TLV_KIND:
        return None
    instances = {node.path.ids[1] for node in nodes}
    if len(instances) > 1:
        raise RequestError(BAD_REQUEST, "Create makes one instance at a time.")
    return instances.pop() if instances else None


def _refusal(code: int, text: str) -> Answer:
    return Answer(code, text.encode(), None)
