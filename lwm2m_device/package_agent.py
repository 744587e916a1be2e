"""What the agents of objects 5, 33629 and 9 do alike: they take packages by push or pull, and show what became of them.

Requests change State at once and are answered; what takes time runs in one task. Errors of an update show in Update
Result and in the reason beside it, while the CoAP code only tells whether the request fits the State.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine

from lwm2m_device import uri
from lwm2m_device.dispatch import Answer
from lwm2m_device.faults import DeathByProgress
from lwm2m_device.fetcher import Fetcher, FetchFailed
from lwm2m_device.flash import FlashFault
from lwm2m_device.machine import Result
from lwm2m_device.pace import Pace
from lwm2m_device.push import Block, Push
from lwm2m_device.settings import Delivery, DeviceSettings, Log
from lwm2m_device.software import Application
from lwm2m_device.tree import METHOD_NOT_ALLOWED, RequestError
from lwm2m_device.updater import Updater
from lwm2m_device.uri import CoapUri
from lwm2m_server.errors import Lwm2mError
from lwm2m_server.firmware.refusals import Refusal, RefusalCode
from lwm2m_server.lwm2m.formats import ContentFormat
from lwm2m_server.transport import Code, Peer, Request, Transport


class PackageAgent(ABC):
    """Brings packages to one target, and does one thing at a time."""

    def __init__(
        self,
        target: Updater | Application,
        settings: DeviceSettings,
        transport: Transport,
        pace: Pace,
        find: Callable[[CoapUri], Awaitable[Peer]],
        log: Log,
    ) -> None:
        self._target = target
        self._settings = settings
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._death = DeathByProgress(settings.faults.die_at_percent, log)
        self._percent = -1
        self._push = Push(target, self._progress)
        self._fetcher = Fetcher(
            transport,
            target,
            pace,
            find,
            log,
            block_size=settings.block_size,
            patience=settings.fetch_patience,
            stored=self._progress,
        )

    def stop(self) -> None:
        """End the task; what is stored stays for `resume`."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def package_block(
        self, request: Request, instance: int = 0
    ) -> tuple[Answer, tuple[int, bool, int] | None]:
        """Take a block of a pushed package, or all of it; return the answer and the Block1 in it."""
        number, more, size = request.block1 or (0, False, 0)
        if request.content_format not in (None, ContentFormat.OPAQUE):
            return Answer(Code.UNSUPPORTED_CONTENT_FORMAT, b"Packages are opaque (42)."), request.block1
        try:
            self._take(Block(number * size, request.payload, more, request.size1 or 0), instance)
        except RequestError as error:
            return Answer(error.code, error.text.encode()), request.block1
        return Answer(Code.CONTINUE if more else Code.CHANGED), request.block1

    def write_package(self, package: bytes, instance: int = 0) -> None:
        """Take a package that came in one piece, as TLV or SenML."""
        self._take(Block(0, package, announced=len(package)), instance)

    # what the objects differ in

    @abstractmethod
    def _is_pushing(self, instance: int) -> bool:
        """Say whether a package is on its way by push."""

    @abstractmethod
    def _begin_push(self, instance: int) -> None:
        """Have the machine begin with a pushed package; raises RequestError."""

    @abstractmethod
    async def _fetch_images(self) -> None:
        """Fetch what the envelope names, or the plain package; raises FetchFailed and Lwm2mError."""

    @abstractmethod
    def _finish(self) -> None:
        """Conclude the transfer of what is stored whole; raises Refusal."""

    @abstractmethod
    def _fail(self, result: Result, code: str, text: str) -> None:
        """End the download with a result, which is given as that of object 5."""

    # inside

    def _take(self, block: Block, instance: int) -> None:
        if self._settings.delivery is Delivery.PULL:
            raise RequestError(METHOD_NOT_ALLOWED, "This device takes packages by pull only.")
        try:
            self._push.take(block, lambda: self._begin_push(instance), under_way=self._is_pushing(instance))
        except Refusal as error:
            self._refuse(error)
            raise RequestError(Code.REQUEST_ENTITY_TOO_LARGE, error.message) from None
        if block.more:
            return
        envelope = self._push.forget()
        if envelope is None:
            self._judge(self._finish)
        elif self._judge(lambda: self._target.accept_envelope(envelope)):
            self._start_fetching()

    def _judge(self, action: Callable[[], None]) -> bool:
        """Do something that may refuse the package; then State and Result tell."""
        try:
            action()
        except Refusal as error:
            self._refuse(error)
            return False
        return True

    def _refuse(self, error: Refusal) -> None:
        self._target.refused(error)
        self._log(f"Refused ({error.code}): {error.message}")

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self.stop()
        self._task = asyncio.get_running_loop().create_task(work)

    def _start_fetching(self) -> None:
        self._percent = -1
        self._start(self._fetch())

    async def _fetch(self) -> None:
        target = self._target
        try:
            if not target.fetching_image:
                envelope = await self._fetcher.envelope(uri.parse(target.state.source))
                if not self._judge(lambda: target.accept_envelope(envelope)):
                    return
            await self._fetch_images()
        except Refusal as error:
            self._refuse(error)
        except FetchFailed as error:
            self._give_up(error.result, error.code, error.text)
        except FlashFault as error:
            self._give_up(Result.NO_FLASH, RefusalCode.STORAGE_FULL, error.message)
        except Lwm2mError as error:
            self._give_up(Result.INVALID_URI, RefusalCode.FETCH_FAILED, error.message)

    def _give_up(self, result: Result, code: str, text: str) -> None:
        self._fail(result, code, text)
        self._log(f"Download failed: {text}")

    def _progress(self) -> None:
        self._fetched(self._target.offset, self._target.state.size or self._push.announced)

    def _fetched(self, offset: int, size: int) -> None:
        if not size:
            return
        percent = offset * 100 // size
        if percent // 10 != self._percent // 10:
            self._log(f"Stored {offset} of {size} bytes ({percent} %)")
        self._percent = percent
        self._death.at(percent)
