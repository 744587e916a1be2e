"""The client's half of `MemoryTransport`: exchanges that wait for answers, bodies sent block by block."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from lwm2m_server.transport.api import Failure, Peer, PeerGone, TransferFailed, TransportError
from lwm2m_server.transport.codes import Code, is_success
from lwm2m_server.transport.dispatch import request_error
from lwm2m_server.transport.memory_network import EXCHANGE_LIFETIME, MemoryNetwork
from lwm2m_server.transport.memory_server import Answer, Message, repeated


class Exchanges:
    """Sends messages and waits for their answers."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._waiting: dict[asyncio.Future[Answer], tuple[Peer, int | None]] = {}
        self.sent = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def fail_all(self) -> None:
        """End everything that waits, because the transport was closed."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(PeerGone("the transport was closed"))

    def forget(self, is_gone: Callable[[Peer, int | None], bool]) -> None:
        """End everything that waits for a peer and session that are gone."""
        for future, (peer, session) in self._waiting.items():
            if is_gone(peer, session) and not future.done():
                future.set_exception(PeerGone("the device is no longer at this address"))

    async def send(self, peer: Peer, message: Message, patience: float | None = None) -> Answer:
        """Send one message and wait for `patience` seconds of virtual time; raise as `Transport.request`."""
        network = self._network
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answer(value: Answer) -> None:
            network.send(lambda: None if future.done() else future.set_result(value))

        def fail() -> None:
            if not future.done():
                future.set_exception(
                    request_error(Failure(handle=message.token, peer=peer, reason="timeout"))
                )

        self.sent += 1
        self._waiting[future] = (peer, message.session)
        timer = network.later(EXCHANGE_LIFETIME if patience is None else patience, fail)
        self._transmit(Peer(message.destination), replace(message, reply=answer), fail)
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting.pop(future, None)

    def _transmit(self, peer: Peer, message: Message, fail: Callable[[], None]) -> None:
        network = self._network
        linked = network.reachable(peer.host, message.source.host) and network.find(peer.address) is not None
        if linked and not network.chance(network.loss):
            network.send(lambda: self.arrive(peer, message))
            if network.chance(network.duplicate):
                network.send(lambda: self.arrive(peer, repeated(message)))
            return
        if linked and network.chance(0.5):
            network.send(lambda: self.arrive(peer, repeated(message)))
        network.silence(fail)

    def arrive(self, peer: Peer, message: Message) -> None:
        """Hand a message to who listens at the peer's address by now, if anybody does."""
        target = self._network.find(peer.address)
        if target is not None:
            target.receive(message)


@dataclass(frozen=True)
class Transfer:
    """A body on its way; `report` hears of the bytes acknowledged, each `progress_bytes` and at the end."""

    peer: Peer
    message: Message
    body: bytes
    offset: int
    block_size: int
    progress_bytes: int
    report: Callable[[int], None]


async def send_blocks(exchanges: Exchanges, transfer: Transfer) -> Answer:
    """Send by Block1 (RFC 7959 2.5); a smaller size in an answer holds from the next block on."""
    offset, size, body = transfer.offset, transfer.block_size, transfer.body
    reported = offset
    while True:
        chunk = body[offset : offset + size]
        more = offset + len(chunk) < len(body)
        message = replace(
            transfer.message, payload=chunk, block1=(offset // size, more, size), size1=len(body)
        )
        try:
            answer = await exchanges.send(transfer.peer, message)
        except TransportError as error:
            raise TransferFailed(error.message, offset=offset, reason=error.code) from error
        except asyncio.CancelledError:
            transfer.report(offset)
            raise
        if is_success(answer.code):
            offset += len(chunk)
        final = not more or answer.code != Code.CONTINUE
        if final or offset - reported >= transfer.progress_bytes:
            reported = offset
            transfer.report(offset)
        if final:
            return answer
        if answer.block1 is not None:
            size = min(size, answer.block1[2])


async def send_whole(exchanges: Exchanges, transfer: Transfer) -> Answer:
    """Send in one piece, to a peer that takes whole bodies; it keeps no part to go on with, so 4.08."""
    if transfer.offset > 0:
        return Answer(Code.REQUEST_ENTITY_INCOMPLETE)
    body = transfer.body
    try:
        answer = await exchanges.send(transfer.peer, replace(transfer.message, payload=body))
    except TransportError as error:
        raise TransferFailed(error.message, offset=0, reason=error.code) from error
    done = len(body) if is_success(answer.code) else 0
    for offset in range(transfer.progress_bytes, done, transfer.progress_bytes):
        transfer.report(offset)
    transfer.report(done)
    return answer
