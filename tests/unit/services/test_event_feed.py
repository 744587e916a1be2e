"""The feed never misses an event and never tells one twice, whoever is fast or slow."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from lwm2m_server.services import events as module
from lwm2m_server.services.events import EventFeed
from lwm2m_server.store.memory import MemoryStore
from lwm2m_server.store.records import Event, NewEvent


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def feed(store: MemoryStore) -> EventFeed:
    return EventFeed(store.events)


def event(number: int, endpoint: str | None = None, campaign_id: str | None = None) -> NewEvent:
    return NewEvent(
        kind="test", at=float(number), endpoint=endpoint, campaign_id=campaign_id, data={"number": number}
    )


async def take(stream: AsyncIterator[Event], count: int) -> list[int]:
    return [int(str((await anext(stream)).data["number"])) for _ in range(count)]


async def test_what_comes_while_nobody_listens_is_told_later(store: MemoryStore, feed: EventFeed) -> None:
    stream = feed.stream(after=0)
    await store.events.append([event(1), event(2)])
    assert await take(stream, 2) == [1, 2]
    await store.events.append([event(3)])
    await store.events.append([event(4)])
    assert await take(stream, 2) == [3, 4]


async def test_from_now_on_means_nothing_older(store: MemoryStore, feed: EventFeed) -> None:
    await store.events.append([event(1)])
    stream = feed.stream()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await store.events.append([event(2)])
    assert (await first).data["number"] == 2


async def test_a_reader_that_comes_back_goes_on_where_it_stood(store: MemoryStore, feed: EventFeed) -> None:
    await store.events.append([event(number) for number in range(5)])
    stream = feed.stream(after=0)
    await take(stream, 2)
    assert await take(feed.stream(after=2), 3) == [2, 3, 4]


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
async def test_writers_and_readers_at_once_and_batches_of_any_size(
    store: MemoryStore, feed: EventFeed, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(module, "_BATCH", batch)

    async def write() -> None:
        for number in range(0, 60, 3):
            names = ("a", "b", None)
            await store.events.append([event(number + offset, names[offset]) for offset in range(3)])
            await asyncio.sleep(0)

    everything, only_a = feed.stream(after=0), feed.stream(after=0, endpoint="a")
    _, all_of_them, of_a = await asyncio.gather(write(), take(everything, 60), take(only_a, 20))
    assert all_of_them == list(range(60))
    assert of_a == list(range(0, 60, 3))


async def test_events_of_others_do_not_keep_a_filtered_stream_from_its_own(
    store: MemoryStore, feed: EventFeed
) -> None:
    stream = feed.stream(after=0, campaign_id="c")
    waiting = asyncio.ensure_future(anext(stream))
    for number in range(10):
        await store.events.append([event(number)])
        await asyncio.sleep(0)
    assert not waiting.done()
    await store.events.append([event(10, campaign_id="c")])
    assert (await waiting).data["number"] == 10


async def test_pages_forward_and_backward_meet_every_event_once(store: MemoryStore, feed: EventFeed) -> None:
    await store.events.append([event(number) for number in range(7)])
    forward, after = [], 0
    while True:
        page = await feed.page(after=after, limit=3)
        forward += [each.data["number"] for each in page.items]
        if page.next is None:
            break
        after = int(page.next)
    backward: list[object] = []
    before: int | None = None
    while True:
        page = await feed.recent(before=before, limit=3)
        backward += [each.data["number"] for each in page.items]
        if page.next is None:
            break
        before = int(page.next)
    assert forward == backward[::-1] == list(range(7))
    assert await feed.last_id() == 7
