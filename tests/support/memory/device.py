"""A device whose behaviour a test chooses: object 3, object 5 and, if wanted, the update agent."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from harness.releases import CLASS, VENDOR
from lwm2m_server.firmware.suit import class_id, vendor_id
from lwm2m_server.lwm2m.formats import ContentFormat, encode
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import Node, Value
from lwm2m_server.services.background import Timers
from lwm2m_server.transport import (
    Code,
    Peer,
    Request,
    Response,
    Transport,
    TransportError,
)
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport

_PACKAGE, _URI, _UPDATE = ("5", "0", "0"), ("5", "0", "1"), ("5", "0", "2")
_STATE, _RESULT = ("5", "0", "3"), ("5", "0", "5")
_BLOCK = 1024


@dataclass
class ScriptedDevice:
    """Registers at the server and answers. Fields may be changed at any time.

    `judge` gives the Update Result for a package (None: it is fine), `after_install` the version that comes up
    (None: the device never comes back). `lost_notifications` keeps State and Result to itself.
    """

    network: Timers
    server: str
    endpoint: str = "dev-1"
    host: str = "10.0.1.1"
    version: str = "1.0.0"
    manufacturer: str = "Acme"
    model: str = "M1"
    delivery: int = 2
    agent: bool = False
    digest: bytes = bytes(32)
    image_path: tuple[str, ...] = ()
    refusal: str = ""
    lifetime: int = 86400
    silent: bool = False
    lost_notifications: bool = False
    only_resources: bool = False
    refused_formats: frozenset[int] = frozenset()
    judge: Callable[[bytes], int | None] = lambda _: None
    after_install: Callable[[str], str | None] = lambda wanted: wanted
    wanted: str = "2.0.0"
    stop_fetching_at: int | None = None
    install_time: float = 5.0
    make: Callable[[], Transport] | None = None  # its transport; none takes one of a network in memory
    state: int = 0
    result: int = 0
    package: bytes = b""
    executed: int = 0
    requests: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    asked_from: set[str] = field(default_factory=set)
    blocks_taken: list[int] = field(default_factory=list)
    location: tuple[str, ...] = ()
    values: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._observers: dict[tuple[str, ...], int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._transport = self._new_transport()

    def _new_transport(self) -> Transport:
        if self.make is not None:
            return self.make()
        assert isinstance(self.network, MemoryNetwork)
        return MemoryTransport(self.network)

    # its life

    async def boot(self) -> Response:
        """Come up at a new port, without observations, and register."""
        await self._transport.close()
        self._observers.clear()
        self._transport = self._new_transport()
        self._transport.set_handlers(on_requests=self._requested)
        await self._transport.start()
        self._transport.stream(_PACKAGE)
        await self._transport.listen(self.host, 0)
        return await self.register()

    async def register(self, *extra: str) -> Response:
        """Send a Register."""
        objects = ["</1/0>", "</3/0>", "</5/0>"] + ([f"</{SUIT_AGENT}/0>"] if self.agent else [])
        answer = await self.send(
            Code.POST,
            ("rd",),
            query=(f"ep={self.endpoint}", f"lt={self.lifetime}", "lwm2m=1.1", *extra),
            payload=",".join(objects).encode(),
        )
        if answer.code == Code.CREATED:
            self.location = answer.location_path
        return answer

    async def update(self, *query: str) -> Response:
        """Send an Update."""
        return await self.send(Code.POST, self.location, query=query)

    async def deregister(self) -> Response:
        """Send a Deregister."""
        return await self.send(Code.DELETE, self.location)

    async def send(self, code: int, path: tuple[str, ...], **options: Any) -> Response:
        """Send any request to the server."""
        return await self._transport.request(Peer(self.server), code, path, **options)

    async def close(self) -> None:
        """Go away for good, without a word."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._transport.close()

    def power_cut(self) -> None:
        """Lose all that runs; what was downloaded is lost with it, State falls back."""
        for task in list(self._tasks):
            task.cancel()
        self.state, self.package = 0, b""

    # what it answers

    def _requested(self, requests: list[Request]) -> None:
        for request in requests:
            self.requests.append((request.code, request.path))
            self.asked_from.add(request.peer.address)
            if not self.silent:
                self._answer(request)

    def _answer(self, request: Request) -> None:
        if request.code == Code.GET:
            self._read(request)
        elif request.path == _PACKAGE and request.code == Code.PUT:
            self._pushed(request)
        elif request.path == _URI and request.code == Code.PUT:
            self._transport.respond(request.exchange, Code.CHANGED)
            self._set_uri(request.payload.decode())
        elif request.path == _UPDATE and request.code == Code.POST:
            self._execute(request)
        elif request.code in (Code.PUT, Code.POST) and request.path[0] != "5":
            self.values["/" + "/".join(request.path)] = request.payload.decode(errors="replace")
            self._transport.respond(request.exchange, Code.CHANGED)
        elif request.code == Code.DELETE:
            self._transport.respond(request.exchange, Code.DELETED)
        else:
            self._transport.respond(request.exchange, Code.METHOD_NOT_ALLOWED)

    def _nodes(self) -> dict[str, Value]:
        found: dict[str, Value] = {
            "/3/0/0": self.manufacturer,
            "/3/0/1": self.model,
            "/3/0/3": self.version,
            "/3/0/9": 80,
            "/5/0/3": self.state,
            "/5/0/5": self.result,
            "/5/0/8/0": 0,
            "/5/0/9": self.delivery,
        }
        if self.agent:
            found |= {
                f"/{SUIT_AGENT}/0/0": vendor_id(VENDOR),
                f"/{SUIT_AGENT}/0/1": class_id(vendor_id(VENDOR), CLASS),
                f"/{SUIT_AGENT}/0/2": 0,
                f"/{SUIT_AGENT}/0/3": self.digest,
                f"/{SUIT_AGENT}/0/4": self.refusal,
                f"/{SUIT_AGENT}/0/5": f"refused: {self.refusal}" if self.refusal else "",
            }
        return found | self.values

    def _read(self, request: Request) -> None:
        path = Path(tuple(int(segment) for segment in request.path))
        nodes = [Node(Path.parse(text), value) for text, value in self._nodes().items()]
        nodes = [node for node in nodes if path.contains(node.path)]
        if not nodes:
            self._transport.respond(request.exchange, Code.NOT_FOUND)
            return
        if self.only_resources and path.depth < 3:
            return  # as node-lib: an instance is never answered
        wanted = request.accept
        if wanted == ContentFormat.LINK_FORMAT:
            links = ",".join(f"<{node.path}>" for node in nodes)
            self._transport.respond(
                request.exchange, Code.CONTENT, payload=links.encode(), content_format=wanted
            )
            return
        single = path.depth >= 3 and nodes[0].path == path
        chosen = wanted if wanted is not None else ContentFormat.TEXT if single else ContentFormat.TLV
        if chosen in self.refused_formats:
            self._transport.respond(request.exchange, Code.NOT_ACCEPTABLE)
            return
        payload = (
            str(nodes[0].value).encode() if chosen == ContentFormat.TEXT else encode(chosen, path, nodes)
        )
        observed = request.observe == 0
        if observed:
            self._observers[request.path] = request.exchange
        self._transport.respond(
            request.exchange, Code.CONTENT, payload=payload, content_format=chosen, observe=observed
        )

    # its update

    def change(self, state: int, result: int) -> None:
        """Set State and Result, and tell those who observe them."""
        self.state, self.result = state, result
        if self.lost_notifications:
            return
        for path, value in ((_STATE, state), (_RESULT, result)):
            self.notify(path, str(value))

    def notify(self, path: tuple[str, ...], text: str) -> None:
        """Send a notification if somebody observes the path."""
        if path in self._observers:
            self._transport.notify(
                self._observers[path], Code.CONTENT, payload=text.encode(), content_format=ContentFormat.TEXT
            )

    def _pushed(self, request: Request) -> None:
        number, more, size = request.block1 or (0, False, _BLOCK)
        offset = number * size
        if offset == 0 and not more and request.payload == b"\0":
            self._transport.respond(request.exchange, Code.CHANGED, block1=request.block1)
            self.package = b""
            self.change(0, 0)
            return
        if offset > len(self.package):
            self._transport.respond(request.exchange, Code.REQUEST_ENTITY_INCOMPLETE, block1=request.block1)
            self.package = b""
            return
        self.package = self.package[:offset]
        self.blocks_taken.append(number)
        self.package += request.payload
        if self.state == 0:
            self.change(1, 0)
        code = Code.CONTINUE if more else Code.CHANGED
        self._transport.respond(request.exchange, code, block1=request.block1)
        if not more:
            self._spawn(self._received())

    def _set_uri(self, uri: str) -> None:
        self.package = b""
        if not uri:
            self.change(0, 0)
            return
        self.change(1, 0)
        self._spawn(self._pull(uri))

    async def _pull(self, uri: str) -> None:
        path = tuple(segment for segment in urlsplit(uri).path.split("/") if segment)
        package = await self._fetch(path)
        if package is not None:
            self.package = package
            await self._received()

    async def _fetch(self, path: tuple[str, ...]) -> bytes | None:
        body = b""
        while True:
            if self.stop_fetching_at is not None and len(body) >= self.stop_fetching_at:
                return None
            try:
                answer = await self.send(Code.GET, path, block2=(len(body) // _BLOCK, _BLOCK))
            except TransportError:
                self.change(0, 4)
                return None
            if answer.code != Code.CONTENT:
                self.change(0, 7 if answer.code == Code.NOT_FOUND else 4)
                return None
            self.blocks_taken.append(len(body) // _BLOCK)
            body += answer.payload
            if answer.block2 is None or not answer.block2[1]:
                return body

    async def _received(self) -> None:
        """The package is whole: judge it, and fetch the image if it was only the manifest."""
        verdict = self.judge(self.package)
        if verdict is None and self.agent:
            image = await self._fetch(self.image_path)
            if image is None:
                return
        if verdict is None:
            self.change(2, 0)
        else:
            self.change(0, verdict)

    def _execute(self, request: Request) -> None:
        if self.state != 2:
            self._transport.respond(request.exchange, Code.METHOD_NOT_ALLOWED)
            return
        self.executed += 1
        # As real clients do: the notification goes out before the answer.
        self.change(3, 0)
        self._transport.respond(request.exchange, Code.CHANGED)
        self._spawn(self._install())

    async def _install(self) -> None:
        done = asyncio.get_running_loop().create_future()
        self.network.later(self.install_time, lambda: done.done() or done.set_result(None))
        await done
        version = self.after_install(self.wanted)
        if version is None:
            await self._transport.close()
            return
        if version == self.wanted:
            self.state, self.result = 0, 1
        else:
            self.state, self.result = 0, 8
        self.version = version
        await self.boot()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def paths(requests: Iterable[tuple[int, tuple[str, ...]]]) -> list[str]:
    """Return requests as texts such as `PUT /5/0/1`."""
    return [f"{Code(code).name} /{'/'.join(path)}" for code, path in requests]
