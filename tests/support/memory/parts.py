"""Components of a device for tests: their settings, hooks that keep what they were given, and manifests for them."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any

from lwm2m_device.components import ComponentSettings
from lwm2m_device.hooks import HookFailed, HookOrder, Progress
from lwm2m_server import versions
from lwm2m_server.firmware.build import ComponentDescription, ManifestDescription, build_manifest
from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    Directive,
    OverrideParameters,
    Parameters,
    SetComponentIndex,
)
from lwm2m_server.firmware.envelope import sign, wrap
from lwm2m_server.firmware.manifest import Common, Manifest
from lwm2m_server.firmware.suit import (
    DIGEST_SHA256,
    ConditionCode,
    Digest,
    DirectiveCode,
    class_id,
    component_of,
    vendor_id,
)
from lwm2m_server.firmware.suit_versions import requirements, version_to_integers
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.transport import Code

MAIN = "00"
NAMES = (MAIN, "modem", "sensors")


def part(name: str, **changes: Any) -> ComponentSettings:
    """A component at version 1.0.0."""
    identifier = component_of(name)
    assert identifier is not None
    given: dict[str, Any] = {
        "version": "1.0.0",
        "slot_size": 8192,
        "entry_point": "builtins:print",
        **changes,
    }
    return ComponentSettings(name=name, identifier=identifier, **given)


@dataclass
class Hook:
    """A hook that brings images in place at once.

    `log` has each call, `content` what runs now. `failing` are versions that it can't install, `hanging` ones
    never end.
    """

    log: list[tuple[str, str]] = field(default_factory=list)
    content: bytes = b""
    failing: dict[str, str] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)

    async def run(self, order: HookOrder, progress: Progress) -> None:
        """Do as ordered."""
        self.log.append((order.action.value, order.version))
        if order.version in self.hanging:
            await asyncio.get_running_loop().create_future()
        progress(50)
        image = order.read(0, order.size)
        assert hashlib.sha256(image).digest() == order.digest
        if order.version in self.failing:
            raise HookFailed(self.failing[order.version])
        self.content = image


def image_for(name: str, version: str, size: int = 3000) -> bytes:
    """The bytes of a component's image."""
    head = f"firmware-version: {version}\n{name} ".encode()
    return head + hashlib.shake_128(head).digest(size)


def package(images: dict[str, tuple[str, bytes]], **changes: Any) -> bytes:
    """An unsigned envelope for images (version, bytes) by component, in this order."""
    described = []
    for name, (version, image) in images.items():
        digest = hashlib.sha256(image).digest()
        component = component_of(name)
        assert component is not None
        described.append(
            ComponentDescription(
                component=component,
                digest=digest,
                size=len(image),
                uri=f"/fw/{digest.hex()}",
                version=version,
            )
        )
    first = described[0]
    given: dict[str, Any] = {
        "vendor_domain": "acme.example",
        "class_name": "M1",
        "sequence_number": 2,
        "component": first.component,
        "version": first.version,
        "image_digest": first.digest,
        "image_size": first.size,
        "image_uri": first.uri,
        "further": tuple(described[1:]),
        **changes,
    }
    return build_manifest(ManifestDescription(**given))


def needing(
    name: str, version: str, image: bytes, *, other: str = MAIN, requires: str, sequence: int = 2
) -> bytes:
    """An unsigned envelope for one component's image that asks for a version of another one, which stays as it is."""
    component, needed = component_of(name), component_of(other)
    assert component is not None
    assert needed is not None
    digest = Digest.of(image, DIGEST_SHA256)
    vendor = vendor_id("acme.example")
    asked: list[Command] = [SetComponentIndex(1)]
    for match in requirements(requires):
        asked += [OverrideParameters(Parameters(version=match)), Condition(ConditionCode.VERSION)]
    shared = (
        SetComponentIndex(True),
        OverrideParameters(Parameters(vendor_id=vendor, class_id=class_id(vendor, "M1"))),
        Condition(ConditionCode.VENDOR_IDENTIFIER),
        Condition(ConditionCode.CLASS_IDENTIFIER),
        SetComponentIndex(0),
        OverrideParameters(Parameters(image_digest=digest, image_size=len(image))),
    )
    fetched = (
        SetComponentIndex(0),
        OverrideParameters(Parameters(uri=f"/fw/{digest.value.hex()}")),
        Directive(DirectiveCode.FETCH),
        Condition(ConditionCode.IMAGE_MATCH),
    )
    manifest = Manifest(
        sequence_number=sequence,
        common=Common((component, needed), shared),
        set_version=version_to_integers(versions.parse(version)),
        install=(*asked, *fetched),
    )
    return wrap(manifest).encode()


class Parts:
    """A world whose device has components, with what tests ask of it."""

    def __init__(self, world) -> None:
        self.world = world
        self.server = world.server
        self.hooks = {name: Hook() for name in NAMES[1:]}

    async def run(self, *components, **changes) -> None:
        made = components or (part("modem"), part("sensors"))
        self.world.hooks = dict(self.hooks)
        await self.world.run(components=made, **changes)

    async def offer(self, images, instance=0, **changes) -> int:
        """Write a signed manifest for images by component; return the answer's code."""
        for _, image in images.values():
            self.server.publish(image, self.world.folder)
        envelope = sign(package(images, **changes), self.world.key)
        code = await self.server.write(f"/33629/{instance}/0", envelope, 42)
        await self.world.pass_time(5)
        return code

    async def execute(self, instance=0, arguments="") -> int:
        answer = await self.server.ask(
            Code.POST,
            f"/33629/{instance}/2",
            payload=arguments.encode(),
            content_format=0 if arguments else None,
        )
        await self.world.pass_time(20)
        return answer.code

    async def states(self) -> list[tuple[int, int]]:
        return [
            (int(await self.server.text(f"/33629/{i}/3")), int(await self.server.text(f"/33629/{i}/5")))
            for i in range(3)
        ]

    async def versions(self) -> list[str]:
        return [await self.server.text(f"/33629/{i}/15") for i in range(3)]

    async def links(self, instance: int, resource: int) -> set[str]:
        answer = await self.server.ask(Code.GET, f"/33629/{instance}/{resource}", accept=ContentFormat.TLV)
        if not answer.payload:
            return set()
        assert answer.code == Code.CONTENT
        return {str(int.from_bytes(answer.payload[at + 4 : at + 6])) for at in _links(answer.payload)}

    async def refusal(self) -> tuple[str, str]:
        text = self.server.text
        return await text(f"/{SUIT_AGENT}/0/4"), await text(f"/{SUIT_AGENT}/0/5")


def _links(payload: bytes) -> range:
    """Where the values of a multiple resource of object links begin: a head, then six bytes each."""
    count = len(payload) // 6
    return range(len(payload) - 6 * count, len(payload), 6)
