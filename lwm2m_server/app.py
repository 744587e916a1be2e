"""The composition root: builds the parts of the server from its settings, starts and stops them in order."""

import asyncio
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from lwm2m_server.campaigns.decide import BackOff
from lwm2m_server.clock import Clock, SystemClock
from lwm2m_server.config import Settings, split_address
from lwm2m_server.devices.records import Registration
from lwm2m_server.errors import InvalidInput, Lwm2mError, Unavailable
from lwm2m_server.firmware.deltas import Method as DeltaMethod
from lwm2m_server.firmware.update_job import Method
from lwm2m_server.firmware.update_job import Timers as UpdateTimers
from lwm2m_server.lwm2m.ddf import load_folder
from lwm2m_server.lwm2m.model import ObjectRegistry
from lwm2m_server.services import (
    AccessService,
    CampaignService,
    DirectoryService,
    EventFeed,
    HealthService,
    OperationService,
    ReleaseService,
    Services,
    UploadService,
)
from lwm2m_server.services.background import LoopTimers, Pump, Timers
from lwm2m_server.services.blobs import BlobShelf
from lwm2m_server.services.credentials import CredentialService
from lwm2m_server.services.delta_builder import Build, DeltaBuilder
from lwm2m_server.services.deltas import DeltaPolicy, DeltaService
from lwm2m_server.services.exchange import Exchange
from lwm2m_server.services.gateway import Gateway
from lwm2m_server.services.inventory import Inventory
from lwm2m_server.services.metrics import registry_of
from lwm2m_server.services.observations import Observations
from lwm2m_server.services.runner import Runner
from lwm2m_server.services.sealing import Sealer, open_sealer
from lwm2m_server.services.secure_transport import SecureTransport
from lwm2m_server.services.server_key import ServerKeys
from lwm2m_server.services.update_actor import ActorTools
from lwm2m_server.services.updater import UpdatePolicy, Updater
from lwm2m_server.services.uploads import UploadLimits
from lwm2m_server.store import FileStore, open_sqlite
from lwm2m_server.store.ports import Store
from lwm2m_server.store.uploads import UploadFiles
from lwm2m_server.transport import Download, EngineTransport, Peer, Request, Transport

if TYPE_CHECKING:
    from lwm2m_server.api import HttpServer

_log = structlog.get_logger(__name__)

DEFAULT_PORT = {"coap": 5683, "coaps": 5684}
OBJECTS = Path(__file__).resolve().parent.parent / "objects"


def load_objects(settings: Settings) -> ObjectRegistry:
    """Load the definitions that come with the server, and those of the user's folders over them.

    Raises `InvalidInput` naming file and line.
    """
    registry = load_folder(OBJECTS)
    for folder in settings.objects:
        registry = registry.overlaid(load_folder(folder).definitions())
    return registry


