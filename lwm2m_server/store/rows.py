"""Rows of the tables as records, and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy import Column, Label

from lwm2m_server import versions
from lwm2m_server.campaigns.records import Campaign, CampaignState, Deployment, DeploymentState, Severity
from lwm2m_server.devices.records import (
    ApplicationFacts,
    AttributeValue,
    ComponentFacts,
    Device,
    Facts,
    Registration,
)
from lwm2m_server.store import schema
from lwm2m_server.store.database import AnyRow
from lwm2m_server.store.records import Event, JsonValue, NewEvent, Page, StoredManifest, TrustedKey

T = TypeVar("T")

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

# A row of `devices` is read by position: reading a fleet makes one of these a device.
REGISTRATION_COLUMNS: tuple[Column[Any] | Label[Any], ...] = (
    schema.devices.c.registration_id,
    schema.devices.c.endpoint,
    schema.devices.c.address,
    schema.devices.c.registered_at,
    schema.LAST_SEEN,
    schema.devices.c.lease,
    schema.devices.c.lifetime,
    schema.devices.c.lwm2m_version,
    schema.devices.c.binding,
    schema.devices.c.queue_mode,
    schema.devices.c.identity,
    schema.devices.c.links,
    schema.devices.c.objects,
)
_FACT_COLUMNS: tuple[Column[Any], ...] = tuple(schema.devices.c[field.name] for field in fields(Facts))
DEVICE_COLUMNS: tuple[Column[Any] | Label[Any], ...] = (
    *REGISTRATION_COLUMNS,
    *_FACT_COLUMNS,
    schema.devices.c.created_at,
    schema.devices.c.registered,
    schema.devices.c.attributes,
    schema.devices.c.formats,
    schema.devices.c.revision,
)
_FACTS_AT = len(REGISTRATION_COLUMNS)
_REST_AT = _FACTS_AT + len(_FACT_COLUMNS)


# A fleet has few versions of LwM2M and of firmware.
_version_key = lru_cache(1024)(versions.try_sort_key)


def registration_of(row: Sequence[Any]) -> Registration:
    """Return the registration in the first columns of a row."""
    (id_, endpoint, address, registered_at, last_seen, lease, lifetime, version, binding, queue,
     identity, links, objects) = row[:_FACTS_AT]  # fmt: skip
    return Registration(
        registration_id=id_,
        endpoint=endpoint,
        address=address,
        registered_at=registered_at,
        last_seen=last_seen,
        expires_at=last_seen + lease,
        lifetime=lifetime,
        lwm2m_version=version,
        binding=binding,
        queue_mode=bool(queue),
        identity=identity,
        links=links,
        objects=tuple(objects.split()),
    )


# What a Register writes, in the order of the table: so the rows go to the driver as they are.
REGISTERED_COLUMNS = (
    "endpoint", "created_at", "registered", "registration_id", "address", "identity", "lwm2m_version", "lwm2m_key",
    "lifetime", "binding", "queue_mode", "links", "objects", "registered_at", "last_seen", "lease", "due_at",
)  # fmt: skip


def registered_row(registration: Registration) -> tuple[object, ...]:
    """Return the columns of a live registration, in the order of `REGISTERED_COLUMNS`."""
    (id_, endpoint, address, registered_at, last_seen, expires_at, lifetime, version, binding, queue_mode,
     identity, links, objects) = registration  # fmt: skip
    return (
        endpoint,
        registered_at,
        True,
        id_,
        address,
        identity,
        version,
        _version_key(version),
        lifetime,
        binding,
        queue_mode,
        links,
        " ".join(objects),
        registered_at,
        last_seen,
        expires_at - last_seen,
        expires_at,
    )


def device_of(row: AnyRow) -> Device:
    """Return the device in a row of `DEVICE_COLUMNS`."""
    values = tuple(row)
    created_at, registered, attributes, formats, revision = values[_REST_AT:]
    return Device(
        endpoint=values[1],
        created_at=created_at,
        registration=None if values[0] is None else registration_of(values),
        registered=registered,
        facts=facts_of(values[_FACTS_AT:_REST_AT]),
        attributes=cast("dict[str, AttributeValue]", from_json(attributes)),
        formats=cast("dict[str, int | bool]", from_json(formats)),
        revision=revision,
    )


def facts_of(values: Sequence[Any]) -> Facts:
    """Return the facts in the columns that have their names, in their order."""
    named = dict(zip((field.name for field in fields(Facts)), values, strict=True))
    if named["components"] is not None:
        named["components"] = _components_of(named["components"])
    if named["applications"] is not None:
        named["applications"] = tuple(ApplicationFacts(**each) for each in json.loads(named["applications"]))
    return Facts(**named)


def _components_of(text: str) -> tuple[ComponentFacts, ...]:
    return tuple(
        ComponentFacts(
            **{
                **each,
                "digest": None if each["digest"] is None else bytes.fromhex(each["digest"]),
                "linked": tuple(each["linked"]),
                "conflicting": tuple(each["conflicting"]),
            }
        )
        for each in json.loads(text)
    )


def components_text(components: Sequence[ComponentFacts]) -> str:
    """Return the JSON of the components of a device."""
    return _encode(
        [asdict(each) | {"digest": None if each.digest is None else each.digest.hex()} for each in components]
    )


def applications_text(applications: Sequence[ApplicationFacts]) -> str:
    """Return the JSON of the applications of a device."""
    return _encode([asdict(each) for each in applications])


def application_row(endpoint: str, application: ApplicationFacts) -> dict[str, object]:
    """Return the columns that filters look into."""
    version = application.version
    return {
        "endpoint": endpoint,
        "name": application.name,
        "version": version,
        "version_key": None if version is None else _version_key(version),
        "active": application.active,
    }


def component_row(endpoint: str, component: ComponentFacts) -> dict[str, object]:
    """Return the columns that filters look into."""
    version = component.version
    return {
        "endpoint": endpoint,
        "name": component.name,
        "version": version,
        "version_key": None if version is None else _version_key(version),
        "digest": component.digest,
    }


def campaign_of(row: AnyRow) -> Campaign:
    """Return the campaign in a row of its table."""
    values = dict(row._mapping)  # noqa: SLF001  the public name of it in SQLAlchemy
    severity = None if values["severity"] is None else Severity(values["severity"])
    return Campaign(**{**values, "state": CampaignState(values["state"]), "severity": severity})


def campaign_values(campaign: Campaign) -> dict[str, Any]:
    """Return the columns of a campaign."""
    severity = None if campaign.severity is None else campaign.severity.value
    return asdict(campaign) | {"state": campaign.state.value, "severity": severity}


def deployment_of(row: AnyRow) -> Deployment:
    """Return the deployment in a row of its table."""
    values = dict(row._mapping)  # noqa: SLF001
    return Deployment(
        **{**values, "state": DeploymentState(values["state"]), "retry_at": values["retry_at"] or None}
    )


def deployment_values(deployment: Deployment) -> dict[str, Any]:
    """Return the columns of a deployment."""
    return {name: getattr(deployment, name) for name in schema.deployments.c.keys()} | {  # noqa: SIM118
        "state": deployment.state.value,
        "retry_at": deployment.retry_at or 0.0,
    }


def event_of(row: AnyRow) -> Event:
    """Return the event in a row of its table."""
    values = dict(row._mapping)  # noqa: SLF001
    return Event(**{**values, "data": from_json(values["data"])})


def event_row(new: NewEvent) -> tuple[object, ...]:
    """Return the columns of an event but for its id, in the order of the table."""
    return (new.kind, new.at, new.endpoint, new.campaign_id, to_json(new.data))


def plain_values(record: Any) -> dict[str, Any]:
    """Return the columns of a record whose fields have their names; `data` becomes JSON."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    if "data" in values:
        values["data"] = to_json(values["data"])
    return values


