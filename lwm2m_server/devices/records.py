"""What the server knows of a device.

Facts come from the device itself, attributes from operators, the registration part from the last Register or
Update (OMA LwM2M Core 6.2). A device stays known after its registration ended, until an operator deletes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

AttributeValue = str | int | float | bool
"""What an operator's attribute may hold; see `lwm2m_server.devices.attributes` for bounds."""


def _no_attributes() -> Mapping[str, AttributeValue]:
    return MappingProxyType({})


def _no_formats() -> Mapping[str, int | bool]:
    return MappingProxyType({})


class Registration(NamedTuple):
    """One registration of one endpoint (OMA LwM2M Core 6.2.1).

    A tuple, because a fleet that comes back makes one a device, and a frozen dataclass takes three times as long.

    `registration_id` is the last segment of the location `/rd/<id>`. `address` is `host:port` as the
    transport writes it, `identity` what the security session proved (None on plain CoAP). `lifetime` is in
    seconds; `expires_at` is when the server stops believing in it: last contact + lifetime + the server's
    margin. `links` is the object list exactly as the device sent it (CoRE link format); `objects` are its
    paths, normalised: `("/1/0", "/3/0", "/5")`.
    """

    registration_id: str
    endpoint: str
    address: str
    registered_at: float
    last_seen: float
    expires_at: float
    lifetime: int = 86400
    lwm2m_version: str = "1.0"
    binding: str = "U"
    queue_mode: bool = False
    identity: str | None = None
    links: str = ""
    objects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentFacts:
    """One component of a device: an instance of object 33629 (Advanced Firmware Update).

    `name` is Component Name, which for devices that take manifests is the SUIT identifier as text. `digest` is the
    SHA-256 of the installed image (32 raw bytes), `capacity` how many bytes fit. `linked` and `conflicting` are
    the instances that are updated together with it, and those that were in its way when last asked.
    """

    instance: int
    name: str
    version: str | None = None
    digest: bytes | None = None
    capacity: int | None = None
    linked: tuple[int, ...] = ()
    conflicting: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationFacts:
    """One place for an application: an instance of object 9 (Software Management).

    `name` is PkgName, empty where any application may come. `version` and `active` are known of what is installed
    there, and None while nothing is.
    """

    instance: int
    name: str = ""
    version: str | None = None
    active: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a device says of itself (objects 3, 5, 9, 33629 and 42800); None is 'not known'.

    `running_digest` is the SHA-256 of the running image as 32 raw bytes, `vendor_id` and `class_id` are 16
    raw bytes (SUIT identifiers), `understands_manifests` tells whether it has the update agent object. `capacity`
    is how many bytes the main image may have, `sequence` the highest sequence number of a manifest that it has taken.
    `components` ascend by instance, each name once; none at all where
    the device has no object 33629. `applications` are the places for applications, in the same way; those without a
    name are all there.
    """

    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    hardware_version: str | None = None
    firmware_version: str | None = None
    running_digest: bytes | None = None
    vendor_id: bytes | None = None
    class_id: bytes | None = None
    understands_manifests: bool | None = None
    capacity: int | None = None
    sequence: int | None = None
    components: tuple[ComponentFacts, ...] | None = None
    applications: tuple[ApplicationFacts, ...] | None = None

    def component(self, name: str) -> ComponentFacts | None:
        """Return the component with this name."""
        return next((each for each in self.components or () if each.name == name), None)

    def application(self, name: str) -> ApplicationFacts | None:
        """Return the place of the application with this name; the empty name gives the first free one."""
        return next((each for each in self.applications or () if each.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as it stands now.

    `registration` is the latest registration, also when it has ended (`registered` is False then); None for a
    device that was made known before it ever registered. `formats` is what was learned of its abilities,
    keyed by what the operations service chooses, such as `{"read": 112, "composite": False}`. `revision`
    counts edits of the attributes, for If-Match.
    """

    endpoint: str
    created_at: float
    registration: Registration | None = None
    registered: bool = False
    facts: Facts = field(default_factory=Facts)
    attributes: Mapping[str, AttributeValue] = field(default_factory=_no_attributes)
    formats: Mapping[str, int | bool] = field(default_factory=_no_formats)
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A wish to observe `path` on a device; it outlives registrations and is set up again at each of them.

    `owner` says who wants it (`operator`, `update`): the same path may be wanted by both.
    """

    endpoint: str
    path: str
    owner: str
    created_at: float
    accept: int | None = None
