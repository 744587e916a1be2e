"""The fake network: virtual time, loss, duplication, broken links, and what follows from them."""

import asyncio
import hashlib

import pytest

from lwm2m_server.clock import ManualClock
from lwm2m_server.transport import (
    Code,
    Notification,
    Peer,
    PeerGone,
    Request,
    RequestTimeout,
    TransferFailed,
    TransportError,
)
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport

pytestmark = pytest.mark.timeout(20)

SERVER = Peer("10.0.0.1:5683")


async def pair(network: MemoryNetwork) -> tuple[MemoryTransport, MemoryTransport, list[Request]]:
    """A server that answers 2.05 to everything, and a client."""
    server, client = MemoryTransport(network), MemoryTransport(network)
    requests: list[Request] = []

    def answer(batch: list[Request]) -> None:
        requests.extend(batch)
        for request in batch:
            server.respond(request.exchange, Code.CONTENT)

    server.set_handlers(on_requests=answer)
    await server.listen("10.0.0.1", 5683)
    await client.listen("10.0.0.2", 0)
    return server, client, requests


async def test_delay_is_virtual_and_passes_only_by_advance() -> None:
    clock = ManualClock(500.0)
    network = MemoryNetwork(delay=2.0, clock=clock)
    _, client, requests = await pair(network)
    task = asyncio.ensure_future(client.request(SERVER, Code.GET, ("x",)))
    await network.advance(1.9)
    assert (requests, task.done()) == ([], False)
    await network.advance(0.2)
    assert (len(requests), task.done()) == (1, False)
    await network.advance(2.0)
    assert task.done()
    assert clock.now() == pytest.approx(504.1)


async def test_silence_ends_after_the_patience_that_was_given() -> None:
    network = MemoryNetwork()
    server, client, _ = await pair(network)
    server.set_handlers(on_requests=lambda _: None)
    short = asyncio.ensure_future(client.request(SERVER, Code.GET, ("x",), timeout=10))
    long = asyncio.ensure_future(client.request(SERVER, Code.GET, ("x",)))
    await network.advance(10)
    with pytest.raises(RequestTimeout):
        await short
    assert not long.done()
    await network.advance(83)
    with pytest.raises(RequestTimeout):
        await long


async def test_the_same_seed_loses_the_same_exchanges() -> None:
    async def outcomes(seed: int) -> tuple[list[bool], int]:
        network = MemoryNetwork(seed=seed, loss=0.4)
        _, client, requests = await pair(network)
        results = []
        for _ in range(60):
            try:
                await client.request(SERVER, Code.GET, ("x",))
            except RequestTimeout:
                results.append(False)
            else:
                results.append(True)
        return results, len(requests)

    first = await outcomes(3)
    assert first == await outcomes(3)
    assert first != await outcomes(4)
    answered, arrived = sum(first[0]), first[1]
    # Some of those that failed had arrived all the same: only the answer was lost.
    assert answered < arrived < 60


async def test_a_duplicate_arrives_as_a_request_of_its_own() -> None:
    network = MemoryNetwork(duplicate=1.0)
    _, client, requests = await pair(network)
    await client.request(SERVER, Code.POST, ("rd",))
    await network.settle()
    assert [request.path for request in requests] == [("rd",), ("rd",)]
    assert requests[0].exchange != requests[1].exchange


async def test_a_host_that_is_cut_off_is_silent_until_it_is_mended() -> None:
    network = MemoryNetwork()
    _, client, requests = await pair(network)
    network.cut("10.0.0.2")
    with pytest.raises(RequestTimeout):
        await client.request(SERVER, Code.GET, ("x",))
    network.mend("10.0.0.2")
    assert (await client.request(SERVER, Code.GET, ("x",))).code == Code.CONTENT
    assert len(requests) == 1


async def test_requests_of_one_turn_come_as_one_batch() -> None:
    network = MemoryNetwork()
    server, client, _ = await pair(network)
    batches: list[int] = []

    def take(batch: list[Request]) -> None:
        batches.append(len(batch))
        for request in batch:
            server.respond(request.exchange, Code.CONTENT)

    server.set_handlers(on_requests=take)
    await asyncio.gather(*(client.request(SERVER, Code.GET, ("x",)) for _ in range(5)))
    assert batches == [5]


