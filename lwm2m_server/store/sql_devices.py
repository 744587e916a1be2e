# ruff: noqa: A002, D102  the port's words and its docstrings
"""Devices and observations over SQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from lwm2m_server import versions
from lwm2m_server.devices.attributes import AttributeType, check_value, clean_facts, define
from lwm2m_server.devices.filter import Filter
from lwm2m_server.devices.records import (
    ApplicationFacts,
    AttributeValue,
    ComponentFacts,
    Device,
    Facts,
    Observation,
)
from lwm2m_server.store import sql_events
from lwm2m_server.store.database import Database
from lwm2m_server.store.prepared import AnySelect
from lwm2m_server.store.records import NewEvent, Page
from lwm2m_server.store.rows import (
    DEVICE_COLUMNS,
    application_row,
    applications_text,
    component_row,
    components_text,
    device_of,
    page_of,
    plain_of,
    plain_values,
    to_json,
)
from lwm2m_server.store.rules import no_device, stale_device
from lwm2m_server.store.schema import (
    attribute_types,
    device_applications,
    device_attributes,
    device_components,
    devices,
    observations,
)
from lwm2m_server.store.sql_filter import condition

_CHUNK = 500
_d = devices.c


class SqlDeviceStore:
    """See `ports.DeviceStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, endpoint: str) -> Device | None:
        rows = await self._database.read(select(*DEVICE_COLUMNS).where(_d.endpoint == endpoint))
        return device_of(rows[0]) if rows else None

    async def get_many(self, endpoints: Iterable[str]) -> dict[str, Device]:
        wanted = list(dict.fromkeys(endpoints))
        found: dict[str, Device] = {}
        for start in range(0, len(wanted), _CHUNK):
            query = select(*DEVICE_COLUMNS).where(_d.endpoint.in_(wanted[start : start + _CHUNK]))
            found |= {row[1]: device_of(row) for row in await self._database.read(query)}
        return found

    async def page(
        self, *, filter: Filter | None = None, now: float, after: str | None = None, limit: int = 100
    ) -> Page[Device]:
        query = _matching(select(*DEVICE_COLUMNS), filter, now, after).limit(limit + 1)
        found = [device_of(row) for row in await self._database.read(query)]
        return page_of(found, limit, lambda device: device.endpoint)

    async def endpoints(
        self, *, filter: Filter | None = None, now: float, after: str | None = None, limit: int = 1000
    ) -> Page[str]:
        query = _matching(select(_d.endpoint), filter, now, after).limit(limit + 1)
        return page_of([row[0] for row in await self._database.read(query)], limit, lambda endpoint: endpoint)

    async def count(self, *, filter: Filter | None = None, now: float) -> int:
        query = select(func.count()).select_from(devices)
        if filter is not None:
            query = query.where(condition(filter, now))
        return int((await self._database.read(query))[0][0])

    async def set_facts(self, endpoint: str, facts: Facts) -> bool:
        facts = clean_facts(facts)
        values: dict[str, Any] = {
            field.name: value for field in fields(facts) if (value := getattr(facts, field.name)) is not None
        }
        for name in ("hardware", "firmware"):
            if (text := values.get(f"{name}_version")) is not None:
                values[f"{name}_key"] = versions.try_sort_key(text)
        if not values:
            return await self.get(endpoint) is not None
        if facts.components is not None:
            values["components"] = components_text(facts.components)
        if facts.applications is not None:
            values["applications"] = applications_text(facts.applications)
        return await self._set(endpoint, values, facts)

    async def set_formats(self, endpoint: str, formats: Mapping[str, int | bool]) -> bool:
        return await self._set(endpoint, {"formats": to_json(formats)})

    async def set_attributes(
        self,
        endpoint: str,
        changes: Mapping[str, AttributeValue | None],
        *,
        revision: int | None = None,
        events: Sequence[NewEvent] = (),
    ) -> Device:
        def work(connection: Connection) -> Device:
            device = _device(connection, endpoint)
            if revision is not None and revision != device.revision:
                raise stale_device(endpoint)
            types = _types(connection)
            checked = {name: check_value(name, value, types.get(name)) for name, value in changes.items()}
            new_types = {name: type_ for name, type_ in checked.items() if type_ and name not in types}
            for name, type_ in new_types.items():
                connection.execute(insert(attribute_types).values(name=name, type=type_))
            _replace_attributes(connection, endpoint, changes, checked)
            attributes = {k: v for k, v in {**device.attributes, **changes}.items() if v is not None}
            connection.execute(
                update(devices)
                .where(_d.endpoint == endpoint)
                .values(attributes=to_json(attributes), revision=_d.revision + 1)
            )
            sql_events.append(connection, events)
            return _device(connection, endpoint)

        return await self._database.write(work)

    async def attribute_types(self) -> dict[str, AttributeType]:
        rows = await self._database.read(select(attribute_types))
        return {name: AttributeType(type_) for name, type_ in rows}

    async def define_attribute(
        self, name: str, type: AttributeType, *, events: Sequence[NewEvent] = ()
    ) -> None:
        def work(connection: Connection) -> None:
            used = select(device_attributes.c.name).where(device_attributes.c.name == name).limit(1)
            in_use = (connection.execute(used)).first() is not None
            defined = _types(connection).get(name)
            define(name, type, defined, in_use=in_use)
            if defined is type:
                return
            statement = upsert(attribute_types).values(name=name, type=type)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"type": type}))
            sql_events.append(connection, events)

        await self._database.write(work)

    async def delete(self, endpoint: str, *, events: Sequence[NewEvent] = ()) -> bool:
        def work(connection: Connection) -> bool:
            gone = (connection.execute(delete(devices).where(_d.endpoint == endpoint))).rowcount > 0
            sql_events.append(connection, events if gone else ())
            return gone

        return await self._database.write(work)

    async def _set(self, endpoint: str, values: Mapping[str, Any], facts: Facts | None = None) -> bool:
        def work(connection: Connection) -> bool:
            statement = update(devices).where(_d.endpoint == endpoint).values(**values)
            there = (connection.execute(statement)).rowcount > 0
            if there and facts is not None and facts.components is not None:
                replace_components(connection, endpoint, facts.components)
            if there and facts is not None and facts.applications is not None:
                replace_applications(connection, endpoint, facts.applications)
            return there

        return await self._database.write(work)


class SqlObservationStore:
    """See `ports.ObservationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, observation: Observation) -> bool:
        def work(connection: Connection) -> bool:
            _device(connection, observation.endpoint)
            key = _key(observation.endpoint, observation.path, observation.owner)
            replaced = (connection.execute(delete(observations).where(*key))).rowcount > 0
            connection.execute(insert(observations).values(plain_values(observation)))
            return not replaced

        return await self._database.write(work)

    async def remove(self, endpoint: str, path: str, owner: str) -> bool:
        def work(connection: Connection) -> bool:
            statement = delete(observations).where(*_key(endpoint, path, owner))
            return (connection.execute(statement)).rowcount > 0

        return await self._database.write(work)

    async def of(self, endpoint: str) -> list[Observation]:
        query = select(observations).where(observations.c.endpoint == endpoint)
        rows = await self._database.read(query.order_by(observations.c.path, observations.c.owner))
        return [plain_of(Observation, row) for row in rows]

    async def observed(self, *, after: str | None = None, limit: int = 1000) -> Page[str]:
        own = observations.c.endpoint
        query: AnySelect = select(own).distinct().join(devices, _d.endpoint == own)
        query = query.where(_d.registered == true()).order_by(own).limit(limit + 1)
        if after is not None:
            query = query.where(own > after)
        return page_of([row[0] for row in await self._database.read(query)], limit, lambda each: each)


