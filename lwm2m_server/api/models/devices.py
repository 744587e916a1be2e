"""The JSON of devices and of operations on them."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, JsonValue

from lwm2m_server.api.models.common import AttributeValue, Body, ResourceScalar, hex_or_none, moment
from lwm2m_server.devices import records as devices
from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.lwm2m.values import ObjectLink
from lwm2m_server.services.operations import DiscoveredLink, ReadResult


class Registration(BaseModel):
    """What the device said at its last Register or Update (OMA LwM2M Core 6.2)."""

    id: str
    address: str
    identity: str | None
    registered_at: datetime
    last_seen: datetime
    expires_at: datetime
    lifetime: int = Field(description="Seconds")
    lwm2m_version: str
    binding: str
    queue_mode: bool
    objects: list[str] = Field(examples=[["/1/0", "/3/0", "/5/0"]])


class RunningFirmware(BaseModel):
    """What the device says that it runs."""

    version: str | None
    digest: str | None = Field(description="SHA-256 of the running image")


class Component(BaseModel):
    """A component that the device reports (object 33629)."""

    instance: int = Field(description="Of object 33629")
    name: str = Field(examples=["modem"])
    version: str | None
    digest: str | None = Field(description="SHA-256 of the installed image")
    capacity: int | None = Field(description="Bytes that fit")
    linked: list[int] = Field(description="Instances that are updated together with it")
    conflicting: list[int] = Field(description="Instances that were in the way of its last update")

    @classmethod
    def of(cls, component: devices.ComponentFacts) -> "Component":
        """Convert the record."""
        return cls(
            instance=component.instance,
            name=component.name,
            version=component.version,
            digest=hex_or_none(component.digest),
            capacity=component.capacity,
            linked=list(component.linked),
            conflicting=list(component.conflicting),
        )


class Application(BaseModel):
    """A place for an application that the device reports (object 9)."""

    instance: int = Field(description="Of object 9")
    name: str = Field(examples=["meter"], description="Empty where any application may come")
    version: str | None = Field(description="Null while nothing is installed")
    active: bool | None

    @classmethod
    def of(cls, application: devices.ApplicationFacts) -> "Application":
        """Convert the record."""
        return cls(**asdict(application))


class Device(BaseModel):
    """A device that the server knows."""

    endpoint: str = Field(examples=["urn:imei:490154203237518"])
    registered: bool
    created_at: datetime
    manufacturer: str | None
    model: str | None
    serial: str | None
    hardware_version: str | None
    firmware: RunningFirmware
    capacity: int | None = Field(description="Bytes that the main image may have")
    sequence: int | None = Field(description="Highest sequence number of a manifest that it has taken")
    components: list[Component]
    applications: list[Application]
    vendor_id: str | None
    class_id: str | None
    understands_manifests: bool | None
    attributes: dict[str, AttributeValue]
    revision: int
    registration: Registration | None = Field(description="The latest one, also when it has ended")

    @classmethod
    def of(cls, device: devices.Device) -> "Device":
        """Convert the record."""
        facts, last = device.facts, device.registration
        return cls(
            endpoint=device.endpoint,
            registered=device.registered,
            created_at=moment(device.created_at),
            manufacturer=facts.manufacturer,
            model=facts.model,
            serial=facts.serial,
            hardware_version=facts.hardware_version,
            firmware=RunningFirmware(
                version=facts.firmware_version, digest=hex_or_none(facts.running_digest)
            ),
            capacity=facts.capacity,
            sequence=facts.sequence,
            components=[Component.of(each) for each in facts.components or ()],
            applications=[Application.of(each) for each in facts.applications or ()],
            vendor_id=hex_or_none(facts.vendor_id),
            class_id=hex_or_none(facts.class_id),
            understands_manifests=facts.understands_manifests,
            attributes=dict(device.attributes),
            revision=device.revision,
            registration=None
            if last is None
            else Registration(
                id=last.registration_id,
                address=last.address,
                identity=last.identity,
                registered_at=moment(last.registered_at),
                last_seen=moment(last.last_seen),
                expires_at=moment(last.expires_at),
                lifetime=last.lifetime,
                lwm2m_version=last.lwm2m_version,
                binding=last.binding,
                queue_mode=last.queue_mode,
                objects=list(last.objects),
            ),
        )


class Attributes(BaseModel):
    """The operators' attributes of a device."""

    attributes: dict[str, AttributeValue] = Field(examples=[{"region": "eu", "floor": 3}])


