"""The registration interface and the Send endpoint, in batches (OMA LwM2M Core 6.2, 6.4.3).

The transport hands over all requests that one drain brought. They become one call to the store, which commits
them together; only then each device gets its answer. There is no task per registration.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from lwm2m_server.clock import Clock
from lwm2m_server.devices.records import Registration
from lwm2m_server.errors import ForeignName, InvalidInput, Lwm2mError
from lwm2m_server.lwm2m.registration import UnsupportedVersion, UpdateRequest, parse_update
from lwm2m_server.services.addresses import AddressBook
from lwm2m_server.services.background import Cancellable, Pump, Timers
from lwm2m_server.services.statements import new_ids, object_paths, parse_statement
from lwm2m_server.store.ports import RegistrationStore
from lwm2m_server.store.records import Registered, RegistrationUpdate
from lwm2m_server.transport import Code, Peer, Request, Transport

_log = structlog.get_logger(__name__)

_CHUNK = 1000
MAX_WAITING = 20_000  # requests of a kind that are not stored yet; what comes beyond is told to come later
_PAGE = 10_000  # registrations read at once at a start
_BEATS_HELD = 2.0  # seconds; the engine has held them for up to one before
_LINK_FORMAT = 40
_RETRY_AFTER = 5  # Max-Age of 5.03, seconds
_WELL_KNOWN = b'</rd>;rt="core.rd",</dp>'
_SEGMENTS_OF_REGISTRATION = 2

_FOREIGN = "the endpoint name is not the one that your key proves"

Sent = Callable[[str, Request], None]
Owners = dict[str, str | None]
Arrived = Callable[[Sequence[tuple[Registration, bool]]], None]


class Identities(Protocol):
    """Who may use which endpoint name."""

    async def endpoints_of(self, identities: Iterable[str]) -> dict[str, str | None]:
        """Return the endpoint name of each identity; None for one that has none (any more)."""
        ...

    def foreign(self, peer: Peer, endpoint: str) -> None:
        """Note that this peer was refused under a name that is not its own."""
        ...


class Gateway:
    """Answers Register, Update, Deregister and Send; keeps the engine's table of registrations in step."""

    def __init__(
        self,
        transport: Transport,
        registrations: RegistrationStore,
        identities: Identities,
        clock: Clock,
        timers: Timers,
        *,
        on_registered: Arrived,
        on_contact: Callable[[Sequence[Registration]], None],
        on_gone: Callable[[Sequence[str]], None],
        on_sent: Sent,
        on_delta: Callable[[Request], bool] = lambda _: False,
        grace: float = 30.0,
        min_lifetime: float = 1.0,
        max_lifetime: float = 31_536_000.0,
        expiry_interval: float = 10.0,
    ) -> None:
        """The callbacks get new registrations (and whether the device is new), those that an Update changed,
        endpoints whose registration has ended, and Send requests (to be answered by the receiver). `on_delta`
        gets what is for nobody else, and says whether it answers.
        """
        self._transport = transport
        self._registrations = registrations
        self._identities = identities
        self._clock = clock
        self._on_registered = on_registered
        self._on_contact = on_contact
        self._on_gone = on_gone
        self._on_sent = on_sent
        self._on_delta = on_delta
        self._grace = grace
        self._min_lifetime = min_lifetime
        self._max_lifetime = max_lifetime
        self.addresses = AddressBook()
        self._registers: list[Request] = []
        self._updates: list[Request] = []
        self._deregisters: list[Request] = []
        self._beats: dict[str, float] = {}
        self._timers = timers
        self._beat_timer: Cancellable | None = None
        self._pump = Pump("gateway", self._work, timers=timers)
        self._liveness = Pump("liveness", self._store_beats, timers=timers)
        self._expiry = Pump("expiry", self._expire, timers=timers, interval=expiry_interval)

    async def start(self) -> None:
        """Hand the live registrations back to the engine, then begin to look for expired ones."""
        after: str | None = None
        while True:
            page = await self._registrations.live(after=after, limit=_PAGE)
            self._transport.keep_all([(id_, address, identity) for id_, _, address, identity in page.items])
            self.addresses.fill(
                {endpoint: identity or address for _, endpoint, address, identity in page.items}
            )
            after = page.next
            if after is None:
                break
        self._expiry.start()

    async def close(self) -> None:
        """End the background work; requests that wait get no answer, so devices repeat them.

        Close the transport before: the last signs of life that it tells of are stored here.
        """
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        for pump in (self._expiry, self._liveness, self._pump):
            await pump.close()
        try:
            await self._store_beats()
        except Lwm2mError as error:
            _log.error("signs of life lost", count=len(self._beats), error=error.message)

    def on_requests(self, requests: list[Request]) -> None:
        """Take a batch; each request is answered in time, at once or after the commit."""
        for request in requests:
            queue = self._queue_of(request)
            if queue is None:
                self._other(request)
            elif len(queue) < MAX_WAITING:
                queue.append(request)
            else:
                self._transport.respond(request.exchange, Code.SERVICE_UNAVAILABLE, max_age=_RETRY_AFTER)
        if self._registers or self._updates or self._deregisters:
            self._pump.wake()

    def _queue_of(self, request: Request) -> list[Request] | None:
        """Return where a Register, Update or Deregister waits to be stored; None for others."""
        path = request.path
        if path == ("rd",):
            return self._registers if request.code == Code.POST else None
        if len(path) != _SEGMENTS_OF_REGISTRATION or path[0] != "rd":
            return None
        if request.code == Code.POST:
            return self._updates
        return self._deregisters if request.code == Code.DELETE else None

    def on_alive(self, beats: list[tuple[str, float]]) -> None:
        """Take Updates that the engine answered by itself; only the last of each registration counts, and is
        stored at most `_BEATS_HELD` seconds later.
        """
        self._beats.update(beats)
        if self._beat_timer is None:
            self._beat_timer = self._timers.later(_BEATS_HELD, self._beats_due)

    def heard(self, registration_id: str) -> float:
        """Return when this registration gave its last sign of life that is not stored yet, else 0."""
        return self._beats.get(registration_id, 0.0)

    def _beats_due(self) -> None:
        self._beat_timer = None
        self._liveness.wake()

    def _other(self, request: Request) -> None:
        path = request.path
        if path == ("dp",) and request.code == Code.POST:
            endpoint = self.addresses.endpoint(request.peer)
            if endpoint is None:
                self._refuse(request, Code.FORBIDDEN, "register before you send")
            else:
                self._on_sent(endpoint, request)
        elif path == (".well-known", "core") and request.code == Code.GET:
            self._transport.respond(
                request.exchange, Code.CONTENT, payload=_WELL_KNOWN, content_format=_LINK_FORMAT
            )
        elif path == ("bs",):
            self._refuse(request, Code.NOT_FOUND, "this server does not bootstrap; register at /rd")
        elif path == ("dp",) or (path[:1] == ("rd",) and len(path) <= _SEGMENTS_OF_REGISTRATION):
            self._refuse(request, Code.METHOD_NOT_ALLOWED, "")
        elif not self._on_delta(request):
            self._refuse(request, Code.NOT_FOUND, "")

    def _refuse(self, request: Request, code: int, text: str) -> None:
        # The diagnostic payload is plain UTF-8 without a Content-Format (RFC 7252 5.5.2).
        self._transport.respond(request.exchange, code, payload=text.encode())

    def _forbid(self, request: Request, error: ForeignName) -> None:
        """Refuse a name that is not the sender's, and tell the operator which."""
        self._identities.foreign(request.peer, error.endpoint)
        self._refuse(request, Code.FORBIDDEN, _FOREIGN)

    def _fail(self, request: Request, error: Exception) -> None:
        """Answer what was not stored: it is not the sender's to change, or the device tries again."""
        if isinstance(error, ForeignName):
            self._forbid(request, error)
            return
        if isinstance(error, Lwm2mError):
            _log.warning("request not stored", path=request.path, error=error.message)
        else:
            _log.error("request not stored", path=request.path, exc_info=error)
        self._transport.respond(request.exchange, Code.SERVICE_UNAVAILABLE, max_age=_RETRY_AFTER)

    async def _work(self) -> None:
        # Registers go first: an Update or Deregister of the same batch belongs to an older registration.
        if self._registers:
            # A fleet that comes back at once: the first of it hear before the last are looked at.
            batch, self._registers = self._registers[:_CHUNK], self._registers[_CHUNK:]
            await self._register(batch)
            if self._registers:
                self._pump.wake()
        if self._updates:
            batch, self._updates = self._updates, []
            await self._update(batch)
        if self._deregisters:
            batch, self._deregisters = self._deregisters, []
            await self._deregister(batch)

    async def _store_beats(self) -> None:
        """Write the signs of life in bounded transactions: registrations take their turn between them."""
        while self._beats:
            beats, self._beats = self._beats, {}
            # In the order of the ids, which is that of the rows.
            items = [(id_, beats[id_]) for id_ in sorted(beats)]
            try:
                for at in range(0, len(items), _CHUNK):
                    await self._registrations.alive(items[at : at + _CHUNK])
            except BaseException:
                # The engine has answered these already: they wait for the next round, behind what is newer.
                self._beats = beats | self._beats
                raise

    async def _register(self, batch: list[Request]) -> None:
        now = self._clock.now()
        try:
            owners = await self._owners(batch)
        except Exception as error:  # noqa: BLE001  whatever happened, each device gets an answer
            for request in batch:
                self._fail(request, error)
            return
        wanted: dict[str, tuple[Registration, list[Request]]] = {}
        for request, location in zip(batch, new_ids(now, len(batch)), strict=True):
            try:
                registration = self._registration(request, owners, location, now)
            except UnsupportedVersion as error:
                self._refuse(request, Code.PRECONDITION_FAILED, error.message)
            except ForeignName as error:
                self._forbid(request, error)
            except InvalidInput as error:
                self._refuse(request, Code.BAD_REQUEST, f"{error.field}: {error.message}")
            else:
                self._want(wanted, registration, request)
        items = list(wanted.values())
        if not items:
            return
        try:
            results = await self._registrations.register([registration for registration, _ in items])
        except Exception as error:  # noqa: BLE001  whatever happened, each device gets an answer
            for _, requests in items:
                for request in requests:
                    self._fail(request, error)
            return
        arrived: list[tuple[Registration, bool]] = []
        welcome: list[tuple[int, str, Peer]] = []
        for (registration, requests), result in zip(items, results, strict=True):
            if isinstance(result, Registered):
                peer = requests[0].peer
                self._moved_in(registration.endpoint, peer, result.replaced)
                welcome += [(request.exchange, registration.registration_id, peer) for request in requests]
                arrived.append((registration, result.created))
            else:
                for request in requests:
                    self._fail(request, result)
        if arrived:
            self._transport.welcome(welcome)
            self._on_registered(arrived)

    def _want(
        self,
        wanted: dict[str, tuple[Registration, list[Request]]],
        registration: Registration,
        request: Request,
    ) -> None:
        """Note a registration; one device's repeated Register makes one, as it was said last; another device's
        takes the next turn.
        """
        _, requests = wanted.get(registration.endpoint, (registration, []))
        if requests and requests[0].peer != request.peer:
            self._registers.append(request)
            self._pump.wake()
        else:
            wanted[registration.endpoint] = registration, [*requests, request]

    async def _owners(self, batch: list[Request]) -> Owners:
        """Return the endpoint names that the identities in this batch may use."""
        identities = {request.peer.identity for request in batch}
        return await self._identities.endpoints_of(each for each in identities if each is not None)

    def _registration(self, request: Request, owners: Owners, location: str, now: float) -> Registration:
        peer = request.peer
        identity = peer.identity
        owner = None if identity is None else owners[identity]
        endpoint, stated = parse_statement(request.query, request.payload, owner)
        if identity is not None and owner != endpoint:
            raise ForeignName(endpoint)
        # By position: by name it takes twice as long, and each device that registers makes one.
        return Registration(
            location,
            endpoint,
            peer.address,
            now,
            now,
            self._expires_at(now, stated.lifetime),
            stated.lifetime,
            stated.version,
            stated.binding,
            stated.queue_mode,
            identity,
            stated.links,
            stated.objects,
        )

    def _moved_in(self, endpoint: str, peer: Peer, replaced: str | None) -> None:
        """Note where a device lives now, and forget where it was."""
        if replaced is not None:
            self._transport.drop(replaced)
        left = self.addresses.put(endpoint, peer)
        if left is not None:
            # Requests to where it was would hold up everything until their last retransmission.
            self._transport.forget(left)

    async def _update(self, batch: list[Request]) -> None:
        now = self._clock.now()
        stated: list[tuple[Request, UpdateRequest]] = []
        for request in batch:
            try:
                stated.append((request, parse_update(request.query, request.payload)))
            except InvalidInput as error:
                self._refuse(request, Code.BAD_REQUEST, f"{error.field}: {error.message}")
        if not stated:
            return
        try:
            owners = await self._owners(batch)
            updates = [self._stated_update(request, update, owners, now) for request, update in stated]
            results = await self._registrations.update(updates)
        except Exception as error:  # noqa: BLE001  whatever happened, each device gets an answer
            for request, _ in stated:
                self._fail(request, error)
            return
        heard: list[Registration] = []
        for (request, _), result in zip(stated, results, strict=True):
            if result is None:
                self._refuse(request, Code.NOT_FOUND, "register again")
            elif isinstance(result, Registration):
                self._transport.keep(result.registration_id, request.peer)
                left = self.addresses.put(result.endpoint, request.peer)
                if left is not None:
                    self._transport.forget(left)
                self._transport.respond(request.exchange, Code.CHANGED)
                heard.append(result)
            else:
                self._fail(request, result)
        if heard:
            self._on_contact(heard)

    def _stated_update(
        self, request: Request, stated: UpdateRequest, owners: Owners, now: float
    ) -> RegistrationUpdate:
        identity = request.peer.identity
        return RegistrationUpdate(
            registration_id=request.path[1],
            at=now,
            address=request.peer.address,
            identity=identity,
            owner=_owner(identity, owners),
            lifetime=stated.lifetime,
            expires_at=None if stated.lifetime is None else self._expires_at(now, stated.lifetime),
            binding=stated.binding,
            queue_mode=stated.queue_mode,
            links=None if stated.objects is None else request.payload.decode("utf-8", "replace"),
            objects=None if stated.objects is None else object_paths(stated.objects),
        )

    async def _deregister(self, batch: list[Request]) -> None:
        try:
            owners = await self._owners(batch)
            ends = [(request.path[1], _owner(request.peer.identity, owners)) for request in batch]
            results = await self._registrations.deregister(ends, now=self._clock.now())
        except Exception as error:  # noqa: BLE001  whatever happened, each device gets an answer
            for request in batch:
                self._fail(request, error)
            return
        gone: list[str] = []
        for request, result in zip(batch, results, strict=True):
            if result is None:
                self._refuse(request, Code.NOT_FOUND, "")
            elif isinstance(result, str):
                self._forget(request.path[1], result)
                self._transport.respond(request.exchange, Code.DELETED)
                gone.append(result)
            else:
                self._fail(request, result)
        if gone:
            self._on_gone(gone)

    async def _expire(self) -> None:
        await self._store_beats()
        while True:
            ended = await self._registrations.expire(now=self._clock.now(), limit=_CHUNK)
            for registered in ended:
                self._forget(registered.registration_id, registered.endpoint)
            if ended:
                self._on_gone([registered.endpoint for registered in ended])
            if len(ended) < _CHUNK:
                return

    def _forget(self, registration_id: str, endpoint: str) -> None:
        self._transport.drop(registration_id)
        self.addresses.drop(endpoint)

    def _expires_at(self, now: float, lifetime: int) -> float:
        # Lifetime 0 means for ever; what is out of bounds is moved to them for the expiry alone, never refused.
        if lifetime == 0 or lifetime > self._max_lifetime:
            return now + self._max_lifetime + self._grace
        return now + max(lifetime, self._min_lifetime) + self._grace


def _owner(identity: str | None, owners: Owners) -> str | None:
    """Return the name that a sender may touch; one whose identity has no name (any more) may touch nothing."""
    return None if identity is None else owners[identity] or ""
