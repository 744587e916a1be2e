"""The blocks of a pushed package, whichever object they come to: order, repeated ones, and room."""

from dataclasses import dataclass, field

import pytest

from lwm2m_device.push import Block, Push
from lwm2m_device.tree import RequestError
from lwm2m_device.update_state import UpdateState
from lwm2m_server.firmware.refusals import Refusal
from lwm2m_server.transport import Code

LIMIT = 64
PACKAGE = bytes(range(48))


@dataclass
class Target:
    """Where packages go; `begun` counts how often the machine was asked to begin."""

    plain: bool
    package_limit: int = LIMIT
    state: UpdateState = field(default_factory=UpdateState)
    stored: bytes = b""
    begun: int = 0

    @property
    def offset(self) -> int:
        return len(self.stored)

    def expect(self, etag: bytes, size: int = 0) -> None:
        raise AssertionError

    def holds(self, offset: int, data: bytes) -> bool:
        return self.stored[offset : offset + len(data)] == data

    def store(self, data: bytes) -> None:
        self.stored += data

    def begin(self) -> None:
        self.begun += 1
        self.stored = b""


@pytest.fixture(params=[True, False], ids=["image", "envelope"])
def target(request) -> Target:
    return Target(plain=request.param)


@pytest.fixture
def push(target) -> Push:
    return Push(target, lambda: None)


def send(push, target, number, *, data=None, announced=0) -> None:
    data = PACKAGE[number * 16 : number * 16 + 16] if data is None else data
    push.take(Block(number * 16, data, True, announced), target.begin, under_way=target.begun > 0)


def kept(push, target) -> bytes:
    return target.stored if target.plain else push.forget()


def test_blocks_in_order_make_the_package(push, target):
    for number in range(3):
        send(push, target, number)
    assert (kept(push, target), target.begun) == (PACKAGE, 1)
    assert target.plain or target.stored == b""  # an envelope never goes where images do


def test_a_block_whose_answer_got_lost_is_kept_once(push, target):
    for number in (0, 0, 1, 0, 1, 2):
        send(push, target, number)
    assert (kept(push, target), target.begun) == (PACKAGE, 1)


def test_a_block_that_does_not_follow_changes_nothing(push, target):
    send(push, target, 0)
    with pytest.raises(RequestError, match="Byte 32 does not follow byte 16") as caught:
        send(push, target, 2)
    assert caught.value.code == Code.REQUEST_ENTITY_INCOMPLETE
    assert kept(push, target) == PACKAGE[:16]


def test_a_block_without_a_beginning_is_incomplete(push, target):
    with pytest.raises(RequestError, match="Byte 16 does not follow byte 0"):
        send(push, target, 1)
    assert target.begun == 0


def test_a_package_that_is_announced_too_large_is_refused_after_the_machine_began(push, target):
    with pytest.raises(Refusal, match=f"{LIMIT + 1} bytes; at most {LIMIT}") as caught:
        send(push, target, 0, announced=LIMIT + 1)
    assert (caught.value.code, target.begun) == ("storage-full", 1)
    assert target.stored == b""


def test_a_package_that_outgrows_the_room_is_refused_when_it_does(push, target):
    for number in range(4):
        send(push, target, number, data=bytes([number]) * 16)
    with pytest.raises(Refusal, match=f"{LIMIT + 1} bytes; at most {LIMIT}"):
        send(push, target, 4, data=b"x")


def test_other_bytes_at_the_start_are_another_package_for_the_machine_to_judge(push, target):
    send(push, target, 0)

    def refuse() -> None:
        raise RequestError(Code.BAD_REQUEST, "not now")

    with pytest.raises(RequestError, match="not now"):
        push.take(Block(0, b"other", True), refuse, under_way=True)
    assert kept(push, target) == PACKAGE[:16]


def test_an_envelope_that_was_forgotten_is_no_beginning():
    target = Target(plain=False)
    push = Push(target, lambda: None)
    send(push, target, 0)
    push.forget()
    with pytest.raises(RequestError):
        send(push, target, 1)
