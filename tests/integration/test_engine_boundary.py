"""The boundary between the engine's thread and Python: back-pressure, duplicates, batches, life and death."""

import asyncio
import select
import socket
import subprocess
import sys
from typing import Self, get_args

import pytest

from lwm2m_server._engine import (
    Alive,
    Engine,
    EngineError,
    Failure,
    Peer,
    Progress,
    QueueFull,
    Request,
    Response,
)
from lwm2m_server.config import CoapsSettings, Suite
from lwm2m_server.transport import DEFAULT_SUITES, Code, EngineTransport, Security, TransportError

pytestmark = pytest.mark.timeout(30)

CON, NON, ACK, RST = 0, 1, 2, 3


def datagram(code: int, mid: int, path: str, *, kind: int = CON, token: bytes = b"") -> bytes:
    """A request as RFC 7252 3 lays it out, written without the engine's help."""
    options = b""
    previous = 0
    for segment in path.strip("/").split("/"):
        raw = segment.encode()
        assert len(raw) < 13
        options += bytes([(11 - previous) << 4 | len(raw)]) + raw
        previous = 11
    return bytes([1 << 6 | kind << 4 | len(token), code]) + mid.to_bytes(2, "big") + token + options


class Raw:
    """A socket that speaks bytes."""

    def __init__(self, address: str, family: int = socket.AF_INET) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.connect((host.strip("[]"), int(port)))

    @property
    def peer(self) -> Peer:
        host, port = self.socket.getsockname()[:2]
        return Peer(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def send(self, *args: object, **options: object) -> None:
        self.socket.send(datagram(*args, **options))

    def receive(self) -> tuple[int, int, bytes]:
        """Return code, message id and the bytes behind the token."""
        data = self.socket.recv(2048)
        return data[1], int.from_bytes(data[2:4], "big"), data[4 + (data[0] & 15) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def drain(engine: Engine) -> list:
    """Wait until something is there, then take it."""
    assert select.select([engine], [], [], 10)[0], "no event came"
    return engine.drain()


def collect(engine: Engine, count: int) -> list:
    events: list = []
    while len(events) < count:
        events += drain(engine)
    return events


@pytest.fixture
def engine():
    made: list[Engine] = []

    def make(**settings: object) -> Engine:
        made.append(Engine(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_when_python_stalls_new_requests_get_5_03_and_nothing_grows(engine) -> None:
    server = engine(max_events=4, busy_max_age=17, processing_delay=60.0)
    address = server.listen("127.0.0.1", 0)
    with Raw(address) as client:
        server.keep("x1", client.peer)
        server.flush()
        for mid in range(4):
            client.send(Code.GET, mid, "/x")
        for mid in range(4, 500):
            client.send(Code.GET, mid, "/x")
            # 5.03 with Max-Age 17: option 14, one byte (RFC 7252 5.10.5)
            assert client.receive() == (Code.SERVICE_UNAVAILABLE, mid, b"\xd1\x01\x11")
        # What needs no Python goes on.
        client.send(Code.POST, 1000, "/rd/x1")
        assert client.receive()[:2] == (Code.CHANGED, 1000)
        statistics = server.statistics()  # of the turns before this answer
        assert statistics["requests_waiting"] == 4
        assert statistics["events_waiting"] == 4
        assert statistics["busy_answers"] == 496
        # As soon as Python drains, new requests are taken; those that got 5.03 may come again.
        batch = server.drain()
        assert [type(event) for event in batch] == [Request] * 4
        client.send(Code.GET, 499, "/x")
        late = next(event for event in collect(server, 1) if isinstance(event, Request))
        server.respond(late.exchange, Code.CONTENT)
        server.flush()
        assert client.receive()[:2] == (Code.CONTENT, 499)


def test_answers_to_python_itself_come_through_a_stall(engine) -> None:
    busy, peer = engine(max_events=1), engine()
    address, other = busy.listen("127.0.0.1", 0), peer.listen("127.0.0.1", 0)
    with Raw(address) as client:
        client.send(Code.GET, 1, "/x")
        handles = [busy.request(Peer(other), Code.GET, (str(number),)) for number in range(50)]
        busy.flush()
        for _ in handles:
            for request in drain(peer):
                peer.respond(request.exchange, Code.CONTENT)
            peer.flush()
            if peer.statistics()["responses_sent"] == len(handles):
                break
        events = [event for event in collect(busy, 51) if isinstance(event, Response)]
        assert sorted(event.handle for event in events) == handles


@pytest.mark.parametrize("kind", [CON, NON])
def test_a_duplicate_is_handled_once_and_answered_alike(engine, kind: int) -> None:
    server = engine()
    with Raw(server.listen("127.0.0.1", 0)) as client:
        client.send(Code.POST, 7, "/rd", kind=kind, token=b"abc")
        client.send(Code.POST, 7, "/rd", kind=kind, token=b"abc")
        [request] = drain(server)
        server.respond(request.exchange, Code.CREATED, location_path=("rd", "x1"))
        server.flush()
        first = client.receive()
        assert first[0] == Code.CREATED
        client.send(Code.POST, 7, "/rd", kind=kind, token=b"abc")
        if kind == CON:
            assert client.receive() == first
        client.send(Code.GET, 8, "/rd", kind=kind)
        assert [event.code for event in drain(server)] == [Code.GET]
        assert server.statistics()["duplicates"] == 2


def test_ipv6_and_ipv4_listeners_serve_side_by_side(engine) -> None:
    server = engine()
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        with Raw(server.listen(host, 0), family) as client:
            client.send(Code.GET, 1, "/x")
            [request] = drain(server)
            assert request.peer == client.peer
            assert request.peer.host == host
            server.respond(request.exchange, Code.CONTENT, payload=host.encode())
            server.flush()
            assert client.receive()[2] == b"\xff" + host.encode()
    assert server.statistics()["listeners"] == 2


def test_a_peer_is_asked_through_the_socket_that_it_came_in_by(engine) -> None:
    server, device = engine(), engine()
    server.listen("127.0.0.1", 0)
    second = server.listen("127.0.0.1", 0)
    device.request(Peer(second), Code.POST, ("rd",))
    device.flush()
    [request] = drain(server)
    server.request(request.peer, Code.GET, ("3",))
    server.flush()
    [asked] = drain(device)
    assert asked.peer.address == second


def test_a_client_needs_no_listener(engine) -> None:
    server, client = engine(), engine()
    address = server.listen("::1", 0)
    handle = client.request(Peer(address), Code.GET, ("x",))
    client.flush()
    [request] = drain(server)
    server.respond(request.exchange, Code.CONTENT)
    server.flush()
    [response] = drain(client)
    assert (response.handle, response.code) == (handle, Code.CONTENT)


def test_the_descriptor_is_readable_exactly_while_events_wait(engine) -> None:
    server = engine()
    with Raw(server.listen("127.0.0.1", 0)) as client:
        assert select.select([server], [], [], 0)[0] == []
        for mid in range(3):
            client.send(Code.GET, mid, "/x")
        waiting = 0
        while waiting < 3:
            assert select.select([server], [], [], 10)[0]
            waiting = server.statistics()["events_waiting"]
        assert len(server.drain(2)) == 2
        assert select.select([server], [], [], 0)[0] == [server]
        assert len(server.drain()) == 1
        assert select.select([server], [], [], 0)[0] == []


async def test_one_drain_gives_all_requests_in_one_call() -> None:
    transport = EngineTransport()
    batches: asyncio.Queue[list[Request]] = asyncio.Queue()
    transport.set_handlers(on_requests=batches.put_nowait)
    with Raw(await transport.listen("127.0.0.1", 0)) as client:
        for mid in range(20):
            client.send(Code.GET, mid, "/x")
        while transport.statistics()["requests_waiting"] < 20:
            await asyncio.sleep(0)
        await transport.start()
        assert len(await batches.get()) == 20
    await transport.close()


def test_updates_are_reported_together_with_their_latest_time(engine) -> None:
    server = engine()
    with Raw(server.listen("127.0.0.1", 0)) as client:
        for number in range(10):
            server.keep(f"x{number}", client.peer)
        server.flush()
        for mid in range(30):
            client.send(Code.POST, mid, f"/rd/x{mid % 10}")
            assert client.receive()[0] == Code.CHANGED
        reports = drain(server)
        assert all(isinstance(report, Alive) for report in reports)
        times = dict(update for report in reports for update in report.updates)
        while len(times) < 10:
            times |= dict(update for report in drain(server) for update in report.updates)
        assert sorted(times) == [f"x{number}" for number in range(10)]
        assert server.statistics()["updates_answered"] == 30


def test_garbage_is_counted_and_harms_nobody(engine) -> None:
    server = engine()
    with Raw(server.listen("127.0.0.1", 0)) as client:
        for junk in (b"\x00", b"\xff" * 40, b"\x4f\x01\x00\x01", bytes(4000), bytes(5000)):
            client.socket.send(junk)
        client.send(Code.GET, 1, "/x")
        [request] = [event for event in drain(server) if isinstance(event, Request)]
        server.respond(request.exchange, Code.CONTENT)
        statistics = server.statistics()
        assert statistics["malformed"] >= 3
        assert statistics["datagrams_unusable"] == 1
        assert statistics["panics"] == 0


def test_a_failed_push_says_how_far_it_came(engine, tmp_path) -> None:
    device, server = engine(), engine(ack_timeout=0.05, transfer_timeout=0.5)
    address = device.listen("127.0.0.1", 0)
    (tmp_path / "image").write_bytes(bytes(4096))
    server.add_blob(bytes(32), str(tmp_path / "image"))
    device.stream(("5",))
    device.flush()
    handle = server.push(Peer(address), ("5",), bytes(32))
    server.flush()
    for _ in range(2):
        [request] = drain(device)
        device.respond(request.exchange, Code.CONTINUE, block1=request.block1)
        device.flush()
    drain(device)
    device.close()
    events = collect(server, 2)
    failure = events[-1]
    assert isinstance(failure, Failure)
    assert (failure.handle, failure.reason, failure.offset) == (handle, "timeout", 2048)
    assert [event.offset for event in events if isinstance(event, Progress)][-1] == 2048


def test_too_many_actions_raise_queue_full(engine) -> None:
    one = engine(max_actions=2)
    peer = Peer("127.0.0.1:9")
    one.listen("127.0.0.1", 0)
    with pytest.raises(QueueFull):
        for _ in range(100_000):
            one.request(peer, Code.GET, ("x",))


def test_what_must_not_be_lost_waits_for_room_instead(engine) -> None:
    one = engine(max_actions=1)
    one.listen("127.0.0.1", 0)
    for number in range(1000):
        one.keep(f"x{number}", Peer("127.0.0.1:9"))
    one.flush()
    while one.statistics()["registrations"] < 1000:
        one.flush()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ack_timeout", -1.0),
        ("ack_timeout", float("nan")),
        ("ack_random_factor", 0.5),
        ("max_retransmit", -1),
        ("nstart", 0),
        ("max_body", 0),
        ("max_events", 0),
        ("max_actions", 0),
        ("progress_bytes", 0),
        ("block_size", 1000),
        ("busy_max_age", -1),
        ("transfer_timeout", 0.0),
        ("max_half_open", 0),
        ("max_half_open_per_prefix", 0),
        ("key_operations_per_second", 0),
        ("key_operations_per_second_per_prefix", 0),
    ],
)
def test_a_bad_setting_is_named(setting: str, value: float) -> None:
    with pytest.raises(EngineError, match=f"^{setting}: must be"):
        Engine(**{setting: value})
    with pytest.raises(TransportError) as caught:
        EngineTransport(**{setting: value})
    assert caught.value.field == setting


def test_every_suite_of_the_settings_is_one_of_the_engine_and_others_are_named() -> None:
    transport = EngineTransport()
    for name in get_args(Suite):
        transport.secure(Security(suites=(name,)))
    known = "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"
    for bad in ((), ("TLS_NULL",)):
        with pytest.raises(TransportError, match=f"^suites: must be .*{known}") as caught:
            transport.secure(Security(suites=bad))
        assert caught.value.field == "suites"
    assert '"TLS_NULL"' in caught.value.message
    assert tuple(CoapsSettings().suites) == DEFAULT_SUITES


@pytest.mark.parametrize(
    "address", ["", "host", "127.0.0.1", "127.0.0.1:99999", "::1:5683", "example.org:5683"]
)
def test_a_peer_needs_an_address_and_a_port(address: str) -> None:
    with pytest.raises(EngineError, match=r"^address: "):
        Peer(address)


def test_an_ipv4_mapped_address_is_the_ipv4_peer() -> None:
    assert Peer("[::ffff:192.0.2.1]:5683") == Peer("192.0.2.1:5683")


def test_a_peer_with_an_identity_stays_itself_when_its_address_moves() -> None:
    one, moved = (Peer(f"192.0.2.{host}:5684", identity="psk:a%25", names=("", "x")) for host in (1, 2))
    assert (one, hash(one), one.scheme) == (moved, hash(moved), "coaps")
    assert (one.address, one.identity, one.names) == ("192.0.2.1:5684", "psk:a%25", ("", "x"))
    assert one not in (Peer("192.0.2.1:5684", identity="psk:b"), Peer("192.0.2.1:5684"))
    server = Peer("192.0.2.1:5684", scheme="coaps")
    assert server not in (one, Peer("192.0.2.1:5684"))
    assert (server.identity, server.names, server) == (None, (), Peer("192.0.2.1:5684", scheme="coaps"))


def test_bad_arguments_are_named(engine) -> None:
    one = engine()
    peer = Peer("127.0.0.1:9")
    with pytest.raises(EngineError, match=r"^listen: "):
        one.listen("192.0.2.77", 5683)
    with pytest.raises(EngineError, match=r"^block2: "):
        one.request(peer, 1, ("x",), block2=(0, 1000))
    with pytest.raises(EngineError, match=r"^etag: "):
        one.request(peer, 1, ("x",), etag=bytes(9))
    with pytest.raises(EngineError, match=r"^timeout: "):
        one.request(peer, 1, ("x",), timeout=0.0)
    with pytest.raises(EngineError, match=r"^digest: "):
        one.add_blob(bytes(31), "x")
    for options, name in (
        ({"scheme": "http"}, "scheme"),
        ({"scheme": "coap", "identity": "psk:a"}, "scheme"),
        ({"identity": "a"}, "identity"),
        ({"identity": "psk:%41"}, "identity"),
        ({"identity": "rpk:" + "AB" * 32}, "identity"),
    ):
        with pytest.raises(EngineError, match=f"^{name}: "):
            Peer("127.0.0.1:9", **options)


def test_closing_twice_is_fine_and_later_calls_are_refused() -> None:
    one = Engine()
    one.close()
    one.close()
    for call in (lambda: one.listen("127.0.0.1", 0), one.drain, lambda: one.cancel(1)):
        with pytest.raises(EngineError, match="closed"):
            call()


def test_a_forgotten_engine_ends_its_thread() -> None:
    script = """
import os
from lwm2m_server._engine import Engine
def until(threads):  # the kernel's list follows a little later
    while len(os.listdir("/proc/self/task")) != threads: pass
engine = Engine(); until(2)
del engine; until(1)
kept = Engine()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def test_a_forked_child_cannot_use_the_engine_and_does_not_end_it() -> None:
    script = """
import os
from lwm2m_server._engine import Engine, EngineError
engine = Engine()
pid = os.fork()
if pid == 0:
    try:
        engine.listen("127.0.0.1", 0)
    except EngineError as error:
        ok = "forked" in str(error)
    else:
        ok = False
    engine.close()
    del engine
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
engine.listen("127.0.0.1", 0)
engine.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


async def test_what_arrives_at_a_bound_socket_waits_until_it_is_served() -> None:
    """After a restart a device must find its registration and its offer, not a server that knows nothing."""
    server, client = EngineTransport(seed=1), EngineTransport(seed=2)
    await server.start()
    await client.start()
    try:
        peer = Peer(await server.bind("127.0.0.1", 0))
        device = Peer(await client.listen("127.0.0.1", 0))
        refreshed = asyncio.create_task(client.request(peer, Code.POST, ("rd", "1")))
        await asyncio.sleep(0)
        server.keep("1", device)
        server.serve()
        assert (await refreshed).code == Code.CHANGED
        assert server.statistics()["listeners"] == 1
    finally:
        await client.close()
        await server.close()