def plain_of(record: type[T], row: AnyRow) -> T:
    """Return the record in a row whose columns have its fields' names."""
    values = dict(row._mapping)  # noqa: SLF001
    if "data" in values:
        values["data"] = from_json(values["data"])
    return record(**values)


def manifest_of(row: AnyRow) -> StoredManifest:
    """Return the manifest in a row of its table."""
    manifest = plain_of(StoredManifest, row)
    images = cast("str", manifest.further_images).split()
    return replace(manifest, further_images=tuple(bytes.fromhex(digest) for digest in images))


def manifest_values(manifest: StoredManifest) -> dict[str, Any]:
    """Return the columns of a manifest."""
    images = " ".join(digest.hex() for digest in manifest.further_images)
    return plain_values(manifest) | {"further_images": images}


def key_of(row: AnyRow) -> TrustedKey:
    """Return the trusted key in a row of its table."""
    key = plain_of(TrustedKey, row)
    return replace(key, roles=tuple(cast("str", key.roles).split()))


def key_values(key: TrustedKey) -> dict[str, Any]:
    """Return the columns of a trusted key."""
    return plain_values(key) | {"roles": " ".join(key.roles)}


def page_of(items: Sequence[T], limit: int, key: Any) -> Page[T]:
    """Return the first `limit` of up to `limit + 1` items; `key` gives what the next page comes after."""
    if len(items) <= limit:
        return Page(tuple(items))
    return Page(tuple(items[:limit]), key(items[limit - 1]))


def to_json(data: Mapping[str, Any]) -> str:
    """Return the text that is stored for a JSON object."""
    return _encode(dict(data)) if data else "{}"


def from_json(text: str) -> dict[str, JsonValue]:
    """Return the object in a stored text."""
    return cast("dict[str, JsonValue]", json.loads(text)) if text != "{}" else {}
