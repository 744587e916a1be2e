"""What every `Transport` promises, held against the engine on loopback and the fake in memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from lwm2m_server.transport import (
    Code,
    Download,
    EngineTransport,
    LookUp,
    Notification,
    Peer,
    PeerGone,
    Progress,
    Request,
    RequestTimeout,
    Security,
    SecurityEvent,
    Transport,
    TransportError,
)
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport

pytestmark = pytest.mark.timeout(30)


@dataclass
class Ends:
    """A server and a client that know each other's address, and what the server was told."""

    server: Transport
    client: Transport
    server_peer: Peer
    client_peer: Peer
    requests: list[Request] = field(default_factory=list)
    alive: list[tuple[str, float]] = field(default_factory=list)
    downloads: list[Download] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Callable[[Request], None] = lambda _: None

    def take(self, batch: list[Request]) -> None:
        self.requests.extend(batch)
        for request in batch:
            self.answer(request)
        self.changed.set()

    def take_alive(self, updates: list[tuple[str, float]]) -> None:
        self.alive.extend(updates)
        self.changed.set()

    def note(self, store: list, item: object) -> None:
        store.append(item)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for events, not for time."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    def reply(self, code: int, **options: object) -> None:
        """Give this answer to all that comes."""
        self.answer = lambda request: self.server.respond(request.exchange, code, **options)


KEY = b"0123456789abcdef"


