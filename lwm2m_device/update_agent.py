"""The update agent: brings packages to the updater by push (Block1 on /5/0/0 or /33629/x/0) or pull."""

from collections.abc import Awaitable, Callable

from lwm2m_device import uri
from lwm2m_device.consent import ConsentGate, ConsentPhase
from lwm2m_device.delta import DeltaTaker
from lwm2m_device.machine import CHANGED, Result, State, Trigger
from lwm2m_device.pace import Pace
from lwm2m_device.package_agent import PackageAgent
from lwm2m_device.push import Block
from lwm2m_device.settings import Delivery, DeviceSettings, Log
from lwm2m_device.tree import METHOD_NOT_ALLOWED, RequestError
from lwm2m_device.updater import Updater
from lwm2m_device.uri import CoapUri
from lwm2m_server.errors import InvalidInput
from lwm2m_server.transport import Code, Peer, Transport

_NUL = b"\0"


class UpdateAgent(PackageAgent):
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
        super().__init__(updater, settings, transport, pace, find, log)
        self._updater = updater
        self._installing = installing
        self._consent = consent
        self._deltas = DeltaTaker(updater, self._fetcher, settings.delta_methods, self._fetched, log)

    def resume(self) -> None:
        """Go on with a download that a restart interrupted, or with an installation that was put off."""
        state = self._updater.state
        if state.state is State.DOWNLOADING and state.source:
            self._death.spare()
            self._start_fetching()
        elif state.state is State.DOWNLOADED and state.result is Result.DEFERRED:
            self._start(self._install_with_consent(self._updater.focus, None))

    # requests

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
            self._push.forget()
            self._log("The update was taken back.")
        if trigger not in (Trigger.URI_SCHEME, Trigger.URI_INVALID):
            self._check(code, before, trigger)

    def _check(self, code: int, before: State, trigger: Trigger) -> None:
        if code != CHANGED:
            raise RequestError(code, f"Not possible in state {before.name.lower()}: {trigger.value}.")

    def _is_pushing(self, instance: int) -> bool:
        state = self._updater.state
        return instance == self._updater.focus and state.state is State.DOWNLOADING and not state.source

    def _begin_push(self, instance: int) -> None:
        self._request(Trigger.PACKAGE, instance)

    def _take(self, block: Block, instance: int) -> None:
        if (block.offset, block.data, block.more) == (0, _NUL, False):
            self._request(Trigger.PACKAGE_NUL, instance)
        else:
            super()._take(block, instance)

    def _fail(self, result: Result, code: str, text: str) -> None:
        self._updater.fail(result, code, text)

    def _finish(self) -> None:
        self._updater.finish()
        state = self._updater.state
        if state.state is State.DOWNLOADED:
            self._log(f"Image {state.version} is complete: {state.size} bytes, digest {state.digest.hex()}")

    async def _fetch_images(self) -> None:
        if not await self._consent.passed(ConsentPhase.DOWNLOAD):
            return
        while self._updater.state.state is State.DOWNLOADING:
            await self._fetch_image()
            if not self._judge(self._finish):
                return

    async def _fetch_image(self) -> None:
        updater, state = self._updater, self._updater.state
        what = "the delta to image" if updater.takes_delta else "image"
        named = f"{what} {state.version}, {state.size} bytes" if state.size else what
        source = uri.parse(state.source)
        self._percent = -1
        if not await self._deltas.take(source):
            self._log(f"Fetching {named} from {state.source}, from byte {updater.offset}")
            await self._fetcher.image(source)
