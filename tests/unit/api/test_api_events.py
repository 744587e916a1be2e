"""`/events`: server-sent events, resumed by Last-Event-ID."""

import asyncio
import json
from typing import Self

import pytest

from lwm2m_server.store.records import NewEvent

NOW = 1_800_000_000.0


class Stream:
    """A client that reads as much as it wants; httpx's ASGI transport would wait for the end."""

    def __init__(self, world, path: str, **headers: str) -> None:
        path, _, query = path.partition("?")
        fields = {"authorization": f"Bearer {world.tokens['reader']}", **headers}
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()],
            "client": ("test", 1),
            "server": ("test", 80),
        }
        self.app = world.app
        self.received: asyncio.Queue = asyncio.Queue()
        self.gone = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.app(self.scope, self.receive, self.received.put))
        self.start = await self.received.get()
        self.text = ""
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gone.set()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def event(self) -> dict:
        """Return the fields of the next event."""
        while "\n\n" not in self.text:
            self.text += (await self.received.get())["body"].decode()
        block, _, self.text = self.text.partition("\n\n")
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        return fields if "data" in fields else await self.event()


@pytest.fixture
async def three(world):
    events = [
        NewEvent(kind="device.registered", at=NOW, endpoint="pump-1"),
        NewEvent(kind="device.updated", at=NOW, endpoint="pump-2", data={"line": "a\nb"}),
        NewEvent(kind="device.expired", at=NOW, endpoint="pump-1"),
    ]
    before = await world.store.events.last_id()
    await world.store.events.append(events)
    return [before + 1, before + 2, before + 3]


async def test_it_goes_on_after_the_last_event_that_was_seen(world, three) -> None:
    async with Stream(world, "/api/v1/events", last_event_id=str(three[0])) as stream:
        assert (b"content-type", b"text/event-stream; charset=utf-8") in stream.start["headers"]
        second, third = await stream.event(), await stream.event()
    assert (second["id"], second["event"]) == (str(three[1]), "device.updated")
    assert json.loads(second["data"])["data"] == {"line": "a\nb"}
    assert third["id"] == str(three[2])


async def test_without_a_start_only_what_is_new_comes(world, three) -> None:
    async with Stream(world, "/api/v1/events") as stream:
        reading = asyncio.create_task(stream.event())
        for _ in range(1000):  # when the stream begins to listen can't be seen from here
            await world.store.events.append([NewEvent(kind="device.new", at=NOW, endpoint="pump-3")])
            await asyncio.sleep(0)
            if reading.done():
                break
        assert (await reading)["event"] == "device.new"


async def test_it_can_be_narrowed_to_a_device(world, three) -> None:
    async with Stream(world, "/api/v1/events?after=0&endpoint=pump-1") as stream:
        kinds = [(await stream.event())["event"] for _ in range(2)]
    assert kinds == ["device.registered", "device.expired"]


async def test_bad_starts_and_unknown_campaigns_are_problems(http) -> None:
    bad = await http.get("/api/v1/events", headers={"Last-Event-ID": "x"})
    assert (bad.status_code, bad.json()["field"]) == (422, "Last-Event-ID")
    assert (await http.get("/api/v1/events?after=-1")).status_code == 422
    assert (await http.get("/api/v1/events?campaign=none")).status_code == 404