@pytest.fixture(params=["engine", "memory", "engine-coaps", "memory-coaps"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    """Both ends; over coaps the server knows the client's pre-shared key, and they have shaken hands."""
    kind, _, scheme = request.param.partition("-")
    server: Transport
    client: Transport
    if kind == "engine":
        server, client = (
            EngineTransport(seed=1, progress_bytes=4096),
            EngineTransport(seed=2, progress_bytes=4096),
        )
        host = "127.0.0.1"
    else:
        network = MemoryNetwork()
        server = MemoryTransport(network, progress_bytes=4096)
        client = MemoryTransport(network, progress_bytes=4096)
        host = "10.0.0.1"
    await server.start()
    await client.start()

    def on_security(events: list[SecurityEvent]) -> None:
        for event in events:
            if isinstance(event, LookUp):
                server.provide_psks([(event.handshake, (KEY,))])

    if scheme:
        server.secure(Security())
        client.secure(Security(psk=(b"dev", KEY)))
        server_peer = Peer(await server.listen(host, 0, secure=True), scheme="coaps")
        client_peer = Peer(f"{host}:1", identity="psk:dev")
    else:
        server_peer = Peer(await server.listen(host, 0))
        client_peer = Peer(await client.listen(host, 0))
    pair = Ends(server, client, server_peer, client_peer)
    server.set_handlers(
        on_requests=pair.take,
        on_alive=pair.take_alive,
        on_download=lambda event: pair.note(pair.downloads, event),
        on_cancelled=lambda exchange: pair.note(pair.cancelled, exchange),
        on_security=on_security,
    )
    if scheme:
        pair.reply(Code.CONTENT)
        await client.request(server_peer, Code.GET, ("hello",))
        pair.requests.clear()
        pair.answer = lambda _: None
    yield pair
    await client.close()
    await server.close()


def blob(tmp_path, size: int) -> tuple[bytes, bytes, str]:
    content = bytes(index * 7 % 251 for index in range(size))
    file = tmp_path / "image.bin"
    file.write_bytes(content)
    return hashlib.sha256(content).digest(), content, str(file)


async def test_request_and_answer_carry_all_their_parts(ends: Ends) -> None:
    ends.reply(
        Code.CREATED, payload=b"made", content_format=0, location_path=("rd", "x1"), etag=b"e1", max_age=7
    )
    response = await ends.client.request(
        ends.server_peer,
        Code.POST,
        ("rd",),
        query=("ep=a", "lt=60"),
        payload=b"</1>",
        content_format=40,
        accept=0,
        etag=b"\x01\x02",
    )
    [request] = ends.requests
    assert (request.code, request.path, request.query) == (Code.POST, ("rd",), ("ep=a", "lt=60"))
    assert (request.payload, request.content_format, request.accept) == (b"</1>", 40, 0)
    assert (request.etags, request.peer, request.observe) == ((b"\x01\x02",), ends.client_peer, None)
    assert (response.code, response.payload, response.content_format) == (Code.CREATED, b"made", 0)
    assert (response.location_path, response.etag, response.max_age) == (("rd", "x1"), b"e1", 7)


async def test_error_codes_are_answers(ends: Ends) -> None:
    ends.reply(Code.METHOD_NOT_ALLOWED)
    assert (await ends.client.request(ends.server_peer, Code.GET, ("x",))).code == Code.METHOD_NOT_ALLOWED


async def test_large_bodies_travel_whole_in_both_directions(ends: Ends) -> None:
    body = bytes(range(256)) * 40
    ends.answer = lambda request: ends.server.respond(
        request.exchange, Code.CONTENT, payload=request.payload[::-1]
    )
    response = await ends.client.request(
        ends.server_peer, Code.PUT, ("big",), payload=body, content_format=42
    )
    assert [request.payload for request in ends.requests] == [body]
    assert response.payload == body[::-1]


async def test_answers_find_their_requests(ends: Ends) -> None:
    ends.answer = lambda request: ends.server.respond(
        request.exchange, Code.CONTENT, payload=request.path[0].encode()
    )
    responses = await asyncio.gather(
        *(ends.client.request(ends.server_peer, Code.GET, (f"r{number}",)) for number in range(20))
    )
    assert [response.payload for response in responses] == [f"r{number}".encode() for number in range(20)]


async def test_without_handlers_a_request_gets_4_04(ends: Ends) -> None:
    ends.reply(Code.CONTENT)
    await ends.client.request(ends.server_peer, Code.GET, ("x",))
    response = await ends.server.request(ends.requests[0].peer, Code.GET, ("x",))
    assert response.code == Code.NOT_FOUND


async def test_a_broken_handler_answers_5_00_and_is_reported(ends: Ends) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    ends.answer = lambda _: 1 / 0
    response = await ends.client.request(ends.server_peer, Code.GET, ("x",))
    assert response.code == Code.INTERNAL_SERVER_ERROR
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


async def test_one_block_is_fetched_when_asked_for(ends: Ends) -> None:
    ends.reply(Code.CONTENT, payload=bytes(range(100)))
    response = await ends.client.request(ends.server_peer, Code.GET, ("x",), block2=(1, 64))
    assert (response.payload, response.block2) == (bytes(range(64, 100)), (1, False, 64))


async def test_an_observation_delivers_until_it_is_cancelled(ends: Ends) -> None:
    got: asyncio.Queue[Notification] = asyncio.Queue()
    ends_seen: list[str] = []
    ends.reply(Code.CONTENT, payload=b"0", observe=True)
    handle, response = await ends.client.observe(
        ends.server_peer, ("3", "0"), on_notify=got.put_nowait, on_end=ends_seen.append
    )
    assert response.observe is not None
    exchange = ends.requests[0].exchange
    for value in (b"1", b"2"):
        ends.server.notify(exchange, Code.CONTENT, payload=value, content_format=0)
        assert (await got.get()).payload == value
    ends.server.notify(exchange, Code.CONTENT, payload=b"3", confirmable=True)
    notification = await got.get()
    assert (notification.payload, notification.handle) == (b"3", handle)
    ends.reply(Code.CONTENT, payload=b"4")
    ends.client.cancel(handle)
    await ends.until(lambda: ends.cancelled == [exchange])
    assert ends_seen == []


async def test_an_observation_ends_with_an_error_code(ends: Ends) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    seen: list[int] = []
    ends.reply(Code.CONTENT, observe=True)
    await ends.client.observe(
        ends.server_peer, ("3",), on_notify=lambda event: seen.append(event.code), on_end=ended.set_result
    )
    ends.server.notify(ends.requests[0].exchange, Code.NOT_FOUND)
    assert await ended == "4.04"
    assert seen == [Code.NOT_FOUND]


async def test_an_observation_that_is_not_accepted_is_an_answer(ends: Ends) -> None:
    ends.reply(Code.CONTENT, payload=b"v")
    _, response = await ends.client.observe(
        ends.server_peer, ("3",), on_notify=lambda _: None, on_end=lambda _: None
    )
    assert (response.observe, response.payload) == (None, b"v")


def collect_blocks(ends: Ends, blocks: list[bytes]) -> None:
    def take(request: Request) -> None:
        assert request.block1 is not None
        number, more, size = request.block1
        assert number * size == sum(map(len, blocks))
        blocks.append(request.payload)
        code = Code.CONTINUE if more else Code.CHANGED
        ends.server.respond(request.exchange, code, block1=request.block1)

    ends.answer = take


async def test_a_push_reaches_a_streamed_path_block_by_block(ends: Ends, tmp_path) -> None:
    digest, content, file = blob(tmp_path, 10_000)
    assert ends.client.add_blob(digest, file) == 10_000
    ends.server.stream(("5", "0", "0"))
    blocks: list[bytes] = []
    collect_blocks(ends, blocks)
    seen: list[Progress] = []
    response = await ends.client.push(
        ends.server_peer, ("5", "0", "0"), digest, block_size=512, on_progress=seen.append
    )
    assert response.code == Code.CHANGED
    assert b"".join(blocks) == content
    assert {len(block) for block in blocks[:-1]} == {512}
    assert ends.requests[0].size1 == 10_000
    assert [progress.offset for progress in seen] == [4096, 8192, 10_000]
    assert {progress.size for progress in seen} == {10_000}


async def test_a_push_goes_on_from_an_offset(ends: Ends, tmp_path) -> None:
    digest, content, file = blob(tmp_path, 5000)
    ends.client.add_blob(digest, file)
    ends.server.stream(("5",))
    ends.answer = lambda request: ends.server.respond(
        request.exchange, Code.CONTINUE if request.block1[1] else Code.CHANGED, block1=request.block1
    )
    response = await ends.client.push(ends.server_peer, ("5",), digest, offset=3072)
    assert response.code == Code.CHANGED
    assert b"".join(request.payload for request in ends.requests) == content[3072:]
    assert [request.block1 for request in ends.requests] == [(3, True, 1024), (4, False, 1024)]


async def test_a_smaller_block_size_in_an_answer_holds_from_then_on(ends: Ends, tmp_path) -> None:
    digest, content, file = blob(tmp_path, 2000)
    ends.client.add_blob(digest, file)
    ends.server.stream(("5",))
    received = bytearray()

    def take(request: Request) -> None:
        number, more, size = request.block1
        assert number * size == len(received)
        received.extend(request.payload)
        wanted = 256
        answer = (number * size // wanted, more, wanted)
        ends.server.respond(request.exchange, Code.CONTINUE if more else Code.CHANGED, block1=answer)

    ends.answer = take
    response = await ends.client.push(ends.server_peer, ("5",), digest)
    assert response.code == Code.CHANGED
    assert received == content
    assert [len(request.payload) for request in ends.requests] == [1024, 256, 256, 256, 208]


async def test_a_push_that_is_cancelled_tells_how_far_it_came(ends: Ends, tmp_path) -> None:
    digest, _, file = blob(tmp_path, 5000)
    ends.client.add_blob(digest, file)
    ends.server.stream(("5",))
    seen: list[Progress] = []
    silent = asyncio.Event()

    def take(request: Request) -> None:
        if request.block1[0] == 3:
            silent.set()
        else:
            ends.server.respond(request.exchange, Code.CONTINUE, block1=request.block1)

    ends.answer = take
    push = asyncio.create_task(ends.client.push(ends.server_peer, ("5",), digest, on_progress=seen.append))
    await silent.wait()
    push.cancel()
    await asyncio.wait({push})
    assert push.cancelled()
    assert (seen[-1].offset, seen[-1].size) == (3072, 5000)


async def test_an_error_ends_a_push_and_tells_how_far_it_came(ends: Ends, tmp_path) -> None:
    digest, _, file = blob(tmp_path, 5000)
    ends.client.add_blob(digest, file)
    ends.server.stream(("5",))
    seen: list[int] = []

    def take(request: Request) -> None:
        code = Code.BAD_REQUEST if request.block1[0] == 2 else Code.CONTINUE
        ends.server.respond(request.exchange, code, block1=request.block1)

    ends.answer = take
    response = await ends.client.push(
        ends.server_peer, ("5",), digest, on_progress=lambda progress: seen.append(progress.offset)
    )
    assert response.code == Code.BAD_REQUEST
    assert seen == [2048]


async def test_an_offered_blob_is_served_block_by_block_without_the_handlers(ends: Ends, tmp_path) -> None:
    digest, content, file = blob(tmp_path, 10_000)
    ends.server.add_blob(digest, file)
    path = ("fw", digest.hex())
    ends.server.offer(path, digest, ends.client_peer)
    received, number, more = b"", 0, True
    etags, sizes = set(), []
    while more:
        response = await ends.client.request(ends.server_peer, Code.GET, path, block2=(number, 1024))
        assert response.code == Code.CONTENT
        assert response.block2 == (number, len(content) > (number + 1) * 1024, 1024)
        received += response.payload
        etags.add(response.etag)
        sizes.append(response.size2)
        number, more = number + 1, response.block2[1]
    assert received == content
    assert etags == {digest[:8]}
    assert sizes[0] == 10_000
    await ends.until(lambda: len(ends.downloads) == 3)
    assert [event.offset for event in ends.downloads] == [4096, 8192, 10_000]
    assert {
        (event.path, event.digest, event.peer, event.size, event.repeated) for event in ends.downloads
    } == {(path, digest, ends.client_peer, 10_000, 0)}
    assert ends.requests == []


async def test_an_offered_blob_is_fetched_whole(ends: Ends, tmp_path) -> None:
    digest, content, file = blob(tmp_path, 10_000)
    ends.server.add_blob(digest, file)
    ends.server.offer(("fw", "a"), digest, ends.client_peer)
    response = await ends.client.request(ends.server_peer, Code.GET, ("fw", "a"))
    assert response.payload == content
    await ends.until(lambda: ends.downloads != [] and ends.downloads[-1].offset == 10_000)


async def test_blocks_served_again_are_counted(ends: Ends, tmp_path) -> None:
    digest, _, file = blob(tmp_path, 3000)
    ends.server.add_blob(digest, file)
    ends.server.offer(("fw", "a"), digest, ends.client_peer)
    for number in (0, 1, 0, 1, 2):
        await ends.client.request(ends.server_peer, Code.GET, ("fw", "a"), block2=(number, 1024))
    await ends.until(lambda: len(ends.downloads) == 1)
    assert (ends.downloads[0].offset, ends.downloads[0].repeated) == (3000, 2)


async def test_only_hosts_with_an_offer_may_download(ends: Ends, tmp_path) -> None:
    digest, _, file = blob(tmp_path, 100)
    ends.server.add_blob(digest, file)
    ends.reply(Code.NOT_FOUND)

    async def code() -> int:
        return (await ends.client.request(ends.server_peer, Code.GET, ("fw", "a"))).code

    assert await code() == Code.NOT_FOUND
    assert len(ends.requests) == 1
    ends.server.offer(("fw", "a"), digest, Peer("192.0.2.9:5683"))
    assert await code() == Code.FORBIDDEN
    host = ends.client_peer
    ends.server.offer(("fw", "a"), digest, host)
    ends.server.offer(("fw", "a"), digest, host)
    ends.server.withdraw(("fw", "a"), host)
    assert await code() == Code.CONTENT
    ends.server.withdraw(("fw", "a"), host)
    assert await code() == Code.FORBIDDEN
    assert len(ends.requests) == 1


async def test_a_removed_blob_is_not_found(ends: Ends, tmp_path) -> None:
    digest, _, file = blob(tmp_path, 100)
    ends.server.add_blob(digest, file)
    ends.server.offer(("fw", "a"), digest, ends.client_peer)
    ends.server.remove_blob(digest)
    assert (await ends.client.request(ends.server_peer, Code.GET, ("fw", "a"))).code == Code.NOT_FOUND


async def test_a_blob_that_is_held_already_is_not_sent_again(ends: Ends, tmp_path) -> None:
    digest, _, file = blob(tmp_path, 100)
    ends.server.add_blob(digest, file)
    ends.server.offer(("fw", "a"), digest, ends.client_peer)
    response = await ends.client.request(ends.server_peer, Code.GET, ("fw", "a"), etag=digest[:8])
    assert (response.code, response.payload, response.etag) == (Code.VALID, b"", digest[:8])


async def test_a_missing_file_and_an_unknown_digest_are_refused(ends: Ends, tmp_path) -> None:
    with pytest.raises(TransportError, match="nothing-here"):
        ends.server.add_blob(bytes(32), str(tmp_path / "nothing-here"))
    with pytest.raises(TransportError, match="regular file"):
        ends.server.add_blob(bytes(32), str(tmp_path))
    with pytest.raises(TransportError, match="digest"):
        await ends.client.push(ends.server_peer, ("5",), bytes(32))


async def test_bare_updates_are_answered_without_the_handlers_and_reported(ends: Ends) -> None:
    ends.reply(Code.BAD_REQUEST)
    update: Callable[..., Awaitable] = lambda **options: ends.client.request(  # noqa: E731
        ends.server_peer, Code.POST, ("rd", "x1"), **options
    )
    assert (await update()).code == Code.BAD_REQUEST
    ends.server.keep("x1", ends.client_peer)
    assert (await update()).code == Code.CHANGED
    await ends.until(lambda: len(ends.alive) == 1)
    assert ends.alive[0][0] == "x1"
    assert ends.alive[0][1] >= 1_000_000.0
    assert len(ends.requests) == 1
    assert (await update(query=("lt=5",))).code == Code.BAD_REQUEST
    assert (await update(payload=b"</1>", content_format=40)).code == Code.BAD_REQUEST
    ends.server.keep("x1", Peer("192.0.2.1:5683"))
    assert (await update()).code == Code.BAD_REQUEST
    ends.server.keep("x1", ends.client_peer)
    ends.server.drop("x1")
    assert (await update()).code == Code.BAD_REQUEST
    assert len(ends.alive) == 1


async def test_closing_fails_what_waits(ends: Ends) -> None:
    waiting = asyncio.ensure_future(ends.client.request(ends.server_peer, Code.GET, ("silence",)))
    await ends.until(lambda: len(ends.requests) == 1)
    await ends.client.close()
    with pytest.raises(PeerGone):
        await waiting
    await ends.client.close()
    with pytest.raises(TransportError):
        await ends.client.request(ends.server_peer, Code.GET, ("x",))


async def test_refreshes_are_reported_even_when_the_server_closes_at_once(ends: Ends) -> None:
    ends.server.keep("x1", ends.client_peer)
    response = await ends.client.request(ends.server_peer, Code.POST, ("rd", "x1"))
    await ends.server.close()
    await ends.until(lambda: ends.alive != [])
    assert (response.code, ends.alive[0][0]) == (Code.CHANGED, "x1")


async def test_a_closed_server_has_nothing_to_answer_or_to_serve(ends: Ends) -> None:
    waiting = asyncio.ensure_future(ends.client.request(ends.server_peer, Code.GET, ("silence",)))
    await ends.until(lambda: len(ends.requests) == 1)
    await ends.server.close()
    ends.server.respond(ends.requests[0].exchange, Code.CONTENT)
    ends.server.notify(ends.requests[0].exchange, Code.CONTENT)
    ends.server.withdraw(("fw", "a"), Peer("192.0.2.1:5683"))
    ends.server.drop("x1")
    ends.server.remove_blob(bytes(32))
    ends.server.cancel(4711)
    await ends.client.close()
    with pytest.raises(PeerGone):
        await waiting


async def test_a_cancelled_task_leaves_nothing_behind(ends: Ends) -> None:
    waiting = asyncio.ensure_future(ends.client.request(ends.server_peer, Code.GET, ("silence",)))
    await ends.until(lambda: len(ends.requests) == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    ends.server.respond(ends.requests[0].exchange, Code.CONTENT)
    ends.reply(Code.CHANGED)
    assert (await ends.client.request(ends.server_peer, Code.GET, ("x",))).code == Code.CHANGED
    assert ends.client.statistics()["calls"] == 0


async def test_what_waits_for_a_forgotten_peer_ends_at_once(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.client.request(ends.server_peer, Code.GET, ("slow",)))
    await ends.until(lambda: bool(ends.requests))
    ends.client.forget(ends.server_peer)
    with pytest.raises(PeerGone):
        await waiting


async def test_a_late_answer_is_ignored(ends: Ends) -> None:
    ends.server.respond(4711, Code.CONTENT)
    ends.server.notify(4711, Code.CONTENT)
    ends.reply(Code.CHANGED)
    assert (await ends.client.request(ends.server_peer, Code.GET, ("x",))).code == Code.CHANGED


async def test_nobody_there_is_a_timeout() -> None:
    network = MemoryNetwork()
    fake = MemoryTransport(network)
    real = EngineTransport(ack_timeout=0.005, max_retransmit=1)
    await real.start()
    hole = EngineTransport()
    nobody = Peer(await hole.listen("127.0.0.1", 0))
    await hole.close()
    for transport, peer in ((fake, Peer("10.0.0.9:5683")), (real, nobody)):
        with pytest.raises(RequestTimeout) as caught:
            await transport.request(peer, Code.GET, ("x",))
        assert caught.value.code == "timeout"
        await transport.close()
