"""The agent of one application: brings packages by push (Block1 on /9/x/2) or pull, and has the hook do the rest.

Requests change State at once and are answered; what takes time runs in one task. What a restart interrupted goes on
at the next start: downloads where they were, installations and removals by calling the hook again.
"""

from collections.abc import Awaitable, Callable

from lwm2m_device import machine, uri
from lwm2m_device.hooks import Action, ComponentHook, HookOrder
from lwm2m_device.pace import Pace
from lwm2m_device.package_agent import PackageAgent
from lwm2m_device.settings import Delivery, DeviceSettings, Log
from lwm2m_device.slots import ImageHeader, Slot
from lwm2m_device.software import Application
from lwm2m_device.software_machine import CHANGED, METHOD_NOT_ALLOWED, Result, Stage, Trigger
from lwm2m_device.tree import BAD_REQUEST, RequestError
from lwm2m_device.uri import CoapUri
from lwm2m_server.errors import InvalidInput
from lwm2m_server.transport import Code, Peer, Transport

SOFTWARE = 9
PACKAGE = 2
# What ends a download is told as a result of object 5; the same thing has another number here.
_RESULTS = {
    machine.Result.NO_FLASH: Result.NO_STORAGE,
    machine.Result.NO_MEMORY: Result.NO_MEMORY,
    machine.Result.CONNECTION_LOST: Result.CONNECTION_LOST,
    machine.Result.INVALID_URI: Result.INVALID_URI,
}
_REMOVAL = {"": Trigger.UNINSTALL, "0": Trigger.UNINSTALL, "1": Trigger.FOR_UPDATE}


class SoftwareAgent(PackageAgent):
    """Drives one `Application`. `changed` is called when software has come or gone and the server wants to know."""

    def __init__(
        self,
        application: Application,
        settings: DeviceSettings,
        transport: Transport,
        pace: Pace,
        hook: ComponentHook | None,
        find: Callable[[CoapUri], Awaitable[Peer]],
        changed: Callable[[], None],
        log: Log,
    ) -> None:
        super().__init__(application, settings, transport, pace, find, log)
        self.application = application
        self._hook = hook
        self._changed = changed

    @property
    def package_path(self) -> tuple[str, ...]:
        """Where packages are pushed to."""
        return str(SOFTWARE), str(self.application.place.number), str(PACKAGE)

    def resume(self) -> None:
        """Go on with what a restart interrupted, and start what is active."""
        state = self.application.state
        if state.stage is Stage.DOWNLOADING and state.source:
            self._death.spare()
            self._start_fetching()
        elif state.stage is Stage.INSTALLING:
            self._log(
                f"The installation of application {self.application.name} was cut short; it is done again"
            )
            self._start(self._install())
        elif state.stage in (Stage.UNINSTALLING, Stage.CLEARING):
            self._start(self._remove())
        elif state.stage in (Stage.STARTING, Stage.ACTIVE):
            self._start(self._run())

    # requests

    def write_uri(self, text: str) -> None:
        """Start a pull."""
        if self._settings.delivery is Delivery.PUSH:
            raise RequestError(METHOD_NOT_ALLOWED, "This device takes packages by push only.")
        absolute = uri.resolve(text, self._settings.server)
        try:
            uri.parse(absolute, field="/9/*/3")
        except InvalidInput as error:
            self._request(Trigger.URI_INVALID)
            raise RequestError(Code.BAD_REQUEST, error.message) from None
        self._request(Trigger.URI, source=absolute)
        self._log(f"Download from {absolute}")
        self._start_fetching()

    def install(self) -> None:
        """Have the hook install what was delivered."""
        self._request(Trigger.INSTALL)
        self._log(f"Installation of application {self.application.name} {self.application.version} ordered")
        self._start(self._install())

    def uninstall(self, arguments: str) -> None:
        """Drop the package, or remove the software, or (argument 1) get ready for its successor."""
        trigger = _REMOVAL.get(arguments)
        if trigger is None:
            raise RequestError(BAD_REQUEST, "Uninstall takes no argument, 0, or 1 (ForUpdate).")
        self._request(trigger)
        if self.application.state.stage in (Stage.UNINSTALLING, Stage.CLEARING):
            self._start(self._remove())
        else:
            self.stop()

    def activate(self) -> None:
        """Let the software run; it shows as active when it does."""
        self._request(Trigger.ACTIVATE)
        if self.application.state.stage is Stage.STARTING:
            self._start(self._run())

    def deactivate(self) -> None:
        """Stop the software."""
        self._request(Trigger.DEACTIVATE)
        self._start(self._halt())

    # what the hook does

    async def _install(self) -> None:
        application = self.application
        problem = await self._call(Action.INSTALL, application.delivered, application.free_slot)
        if problem is None:
            application.installed()
            self._log(f"Application {application.name} {application.version} is installed")
            self._tell()
        else:
            application.install_failed(problem)
            self._log(f"The installation of application {application.name} failed: {problem}")

    async def _remove(self) -> None:
        application = self.application
        name = application.name
        problem = await self._call(Action.REMOVE, application.software, application.place_slot)
        if problem is None:
            application.removed()
            self._log(f"Application {name} is removed")
            self._tell()
        else:
            application.remove_failed(problem)
            self._log(f"The removal of application {name} failed: {problem}")

    async def _run(self) -> None:
        application = self.application
        problem = await self._call(Action.START, application.software, application.place_slot)
        if problem is None:
            application.started()
        else:
            application.start_failed(problem)
            self._log(f"Application {application.name} does not start: {problem}")

    async def _halt(self) -> None:
        problem = await self._call(Action.STOP, self.application.software, self.application.place_slot)
        if problem is not None:
            self._log(f"Application {self.application.name} does not stop: {problem}")

    async def _call(self, action: Action, software: ImageHeader | None, slot: Slot | None) -> str | None:
        """Call the hook, if there is one; return None when it did its work, else why not."""
        if self._hook is None or software is None or slot is None:
            return None
        order = HookOrder(
            self.application.component, action, software.version, software.digest, software.size, slot.read
        )
        try:
            await self._hook.run(order, lambda _: None)
        except Exception as error:  # noqa: BLE001  the application's fault, whatever it is, must not end the device
            return str(error) or type(error).__name__
        return None

    def _tell(self) -> None:
        if self.application.state.tells_objects:
            self._changed()

    # packages

    def _request(self, trigger: Trigger, *, source: str = "") -> None:
        stage = self.application.state.stage
        code = self.application.request(trigger, source=source)
        if code == CHANGED and trigger is not Trigger.PACKAGE:
            self._push.forget()
        if code != CHANGED and trigger is not Trigger.URI_INVALID:
            raise RequestError(code, f"Not possible in state {stage.state.name.lower()}: {trigger.value}.")

    def _is_pushing(self, instance: int) -> bool:  # noqa: ARG002  there is one
        state = self.application.state
        return state.stage is Stage.DOWNLOADING and not state.source

    def _begin_push(self, instance: int) -> None:  # noqa: ARG002  there is one
        self._request(Trigger.PACKAGE)
        self._percent = -1

    def _fail(self, result: machine.Result, code: str, text: str) -> None:
        self.application.fail(_RESULTS[result], code, text)

    def _finish(self) -> None:
        self.application.finish()
        state = self.application.state
        if state.stage is Stage.DELIVERED:
            self._log(f"Application {state.package} {state.version} is delivered: {state.size} bytes")

    async def _fetch_images(self) -> None:
        source = self.application.state.source
        self._log(f"Fetching application from {source}, from byte {self.application.offset}")
        await self._fetcher.image(uri.parse(source))
        self._judge(self._finish)
