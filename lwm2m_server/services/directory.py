"""Devices as operators see them: lists by filter, attributes, history."""

from collections.abc import Awaitable, Callable, Mapping

from lwm2m_server.campaigns.records import Deployment
from lwm2m_server.clock import Clock
from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.devices.filter import Filter, parse
from lwm2m_server.devices.records import AttributeValue, Device
from lwm2m_server.errors import Conflict, NotFound
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import Event, JsonValue, NewEvent, Page

MAX_PAGE = 1000


def unknown_device(endpoint: str) -> NotFound:
    """Return the error for an endpoint that nobody knows."""
    return NotFound(
        f"There is no device '{endpoint}'.", field="endpoint", hint="See what is there: lwm2m devices list."
    )


async def parse_filter(store: Store, text: str) -> Filter | None:
    """Parse a filter with the fleet's attributes in sight; None for an empty text. Raises `InvalidInput`."""
    if not text.strip():
        return None
    return parse(text, attributes=await store.devices.attribute_types())


class DirectoryService:
    """The devices that the server knows."""

    def __init__(
        self, store: Store, clock: Clock, *, on_delete: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        """`on_delete` is awaited before a device is forgotten, to end what is under way with it."""
        self._store = store
        self._clock = clock
        self._on_delete = on_delete

    async def list(self, *, filter: str = "", after: str | None = None, limit: int = 100) -> Page[Device]:  # noqa: A002
        """Return devices that match, by endpoint. Raises `InvalidInput` (field `filter`) saying where."""
        tree = await parse_filter(self._store, filter)
        limit = max(1, min(limit, MAX_PAGE))
        return await self._store.devices.page(filter=tree, now=self._clock.now(), after=after, limit=limit)

    async def count(self, filter: str = "") -> int:  # noqa: A002
        """Count the devices that match."""
        tree = await parse_filter(self._store, filter)
        return await self._store.devices.count(filter=tree, now=self._clock.now())

    async def get(self, endpoint: str) -> Device:
        """Return one device; raise `NotFound`."""
        device = await self._store.devices.get(endpoint)
        if device is None:
            raise unknown_device(endpoint)
        return device

    async def set_attributes(
        self,
        endpoint: str,
        changes: Mapping[str, AttributeValue | None],
        *,
        expected_revision: int | None = None,
        actor: str,
    ) -> Device:
        """Set attributes (None unsets) and return the device as it is then.

        Raises `NotFound`, `InvalidInput` for a name, value or type, `Conflict` for a stale revision.
        """
        event = NewEvent(
            kind="device.attributes",
            at=self._clock.now(),
            endpoint=endpoint,
            data={"changes": dict(changes), "by": actor},
        )
        return await self._store.devices.set_attributes(
            endpoint, changes, revision=expected_revision, events=[event]
        )

    async def attribute_types(self) -> dict[str, AttributeType]:
        """Return the operators' attributes and their types, by name."""
        return dict(sorted((await self._store.devices.attribute_types()).items()))

    async def define_attribute(self, name: str, type_: AttributeType, *, actor: str) -> None:
        """Give an operators' attribute its type, before a device has a value.

        Raises `InvalidInput` for a name or type that can't be, `Conflict` while devices hold another type.
        """
        data: dict[str, JsonValue] = {"name": name, "type": type_.value, "by": actor}
        event = NewEvent(kind="attribute.defined", at=self._clock.now(), data=data)
        await self._store.devices.define_attribute(name, type_, events=[event])

    async def delete(self, endpoint: str, *, actor: str) -> None:
        """Forget a device; it comes back as a new one if it registers again. Raises `NotFound`,
        `Conflict`.
        """
        await self.get(endpoint)
        for deployment in await self._store.deployments.open(endpoint):
            raise Conflict(
                f"Device '{endpoint}' is being updated by campaign '{deployment.campaign_id}'.",
                code="update-under-way",
                field="endpoint",
                hint="Abort the campaign or wait for the outcome, then delete the device.",
            )
        if self._on_delete is not None:
            await self._on_delete(endpoint)
        event = NewEvent(kind="device.deleted", at=self._clock.now(), endpoint=endpoint, data={"by": actor})
        if not await self._store.devices.delete(endpoint, events=[event]):
            raise unknown_device(endpoint)

    async def history(self, endpoint: str, *, before: int | None = None, limit: int = 100) -> Page[Event]:
        """Return what happened to a device (also a deleted one), the newest first."""
        limit = max(1, min(limit, MAX_PAGE))
        found = await self._store.events.before(before, limit=limit, endpoint=endpoint)
        return Page(tuple(found), str(found[-1].id) if len(found) == limit else None)

    async def deployments(self, endpoint: str) -> tuple[Deployment, ...]:
        """Return every deployment that the device was part of, the newest first."""
        return tuple(await self._store.deployments.of(endpoint))
