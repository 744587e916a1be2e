"""The agent of one application: brings packages by push (Block1 on /9/x/2) or pull, and has the hook do the rest.

Requests change State at once and are answered; what takes time runs in one task. What a restart interrupted goes on
at the next start: downloads where they were, installations and removals by calling the hook again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from lwm2m_device import uri
from lwm2m_device.dispatch import Answer
from lwm2m_device.faults import DeathByProgress
from lwm2m_device.fetcher import Fetcher, FetchFailed
from lwm2m_device.flash import FlashFault
from lwm2m_device.hooks import Action, ComponentHook, HookOrder
from lwm2m_device.pace import Pace
from lwm2m_device.settings import Delivery, DeviceSettings, Log
from lwm2m_device.slots import ImageHeader, Slot
from lwm2m_device.software import Application
from lwm2m_device.software_machine import CHANGED, METHOD_NOT_ALLOWED, Result, Stage, Trigger
from lwm2m_device.tree import BAD_REQUEST, RequestError
from lwm2m_device.uri import CoapUri
from lwm2m_server.errors import InvalidInput, Lwm2mError
from lwm2m_server.firmware.refusals import Refusal, RefusalCode
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.transport import Code, Peer, Request, Transport

SOFTWARE = 9
PACKAGE = 2
_REMOVAL = {"": Trigger.UNINSTALL, "0": Trigger.UNINSTALL, "1": Trigger.FOR_UPDATE}


class SoftwareAgent:
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
        self.application = application
        self._settings = settings
        self._hook = hook
        self._changed = changed
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._envelope: bytearray | None = None
        self._death = DeathByProgress(settings.faults.die_at_percent, log)
        self._percent = -1
        self._announced = 0  # bytes of a pushed file, by its Size1
        self._fetcher = Fetcher(
            transport,
            application,
            pace,
            find,
            log,
            block_size=settings.block_size,
            patience=settings.fetch_patience,
            stored=self._progress,
        )

    @property
    def package_path(self) -> tuple[str, ...]:
        """Where packages are pushed to."""
        return str(SOFTWARE), str(self.application.place.number), str(PACKAGE)

    def resume(self) -> None:
        """Go on with what a restart interrupted, and start what is active."""
        state = self.application.state
        if state.stage is Stage.DOWNLOADING and state.source:
            self._death.spare()
            self._start(self._fetch())
        elif state.stage is Stage.INSTALLING:
            self._log(
                f"The installation of application {self.application.name} was cut short; it is done again"
            )
            self._start(self._install())
        elif state.stage in (Stage.UNINSTALLING, Stage.CLEARING):
            self._start(self._remove())
        elif state.stage in (Stage.STARTING, Stage.ACTIVE):
            self._start(self._run())

    def stop(self) -> None:
        """End the task; what is stored stays for `resume`."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # requests

    def package_block(self, request: Request) -> tuple[Answer, tuple[int, bool, int] | None]:
        """Take a block of a pushed package, or all of it; return the answer and the Block1 in it."""
        number, more, size = request.block1 or (0, False, 0)
        if request.content_format not in (None, ContentFormat.OPAQUE):
            return Answer(Code.UNSUPPORTED_CONTENT_FORMAT, b"Packages are opaque (42)."), request.block1
        try:
            self._take(number * size, request.payload, more=more, announced=request.size1)
        except RequestError as error:
            return Answer(error.code, error.text.encode()), request.block1
        return Answer(Code.CONTINUE if more else Code.CHANGED), request.block1

    def write_package(self, package: bytes) -> None:
        """Take a package that came in one piece, as TLV or SenML."""
        self._take(0, package, more=False, announced=len(package))

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
        self._start(self._fetch())

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
            self._envelope = None
        if code != CHANGED and trigger is not Trigger.URI_INVALID:
            raise RequestError(code, f"Not possible in state {stage.state.name.lower()}: {trigger.value}.")

    def _take(self, offset: int, data: bytes, *, more: bool, announced: int | None) -> None:
        if self._settings.delivery is Delivery.PULL:
            raise RequestError(METHOD_NOT_ALLOWED, "This device takes packages by pull only.")
        if not self._is_repeated(offset, data):
            if offset == 0:
                self._request(Trigger.PACKAGE)
                self._announced, self._percent = announced or 0, -1
                self._envelope = None if self.application.plain else bytearray()
                self._check_room(max(announced or 0, len(data)))
            self._append(offset, data)
        if not more:
            self._complete()

    def _is_pushing(self) -> bool:
        state = self.application.state
        return (
            state.stage is Stage.DOWNLOADING
            and not state.source
            and (self.application.plain or self._envelope is not None)
        )

    def _is_repeated(self, offset: int, data: bytes) -> bool:
        """Say whether a block is stored already: the answer to it got lost."""
        if not self._is_pushing():
            return False
        if self._envelope is not None:
            return bool(data) and self._envelope[offset : offset + len(data)] == data
        return self.application.holds(offset, data)

    def _check_room(self, size: int) -> None:
        limit = self.application.package_limit
        if size <= limit:
            return
        text = f"The package has {size} bytes; at most {limit} fit."
        self.application.fail(Result.NO_STORAGE, RefusalCode.STORAGE_FULL, text)
        self._log(f"Refused (storage-full): {text}")
        raise RequestError(Code.REQUEST_ENTITY_TOO_LARGE, text)

    def _append(self, offset: int, data: bytes) -> None:
        held = self.application.offset if self._envelope is None else len(self._envelope)
        if not self._is_pushing() or offset != held:
            raise RequestError(Code.REQUEST_ENTITY_INCOMPLETE, f"Byte {offset} does not follow byte {held}.")
        self._check_room(offset + len(data))
        if self._envelope is not None:
            self._envelope += data
            return
        self.application.store(data)
        self._progress()

    def _complete(self) -> None:
        if self._envelope is None:
            self._judge(self.application.finish)
            return
        envelope, self._envelope = bytes(self._envelope), None
        if self._judge(lambda: self.application.accept_envelope(envelope)):
            self._start(self._fetch())

    def _judge(self, action: Callable[[], None]) -> bool:
        """Do something that may refuse the package; then State and Result tell."""
        try:
            action()
        except Refusal as error:
            self.application.refused(error)
            self._log(f"Refused ({error.code}): {error.message}")
            return False
        state = self.application.state
        if state.stage is Stage.DELIVERED:
            self._log(f"Application {state.package} {state.version} is delivered: {state.size} bytes")
        return True

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self.stop()
        self._task = asyncio.get_running_loop().create_task(work)

    async def _fetch(self) -> None:
        application = self.application
        self._percent = -1
        try:
            if not application.fetching_software:
                envelope = await self._fetcher.envelope(uri.parse(application.state.source))
                if not self._judge(lambda: application.accept_envelope(envelope)):
                    return
            state = application.state
            self._log(f"Fetching application from {state.source}, from byte {application.offset}")
            await self._fetcher.image(uri.parse(state.source))
        except (FetchFailed, Lwm2mError) as error:
            self._give_up(error)
        else:
            self._judge(application.finish)

    def _give_up(self, error: FetchFailed | Lwm2mError) -> None:
        application = self.application
        if isinstance(error, FetchFailed):
            # The fetcher speaks of object 5; the same thing has another number here.
            application.fail(Result[error.result.name], error.code, error.text)
            self._log(f"Download failed: {error.text}")
        elif isinstance(error, Refusal):
            application.refused(error)
            self._log(f"Refused ({error.code}): {error.message}")
        else:
            broken = isinstance(error, FlashFault)
            result = Result.NO_STORAGE if broken else Result.INVALID_URI
            code = RefusalCode.STORAGE_FULL if broken else RefusalCode.FETCH_FAILED
            application.fail(result, code, error.message)
            self._log(f"Download failed: {error.message}")

    def _progress(self) -> None:
        size = self.application.state.size or self._announced
        if not size:
            return
        percent = self.application.offset * 100 // size
        if percent // 10 != self._percent // 10:
            self._log(f"Stored {self.application.offset} of {size} bytes ({percent} %)")
        self._percent = percent
        self._death.at(percent)
