"""The reference device on coaps: the association is its identity, and it is made anew when the server has lost it."""

import pytest

from lwm2m_device.credentials import CredentialFiles
from lwm2m_device.uri import parse
from lwm2m_server.transport import Code, Established, LookUp, Security, SecurityEvent

URI = "coaps://10.0.0.1"
KEY = bytes(range(16))


@pytest.fixture
async def secured(world):
    """The scripted server with a secure listener that knows one key."""
    server = world.server
    established: list[str] = []

    def on_security(events: list[SecurityEvent]) -> None:
        for event in events:
            if isinstance(event, LookUp):
                keys = [KEY] if event.identity == "psk:dev-1" else []
                server.transport.provide_psks([(event.handshake, keys)])
            elif isinstance(event, Established):
                established.append(event.identity)

    server.transport.set_handlers(on_requests=server._requests, on_security=on_security)
    server.transport.secure(Security())
    await server.transport.listen(server.HOST, 5684, secure=True)
    world.established = established
    return world


def credentials(**named: object):
    return CredentialFiles(psk_key=KEY.hex(), **named).load(parse(URI), "dev-1")


async def test_it_registers_over_its_association_and_answers_there(secured):
    await secured.run(server=URI, security=credentials())
    assert secured.server.device.identity == "psk:dev-1"
    assert await secured.server.text("/3/0/0") == "Acme"
    assert secured.established == ["psk:dev-1"]


async def test_it_downloads_over_its_association(secured, images):
    await secured.run(server=URI, security=credentials(), plain=True)
    path = secured.server.publish(images[1], secured.folder)
    digest = bytes.fromhex(path.rpartition("/")[2])
    secured.server.transport.offer(("fw", digest.hex()), digest, secured.server.device)
    assert await secured.server.write("/5/0/1", f"{URI}{path}".encode()) == Code.CHANGED
    await secured.pass_time(20)
    assert await secured.server.state() == (2, 0)
    assert secured.established == ["psk:dev-1"]


async def test_a_server_that_lost_the_association_gets_a_new_handshake(secured):
    await secured.run(server=URI, security=credentials(), lifetime=100)
    secured.server.transport.revoke("psk:dev-1")
    await secured.pass_time(400)
    assert secured.established == ["psk:dev-1", "psk:dev-1"]
    assert await secured.server.text("/3/0/0") == "Acme"


async def test_a_silent_server_gets_a_new_handshake(secured):
    await secured.run(server=URI, security=credentials(), lifetime=100)
    secured.network.cut(secured.HOST)
    await secured.pass_time(400)
    secured.network.mend(secured.HOST)
    await secured.pass_time(120)
    assert len(secured.established) == 2
    assert await secured.server.text("/3/0/0") == "Acme"


async def test_a_key_that_the_server_does_not_know_is_told_in_the_log(secured):
    await secured.run(server=URI, security=credentials(psk_identity="somebody"))
    await secured.pass_time(300)
    assert any("Register failed" in line and "handshake" in line for line in secured.log)
    assert secured.server.registers() == []
