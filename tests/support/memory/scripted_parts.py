"""A scripted device with several components: object 33629 in place of object 5."""

import asyncio
from dataclasses import dataclass, field

from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.lwm2m.values import ObjectLink, Value
from lwm2m_server.transport import Code, Request, Response
from memory.device import ScriptedDevice

_OBJECT = "33629"
_PACKAGE, _URI, _UPDATE, _STATE, _RESULT = "0", "1", "2", "3", "5"


@dataclass
class Part:
    """One component; `capacity` None: it does not say."""

    name: str
    version: str
    digest: bytes | None = None
    capacity: int | None = None
    linked: tuple[int, ...] = ()


@dataclass
class DeviceOfParts(ScriptedDevice):
    """Takes a package through one instance at a time.

    `becomes` gives version and digest of components after the installation, which ends with `ends`. Instances in
    `held` make it end with Result 12 until they are reset.
    """

    parts: dict[int, Part] = field(default_factory=dict)
    becomes: dict[int, tuple[str, bytes | None]] = field(default_factory=dict)
    ends: int = 1
    held: set[int] = field(default_factory=set)
    conflicting: tuple[int, ...] = ()
    image_paths: tuple[tuple[str, ...], ...] = ()
    driven: str = "0"
    resets: list[str] = field(default_factory=list)

    async def register(self, *extra: str) -> Response:
        """Send a Register."""
        for number in self.parts:
            self._transport.stream((_OBJECT, str(number), _PACKAGE))
        objects = ["</1/0>", "</3/0>", *(f"</{_OBJECT}/{number}>" for number in self.parts)]
        objects += [f"</{SUIT_AGENT}/0>"] if self.agent else []
        answer = await self.send(
            Code.POST,
            ("rd",),
            query=(f"ep={self.endpoint}", f"lt={self.lifetime}", "lwm2m=1.1", *extra),
            payload=",".join(objects).encode(),
        )
        if answer.code == Code.CREATED:
            self.location = answer.location_path
        return answer

    def _answer(self, request: Request) -> None:
        instance, resource = (*request.path, "", "", "")[1:3]
        if request.path[0] != _OBJECT or request.code == Code.GET:
            super()._answer(request)
        elif resource == _UPDATE:
            self._execute(request)
        elif request.payload in (b"", b"\0"):
            self._reset(request, instance)
        elif resource == _PACKAGE:
            self.driven = instance
            self._pushed(request)
        else:
            self.driven = instance
            self._transport.respond(request.exchange, Code.CHANGED)
            self._set_uri(request.payload.decode())

    def _reset(self, request: Request, instance: str) -> None:
        self.resets.append(instance)
        self.held.discard(int(instance))
        self._transport.respond(request.exchange, Code.CHANGED)
        if instance == self.driven:
            self.conflicting, self.package = (), b""
            self.change(0, 0)

    def change(self, state: int, result: int) -> None:
        """Set State and Result of the instance that is driven, and tell those who observe them."""
        self.state, self.result = state, result
        if not self.lost_notifications:
            self.notify((_OBJECT, self.driven, _STATE), str(state))
            self.notify((_OBJECT, self.driven, _RESULT), str(result))

    def _nodes(self) -> dict[str, Value]:
        found = {path: value for path, value in super()._nodes().items() if not path.startswith("/5/")}
        found["/3/0/3"] = self.parts[0].version
        for number, part in self.parts.items():
            at, driven = f"/{_OBJECT}/{number}", self.driven == str(number)
            found |= {
                f"{at}/3": self.state if driven else 0,
                f"{at}/5": self.result if driven else 0,
                f"{at}/8/0": 0,
                f"{at}/9": self.delivery,
                f"{at}/14": part.name,
                f"{at}/15": part.version,
                **{f"{at}/16/{index}": ObjectLink(33629, link) for index, link in enumerate(part.linked)},
            }
            if driven:
                conflicts = enumerate(self.conflicting)
                found |= {f"{at}/17/{index}": ObjectLink(33629, link) for index, link in conflicts}
            if self.agent and part.digest is not None:
                found[f"/{SUIT_AGENT}/0/7/{number}"] = part.digest
            if self.agent and part.capacity is not None:
                found[f"/{SUIT_AGENT}/0/8/{number}"] = part.capacity
        return found

    async def _received(self) -> None:
        """The package is whole: fetch the images, if it was only the manifest."""
        if self.held:
            self.conflicting = tuple(sorted(self.held))
            self.change(0, 12)
            return
        for path in self.image_paths if self.agent else ():
            if await self._fetch(path) is None:
                return
        self.change(2, 0)

    async def _install(self) -> None:
        done = asyncio.get_running_loop().create_future()
        self.network.later(self.install_time, lambda: done.done() or done.set_result(None))
        await done
        for number, (version, digest) in self.becomes.items():
            self.parts[number].version, self.parts[number].digest = version, digest
        self.state, self.result = 0, self.ends
        await self.boot()
