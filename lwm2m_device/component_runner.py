"""Drives an installation of several components: calls the hooks, reboots, waits for the server."""

import asyncio
from collections.abc import Callable, Sequence

from lwm2m_device.component_install import HookCall, Installation, Wait
from lwm2m_device.component_state import short
from lwm2m_device.hooks import Action, ComponentHook
from lwm2m_device.settings import Log


class ComponentRunner:
    """One task at a time; `hooks` are those of instances 1, 2 and so on."""

    def __init__(
        self,
        installation: Installation,
        hooks: Sequence[ComponentHook],
        reboot: Callable[[], None],
        log: Log,
    ) -> None:
        self._installation = installation
        self._hooks = hooks
        self._reboot = reboot
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._percent = -1

    def go_on(self) -> None:
        """Go on with the plan, if there is one and nobody does so already."""
        if self._installation.plan is None or (self._task is not None and not self._task.done()):
            return
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End, in the middle of a hook if need be; the next start calls it again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while isinstance(step := self._installation.next(), HookCall):
            failure = await self._call(step)
            self._installation.report(step, failure)
        if step is Wait.REBOOT:
            self._reboot()
        elif step is Wait.NOTHING:
            self._log("The installation of the components has ended.")

    async def _call(self, call: HookCall) -> str | None:
        order = call.order
        what = "is installed" if order.action is Action.INSTALL else "gets its image before again"
        self._log(f"Component {order.component} {what}: {order.version}, {order.size} bytes")
        self._percent = -1
        try:
            await self._hooks[call.instance - 1].run(
                order, lambda percent: self._progress(order.component, percent)
            )
        except Exception as error:  # noqa: BLE001  the application's fault, whatever it is, must not end the device
            why = short(str(error)).rstrip(".") or type(error).__name__
            self._log(f"The hook of {order.component} failed: {why}")
            return why
        self._log(f"Component {order.component} runs {order.version}")
        return None

    def _progress(self, component: str, percent: int) -> None:
        if percent // 10 != self._percent // 10:
            self._log(f"Component {component}: {percent} % installed")
        self._percent = percent
