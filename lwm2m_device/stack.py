"""One boot's LwM2M client: object tree, observations, update agent and registration over one transport."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from lwm2m_device import uri
from lwm2m_device.advanced_object import ADVANCED_UPDATE, advanced_object
from lwm2m_device.client import Registration
from lwm2m_device.component_runner import ComponentRunner
from lwm2m_device.component_updater import ComponentUpdater
from lwm2m_device.consent import Consent, ConsentGate
from lwm2m_device.dispatch import Answer, Dispatcher
from lwm2m_device.firmware_objects import firmware_object, suit_object
from lwm2m_device.hooks import ComponentHook
from lwm2m_device.judges import identifiers
from lwm2m_device.objects import (
    ERROR_FLASH_DAMAGED,
    ERROR_NO_IMAGE,
    Account,
    Health,
    Hooks,
    device_object,
    security_object,
    server_object,
    temperature_object,
)
from lwm2m_device.observe import Attributes, Due, Observations
from lwm2m_device.pace import Pace
from lwm2m_device.settings import DeviceSettings, Log
from lwm2m_device.software import Application
from lwm2m_device.software_agent import SOFTWARE, SoftwareAgent
from lwm2m_device.software_object import software_object
from lwm2m_device.tree import RequestError, Tree
from lwm2m_device.update_agent import UpdateAgent
from lwm2m_device.updater import Updater
from lwm2m_device.uri import CoapUri
from lwm2m_server.clock import Clock
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.lwm2m.links import ObjectEntry, ObjectList
from lwm2m_server.transport import Code, Peer, Request, Transport

RECOVERY_VERSION = "0.0.0"

_TICK = 1.0  # seconds between looks at observed resources that change by themselves
_FIRMWARE = 5


class Stack:
    """Everything that speaks LwM2M. `reboot` asks for a restart once the present answers have left."""

    def __init__(
        self,
        settings: DeviceSettings,
        updater: Updater,
        transport: Transport,
        *,
        damaged: bool,
        consent: Consent | None,
        hooks: Sequence[ComponentHook],
        applications: Sequence[Application],
        application_hook: ComponentHook | None,
        pace: Pace,
        clock: Clock,
        find: Callable[[CoapUri], Awaitable[Peer]],
        reboot: Callable[[], None],
        log: Log,
    ) -> None:
        self.settings = settings
        self.updater = updater
        self._transport = transport
        self._pace = pace
        self._reboot = reboot
        self._log = log
        self._find = find
        self._silent = False
        self._client_task: asyncio.Task[Any] | None = None
        self._server = uri.parse(settings.server, field="server")
        self.account = Account(settings.lifetime)
        self.agent = UpdateAgent(
            updater,
            settings,
            transport,
            pace=pace,
            consent=ConsentGate(updater, consent, pace, log),
            find=find,
            installing=self._install,
            log=log,
        )
        self._runner: ComponentRunner | None = None
        if isinstance(updater, ComponentUpdater):
            self._runner = ComponentRunner(updater.installation, hooks, reboot, log)
        self._software: dict[tuple[str, ...], SoftwareAgent] = {}
        for application in applications:
            agent = SoftwareAgent(
                application, settings, transport, pace, application_hook, find, self._objects_changed, log
            )
            self._software[agent.package_path] = agent
        self._packages = _package_paths(updater)
        effects = Hooks(self._update_soon, self._disable, reboot)
        self.tree = self._make_tree(effects, clock, self._health(damaged=damaged))
        self.observations = Observations(self.tree.read, self._default_periods)
        self.dispatcher = Dispatcher(self.tree, self.observations, lwm2m_version=settings.lwm2m_version)
        self.registration = Registration(
            transport,
            settings.endpoint,
            self.account,
            settings.lwm2m_version,
            lambda: find(self._server),
            self._object_list,
            pace,
            log,
            registered=self._registered,
        )
        transport.set_handlers(on_requests=self._on_requests, on_cancelled=self.observations.remove)
        for path in (*self._packages, *self._software):
            transport.stream(path)
        updater.listeners.append(self._changed)
        for application in applications:
            application.listeners.append(self._changed)

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """Return what has to run while this boot lasts."""
        return [self._client(), self._watch()]

    async def _client(self) -> None:
        self._client_task = asyncio.current_task()
        self.agent.resume()
        self._go_on()
        for agent in self._software.values():
            agent.resume()
        try:
            await self.registration.run()
        finally:
            self.agent.stop()
            for agent in self._software.values():
                agent.stop()
            if self._runner is not None:
                await self._runner.stop()

    async def _watch(self) -> None:
        while True:
            deadline = self._notify_due()
            wait = _TICK if deadline is None else min(_TICK, max(deadline - self._pace.now(), 0.01))
            await self._pace.sleep(wait)

    def _on_requests(self, requests: list[Request]) -> None:
        for request in requests:
            if self._silent:
                continue
            answer, block1 = self._answer(request)
            self._transport.respond(
                request.exchange,
                answer.code,
                payload=answer.payload,
                content_format=answer.content_format,
                location_path=answer.location_path,
                block1=block1,
                observe=answer.observe,
            )
            self._notify_due()

    def _answer(self, request: Request) -> tuple[Answer, tuple[int, bool, int] | None]:
        if not self._is_server(request.peer):
            return Answer(Code.UNAUTHORIZED, b"Only the server of this device may do that."), None
        instance, application = self._packages.get(request.path), self._software.get(request.path)
        streamed = request.code in (Code.PUT, Code.POST) and not request.query
        if streamed and (request.block1 or request.content_format in (None, ContentFormat.OPAQUE)):
            if instance is not None:
                return self.agent.package_block(request, instance)
            if application is not None:
                return application.package_block(request)
        return self.dispatcher.answer(request, self._pace.now()), None

    def _is_server(self, peer: Peer) -> bool:
        known = self.registration.peer
        return known is not None and known.scheme == peer.scheme and _same_host(known.host, peer.host)

    def _changed(self) -> None:
        self._notify_due()

    def _notify_due(self) -> float | None:
        due, deadline = self.observations.poll(self._pace.now())
        for each in due:
            self._notify(each)
        return deadline

    def _notify(self, due: Due) -> None:
        observation = due.observation
        important = observation.path.ids[:1] in ((_FIRMWARE,), (ADVANCED_UPDATE,), (SOFTWARE,))
        if due.error is not None:
            self._transport.notify(observation.exchange, due.error, confirmable=True)
            return
        try:
            content_format, payload = self.dispatcher.represent(
                observation.path, list(due.nodes), observation.accept
            )
        except RequestError as error:
            self.observations.remove(observation.exchange)
            self._transport.notify(observation.exchange, error.code, confirmable=True)
        else:
            self._transport.notify(
                observation.exchange,
                Code.CONTENT,
                payload=payload,
                content_format=content_format,
                confirmable=important,
            )

    def _install(self) -> None:
        if self.settings.faults.silent:
            self._log("Silent from now on (as ordered)")
            asyncio.get_running_loop().call_soon(self._fall_silent)
            return
        if self.updater.record.plan is None:
            self.updater.install()
            self._reboot()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Go on with an installation of several components."""
        if self._runner is not None:
            self._runner.go_on()

    def _fall_silent(self) -> None:
        self._silent = True
        self.observations.clear()
        self.registration.location = None
        if self._client_task is not None:
            self._client_task.cancel()

    def _registered(self) -> None:
        if self.updater.loader.on_trial:
            self.updater.confirm()
            reached = "is confirmed" if self.updater.record.plan is None else "has reached the server"
            self._log(f"Image {self._version()} {reached}")
            self._go_on()

    def _disable(self) -> None:
        self.registration.disable()

    def _objects_changed(self) -> None:
        self.registration.update_if_changed()

    def _update_soon(self) -> None:
        self.registration.update_soon()

    def _default_periods(self) -> Attributes:
        return Attributes(pmin=self.account.pmin or None, pmax=self.account.pmax or None)

    def _version(self) -> str:
        image = self.updater.boot.image
        return RECOVERY_VERSION if image is None else image.version

    def _health(self, *, damaged: bool) -> Health:
        health = Health()
        if damaged:
            health.report(ERROR_FLASH_DAMAGED)
        if self.updater.boot.image is None:
            health.report(ERROR_NO_IMAGE)
        return health

    def _make_tree(self, hooks: Hooks, clock: Clock, health: Health) -> Tree:
        slot = self.updater.slot
        objects = [
            security_object(self.settings),
            server_object(self.account, hooks),
            device_object(
                self.settings,
                version=self._version(),
                memory=(slot.capacity, sum(each.capacity for each in self.updater.loader.slots)),
                health=health,
                hooks=hooks,
                clock=clock,
            ),
            firmware_object(self.updater, self.agent, self.settings),
            temperature_object(clock),
        ]
        if isinstance(self.updater, ComponentUpdater):
            objects.append(advanced_object(self.updater, self.agent, self.settings))
        if self._software:
            objects.append(software_object(self._software.values()))
        if not self.settings.plain:
            objects.append(suit_object(self.updater, *identifiers(self.settings)))
        return Tree(objects)

    def _object_list(self) -> bytes:
        entries = tuple(
            ObjectEntry(
                node.id, None if node.version == "1.0" else node.version, tuple(sorted(node.instances))
            )
            for node in self.tree.objects.values()
            if not node.hidden
        )
        return ObjectList((), self.dispatcher.formats, entries).serialise()


def _package_paths(updater: Updater) -> dict[tuple[str, ...], int]:
    """Return where packages are pushed to, and for which instance."""
    paths: dict[tuple[str, ...], int] = {(str(_FIRMWARE), "0", "0"): 0}
    if isinstance(updater, ComponentUpdater):
        paths |= {(str(ADVANCED_UPDATE), str(each), "0"): each for each in range(len(updater.states))}
    return paths


def _same_host(left: str, right: str) -> bool:
    try:
        return _plain(left) == _plain(right)
    except ValueError:
        return left == right


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