class AttributesPatch(Body):
    """Attributes to set; null removes one, the others stay."""

    attributes: dict[str, AttributeValue | None] = Field(
        min_length=1, max_length=100, examples=[{"region": "eu", "old": None}]
    )


class AttributeDefinition(BaseModel):
    """A name that filters know; the server's own can't be set."""

    name: str = Field(examples=["boot.version"])
    type: AttributeType
    built_in: bool


class AttributeBody(Body):
    """What the values of an attribute are on all devices."""

    type: Literal["text", "number", "boolean", "version"]


class Value(BaseModel):
    """One value under a path; opaque values are hex, object links `3:0`."""

    path: str = Field(examples=["/3/0/0"])
    name: str | None = Field(examples=["Manufacturer"])
    type: Literal["string", "integer", "float", "boolean", "opaque", "link"]
    value: ResourceScalar


def _value(value: object) -> tuple[Any, ResourceScalar]:
    match value:
        case bool():
            return "boolean", value
        case int():
            return "integer", value
        case float():
            return "float", value
        case bytes():
            return "opaque", value.hex()
        case ObjectLink():
            return "link", str(value)
        case _:
            return "string", str(value)


class ReadAnswer(BaseModel):
    """The answer to a Read, in the order of paths."""

    path: str
    content_format: int | None = Field(description="CoAP Content-Format of the device's answer")
    values: list[Value]

    @classmethod
    def of(cls, result: ReadResult) -> "ReadAnswer":
        """Convert the result."""
        values = []
        for item in result.values:
            kind, value = _value(item.value)
            values.append(Value(path=item.path, name=item.name, type=kind, value=value))
        return cls(path=result.path, content_format=result.content_format, values=values)


class WriteBody(Body):
    """A resource's value, or an instance's resources by id; opaque values are hex."""

    value: JsonValue = Field(examples=[60, {"1": 300, "7": "U"}])


class ActionBody(Body):
    """For a POST: `arguments` on a resource executes it, `value` on an object creates an instance."""

    arguments: str | None = Field(default=None, max_length=1024, examples=["0='now'"])
    instance: int | None = Field(
        default=None, ge=0, le=65534, description="Id of the instance; the device chooses"
    )
    value: dict[str, JsonValue] | None = Field(default=None, examples=[{"0": 5, "1": "text"}])


class CreatedInstance(BaseModel):
    """Where the new instance is."""

    path: str = Field(examples=["/3303/1"])


class Link(BaseModel):
    """One link of a Discover and its attributes."""

    path: str
    attributes: dict[str, str | None]

    @classmethod
    def of(cls, link: DiscoveredLink) -> "Link":
        """Convert the link."""
        return cls(path=link.path, attributes=dict(link.attributes))


class NotificationAttributes(Body):
    """Conditions for notifications (OMA LwM2M Core 5.1.2); null unsets one."""

    attributes: dict[
        Literal["pmin", "pmax", "gt", "lt", "st", "epmin", "epmax", "edge", "con", "hqmax"], float | None
    ] = Field(min_length=1, examples=[{"pmin": 10, "pmax": 300, "gt": None}])


class ObservationBody(Body):
    """What to observe."""

    path: str = Field(min_length=1, max_length=64, examples=["/3/0/9"])


class Observation(BaseModel):
    """A path that is observed; it is set up again after each registration."""

    path: str
    created_at: datetime

    @classmethod
    def of(cls, observation: devices.Observation) -> "Observation":
        """Convert the record."""
        return cls(path=observation.path, created_at=moment(observation.created_at))
