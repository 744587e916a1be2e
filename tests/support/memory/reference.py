"""The reference device on a network in memory, in the network's virtual time."""

import asyncio
from pathlib import Path
from typing import Any

from lwm2m_device.consent import Consent
from lwm2m_device.device import Device
from lwm2m_device.device import World as Surroundings
from lwm2m_device.flash import Mains
from lwm2m_device.hooks import ComponentHook
from lwm2m_device.settings import DeviceSettings
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport


class NetworkPace:
    """The network's virtual time as the device's."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    def now(self) -> float:
        return self._network.clock.now()

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        timer = self._network.later(seconds, lambda: future.done() or future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()


class MemoryDevice:
    """A reference device that can be started, killed and started again over one flash file.

    `settings` are those of `DeviceSettings`, beside a name and an address.
    """

    def __init__(
        self,
        network: MemoryNetwork,
        flash: Path,
        *,
        server: str,
        consent: Consent | None = None,
        supply: Mains | None = None,
        **settings: Any,
    ) -> None:
        self.network = network
        self.log: list[str] = []
        self.device: Device | None = None
        self.task: asyncio.Task[None] | None = None
        self._consent = consent
        self.hooks: dict[str, ComponentHook] = {}
        self.application_hook: ComponentHook | None = None
        self._supply = supply or Mains()
        self._settings = {
            "endpoint": "dev-1",
            "server": f"coap://{server}",
            "flash": flash,
            "slot_size": 65536,
            "local": ("10.0.1.1", 0),
            **settings,
        }

    def settings(self, **changes: Any) -> DeviceSettings:
        """Its settings, with changes."""
        return DeviceSettings(**(self._settings | changes))

    def transport(self) -> MemoryTransport:
        """What it speaks over, for the next boot."""
        return MemoryTransport(self.network)

    def start(self, *, consent: Consent | None = None, **changes: Any) -> None:
        """Switch it on, with other settings than its own for this time."""
        clock, pace = self.network.clock, NetworkPace(self.network)
        around = Surroundings(self.transport, self.log.append, clock, pace, self._supply)
        self.device = Device(
            self.settings(**changes),
            around,
            consent=consent or self._consent,
            hooks=self.hooks,
            application_hook=self.application_hook,
        )
        self.task = asyncio.get_running_loop().create_task(self.device.run())

    def cut(self) -> None:
        """Take the power away; returns at once."""
        if self.task is not None:
            self.task.cancel()

    async def kill(self) -> None:
        """End it without good-bye, as SIGKILL does; nothing when it isn't running."""
        self.cut()
        if self.task is not None:
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    def said(self, text: str) -> bool:
        """Whether a line of its log holds the text."""
        return any(text in line for line in self.log)
