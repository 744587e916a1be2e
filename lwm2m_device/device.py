"""The device: boots, runs its LwM2M client until it reboots or is stopped, and boots again.

All that outlives a reboot is in the flash, so a reboot inside of the process, a new process and a kill
-9 in between come to the same.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lwm2m_device import uri
from lwm2m_device.assembly import make_updater
from lwm2m_device.bootloader import Boot, BootLoader
from lwm2m_device.consent import Consent, ConsentProgram
from lwm2m_device.flash import Mains, PowerSupply
from lwm2m_device.hooks import ComponentHook, hook_of, named_hook
from lwm2m_device.pace import LoopPace, Pace, wait_for
from lwm2m_device.settings import DeviceSettings, Log
from lwm2m_device.software import Application
from lwm2m_device.software_host import boot_applications, close_places, open_places
from lwm2m_device.stack import Stack
from lwm2m_device.storage import Storage, open_storage, start_up
from lwm2m_device.updater import Updater
from lwm2m_device.uri import CoapUri
from lwm2m_server.clock import Clock, SystemClock
from lwm2m_server.transport import Peer, Transport, TransportError

_CRASH_SECONDS = 1.0


@dataclass(frozen=True)
class World:
    """What a device needs from outside. `transport` makes a new endpoint for each boot, `supply` powers the flash."""

    transport: Callable[[], Transport]
    log: Log
    clock: Clock
    pace: Pace
    supply: PowerSupply = field(default_factory=Mains)

    @classmethod
    def real(cls, transport: Callable[[], Transport], log: Log, supply: PowerSupply) -> "World":
        """Take the machine's clock and the event loop's time."""
        return cls(transport, log, SystemClock(), LoopPace(), supply)


class Device:
    """One device with its flash file."""

    def __init__(
        self,
        settings: DeviceSettings,
        world: World,
        *,
        consent: Consent | None = None,
        hooks: Mapping[str, ComponentHook] = MappingProxyType({}),
        application_hook: ComponentHook | None = None,
    ) -> None:
        """Make it; raises InvalidInput when a hook can't be loaded.

        `consent`, `hooks` (by component) and `application_hook` are the application's; without them those of the
        settings.
        """
        self.settings = settings
        if consent is None and settings.consent is not None:
            consent = ConsentProgram(settings.consent, settings.consent_timeout)
        self._consent = consent
        self._hooks = tuple(hooks.get(each.name) or hook_of(each) for each in settings.components)
        if application_hook is None and settings.application_hook:
            application_hook = named_hook(settings.application_hook, settings.application_timeout)
        self._application_hook = application_hook
        self._world = world
        self._reboot = asyncio.Event()
        self._stopping = False
        self.stack: Stack | None = None

    def stop(self) -> None:
        """De-register and end `run`."""
        self._stopping = True
        self._reboot.set()

    async def run(self) -> None:
        """Run until `stop`; raises Lwm2mError when the flash file or the server's URI can't be used."""
        uri.parse(self.settings.server, field="server")
        storage = open_storage(
            self.settings.flash,
            page_size=self.settings.page_size,
            slot_size=self.settings.slot_size,
            kind=self.settings.layout,
            staging_size=self.settings.staging_size,
            components=self.settings.components,
            log=self._world.log,
            supply=self._world.supply,
        )
        places: list[Storage] = []
        try:
            places += open_places(self.settings, self._world.log, self._world.supply)
            while not self._stopping:
                self._reboot.clear()
                await self._boot(storage, places)
                for each in (storage, *places):
                    each.damaged = False
        finally:
            close_places((storage, *places))

    async def _boot(self, storage: Storage, places: Sequence[Storage]) -> None:
        log = self._world.log
        loader, boot = start_up(self.settings, storage, log)
        version = "nothing: recovery" if boot.image is None else boot.image.version
        log(f"Boot: {version}{self._place(loader, boot)}")
        if boot.trial and self.settings.faults.bad_boot:
            log("The new image crashes (as ordered)")
            await wait_for(self._reboot, _CRASH_SECONDS, self._world.pace)
            return
        updater = make_updater(self.settings, storage.flash, storage.layout, loader, boot, self._world.clock)
        damaged = storage.damaged or loader.damaged or updater.damaged or any(each.damaged for each in places)
        notes, install = updater.reconcile()
        for note in notes:
            log(note)
        if not install:
            applications = boot_applications(self.settings, places, self._world.clock, log)
            await self._serve(updater, applications, damaged=damaged)

    def _place(self, loader: BootLoader, boot: Boot) -> str:
        if boot.slot is None:
            return ""
        trial = f", trial {loader.state.attempts} of {self.settings.max_boots}" if boot.trial else ""
        return f" in slot {loader.slots[boot.slot].name}{trial}"

    async def _serve(self, updater: Updater, applications: Sequence[Application], *, damaged: bool) -> None:
        """Run the LwM2M client until a reboot or the end."""
        transport = self._world.transport()
        await transport.start()
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._open(transport)
            stack = Stack(
                self.settings,
                updater,
                transport,
                damaged=damaged,
                consent=self._consent,
                hooks=self._hooks,
                applications=applications,
                application_hook=self._application_hook,
                pace=self._world.pace,
                clock=self._world.clock,
                find=find_peer,
                reboot=self._reboot_soon(tasks),
                log=self._world.log,
            )
            self.stack = stack
            tasks += [self._watched(each) for each in stack.tasks()]
            limit = self.settings.confirm_timeout if updater.boot.trial else None
            if not await wait_for(self._reboot, limit, self._world.pace):
                await self._judge_trial(updater)
            if self._stopping:
                await stack.registration.deregister()
            self._raise_failures(tasks)
        finally:
            self.stack = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await transport.close()

    def _watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task whose failure ends this boot: a device that half works helps nobody."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                self._reboot.set()

        task = _spawn(work)
        task.add_done_callback(ended)
        return task

    def _raise_failures(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
                raise failure

    async def _judge_trial(self, updater: Updater) -> None:
        """Reboot a new image that could not reach the server in time; one that could runs on."""
        if not updater.awaits_server:
            await self._reboot.wait()
        else:
            self._world.log(
                f"No server reached within {self.settings.confirm_timeout:.0f} s on trial; rebooting"
            )

    def _reboot_soon(self, tasks: list[asyncio.Task[None]]) -> Callable[[], None]:
        async def later() -> None:
            await self._world.pace.sleep(self.settings.reboot_delay)
            self._reboot.set()

        return lambda: tasks.append(_spawn(later()))

    async def _open(self, transport: Transport) -> None:
        """Bind what the device talks to its server through."""
        server = uri.parse(self.settings.server, field="server")
        if self.settings.security is not None:
            transport.secure(self.settings.security)
        local = self.settings.local
        if local is None:
            local = "0.0.0.0", 0
            with contextlib.suppress(TransportError):
                peer = await find_peer(server)
                local = ("::" if ":" in peer.host else "0.0.0.0"), 0
        await transport.listen(*local, secure=server.is_secure)


async def find_peer(target: CoapUri) -> Peer:
    """Look a host up; raises TransportError when there is no address for it."""
    host = target.host
    try:
        host = str(ipaddress.ip_address(host))
    except ValueError:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, target.port)
        except OSError as error:
            raise TransportError(
                f"The host {host} has no address: {error.strerror}.", field="server"
            ) from None
        host = str(found[0][4][0])
    return Peer(uri.address(host, target.port), scheme=target.scheme)


def _spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)
