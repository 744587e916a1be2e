"""The network between client and server: counts datagrams, and loses, doubles or keeps back the chosen ones."""

import asyncio
from collections.abc import Callable
from typing import Any

_BLOCK2 = 23
_CONTENT = 69
_EXTENDED_BYTE, _EXTENDED_WORD = 13, 14


class Link:
    """A UDP relay. `faults` as in a scenario; `happened` is called with those that are not the link's own."""

    def __init__(
        self,
        server: tuple[str, int],
        faults: list[dict[str, Any]],
        happened: Callable[[dict[str, Any]], None],
    ) -> None:
        self._server = server
        self._faults = list(faults)
        self._happened = happened
        self._front: asyncio.DatagramTransport | None = None
        self._backs: dict[tuple[str, int], asyncio.DatagramTransport] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._seen: set[bytes] = set()
        self._late: list[asyncio.TimerHandle] = []
        self.counts = {"to-device": 0, "to-server": 0}
        # of blocks that went to the device, repetitions by the message layer left out; none are seen in coaps
        self.image_bytes = 0

    def told(self, image_bytes: int) -> None:
        """Take the server's word for how much of the image went to the device: the link can't read it itself."""
        self.image_bytes = max(self.image_bytes, image_bytes)

    async def open(self) -> int:
        """Bind and return the port for the client."""
        loop = asyncio.get_running_loop()
        self._front, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self._from_device), ("127.0.0.1", 0)
        )
        return int(self._front.get_extra_info("sockname")[1])

    def close(self) -> None:
        """Release all ports; what is still late never arrives."""
        for timer in self._late:
            timer.cancel()
        for each in (self._front, *self._backs.values()):
            if each is not None:
                each.close()

    def _from_device(self, data: bytes, device: tuple[str, int]) -> None:
        if device in self._backs:
            self._pass("to-server", lambda: self._backs[device].sendto(data))
            return
        task = asyncio.get_running_loop().create_task(self._open_back(data, device))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open_back(self, data: bytes, device: tuple[str, int]) -> None:
        """Give a new port of the device a port of its own towards the server, as a NAT does."""
        loop = asyncio.get_running_loop()
        back, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(lambda answer, _: self._to_device(answer, device)), remote_addr=self._server
        )
        self._backs.setdefault(device, back)
        self._from_device(data, device)

    def _to_device(self, data: bytes, device: tuple[str, int]) -> None:
        assert self._front is not None
        front = self._front
        if data not in self._seen:
            self._seen.add(data)
            self.image_bytes += block_length(data)
        self._pass("to-device", lambda: front.sendto(data, device))

    def _pass(self, way: str, send: Callable[[], None]) -> None:
        self.counts[way] += 1
        held_back = False
        for fault in self._due(way):
            self._faults.remove(fault)
            what = fault["do"]
            held_back = held_back or what in ("lose", "delay", "cut-power")
            if what == "duplicate":
                send()
            elif what == "delay":
                self._late.append(asyncio.get_running_loop().call_later(fault["seconds"], send))
            elif what != "lose":
                self._happened(fault)
        if not held_back:
            send()

    def _due(self, way: str) -> list[dict[str, Any]]:
        def due(at: dict[str, Any]) -> bool:
            if "image_bytes" in at:
                return way == "to-device" and self.image_bytes >= int(at["image_bytes"])
            return at.get("way") == way and at.get("datagram") == self.counts[way]

        return [fault for fault in self._faults if due(fault["at"])]


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, address: tuple[str | Any, int]) -> None:
        """Hand it on."""
        self._received(data, (address[0], address[1]))

    def error_received(self, error: Exception) -> None:
        """The other side is down, which a datagram can't be told."""


def block_length(datagram: bytes) -> int:
    """Return the length of the payload of a 2.05 with Block2 (RFC 7252 3, RFC 7959 2.1), 0 for all others."""
    if len(datagram) < 4 or datagram[1] != _CONTENT:
        return 0
    place = 4 + (datagram[0] & 15)
    number, is_block = 0, False
    while place < len(datagram) and datagram[place] != 0xFF:
        delta, length = datagram[place] >> 4, datagram[place] & 15
        place += 1
        delta, place = _extended(datagram, delta, place)
        length, place = _extended(datagram, length, place)
        number += delta
        is_block = is_block or number == _BLOCK2
        place += length
    return len(datagram) - place - 1 if is_block and place < len(datagram) else 0


def _extended(datagram: bytes, value: int, place: int) -> tuple[int, int]:
    if value == _EXTENDED_BYTE:
        return datagram[place] + 13, place + 1
    if value == _EXTENDED_WORD:
        return int.from_bytes(datagram[place : place + 2], "big") + 269, place + 2
    return value, place
