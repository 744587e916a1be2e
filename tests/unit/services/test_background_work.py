"""Timers, pumps and tasks: nothing runs twice at a time, nothing is forgotten, nothing fails unnoticed."""

import asyncio

import pytest
import structlog

from lwm2m_server.services.background import Background, Pump
from lwm2m_server.transport.memory import MemoryNetwork


class Work:
    """Counts its runs; waits for the gate while it runs."""

    def __init__(self) -> None:
        self.runs = 0
        self.now = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.runs += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.now -= 1


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_wakes_that_come_while_it_runs_make_one_more_run() -> None:
    work = Work()
    work.gate.clear()
    pump = Pump("test", work)
    for _ in range(5):
        pump.wake()
    await settle()
    for _ in range(5):
        pump.wake()
    work.gate.set()
    await settle()
    assert (work.runs, work.most) == (2, 1)
    await pump.close()


async def test_it_runs_at_its_interval_until_it_is_closed() -> None:
    network, work = MemoryNetwork(), Work()
    pump = Pump("test", work, timers=network, interval=10.0)
    pump.start()
    assert work.runs == 0
    await network.advance(35.0)
    assert work.runs == 3
    await pump.close()
    await network.advance(100.0)
    assert work.runs == 3


async def test_a_failure_is_logged_and_the_next_run_comes() -> None:
    network, work = MemoryNetwork(), Work()
    pump = Pump("test", work, timers=network, interval=10.0)
    pump.start()
    work.error = RuntimeError("once")
    with structlog.testing.capture_logs() as logs:
        await network.advance(10.0)
    assert [entry["log_level"] for entry in logs] == ["error"]
    work.error = None
    await network.advance(10.0)
    assert work.runs == 2
    await pump.close()


async def test_closing_ends_work_in_the_middle() -> None:
    work = Work()
    work.gate.clear()
    pump = Pump("test", work)
    pump.wake()
    await settle()
    await pump.close()
    assert work.now == 0
    pump.wake()
    await settle()
    assert work.runs == 1


async def test_tasks_end_with_their_owner_and_none_starts_after() -> None:
    background, work = Background("test"), Work()
    work.gate.clear()
    task = background.spawn(work())
    await settle()
    await background.close()
    assert task is not None
    assert task.cancelled()
    assert background.spawn(work()) is None
    assert work.runs == 1


async def test_a_task_that_fails_is_logged() -> None:
    background, work = Background("test"), Work()
    work.error = RuntimeError("broken")
    with structlog.testing.capture_logs() as logs:
        background.spawn(work())
        await settle()
    assert logs[0]["service"] == "test"
    await background.close()


async def test_a_cancelled_owner_does_not_wait_for_itself() -> None:
    background = Background("test")
    done = asyncio.Event()

    async def close_own() -> None:
        await background.close()
        done.set()

    background.spawn(close_own())
    await asyncio.wait_for(done.wait(), 5)


@pytest.mark.parametrize("count", [1, 3])
async def test_starting_does_not_run_before_the_interval(count: int) -> None:
    network, work = MemoryNetwork(), Work()
    pump = Pump("test", work, timers=network, interval=1.0)
    pump.start()
    await network.advance(float(count))
    assert work.runs == count
    await pump.close()
