# ruff: noqa: A002, D102  the port's words and its docstrings
"""Devices, registrations and observations in memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from lwm2m_server.devices.attributes import AttributeType, check_value, clean_facts, define
from lwm2m_server.devices.filter import Filter, matches
from lwm2m_server.devices.records import AttributeValue, Device, Facts, Observation, Registration
from lwm2m_server.errors import ForeignName
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.memory_tables import Tables, cut
from lwm2m_server.store.records import (
    JsonValue,
    LiveRegistration,
    NewEvent,
    Page,
    Registered,
    RegistrationUpdate,
)
from lwm2m_server.store.rules import (
    changed,
    ended_event,
    foreign,
    no_device,
    stale_device,
    updated,
    updated_event,
)


class MemoryDeviceStore:
    """See `ports.DeviceStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def get(self, endpoint: str) -> Device | None:
        return self._tables.devices.get(endpoint)

    async def get_many(self, endpoints: Iterable[str]) -> dict[str, Device]:
        return {name: self._tables.devices[name] for name in endpoints if name in self._tables.devices}

    async def page(
        self, *, filter: Filter | None = None, now: float, after: str | None = None, limit: int = 100
    ) -> Page[Device]:
        return cut(self._matching(filter, now), lambda device: device.endpoint, after, limit)

    async def endpoints(
        self, *, filter: Filter | None = None, now: float, after: str | None = None, limit: int = 1000
    ) -> Page[str]:
        names = [device.endpoint for device in self._matching(filter, now)]
        return cut(names, lambda name: name, after, limit)

    async def count(self, *, filter: Filter | None = None, now: float) -> int:
        return len(self._matching(filter, now))

    async def set_facts(self, endpoint: str, facts: Facts) -> bool:
        cleaned = clean_facts(facts)
        given: dict[str, Any] = {
            field.name: value
            for field in fields(cleaned)
            if (value := getattr(cleaned, field.name)) is not None
        }
        device = self._tables.devices.get(endpoint)
        if device is None:
            return False
        self._tables.devices[endpoint] = replace(device, facts=replace(device.facts, **given))
        return True

    async def set_formats(self, endpoint: str, formats: Mapping[str, int | bool]) -> bool:
        device = self._tables.devices.get(endpoint)
        if device is None:
            return False
        self._tables.devices[endpoint] = replace(device, formats=MappingProxyType(dict(formats)))
        return True

    async def set_attributes(
        self,
        endpoint: str,
        changes: Mapping[str, AttributeValue | None],
        *,
        revision: int | None = None,
        events: Sequence[NewEvent] = (),
    ) -> Device:
        device = self._tables.devices.get(endpoint)
        if device is None:
            raise no_device(endpoint)
        if revision is not None and revision != device.revision:
            raise stale_device(endpoint)
        types = self._tables.attribute_types
        checked = {name: check_value(name, value, types.get(name)) for name, value in changes.items()}
        types |= {name: type_ for name, type_ in checked.items() if type_ and name not in types}
        merged = {**device.attributes, **changes}
        attributes = {name: value for name, value in merged.items() if value is not None}
        device = replace(device, attributes=MappingProxyType(attributes), revision=device.revision + 1)
        self._tables.devices[endpoint] = device
        self._tables.append(events)
        return device

    async def attribute_types(self) -> dict[str, AttributeType]:
        return dict(self._tables.attribute_types)

    async def define_attribute(
        self, name: str, type: AttributeType, *, events: Sequence[NewEvent] = ()
    ) -> None:
        in_use = any(name in device.attributes for device in self._tables.devices.values())
        defined = self._tables.attribute_types.get(name)
        define(name, type, defined, in_use=in_use)
        if defined is not type:
            self._tables.attribute_types[name] = type
            self._tables.append(events)

    async def delete(self, endpoint: str, *, events: Sequence[NewEvent] = ()) -> bool:
        device = self._tables.devices.pop(endpoint, None)
        if device is None:
            return False
        if device.registration is not None:
            self._tables.locations.pop(device.registration.registration_id, None)
        for key in [key for key in self._tables.observations if key[0] == endpoint]:
            del self._tables.observations[key]
        self._tables.append(events)
        return True

    def _matching(self, filter: Filter | None, now: float) -> list[Device]:
        devices = self._tables.devices.values()
        return [device for device in devices if filter is None or matches(filter, device, now)]


class MemoryRegistrationStore:
    """See `ports.RegistrationStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def register(self, registrations: Sequence[Registration]) -> list[Registered | Exception]:
        return [self._register(registration) for registration in registrations]

    async def update(self, updates: Sequence[RegistrationUpdate]) -> list[Registration | Exception | None]:
        return [self._update(update) for update in updates]

    async def alive(self, beats: Sequence[tuple[str, float]]) -> None:
        for id_, at in beats:
            old = await self.find(id_)
            if old is not None and old.last_seen < at:
                self._put(updated(old, RegistrationUpdate(registration_id=id_, at=at)))

    async def deregister(
        self, ends: Sequence[tuple[str, str | None]], *, now: float
    ) -> list[str | Exception | None]:
        results: list[str | Exception | None] = []
        for id_, owner in ends:
            old = await self.find(id_)
            refusal = old and foreign(old.endpoint, old.identity, owner)
            results.append(refusal or self._end(id_, now, "deregistered"))
        return results

    async def expire(self, *, now: float, limit: int = 1000) -> list[Registered]:
        late = sorted((r for r in self._live() if r.expires_at <= now), key=lambda r: r.expires_at)[:limit]
        for registration in late:
            self._end(registration.registration_id, now, "expired")
        return [Registered(registration.registration_id, registration.endpoint) for registration in late]

    async def find(self, registration_id: str) -> Registration | None:
        endpoint = self._tables.locations.get(registration_id)
        return None if endpoint is None else self._tables.devices[endpoint].registration

    async def live(self, *, after: str | None = None, limit: int = 1000) -> Page[LiveRegistration]:
        found = [LiveRegistration(r.registration_id, r.endpoint, r.address, r.identity) for r in self._live()]
        return cut(found, lambda registration: registration.endpoint, after, limit)

    def _live(self) -> list[Registration]:
        devices = self._tables.devices.values()
        return [device.registration for device in devices if device.registered and device.registration]

    def _put(self, registration: Registration) -> None:
        device = self._tables.devices[registration.endpoint]
        self._tables.devices[registration.endpoint] = replace(device, registration=registration)

    def _register(self, new: Registration) -> Registered | Exception:
        old = self._tables.devices.get(new.endpoint)
        proved = old is not None and old.registration is not None and old.registration.identity
        claimed = any(each.endpoint == new.endpoint for each in self._tables.credentials.values())
        if new.identity is None and (proved or claimed):
            return ForeignName(new.endpoint)
        if self._tables.locations.get(new.registration_id, new.endpoint) != new.endpoint:
            return StoreError(f"the registration id {new.registration_id} is taken")
        replaced = None
        if old is not None and old.registered and old.registration is not None:
            replaced = old.registration.registration_id
            del self._tables.locations[replaced]
        device = old or Device(endpoint=new.endpoint, created_at=new.registered_at)
        self._tables.devices[new.endpoint] = replace(device, registration=new, registered=True)
        self._tables.locations[new.registration_id] = new.endpoint
        data: dict[str, JsonValue] = {
            "registration_id": new.registration_id,
            "address": new.address,
            "lifetime": new.lifetime,
            "created": old is None,
            "replaced": replaced,
        }
        event = NewEvent(kind="device.registered", at=new.registered_at, endpoint=new.endpoint, data=data)
        self._tables.append([event])
        return Registered(new.registration_id, new.endpoint, old is None, replaced)

    def _update(self, update: RegistrationUpdate) -> Registration | Exception | None:
        endpoint = self._tables.locations.get(update.registration_id)
        old = None if endpoint is None else self._tables.devices[endpoint].registration
        if old is None:
            return None
        if refusal := foreign(old.endpoint, old.identity, update.owner):
            return refusal
        new = updated(old, update)
        self._put(new)
        if changes := changed(old, new):
            self._tables.append([updated_event(new, changes, update.at)])
        return new

    def _end(self, registration_id: str, now: float, how: str) -> str | None:
        endpoint = self._tables.locations.pop(registration_id, None)
        if endpoint is None:
            return None
        self._tables.devices[endpoint] = replace(self._tables.devices[endpoint], registered=False)
        self._tables.append([ended_event(registration_id, endpoint, now, how)])
        return endpoint


class MemoryObservationStore:
    """See `ports.ObservationStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, observation: Observation) -> bool:
        if observation.endpoint not in self._tables.devices:
            raise no_device(observation.endpoint)
        key = (observation.endpoint, observation.path, observation.owner)
        new = key not in self._tables.observations
        self._tables.observations[key] = observation
        return new

    async def remove(self, endpoint: str, path: str, owner: str) -> bool:
        return self._tables.observations.pop((endpoint, path, owner), None) is not None

    async def of(self, endpoint: str) -> list[Observation]:
        return [each for key, each in sorted(self._tables.observations.items()) if key[0] == endpoint]

    async def observed(self, *, after: str | None = None, limit: int = 1000) -> Page[str]:
        endpoints = {endpoint for endpoint, _, _ in self._tables.observations}
        found = [endpoint for endpoint in endpoints if self._tables.devices[endpoint].registered]
        return cut(found, lambda each: each, after, limit)
