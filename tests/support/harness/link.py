"""A UDP link between devices and the server that loses, doubles and reorders packets by a seed."""

import contextlib
import random
import selectors
import socket
import threading
from typing import Self


class LossyLink:
    """Forwards datagrams between any number of devices and one server.

    Each device is seen by the server from a port of its own, as behind a NAT. `loss` and `duplicate` are
    shares of the datagrams in each direction; a `reorder` share is held back until the next one has passed.
    """

    def __init__(
        self, server_port: int, *, seed: int, loss: float = 0.0, duplicate: float = 0.0, reorder: float = 0.0
    ) -> None:
        self._server = ("127.0.0.1", server_port)
        self._random = random.Random(seed)
        self._loss, self._duplicate, self._reorder = loss, duplicate, reorder
        self._front = self._socket()
        self.port: int = self._front.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ)
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._devices: dict[socket.socket, tuple[str, int]] = {}
        self._held: list[tuple[socket.socket, bytes, tuple[str, int]]] = []
        self._stopping = threading.Event()
        self.lost = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def uri(self) -> str:
        return f"coap://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for each in (self._front, *self._backs.values()):
            each.close()
        self._selector.close()

    @staticmethod
    def _socket() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        made.setblocking(False)
        return made

    def _run(self) -> None:
        while not self._stopping.is_set():
            ready = self._selector.select(0.05)
            if not ready:
                self._release()
            for key, _ in ready:
                source = key.fileobj
                assert isinstance(source, socket.socket)
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    while True:
                        datagram, address = source.recvfrom(65535)
                        self._forward(source, datagram, address)

    def _forward(self, source: socket.socket, datagram: bytes, address: tuple[str, int]) -> None:
        if source is self._front:
            back = self._backs.get(address)
            if back is None:
                back = self._backs[address] = self._socket()
                self._devices[back] = address
                self._selector.register(back, selectors.EVENT_READ)
            way = (back, datagram, self._server)
        else:
            way = (self._front, datagram, self._devices[source])
        if self._random.random() < self._loss:
            self.lost += 1
            return
        if self._random.random() < self._reorder:
            self._held.append(way)
            return
        for _ in range(2 if self._random.random() < self._duplicate else 1):
            self._send(way)
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        for way in held:
            self._send(way)

    @staticmethod
    def _send(way: tuple[socket.socket, bytes, tuple[str, int]]) -> None:
        via, datagram, address = way
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            via.sendto(datagram, address)
