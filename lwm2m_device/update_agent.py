"""The update agent: brings packages to the updater by push (Block1 on /5/0/0 or /33629/x/0) or pull.

Requests change State at once and are answered; what takes time runs in one task. Errors of an update
show in Update Result and in the SUIT Update Agent's refusal, while the CoAP code only tells whether the
request fits the State.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from lwm2m_device import uri
from lwm2m_device.consent import ConsentGate, ConsentPhase
from lwm2m_device.delta import DeltaTaker
from lwm2m_device.dispatch import Answer
from lwm2m_device.faults import DeathByProgress
from lwm2m_device.fetcher import Fetcher, FetchFailed
from lwm2m_device.flash import FlashFault
from lwm2m_device.machine import CHANGED, Result, State, Trigger
from lwm2m_device.pace import Pace
from lwm2m_device.settings import Delivery, DeviceSettings, Log
from lwm2m_device.tree import METHOD_NOT_ALLOWED, RequestError
from lwm2m_device.updater import Updater
from lwm2m_device.uri import CoapUri
from lwm2m_server.errors import InvalidInput, Lwm2mError
from lwm2m_server.firmware.refusals import Refusal, RefusalCode
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.transport import Code, Peer, Request, Transport

_NUL = b"\0"


class UpdateAgent:
    """Drives one `Updater`. `installing` is called once the installation was ordered and answered."""

    def __init__(
        self,
        updater: Updater,
        settings: DeviceSettings,
        transport: Transport,
        *,
        pace: Pace,
        consent: ConsentGate,
        find: Callable[[CoapUri], Awaitable[Peer]],
        installing: Callable[[], None],
        log: Log,
    ) -> None:
        self._updater = updater
        self._settings = settings
        self._installing = installing
        self._consent = consent
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._envelope: bytearray | None = None
        self._death = DeathByProgress(settings.faults.die_at_percent, log)
        self._percent = -1
        self._instance = 0  # whose package is being pushed
        self._announced = 0  # bytes of a pushed image, by its Size1
        self._fetcher = Fetcher(
            transport,
            updater,
            pace,
            find,
            log,
            block_size=settings.block_size,
            patience=settings.fetch_patience,
            stored=self._progress,
        )
        self._deltas = DeltaTaker(updater, self._fetcher, settings.delta_methods, self._fetched, log)

    def resume(self) -> None:
        """Go on with a download that a restart interrupted, or with an installation that was put off."""
        state = self._updater.state
        if state.state is State.DOWNLOADING and state.source:
            self._death.spare()
            self._start_fetching()
        elif state.state is State.DOWNLOADED and state.result is Result.DEFERRED:
            self._start(self._install_with_consent(self._updater.focus, None))

    def stop(self) -> None:
        """End the task; what is stored stays for `resume`."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # requests

    def package_block(
        self, request: Request, instance: int = 0
    ) -> tuple[Answer, tuple[int, bool, int] | None]:
        """Take a block of a pushed package, or all of it; return the answer and the Block1 in it."""
        number, more, size = request.block1 or (0, False, 0)
        if request.content_format not in (None, ContentFormat.OPAQUE):
            return Answer(Code.UNSUPPORTED_CONTENT_FORMAT, b"Packages are opaque (42)."), request.block1
        try:
            self._take(instance, number * size, request.payload, more=more, announced=request.size1)
        except RequestError as error:
            return Answer(error.code, error.text.encode()), request.block1
        return Answer(Code.CONTINUE if more else Code.CHANGED), request.block1

    def write_package(self, package: bytes, instance: int) -> None:
        """Take a package that came in one piece, as TLV or SenML."""
        self._take(instance, 0, package, more=False, announced=len(package))

    def write_uri(self, text: str, instance: int) -> None:
        """Reset, or start a pull."""
        if not text:
            self._request(Trigger.URI_EMPTY, instance)
            return
        if self._settings.delivery is Delivery.PUSH:
            raise RequestError(METHOD_NOT_ALLOWED, "This device takes packages by push only.")
        absolute = uri.resolve(text, self._settings.server)
        try:
            uri.parse(absolute, field="/5/0/1")
        except uri.UnsupportedScheme as error:
            self._request(Trigger.URI_SCHEME, instance)
            raise RequestError(Code.BAD_REQUEST, error.message) from None
        except InvalidInput as error:
            self._request(Trigger.URI_INVALID, instance)
            raise RequestError(Code.BAD_REQUEST, error.message) from None
        self._request(Trigger.URI, instance, uri=text, source=absolute)
        self._log(f"Download from {absolute}")
        self._start_fetching()

    def execute_update(self, instance: int, chosen: tuple[int, ...] | None) -> None:
        """Order the installation; it happens after the answer, and after the application's consent.

        `chosen` are the further instances that the server names, None: those that belong to this one.
        """
        waits = self._updater.states[instance].state is State.DOWNLOADED
        if not (self._consent.asks and waits and self._updater.select(instance)):
            self._install(instance, chosen)
        elif self._task is None or self._task.done():
            self._start(self._install_with_consent(instance, chosen))

    def cancel(self, instance: int) -> None:
        """Give the update up."""
        self._request(Trigger.CANCEL, instance)

    # inside

    async def _install_with_consent(self, instance: int, chosen: tuple[int, ...] | None) -> None:
        if await self._consent.passed(ConsentPhase.INSTALL):
            self._install(instance, chosen)

    def _install(self, instance: int, chosen: tuple[int, ...] | None) -> None:
        updater = self._updater
        before = updater.states[instance].state
        self._check(updater.order(instance, chosen), before, Trigger.UPDATE)
        state = updater.states[instance]
        if state.state is not State.UPDATING:
            self._log(f"The update can't be installed now (result {int(state.result)}): {state.text}")
            return
        further = f"; rebooting into slot {updater.slot.name}" if updater.record.plan is None else ""
        self._log(f"Update to {state.version} ordered{further}")
        self._installing()

    def _request(self, trigger: Trigger, instance: int, *, uri: str = "", source: str = "") -> None:
        updater = self._updater
        before, focus = updater.states[instance].state, updater.focus
        code = updater.request(trigger, uri=uri, source=source, instance=instance)
        if before is not State.IDLE and updater.states[instance].state is State.IDLE and focus == instance:
            self.stop()
            self._envelope = None
            self._log("The update was taken back.")
        if trigger not in (Trigger.URI_SCHEME, Trigger.URI_INVALID):
            self._check(code, before, trigger)

    def _check(self, code: int, before: State, trigger: Trigger) -> None:
        if code != CHANGED:
            raise RequestError(code, f"Not possible in state {before.name.lower()}: {trigger.value}.")

    def _take(self, instance: int, offset: int, data: bytes, *, more: bool, announced: int | None) -> None:
        if offset == 0 and data == _NUL and not more:
            self._request(Trigger.PACKAGE_NUL, instance)
            return
        if self._settings.delivery is Delivery.PULL:
            raise RequestError(METHOD_NOT_ALLOWED, "This device takes packages by pull only.")
        if not self._is_repeated(instance, offset, data):
            if offset == 0:
                self._request(Trigger.PACKAGE, instance)
                self._instance = instance
                self._announced = announced or 0
                self._envelope = None if self._updater.plain else bytearray()
                self._check_room(max(announced or 0, len(data)))
            self._append(instance, offset, data)
        if not more:
            self._complete()

    def _is_pushing(self, instance: int) -> bool:
        state = self._updater.states[instance]
        return (
            instance == self._instance
            and state.state is State.DOWNLOADING
            and not state.source
            and (self._updater.plain or self._envelope is not None)
        )

    def _is_repeated(self, instance: int, offset: int, data: bytes) -> bool:
        """Say whether a block is stored already: the answer to it got lost."""
        if not self._is_pushing(instance):
            return False
        if self._envelope is not None:
            return bool(data) and self._envelope[offset : offset + len(data)] == data
        return self._updater.holds(offset, data)

    def _check_room(self, size: int) -> None:
        limit = self._updater.package_limit
        if size <= limit:
            return
        text = f"The package has {size} bytes; at most {limit} fit."
        self._updater.fail(Result.NO_FLASH, RefusalCode.STORAGE_FULL, text)
        self._log(f"Refused (storage-full): {text}")
        raise RequestError(Code.REQUEST_ENTITY_TOO_LARGE, text)

    def _append(self, instance: int, offset: int, data: bytes) -> None:
        held = self._updater.offset if self._envelope is None else len(self._envelope)
        if not self._is_pushing(instance) or offset != held:
            raise RequestError(Code.REQUEST_ENTITY_INCOMPLETE, f"Byte {offset} does not follow byte {held}.")
        self._check_room(offset + len(data))
        if self._envelope is not None:
            self._envelope += data
            return
        self._updater.store(data)
        self._progress()

    def _complete(self) -> None:
        if self._envelope is None:
            self._judge(self._updater.finish)
            return
        envelope, self._envelope = bytes(self._envelope), None
        if self._judge(lambda: self._updater.accept_envelope(envelope)):
            self._start_fetching()

    def _judge(self, action: Callable[[], None]) -> bool:
        """Do something that may refuse the package; then State and Result tell."""
        try:
            action()
        except Refusal as error:
            self._updater.refused(error)
            self._log(f"Refused ({error.code}): {error.message}")
            return False
        state = self._updater.state
        if state.state is State.DOWNLOADED:
            self._log(f"Image {state.version} is complete: {state.size} bytes, digest {state.digest.hex()}")
        return True

    def _start_fetching(self) -> None:
        self._percent = -1
        self._start(self._fetch())

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self.stop()
        self._task = asyncio.get_running_loop().create_task(work)

    async def _fetch(self) -> None:
        updater = self._updater
        try:
            if not updater.fetching_image:
                envelope = await self._fetcher.envelope(uri.parse(updater.state.source))
                if not self._judge(lambda: updater.accept_envelope(envelope)):
                    return
            if not await self._consent.passed(ConsentPhase.DOWNLOAD):
                return
            while updater.state.state is State.DOWNLOADING:
                await self._fetch_image()
                if not self._judge(updater.finish):
                    return
        except (FetchFailed, Lwm2mError) as error:
            self._give_up(error)

    async def _fetch_image(self) -> None:
        updater, state = self._updater, self._updater.state
        what = "the delta to image" if updater.takes_delta else "image"
        named = f"{what} {state.version}, {state.size} bytes" if state.size else what
        source = uri.parse(state.source)
        self._percent = -1
        if not await self._deltas.take(source):
            self._log(f"Fetching {named} from {state.source}, from byte {updater.offset}")
            await self._fetcher.image(source)

    def _give_up(self, error: FetchFailed | Lwm2mError) -> None:
        if isinstance(error, FetchFailed):
            self._updater.fail(error.result, error.code, error.text)
            self._log(f"Download failed: {error.text}")
        elif isinstance(error, Refusal):
            self._updater.refused(error)
            self._log(f"Refused ({error.code}): {error.message}")
        else:
            broken = isinstance(error, FlashFault)
            result = Result.NO_FLASH if broken else Result.INVALID_URI
            code = RefusalCode.STORAGE_FULL if broken else RefusalCode.FETCH_FAILED
            self._updater.fail(result, code, error.message)
            self._log(f"Download failed: {error.message}")

    def _progress(self) -> None:
        self._fetched(self._updater.offset, self._updater.state.size or self._announced)

    def _fetched(self, offset: int, size: int) -> None:
        if not size:
            return
        percent = offset * 100 // size
        if percent // 10 != self._percent // 10:
            self._log(f"Stored {offset} of {size} bytes ({percent} %)")
        self._percent = percent
        self._death.at(percent)
