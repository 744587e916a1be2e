"""What a manifest processor is told of its device, and the effects that it asks for (`processor`)."""

from __future__ import annotations

import hmac
from collections.abc import Generator, Mapping
from dataclasses import dataclass

from lwm2m_server.firmware.parameters import WaitEvents
from lwm2m_server.firmware.refusals import Refusal
from lwm2m_server.firmware.suit import ComponentId, Digest


@dataclass(frozen=True, slots=True)
class Room:
    """The memory of a component that deltas rewrite in place: its bytes, and those that are erased at once."""

    memory: int
    page: int

    def suits(self, memory: int, segment: int) -> bool:
        """Say whether a delta for a memory of such a size and segments works here."""
        return memory <= self.memory and segment % self.page == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentState:
    """A component of the device: what runs there now and how many bytes fit; `None` is unknown or unbounded.

    `slot` is the number against which component-slot compares. `in_place` is there when deltas can rewrite it.
    `vendor_ids` and `class_ids` are its own, where they are not those of the device.
    """

    version: str | None = None
    capacity: int | None = None
    slot: int | None = None
    in_place: Room | None = None
    vendor_ids: frozenset[bytes] | None = None
    class_ids: frozenset[bytes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What the device is. `sequence_number` is the highest one that it ever accepted.

    `now` is its clock (seconds since 1970), `battery` its charge in mWh; `None` where it has none, and then
    conditions on them fail.
    """

    vendor_ids: frozenset[bytes]
    class_ids: frozenset[bytes]
    components: Mapping[ComponentId, ComponentState]
    sequence_number: int = 0
    device_id: bytes | None = None
    now: float | None = None
    battery: int | None = None


# -- effects ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fetch:
    """Load `uri` into the component.

    `digest` and `size` are what the result must have, where the manifest says. `content` is there when the
    envelope itself carries the payload. `encryption` is the encoded COSE structure where one is set; the draft
    decrypts by write and copy alone.
    """

    component: ComponentId
    uri: str
    digest: Digest | None = None
    size: int | None = None
    arguments: bytes | None = None
    content: bytes | None = None
    encryption: bytes | None = None


@dataclass(frozen=True, slots=True)
class MatchImage:
    """Compare the component's content with this digest (and size)."""

    component: ComponentId
    digest: Digest
    size: int | None = None


@dataclass(frozen=True, slots=True)
class MatchContent:
    """Compare the component's content with this one, in constant time (`same_content`)."""

    component: ComponentId
    content: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the content of `source` into the component, decrypting it where `encryption` is given.

    `digest` and `size` are what the result must have, where the manifest says.
    """

    component: ComponentId
    source: ComponentId
    encryption: bytes | None = None
    digest: Digest | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class ApplyDelta:
    """Rewrite the component in place by the delta in `source`; `digest` and `size` are as in `Copy`."""

    component: ComponentId
    source: ComponentId
    digest: Digest | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Swap:
    """Exchange the contents of both components."""

    component: ComponentId
    source: ComponentId


@dataclass(frozen=True, slots=True)
class Write:
    """Write `content` into the component, decrypting it where `encryption` is given."""

    component: ComponentId
    content: bytes
    encryption: bytes | None = None


@dataclass(frozen=True, slots=True)
class Invoke:
    """Start the component."""

    component: ComponentId
    arguments: bytes | None = None


@dataclass(frozen=True, slots=True)
class Authorize:
    """Ask the application whether it authorizes the update; of `priority` less is more urgent."""

    component: ComponentId
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until all events (`suit.WaitEvent`, argument) have come."""

    component: ComponentId
    events: WaitEvents


Effect = Fetch | MatchImage | MatchContent | Copy | ApplyDelta | Swap | Write | Invoke | Authorize | Wait
Answer = bool | Refusal
Procedure = Generator[Effect, Answer, None]


def same_content(one: bytes, two: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one, two)