class Server:
    """All services over one store and one transport. `start` and `stop` are called once each."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        files: FileStore,
        transport: Transport,
        *,
        clock: Clock | None = None,
        timers: Timers | None = None,
        objects: ObjectRegistry | None = None,
        build_deltas: Build | None = None,
        sealer: Sealer | None = None,
        server_keys: ServerKeys | None = None,
    ) -> None:
        """Connect the parts; nothing runs before `start`. Tests give a clock and timers of their own, and may
        leave out the keys: then there are some that end with the server.
        """
        self.settings = settings
        self.transport = transport
        self.objects = objects or load_objects(settings)
        self.listening: list[str] = []
        self.api_url = ""
        self._store = store
        self._files = files
        self._clock = clock = clock or SystemClock()
        self._timers = timers = timers or LoopTimers()
        self._sealer = sealer or Sealer(secrets.token_bytes(32))
        self.server_keys = server_keys or ServerKeys.temporary(settings)
        self.secure = SecureTransport(
            settings.coaps, store, transport, clock, timers, sealer=self._sealer, keys=self.server_keys
        )
        self._exchange = Exchange(
            store.devices,
            transport,
            clock,
            timers,
            self.objects,
            heard=self._last_heard,
        )
        self._observations = Observations(store, transport, self._exchange, clock, timers)
        self._inventory = Inventory(store, self._exchange, clock, then=self._known)
        self._deltas = self._make_deltas(build_deltas)
        self._updater = self._make_updater()
        self._runner = Runner(
            store,
            self._updater,
            clock,
            timers,
            ask=self._inventory.ask,
            asking=self._inventory.asking,
            interval=settings.campaigns.interval,
        )
        self._reloading = Pump("reload", self._reload, timers=timers)
        self.gateway = self._make_gateway()
        self.access = AccessService(store, clock)
        self.services = self._make_services()

    def _make_gateway(self) -> Gateway:
        bounds = self.settings.registration
        return Gateway(
            self.transport,
            self._store.registrations,
            self.secure.identities,
            self._clock,
            self._timers,
            on_registered=self._registered,
            on_contact=self._heard,
            on_gone=self._gone,
            on_sent=self._observations.sent,
            on_delta=self._delta_asked,
            grace=bounds.grace,
            min_lifetime=bounds.min_lifetime,
            max_lifetime=bounds.max_lifetime,
            expiry_interval=bounds.expiry_interval,
        )

    def _make_updater(self) -> Updater:
        update, retry = self.settings.update, self.settings.retry
        policy = UpdatePolicy(
            timers=UpdateTimers(
                offered=update.offer_timeout,
                downloading=update.download_timeout,
                downloaded=update.verify_timeout,
                installing=update.install_timeout,
                confirming=update.confirm_timeout,
                poll=update.poll_interval,
            ),
            prefer=Method(update.prefer),
            base_uri=self._base_uri,
            block_size=self.settings.engine.block_size,
        )
        tools = ActorTools(
            self._store,
            self._clock,
            self._timers,
            BackOff(retry.initial, retry.factor, retry.maximum, retry.jitter),
            lambda: secrets.randbelow(1 << 32) / (1 << 32),
        )
        return Updater(
            tools,
            self.transport,
            self._exchange,
            BlobShelf(self.transport, self._deltas),
            self._deltas,
            policy,
            on_done=lambda _: self._runner.wake(),
        )

    def _make_deltas(self, build: Build | None) -> DeltaService:
        own = self.settings.deltas
        builder = DeltaBuilder(workers=own.workers, memory=own.memory, seconds=own.timeout)
        return DeltaService(
            self._store,
            self._files,
            FileStore(self.settings.delta_dir, quota=own.quota),
            self.transport,
            self._clock,
            build=build or builder.build,
            policy=DeltaPolicy(tuple(map(DeltaMethod, own.methods)), own.threshold, own.max_image),
        )

    def _make_services(self) -> Services:
        store, clock, campaigns = self._store, self._clock, self.settings.campaigns
        images = self.settings.images
        releases = ReleaseService(store, self._files, clock, require_signed=images.require_signed)
        limits = UploadLimits(images.max_uploads, images.upload_lifetime)
        numbers = registry_of({"engine": self.transport.statistics, "server": self._numbers})
        return Services(
            directory=DirectoryService(store, clock, on_delete=self._forget),
            deltas=self._deltas,
            operations=OperationService(store, self._exchange, self._observations, clock),
            releases=releases,
            uploads=UploadService(releases, UploadFiles(self._files), clock, self._timers, limits),
            campaigns=CampaignService(
                store,
                clock,
                wake=self._runner.wake,
                default_limit=campaigns.concurrency,
                default_retries=campaigns.retries,
            ),
            credentials=CredentialService(store, clock, self._sealer, self.secure.identities),
            server_keys=self.server_keys,
            access=self.access,
            events=EventFeed(store.events),
            health=HealthService(numbers, {"database": self._check_store, "coap": self._check_coap}),
        )

    def _numbers(self) -> dict[str, int]:
        return {
            "registrations_known": len(self.gateway.addresses),
            "updates_waiting": len(self._updater),
            "notifications_dropped": self._observations.dropped,
            "stored_bytes_depth": self._files.used,
        }

    async def _check_store(self) -> None:
        await self._store.events.last_id()

    async def _check_coap(self) -> None:
        if not self.listening:
            raise Unavailable("not listening yet")

    async def start(self) -> None:
        """Hand registrations and offers back to the engine, then listen, then go on with campaigns."""
        self.transport.set_handlers(
            on_requests=self.gateway.on_requests,
            on_alive=self.gateway.on_alive,
            on_download=self._downloaded,
            on_security=self.secure.on_security,
        )
        await self.services.uploads.open()
        await self.transport.start()
        await self.secure.secure()
        for host, port in self.settings.coap.listeners:
            self.listening.append("coap://" + await self.transport.bind(host, port))
        for host, port in self.settings.coaps.listeners:
            self.listening.append("coaps://" + await self.transport.bind(host, port, secure=True))
        # Sessions, registrations and offers are there again before the first device can ask for its next block.
        await self.secure.restore()
        await self.gateway.start()
        await self._deltas.start()
        await self._updater.open()
        self.transport.serve()
        self.secure.start()
        self._updater.start()
        self._observations.start()
        await self._runner.start()

    async def stop(self) -> None:
        """End the background work; what is under way stays stored and goes on at the next start."""
        for part in (self._reloading, self._runner, self._updater, self._inventory, self._deltas):
            await part.close()
        await self.services.uploads.close()
        await self.transport.close()
        # What the transport told until its end is stored by these.
        for last in (self._observations, self.gateway, self.secure):
            await last.close()

    def reload(self) -> None:
        """Read key and certificate again, in the background; sessions go on."""
        self._reloading.wake()

    async def _reload(self) -> None:
        try:
            await self.secure.reload()
        except Lwm2mError as error:
            _log.error("key and certificate stay as they were", error=error.message, hint=error.hint)
        else:
            _log.info("key and certificate reloaded", identity=self.server_keys.current.identity)

    def _registered(self, arrived: Sequence[tuple[Registration, bool]]) -> None:
        for registration, _ in arrived:
            self._updater.registered(registration.endpoint, registration)
        if self.settings.inventory:
            self._inventory.ask([registration.endpoint for registration, _ in arrived])
            return
        known = [
            registration.endpoint
            for registration, created in arrived
            if not created or self._runner.awaits(registration.endpoint)
        ]
        if known:
            self._inventory.follow(known)

    def _last_heard(self, registration_id: str) -> float:
        return self.gateway.heard(registration_id)

    def _heard(self, changed: Sequence[Registration]) -> None:
        for registration in changed:
            self._updater.moved(registration.endpoint, registration)

    def _gone(self, endpoints: Sequence[str]) -> None:
        for endpoint in endpoints:
            self._updater.gone(endpoint)

    async def _known(self, endpoint: str) -> None:
        await self._observations.restore(endpoint)
        await self._runner.arrived(endpoint)

    async def _forget(self, endpoint: str) -> None:
        await self._observations.forget(endpoint)
        device = await self._store.devices.get(endpoint)
        if device is not None and device.registration is not None:
            # The engine no longer answers for it: the device learns from a 4.04 that it must register again.
            self.transport.drop(device.registration.registration_id)
            self.gateway.addresses.drop(endpoint)

    def _delta_asked(self, request: Request) -> bool:
        endpoint = self.gateway.addresses.endpoint(request.peer)
        return self._deltas.answer(
            request, lambda peer, digest: self._updater.offering(endpoint, peer, digest)
        )

    def _downloaded(self, download: Download) -> None:
        endpoint = self.gateway.addresses.endpoint(download.peer)
        self._updater.downloaded(endpoint, download)

    def _base_uri(self, peer: Peer) -> str:
        """Where this device finds us: as configured, or our own address on the way to it."""
        secure = peer.identity is not None
        public = self.settings.coaps.public_uri if secure else self.settings.coap.public_uri
        if public is not None:
            return public.rstrip("/")
        host, scheme = peer.host, "coaps" if secure else "coap"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            try:
                way.connect((host, 9))  # sends nothing: it only chooses the route
                ours = str(way.getsockname()[0])
            except OSError:
                ours = host
        ports = [
            port
            for uri in self.listening
            if uri.startswith(f"{scheme}://")
            for own, port in [split_address(uri.removeprefix(f"{scheme}://"))]
            if (":" in own) == (":" in host)
        ]
        port = ports[0] if ports else DEFAULT_PORT[scheme]
        return f"{scheme}://[{ours}]:{port}" if ":" in ours else f"{scheme}://{ours}:{port}"


async def serve(
    settings: Settings, *, ready: Callable[[Server, str | None], Awaitable[None] | None] | None = None
) -> None:
    """Run the server until SIGTERM or SIGINT; SIGHUP reads key and certificate again.

    `ready` is called when everything listens, with the administrator's token if one was made now. Raises
    `Lwm2mError` for what keeps the server from starting, naming the setting or the file.
    """
    if not settings.coap.listen and not settings.coaps.listen:
        raise InvalidInput(
            "There is no address at which devices could reach the server.",
            field="coaps.listen",
            hint='Set it, such as ["0.0.0.0:5684"].',
        )
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    objects = load_objects(settings)
    store = await open_sqlite(settings.database_path)
    files = FileStore(settings.blob_dir, max_file=settings.max_image_size, quota=settings.images.quota)
    try:
        await files.open()
        engine = settings.engine.model_dump()
        server = Server(
            settings,
            store,
            files,
            EngineTransport(**engine),
            objects=objects,
            sealer=await open_sealer(settings, store.credentials),
            server_keys=await ServerKeys.open(settings),
        )
        token = await server.access.ensure_admin(settings.token_path)
        await _run(server, token, ready)
    finally:
        await store.close()


async def _run(
    server: Server, token: str | None, ready: Callable[[Server, str | None], Awaitable[None] | None] | None
) -> None:
    api_settings = server.settings.api
    # The port is taken before devices are let in: a port in use is found out before anything happens.
    listener = _listener(api_settings.host, api_settings.port)
    server.api_url = _url(listener)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    try:
        await server.start()
        if ready is not None:
            answer = ready(server, token)
            if answer is not None:
                await answer
        # It loads while devices are answered, because that takes longer than all that came before; who asks it
        # waits at the port meanwhile.
        api = await asyncio.to_thread(_api, server)
        serving = asyncio.create_task(api.serve(sockets=[listener]))
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        api.should_exit = True
        await serving
        waiting.cancel()
    finally:
        await server.stop()
        listener.close()


def _api(server: Server) -> "HttpServer":
    from lwm2m_server.api import HttpServer, create_app

    return HttpServer(create_app(server.services, server.settings, server.objects))


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"The API can't listen at {host}:{port}: {error.strerror}.",
            field="api.port",
            hint="Choose another port, or end what uses this one.",
        ) from None
    listener.listen(128)
    listener.setblocking(False)
    return listener