async def test_a_push_that_breaks_off_tells_where_to_go_on(tmp_path) -> None:
    network = MemoryNetwork()
    server, client, _ = await pair(network)
    content = bytes(range(250)) * 20
    (tmp_path / "image").write_bytes(content)
    digest = hashlib.sha256(content).digest()
    client.add_blob(digest, str(tmp_path / "image"))
    server.stream(("5", "0", "0"))
    received = bytearray()

    def take(batch: list[Request]) -> None:
        for request in batch:
            received.extend(request.payload)
            if len(received) == 3072:
                network.cut("10.0.0.1")
            code = Code.CONTINUE if request.block1[1] else Code.CHANGED
            server.respond(request.exchange, code, block1=request.block1)

    server.set_handlers(on_requests=take)
    with pytest.raises(TransferFailed) as caught:
        await client.push(SERVER, ("5", "0", "0"), digest)
    assert (caught.value.offset, caught.value.reason, caught.value.code) == (3072, "timeout", "timeout")
    network.mend("10.0.0.1")
    response = await client.push(SERVER, ("5", "0", "0"), digest, offset=caught.value.offset)
    assert response.code == Code.CHANGED
    assert received == content


async def test_a_whole_body_peer_has_nothing_to_go_on_with(tmp_path) -> None:
    network = MemoryNetwork()
    _, client, requests = await pair(network)
    (tmp_path / "image").write_bytes(bytes(5000))
    client.add_blob(bytes(32), str(tmp_path / "image"))
    response = await client.push(SERVER, ("5",), bytes(32), offset=1024)
    assert (response.code, requests) == (Code.REQUEST_ENTITY_INCOMPLETE, [])


async def test_a_body_above_the_bound_gets_4_13() -> None:
    network = MemoryNetwork()
    server = MemoryTransport(network, max_body=100)
    client = MemoryTransport(network)
    await server.listen("10.0.0.1", 5683)
    response = await client.request(SERVER, Code.PUT, ("x",), payload=bytes(101))
    assert response.code == Code.REQUEST_ENTITY_TOO_LARGE


async def observed(
    network: MemoryNetwork,
) -> tuple[MemoryTransport, MemoryTransport, int, list[Notification]]:
    server, client, requests = await pair(network)
    notifications: list[Notification] = []

    def accept(batch: list[Request]) -> None:
        for request in batch:
            requests.append(request)
            server.respond(request.exchange, Code.CONTENT, observe=True)

    server.set_handlers(on_requests=accept)
    await client.observe(SERVER, ("3",), on_notify=notifications.append, on_end=lambda _: None)
    return server, client, requests[-1].exchange, notifications


async def test_a_lost_notification_is_missed_and_a_confirmable_one_ends_the_observation() -> None:
    network = MemoryNetwork()
    server, _, exchange, notifications = await observed(network)
    cancelled: list[int] = []
    server.set_handlers(on_requests=lambda _: None, on_cancelled=cancelled.append)
    network.cut("10.0.0.2")
    server.notify(exchange, Code.CONTENT, payload=b"1")
    await network.settle()
    assert (notifications, cancelled) == ([], [])
    server.notify(exchange, Code.CONTENT, payload=b"2", confirmable=True)
    await network.settle()
    assert (notifications, cancelled) == ([], [exchange])


async def test_a_client_that_has_gone_rejects_notifications() -> None:
    network = MemoryNetwork()
    server, client, exchange, notifications = await observed(network)
    cancelled: list[int] = []
    server.set_handlers(on_requests=lambda _: None, on_cancelled=cancelled.append)
    await client.close()
    server.notify(exchange, Code.CONTENT, payload=b"1")
    await network.settle()
    assert (notifications, cancelled) == ([], [exchange])


async def test_closing_ends_observations() -> None:
    ended: list[str] = []
    server, client, requests = await pair(MemoryNetwork())
    server.set_handlers(
        on_requests=lambda batch: [server.respond(r.exchange, Code.CONTENT, observe=True) for r in batch]
    )
    await client.observe(SERVER, ("3",), on_notify=lambda _: None, on_end=ended.append)
    await client.close()
    assert (ended, requests) == (["peer-gone"], [])
    with pytest.raises(PeerGone):
        await client.request(SERVER, Code.GET, ("x",))


async def test_an_address_is_taken_once_and_given_back() -> None:
    network = MemoryNetwork()
    first, second = MemoryTransport(network), MemoryTransport(network)
    assert await first.listen("2001:db8::1", 5683) == "[2001:db8::1]:5683"
    with pytest.raises(TransportError, match="in use"):
        await second.listen("2001:db8::1", 5683)
    await first.close()
    await second.listen("2001:db8::1", 5683)