def replace_components(connection: Connection, endpoint: str, components: Sequence[ComponentFacts]) -> None:
    """Put these components of a device where filters look, in place of those that were there."""
    connection.execute(delete(device_components).where(device_components.c.endpoint == endpoint))
    for component in components:
        connection.execute(insert(device_components).values(component_row(endpoint, component)))


def replace_applications(
    connection: Connection, endpoint: str, applications: Sequence[ApplicationFacts]
) -> None:
    """Do the same for applications."""
    connection.execute(delete(device_applications).where(device_applications.c.endpoint == endpoint))
    for application in applications:
        if application.name:
            connection.execute(insert(device_applications).values(application_row(endpoint, application)))


def _key(endpoint: str, path: str, owner: str) -> tuple[Any, ...]:
    own = observations.c
    return (own.endpoint == endpoint, own.path == path, own.owner == owner)


def _matching(query: AnySelect, filter: Filter | None, now: float, after: str | None) -> AnySelect:
    if filter is not None:
        query = query.where(condition(filter, now))
    if after is not None:
        query = query.where(_d.endpoint > after)
    return query.order_by(_d.endpoint)


def _device(connection: Connection, endpoint: str) -> Device:
    query: AnySelect = select(*DEVICE_COLUMNS).where(_d.endpoint == endpoint)
    row = (connection.execute(query)).first()
    if row is None:
        raise no_device(endpoint)
    return device_of(row)


def _types(connection: Connection) -> dict[str, AttributeType]:
    return {name: AttributeType(type_) for name, type_ in connection.execute(select(attribute_types))}


def _replace_attributes(
    connection: Connection,
    endpoint: str,
    changes: Mapping[str, AttributeValue | None],
    types: Mapping[str, AttributeType | None],
) -> None:
    own = device_attributes.c
    connection.execute(delete(device_attributes).where(own.endpoint == endpoint, own.name.in_(list(changes))))
    for name, value in changes.items():
        if value is None:
            continue
        textual = types[name] in (AttributeType.TEXT, AttributeType.VERSION)
        connection.execute(
            insert(device_attributes).values(
                endpoint=endpoint,
                name=name,
                text=value if textual else None,
                number=None if textual else float(value),
                sort_key=versions.try_sort_key(str(value)) if textual else None,
            )
        )
