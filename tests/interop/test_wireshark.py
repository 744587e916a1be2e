"""Wireshark reads our traffic: what was captured between our two roles is decoded with our key log."""

import asyncio
import shutil
import struct
import subprocess
from pathlib import Path
from typing import cast

import pytest

from lwm2m_server.transport import (
    Code,
    EngineTransport,
    KeyLog,
    LookUp,
    Peer,
    Request,
    Security,
    SecurityEvent,
)

pytestmark = [pytest.mark.interop, pytest.mark.peer("tshark")]

KEY = bytes(range(16))
_LINKTYPE_RAW = 101
_IPPROTO_UDP = 17
_LOOPBACK = bytes([127, 0, 0, 1])


class Capture(asyncio.DatagramProtocol):
    """A relay to one server that writes what passes into a pcap file, as if it had been captured on the way."""

    def __init__(self, file: Path, server: tuple[str, int]) -> None:
        self._out = file.open("wb")
        self._out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _LINKTYPE_RAW))
        self._server = server
        self._client: tuple[str, int] | None = None
        self._transport: asyncio.DatagramTransport
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr == self._server:
            assert self._client is not None
            source, target = self._server, self._client
        else:
            self._client = addr
            source, target = addr, self._server
        self._write(data, source[1], target[1])
        self._transport.sendto(data, target)

    def _write(self, data: bytes, source: int, target: int) -> None:
        udp = struct.pack("!HHHH", source, target, 8 + len(data), 0) + data
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, _IPPROTO_UDP, 0) + 2 * _LOOPBACK
        packet = ip + udp
        self._count += 1
        self._out.write(struct.pack("<IIII", 0, self._count, len(packet), len(packet)) + packet)

    def close(self) -> None:
        self._transport.close()
        self._out.close()


@pytest.mark.row("wireshark")
async def test_tshark_decodes_a_captured_session_with_the_key_log(tmp_path: Path) -> None:
    server, client = EngineTransport(), EngineTransport()
    log: list[str] = []

    def on_security(events: list[SecurityEvent]) -> None:
        for event in events:
            if isinstance(event, LookUp):
                server.provide_psks([(event.handshake, [KEY])])
            elif isinstance(event, KeyLog):
                log.append(event.line)

    def on_requests(requests: list[Request]) -> None:
        for request in requests:
            server.respond(request.exchange, Code.CONTENT, payload=b"an answer to be seen", content_format=0)

    await server.start()
    await client.start()
    server.set_handlers(on_requests=on_requests, on_security=on_security)
    client.set_handlers(on_requests=lambda _: None)
    server.secure(Security(key_log=True))
    client.secure(Security(psk=(b"dev-1", KEY), handshake_timeout=1.0, connection_id_length=0))
    host, port = (await server.listen("127.0.0.1", 0, secure=True)).rsplit(":", 1)
    loop = asyncio.get_running_loop()
    capture = Capture(tmp_path / "session.pcap", (host, int(port)))
    relay, _ = await loop.create_datagram_endpoint(lambda: capture, local_addr=("127.0.0.1", 0))
    try:
        front = relay.get_extra_info("sockname")[1]
        peer = Peer(f"127.0.0.1:{front}", scheme="coaps")
        response = await client.request(peer, Code.GET, ("some", "path"))
        assert response.payload == b"an answer to be seen"
    finally:
        await client.close()
        await server.close()
        capture.close()
    (tmp_path / "keys.log").write_text("".join(f"{line}\n" for line in log))
    shown = await asyncio.to_thread(decode, tmp_path, int(port))
    assert "Uri-Path: some" in shown
    assert "an answer to be seen" in shown


def decode(folder: Path, port: int) -> str:
    tshark = shutil.which("tshark")
    assert tshark is not None
    command = [tshark, "-r", str(folder / "session.pcap"), "-o", f"tls.keylog_file:{folder / 'keys.log'}"]
    command += ["-d", f"udp.port=={port},dtls", "-d", f"dtls.port=={port},coap", "-Y", "coap", "-V"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr
