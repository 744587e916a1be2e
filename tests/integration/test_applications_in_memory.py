"""Campaigns that install and update applications of the reference device (object 9), in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.releases import CLASS, VENDOR
from lwm2m_device.hooks import Action, HookFailed, HookOrder, Progress
from lwm2m_device.places import read_places
from lwm2m_server.campaigns.records import Campaign
from lwm2m_server.devices.records import ApplicationFacts
from lwm2m_server.firmware.cose import SigningKey
from lwm2m_server.store.records import StoredManifest
from lwm2m_server.transport.memory import MemoryNetwork
from memory import MemoryDevice, World
from memory.world import ADDRESS

METER = (b"app", b"meter")
DONE = ("succeeded", "confirmed-version")


class Hook:
    """Notes what it is called for; holds while `gate` is there, fails for what is in `fail`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.gate: asyncio.Event | None = None
        self.fail: dict[Action, list[str]] = {}

    async def run(self, order: HookOrder, _: Progress) -> None:
        self.calls.append((order.action.value, order.version))
        if self.gate is not None:
            await self.gate.wait()
        if self.fail.get(order.action):
            raise HookFailed(self.fail[order.action].pop(0))


class Meeting:
    """A server, and a device with an application at 1.0.0 and a free place."""

    def __init__(self, folder: Path, network: MemoryNetwork | None = None) -> None:
        self.world = World(folder / "server", network=network)
        self.hook = Hook()
        self.device = MemoryDevice(
            self.world.network,
            folder / "dev-1.flash",
            server=ADDRESS,
            vendor=VENDOR,
            class_name=CLASS,
            trust=(self.world.signer.public,),
            applications=read_places(["meter=1.0.0", ""]),
        )
        self.device.application_hook = self.hook

    async def start(self, *, wait: bool = True, **changes: Any) -> None:
        """Start both, until the server knows the device or, with `wait`, its applications too."""
        await self.world.start()
        self.device.start(**changes)

        async def known() -> bool:
            found = (await self.world.server.services.directory.list()).items
            return bool(found) and not (wait and found[0].facts.applications is None)

        await self.world.until(known, within=600)

    async def release(
        self, version: str, *, component: tuple[bytes, ...] = METER, **more: Any
    ) -> StoredManifest:
        return await self.world.release(version, component=component, **more)

    async def applications(self) -> tuple[ApplicationFacts, ...]:
        found = await self.world.server.services.directory.list()
        return found.items[0].facts.applications or ()

    async def update(self, version: str, name: str = "c", **more: Any) -> tuple[str, str]:
        """Run a campaign to its end for the device; return state and reason."""
        campaign = await self.campaign(version, name, **more)
        return await self.world.outcome(campaign)

    async def campaign(self, version: str, name: str = "c", **more: Any) -> Campaign:
        options = {key: more.pop(key) for key in ("filter", "retries") if key in more}
        return await self.world.campaign(await self.release(version, **more), name, **options)


@pytest.fixture
async def meeting(tmp_path: Path) -> AsyncIterator[Meeting]:
    made = Meeting(tmp_path)
    yield made
    await made.device.kill()
    await made.world.close()


METER_NEW = ApplicationFacts(instance=0, name="meter", version="2.0.0", active=True)


async def test_a_campaign_updates_an_application_and_the_directory_shows_it(meeting: Meeting) -> None:
    await meeting.start()
    assert await meeting.applications() == (
        ApplicationFacts(instance=0, name="meter", version="1.0.0", active=True),
        ApplicationFacts(instance=1),
    )
    campaign = await meeting.campaign("2.0.0", filter="software.meter.version < 2.0")
    assert await meeting.world.outcome(campaign) == DONE
    deployment = await meeting.world.deployment(campaign)
    assert (deployment.from_version, deployment.to_version) == ("1.0.0", "2.0.0")
    assert (await meeting.applications())[0] == METER_NEW
    assert meeting.hook.calls == [("start", "1.0.0"), ("install", "2.0.0"), ("start", "2.0.0")]
    states = await meeting.world.states(campaign)
    assert states[:1] + states[-1:] == ["offered", "succeeded"]
    assert {"downloading", "downloaded", "installing"} <= set(states)
    # nobody is left below 2.0, and the firmware is what it was
    again = await meeting.campaign("2.1.0", "again", filter="software.meter.version < 2.0", sequence=2)
    assert (await meeting.world.ended(again)).targets == 0
    device = (await meeting.world.server.services.directory.list()).items[0]
    assert device.facts.firmware_version == "1.0.0"


async def test_a_new_application_goes_to_the_free_place_and_is_updated_there(meeting: Meeting) -> None:
    await meeting.start()
    pump = (b"app", b"pump")
    assert await meeting.update("1.0.0", component=pump) == DONE
    assert (await meeting.applications())[1] == ApplicationFacts(
        instance=1, name="pump", version="1.0.0", active=True
    )
    assert await meeting.update("1.1.0", "next", component=pump, sequence=2) == DONE
    assert await meeting.update("1.0.0", "third", component=(b"app", b"fan"), sequence=3) == (
        "rejected",
        "no-application-place",
    )
    assert [each.name for each in await meeting.applications()] == ["meter", "pump"]


async def test_the_server_refuses_a_foreign_or_older_application_before_it_is_offered(
    meeting: Meeting,
) -> None:
    await meeting.start()
    assert await meeting.update("0.9.0", "older") == ("rejected", "version-rollback")
    foreign = await meeting.update("2.0.0", "foreign", class_name="M2", sequence=2)
    assert foreign == ("rejected", "class-mismatch")
    assert await meeting.update("1.0.0", "same", sequence=3) == ("skipped", "already-current")
    assert meeting.hook.calls == [("start", "1.0.0")]


async def test_the_device_refuses_what_the_server_does_not_know_better(meeting: Meeting) -> None:
    """An instance that is not INSTALLED shows the server no version: the device has to judge."""
    await meeting.start()
    operations = meeting.world.server.services.operations
    await meeting.world.answer(operations.execute("dev-1", "/9/0/6", "1", actor="ann"))
    await meeting.device.kill()
    meeting.device.start()
    await meeting.world.run(30)
    assert (await meeting.applications())[0].version is None
    campaign = await meeting.campaign("0.9.0", "older", retries=0)
    assert await meeting.world.outcome(campaign) == ("rejected", "version-rollback")
    assert "0.9.0 is older than 1.0.0" in (await meeting.world.deployment(campaign)).text


async def test_a_device_with_another_trust_refuses_by_itself(meeting: Meeting) -> None:
    await meeting.start(trust=(SigningKey.generate().public.pem(),))
    assert await meeting.update("2.0.0", retries=0) == ("rejected", "unknown-key")
    assert ("install", "2.0.0") not in meeting.hook.calls


@pytest.mark.parametrize("state", ["downloading", "installing"])
async def test_a_restart_of_the_server_changes_nothing(meeting: Meeting, state: str) -> None:
    await meeting.start()
    meeting.hook.gate = asyncio.Event()
    campaign = await meeting.campaign("2.0.0", size=60_000)
    await meeting.world.reach(campaign, state)
    await meeting.world.restart()
    meeting.hook.gate.set()
    assert await meeting.world.outcome(campaign) == DONE
    assert (await meeting.world.deployment(campaign)).attempt == 1
    assert [call for call in meeting.hook.calls if call[0] == "install"] == [("install", "2.0.0")]


@pytest.mark.parametrize("state", ["downloading", "installing"])
async def test_a_power_cut_of_the_device_changes_nothing(meeting: Meeting, state: str) -> None:
    await meeting.start()
    meeting.hook.gate = asyncio.Event()
    campaign = await meeting.campaign("2.0.0", size=60_000)
    await meeting.world.reach(campaign, state)
    await meeting.device.kill()
    meeting.hook.gate.set()
    await meeting.world.run(20)
    meeting.device.start()
    assert await meeting.world.outcome(campaign) == DONE
    assert (await meeting.world.deployment(campaign)).attempt == 1
    assert (await meeting.applications())[0] == METER_NEW


async def test_a_failed_installation_is_tried_once_more_and_then_given_up(meeting: Meeting) -> None:
    await meeting.start()
    meeting.hook.fail[Action.INSTALL] = ["the enclave is busy"]
    assert await meeting.update("2.0.0", retries=3) == DONE
    meeting.hook.fail[Action.INSTALL] = ["no"] * 10
    assert await meeting.update("3.0.0", "bad", retries=5, sequence=2) == ("failed", "update-failed")
    assert [call for call in meeting.hook.calls if call == ("install", "3.0.0")] == [("install", "3.0.0")] * 2


async def test_an_application_that_does_not_start_is_no_success(meeting: Meeting) -> None:
    await meeting.start()
    meeting.hook.fail[Action.START] = ["missing library"]
    assert await meeting.update("2.0.0") == ("failed", "activation-failed")
    assert (await meeting.applications())[0] == ApplicationFacts(
        instance=0, name="meter", version="2.0.0", active=False
    )


async def test_what_was_switched_off_stays_so(meeting: Meeting) -> None:
    await meeting.start()
    operations = meeting.world.server.services.operations
    await meeting.world.answer(operations.execute("dev-1", "/9/0/11", "", actor="ann"))
    assert await meeting.update("2.0.0") == DONE
    assert (await meeting.applications())[0] == ApplicationFacts(
        instance=0, name="meter", version="2.0.0", active=False
    )


async def test_an_abort_drops_the_package_and_keeps_the_old_version_in_place(meeting: Meeting) -> None:
    await meeting.start()
    campaign = await meeting.campaign("2.0.0", size=60_000)
    await meeting.world.reach(campaign, "downloading")
    await meeting.world.server.services.campaigns.abort(campaign.id, actor="ann")
    assert await meeting.world.outcome(campaign) == ("cancelled", "aborted")
    assert ("install", "2.0.0") not in meeting.hook.calls
    assert await meeting.update("2.0.1", "next", sequence=2) == DONE


async def test_a_plain_device_gets_the_file_itself(meeting: Meeting) -> None:
    await meeting.start(plain=True, trust=(), vendor="", class_name="")
    assert await meeting.update("2.0.0", size=20_000) == DONE
    assert (await meeting.applications())[0] == METER_NEW
    assert await meeting.update("2.1.0", "model", model="M2", sequence=2) == ("rejected", "model-mismatch")


async def test_a_device_without_object_9_has_no_place(meeting: Meeting) -> None:
    await meeting.start(applications=())
    assert await meeting.update("2.0.0") == ("rejected", "no-software-object")


@pytest.mark.parametrize("seed", range(6))
async def test_loss_duplication_and_delay_change_no_outcome(tmp_path: Path, seed: int) -> None:
    network = MemoryNetwork(seed=seed, loss=0.1, duplicate=0.1, delay=0.05)
    meeting = Meeting(tmp_path, network)
    try:
        await meeting.start(wait=False)
        campaign = await meeting.campaign("2.0.0", size=20_000)
        assert await meeting.world.outcome(campaign) == DONE
        assert (await meeting.applications())[0] == METER_NEW
        assert meeting.hook.calls.count(("install", "2.0.0")) == 1
    finally:
        await meeting.device.kill()
        await meeting.world.close()
