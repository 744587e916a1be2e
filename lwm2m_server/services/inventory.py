"""What a device says of itself, read after each registration: objects 3, 42800, 33629 and 9.

A device may come back as another version, so nothing read before is trusted. A bounded number of devices is asked at
a time: when a whole fleet registers at once the rest waits its turn.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog

from lwm2m_server.clock import Clock
from lwm2m_server.devices.records import ComponentFacts, Facts
from lwm2m_server.errors import Lwm2mError
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import Value
from lwm2m_server.services.background import Background, report
from lwm2m_server.services.components import Values, capacity_of
from lwm2m_server.services.device_link import COMPONENTS, read_components, read_values
from lwm2m_server.services.exchange import Exchange
from lwm2m_server.services.software_link import read_applications
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import JsonValue, NewEvent

_log = structlog.get_logger(__name__)

CONCURRENCY = 64
_DEVICE = Path.of(3, 0)
_AGENT = Path.of(SUIT_AGENT, 0)
_MANUFACTURER, _MODEL, _SERIAL, _FIRMWARE, _HARDWARE = (_DEVICE.child(number) for number in (0, 1, 2, 3, 18))
_VENDOR, _CLASS, _SEQUENCE, _RUNNING = (_AGENT.child(number) for number in (0, 1, 2, 3))
_UUID_BYTES = 16
_DIGEST_BYTES = 32
_MAX_NUMBER = 2**63 - 1  # that a database holds


class Inventory:
    """Reads facts of devices that have registered, each device once however often it is named meanwhile."""

    def __init__(
        self,
        store: Store,
        exchange: Exchange,
        clock: Clock,
        *,
        then: Callable[[str], Awaitable[None]],
        concurrency: int = CONCURRENCY,
    ) -> None:
        """`then` is awaited for each device after it was asked, whether it answered or not."""
        self._store = store
        self._exchange = exchange
        self._clock = clock
        self._then = then
        self._concurrency = concurrency
        self._waiting: deque[tuple[str, bool]] = deque()
        self._named: set[str] = set()
        self._workers = 0
        self._background = Background("inventory")

    async def close(self) -> None:
        """Stop asking."""
        self._waiting.clear()
        await self._background.close()

    def ask(self, endpoints: Sequence[str]) -> None:
        """Ask these devices as soon as there is room, then follow; returns at once."""
        for endpoint in endpoints:
            if endpoint not in self._named:
                self._named.add(endpoint)
                self._waiting.append((endpoint, True))
        self._hire()

    def follow(self, endpoints: Sequence[str]) -> None:
        """Ask these devices nothing, but do what follows."""
        self._waiting.extend((endpoint, False) for endpoint in endpoints)
        self._hire()

    def asking(self, endpoint: str) -> bool:
        """Say whether the device will be asked, or is being asked now."""
        return endpoint in self._named

    def _hire(self) -> None:
        while self._workers < self._concurrency and self._workers < len(self._waiting):
            self._workers += 1
            if self._background.spawn(self._work()) is None:
                self._workers -= 1
                return

    async def _work(self) -> None:
        try:
            while self._waiting:
                endpoint, read = self._waiting.popleft()
                try:
                    if read:
                        await self._inquire(endpoint)
                    await self._then(endpoint)
                except Exception as error:  # noqa: BLE001  one device must not keep the others waiting
                    report(error, "inventory failed", endpoint=endpoint)
        finally:
            self._workers -= 1

    async def _inquire(self, endpoint: str) -> None:
        try:
            await self._read(endpoint)
        except Lwm2mError as error:
            _log.info("inventory not read", endpoint=endpoint, error=error.message)
        finally:
            self._named.discard(endpoint)

    async def _read(self, endpoint: str) -> None:
        async with self._exchange.turn(endpoint):
            target = await self._exchange.target(endpoint)
            values = await read_values(self._exchange, target, _DEVICE, (0, 1, 2, 3))
            agent = target.objects.get(SUIT_AGENT) is not None
            if agent:
                values |= await read_values(self._exchange, target, _AGENT, (0, 1, 2, 3, *COMPONENTS))
            components = await read_components(self._exchange, target, values)
            applications = await read_applications(self._exchange, target)
        facts = replace(facts_of(values, components, understands_manifests=agent), applications=applications)
        if facts == target.device.facts:
            return
        if await self._store.devices.set_facts(endpoint, facts):
            data: dict[str, JsonValue] = {
                "manufacturer": facts.manufacturer,
                "model": facts.model,
                "firmware_version": facts.firmware_version,
                "understands_manifests": agent,
                "components": {each.name: each.version for each in components},
                "applications": {each.name: each.version for each in applications if each.name},
            }
            event = NewEvent(kind="device.inventory", at=self._clock.now(), endpoint=endpoint, data=data)
            await self._store.events.append([event])


def facts_of(
    values: Values, components: tuple[ComponentFacts, ...] = (), *, understands_manifests: bool
) -> Facts:
    """Pick the facts out of what was read; what is missing or of a wrong type stays unknown."""
    return Facts(
        manufacturer=_text(values.get(_MANUFACTURER)),
        model=_text(values.get(_MODEL)),
        serial=_text(values.get(_SERIAL)),
        hardware_version=_text(values.get(_HARDWARE)),
        firmware_version=_text(values.get(_FIRMWARE)),
        running_digest=_bytes(values.get(_RUNNING), _DIGEST_BYTES),
        vendor_id=_bytes(values.get(_VENDOR), _UUID_BYTES),
        class_id=_bytes(values.get(_CLASS), _UUID_BYTES),
        understands_manifests=understands_manifests,
        capacity=capacity_of(values),
        sequence=_number(values.get(_SEQUENCE)),
        components=components,
    )


def _text(value: Value | None) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Value | None) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _MAX_NUMBER else None


def _bytes(value: Value | None, length: int) -> bytes | None:
    return value if isinstance(value, bytes) and len(value) == length else None
