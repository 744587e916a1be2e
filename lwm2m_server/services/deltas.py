"""Deltas between the images that devices run and those that they get: made, kept, offered, counted.

A delta is a transfer encoding: the device asks for it beside the image of its manifest (see
`firmware.deltas.negotiation`), and nothing of it has to be trusted, since the result must have the digest that was
signed. It is offered only to a device that is offered that image.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from lwm2m_server.clock import Clock
from lwm2m_server.errors import InvalidInput, Lwm2mError, NotFound
from lwm2m_server.firmware.deltas import Candidate, Method, choose
from lwm2m_server.firmware.deltas.negotiation import (
    SEGMENT,
    Description,
    Wish,
    read_report,
    read_wish,
)
from lwm2m_server.services.background import Background
from lwm2m_server.services.blobs import blob_path
from lwm2m_server.services.delta_builder import Build, Built
from lwm2m_server.store.delta_ports import Savings, StoredDelta
from lwm2m_server.store.files import FileStore
from lwm2m_server.store.ports import Store
from lwm2m_server.store.records import NewEvent
from lwm2m_server.transport import Code, Peer, Request, Transport

_log = structlog.get_logger(__name__)

READY, FAILED, WITHDRAWN = "ready", "failed", "withdrawn"
_WITHDRAWN_AFTER = 3  # devices that could not use a patch: then it is the patch
_RETRY_AFTER = 2  # Max-Age of 5.03, seconds
_CBOR = 60
_SEGMENTS = 3  # fw, digest, delta
_DIGEST_LENGTH = 32


@dataclass(frozen=True, slots=True)
class DeltaPolicy:
    """Which methods are tried, for images of at most `max_image` bytes; a patch above `threshold` is not sent."""

    methods: tuple[Method, ...] = tuple(Method)
    threshold: float = 0.7
    max_image: int = 16 << 20


class Receiver(Protocol):
    """An update under way, as far as deltas need to know it."""

    @property
    def endpoint(self) -> str:
        """The device."""
        ...

    async def offer_patch(self, delta: StoredDelta) -> None:
        """Let the device fetch the patch, also after a restart. Raises `NotFound` when its file is gone."""
        ...


Find = Callable[[Peer, bytes], Receiver | None]
"""Returns the update in which this peer is offered the image of this digest."""


class DeltaService:
    """Makes deltas in the background, answers devices that ask for them, compares methods for operators."""

    def __init__(
        self,
        store: Store,
        images: FileStore,
        patches: FileStore,
        transport: Transport,
        clock: Clock,
        *,
        build: Build,
        policy: DeltaPolicy,
    ) -> None:
        self._store = store
        self._images = images
        self._patches = patches
        self._transport = transport
        self._clock = clock
        self._build = build
        self._policy = policy
        self._background = Background("deltas")
        self._making: dict[tuple[bytes, bytes], asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Open the files, and remove patches whose images are gone."""
        await self._patches.open()
        known = await self._store.deltas.digests()
        for digest in await self._patches.digests():
            if digest not in known:
                await self._patches.delete(digest)

    async def close(self) -> None:
        """End what is being made."""
        await self._background.close()

    def path(self, digest: bytes) -> Path:
        """Return the file of an image or a patch. Raises `NotFound`."""
        try:
            return self._images.path(digest)
        except NotFound:
            return self._patches.path(digest)

    def prepare(self, base: bytes | None, target: bytes) -> None:
        """Make the deltas that a device which runs `base` (None: unknown) may ask for, in the background."""
        if base != target:
            self._make(base or b"", target)

    def answer(self, request: Request, find: Find) -> bool:
        """Take a request for a delta; False when it is none. The answer comes in the background."""
        path = request.path
        if len(path) != _SEGMENTS or path[0] != "fw" or path[2] != SEGMENT:
            return False
        self._background.spawn(self._answer(request, find))
        return True

    async def compare(self, base: bytes, target: bytes) -> list[StoredDelta]:
        """Return every method's result, making what is missing; the smallest patch first, failed ones last."""
        task = self._make(base, target)
        if task is not None:
            await asyncio.shield(task)
        found = await self._store.deltas.of(base, target)
        return sorted(found, key=lambda delta: (delta.state == FAILED, delta.size, delta.method))

    async def savings(self, *, campaign_id: str | None = None, endpoint: str | None = None) -> Savings:
        """Add up what deltas saved: in a campaign, for a device, or in all."""
        return await self._store.deltas.savings(campaign_id=campaign_id, endpoint=endpoint)

    async def _answer(self, request: Request, find: Find) -> None:
        respond = self._transport.respond
        try:
            digest = _digest(request.path[1])
            receiver = find(request.peer, digest)
            if receiver is None:
                respond(request.exchange, Code.FORBIDDEN)
            elif request.code == Code.GET:
                await self._offer(request, receiver, read_wish(request.query), digest)
            elif request.code == Code.POST:
                await self._note_failure(request, receiver)
            else:
                respond(request.exchange, Code.METHOD_NOT_ALLOWED)
        except InvalidInput as error:
            respond(request.exchange, Code.BAD_REQUEST, payload=f"{error.field}: {error.message}".encode())
        except Lwm2mError as error:
            # The device takes the whole image then: a fault here must not keep it from its update.
            _log.error("no delta offered", error=error.message)
            respond(request.exchange, Code.NOT_FOUND)

    async def _offer(self, request: Request, receiver: Receiver, wish: Wish, target: bytes) -> None:
        respond = self._transport.respond
        if (wish.base, target) in self._making or await self._missing(wish.base, target):
            self._make(wish.base, target)
            respond(request.exchange, Code.SERVICE_UNAVAILABLE, max_age=_RETRY_AFTER)
            return
        delta = await self._best(receiver.endpoint, wish, target)
        if delta is None:
            respond(request.exchange, Code.NOT_FOUND)
            return
        await receiver.offer_patch(delta)
        answer = Description(delta.method, blob_path(delta.digest), delta.size, delta.digest)
        respond(request.exchange, Code.CONTENT, payload=answer.encode(), content_format=_CBOR)

    async def _best(self, endpoint: str, wish: Wish, target: bytes) -> StoredDelta | None:
        image = await self._store.images.get(target)
        if image is None:
            return None
        ready = {
            delta.digest: delta
            for delta in await self._store.deltas.of(wish.base, target)
            if delta.state == READY
        }
        best = choose(
            [Candidate(Method(delta.method), delta.digest, delta.size) for delta in ready.values()],
            size=image.size,
            understood=wish.methods,
            failed=await self._store.deltas.failed(endpoint),
            threshold=self._policy.threshold,
        )
        return None if best is None else ready[best.digest]

    async def _note_failure(self, request: Request, receiver: Receiver) -> None:
        told = read_report(request.query)
        now = self._clock.now()
        devices = await self._store.deltas.fail(receiver.endpoint, told.patch, reason=told.reason, at=now)
        if devices >= _WITHDRAWN_AFTER:
            await self._store.deltas.withdraw(told.patch)
        event = NewEvent(
            kind="delta.failed",
            at=now,
            endpoint=receiver.endpoint,
            data={"patch": told.patch.hex(), "reason": told.reason, "devices": devices},
        )
        await self._store.events.append([event])
        self._transport.respond(request.exchange, Code.CHANGED)

    def _make(self, base: bytes, target: bytes) -> asyncio.Task[None] | None:
        """Begin to make what is missing of a pair, if nobody does already; None when the service is closing."""
        key = base, target
        task = self._making.get(key)
        if task is None:
            task = self._background.spawn(self._work(base, target))
            if task is not None:
                self._making[key] = task
                task.add_done_callback(lambda _: self._making.pop(key, None))
        return task

    async def _work(self, base: bytes, target: bytes) -> None:
        methods = await self._missing(base, target)
        if not methods:
            return
        with_base = any(method.needs_base for method in methods)
        file = self._images.path(base) if with_base else None
        with tempfile.TemporaryDirectory(prefix="lwm2m-delta-") as folder:
            names = [method.value for method in methods]
            made = await self._build(file, self._images.path(target), names, Path(folder))
            rows = [await self._stored(built, base, target) for built in made]
        await self._store.deltas.put(rows)

    async def _missing(self, base: bytes, target: bytes) -> list[Method]:
        """Return the methods that nobody has tried on this pair, and that can be tried."""
        limit = self._policy.max_image
        new = await self._store.images.get(target)
        if new is None or new.size > limit:
            return []
        old = await self._store.images.get(base) if base and base != target else None
        tried = {delta.method for delta in await self._store.deltas.of(base, target)}
        return [
            method
            for method in self._policy.methods
            if method.value not in tried
            and (not method.needs_base or (old is not None and old.size <= limit))
        ]

    async def _stored(self, built: Built, base: bytes, target: bytes) -> StoredDelta:
        """Keep a patch, and return its row; one that can't be kept counts as not made."""
        error, digest = built.error, b""
        if built.file is not None:
            try:
                file = await self._patches.put(_chunks(built.file), expected=built.digest)
                digest = file.digest
            except Lwm2mError as trouble:
                error = trouble.message
        if error:
            _log.warning("delta not made", method=built.method, target=target.hex(), error=error)
        return StoredDelta(
            base=base if Method(built.method).needs_base else b"",
            target=target,
            method=built.method,
            digest=digest,
            size=built.size if digest else 0,
            state=READY if digest else FAILED,
            created_at=self._clock.now(),
            text=error,
            seconds=built.seconds,
            memory=built.memory,
        )


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != _DIGEST_LENGTH:
        raise InvalidInput("A digest has 64 hex digits.", field="path")
    return digest


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    yield await asyncio.to_thread(file.read_bytes)
