"""The reference device's application accepts, puts off or refuses a campaign's update, in virtual time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.releases import CLASS, VENDOR
from lwm2m_device.consent import Accept, Answer, ConsentPhase, Defer, Question, Refuse
from lwm2m_server.campaigns.records import Campaign, DeploymentState, Severity
from memory import MemoryDevice, World
from memory.world import ADDRESS

DOWNLOAD, INSTALL = ConsentPhase


class Meeting:
    """A server, a device, and the device's application, which answers in turn, the last answer for ever."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder / "server")
        self.answers: dict[ConsentPhase, list[Answer]] = {DOWNLOAD: [Accept()], INSTALL: [Accept()]}
        self.asked: list[Question] = []
        self.device = MemoryDevice(
            self.world.network,
            folder / "dev-1.flash",
            server=ADDRESS,
            vendor=VENDOR,
            class_name=CLASS,
            trust=(self.world.signer.public,),
            consent=self,
        )

    async def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        answers = self.answers[question.phase]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def begin(self, **options: Any) -> Campaign:
        """Start server, device and campaign."""
        world = self.world
        await world.start()
        manifest = await world.release()
        self.device.start()

        async def known() -> bool:
            found = await world.server.services.directory.list()
            return bool(found.items) and found.items[0].facts.understands_manifests is not None

        await world.until(known, within=600)
        return await world.campaign(manifest, **options)

    async def deferred(self, campaign: Campaign, state: DeploymentState) -> str:
        """Wait until the update shows as put off in this state; return the text that goes with it."""

        async def there() -> bool:
            found = await self.world.deployment(campaign)
            return (found.state, found.reason) == (state, "deferred")

        await self.world.until(there, within=300)
        return (await self.world.deployment(campaign)).text


@pytest.fixture
async def meeting(tmp_path: Path) -> AsyncIterator[Meeting]:
    made = Meeting(tmp_path)
    yield made
    await made.device.kill()
    await made.world.close()


async def test_severity_and_period_of_the_campaign_reach_the_application(meeting: Meeting) -> None:
    campaign = await meeting.begin(severity=Severity.CRITICAL, max_defer=600)
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest")
    assert [(each.phase, each.severity, each.may_defer) for each in meeting.asked] == [
        (DOWNLOAD, "critical", 600),
        (INSTALL, "critical", 600),
    ]


@pytest.mark.parametrize(("phase", "state"), [(DOWNLOAD, "downloading"), (INSTALL, "downloaded")])
async def test_a_deferral_is_shown_counted_and_waited_for(
    meeting: Meeting, phase: ConsentPhase, state: str
) -> None:
    # longer than the limit of any phase without progress
    meeting.answers[phase] = [Defer(20_000), Accept()]
    campaign = await meeting.begin(max_defer=86_400, retries=0)
    text = await meeting.deferred(campaign, DeploymentState(state))
    what = "download" if phase is DOWNLOAD else "installation"
    assert f"puts the {what} off until 1970-01-12T" in text  # the clock of the tests begins there
    services = meeting.world.server.services
    counts = await services.campaigns.statistics(campaign.id)
    assert counts.reasons[DeploymentState(state)] == {"deferred": 1}
    await meeting.world.run(19_000, step=50)
    assert (await meeting.world.deployment(campaign)).reason == "deferred"
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
    deployment = await meeting.world.deployment(campaign)
    assert deployment.attempt == 1
    assert (await meeting.world.states(campaign))[-1] == "succeeded"


async def test_a_deferral_outlives_restarts_of_server_and_device(meeting: Meeting) -> None:
    meeting.answers[INSTALL] = [Defer(5_000), Accept()]
    campaign = await meeting.begin(max_defer=86_400, retries=0)
    before = await meeting.deferred(campaign, DeploymentState.DOWNLOADED)
    await meeting.world.restart()
    await meeting.device.kill()
    meeting.device.start()
    await meeting.world.run(4_000, step=50)
    assert await meeting.deferred(campaign, DeploymentState.DOWNLOADED) == before
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
    assert [each.phase for each in meeting.asked] == [DOWNLOAD, INSTALL, INSTALL]


async def test_an_application_that_never_agrees_is_overruled_after_the_period(meeting: Meeting) -> None:
    meeting.answers[INSTALL] = [Defer(700)]
    campaign = await meeting.begin(max_defer=2_000, retries=0)
    assert await meeting.world.outcome(campaign) == ("succeeded", "confirmed-digest"), meeting.device.log
    assert [round(each.may_defer) for each in meeting.asked if each.phase is INSTALL] == [2_000, 1_300, 600]


@pytest.mark.protection("server", "consent")
@pytest.mark.parametrize("phase", ConsentPhase)
async def test_a_refusal_by_the_application_rejects_the_update_and_says_why(
    meeting: Meeting, phase: ConsentPhase
) -> None:
    meeting.answers[phase] = [Refuse("the pump runs")]
    campaign = await meeting.begin()
    assert await meeting.world.outcome(campaign) == ("rejected", "refused-by-application")
    deployment = await meeting.world.deployment(campaign)
    assert (deployment.text, deployment.attempt) == ("the pump runs", 1)


async def test_an_abort_takes_back_what_is_put_off(meeting: Meeting) -> None:
    meeting.answers[INSTALL] = [Defer(5_000), Accept()]
    campaign = await meeting.begin(max_defer=86_400)
    await meeting.deferred(campaign, DeploymentState.DOWNLOADED)
    await meeting.world.server.services.campaigns.abort(campaign.id, actor="ann")
    assert await meeting.world.outcome(campaign) == ("cancelled", "aborted")
    await meeting.world.run(6_000, step=100)
    assert len(meeting.asked) == 2


async def test_a_scripted_device_without_the_resources_is_updated_all_the_same(meeting: Meeting) -> None:
    world = meeting.world
    await world.start()
    device = await world.device()
    campaign = await world.campaign(await world.release(), severity=Severity.OPTIONAL, max_defer=60)
    assert (await world.outcome(campaign))[0] == "succeeded"
    assert not {("5", "0", "11"), ("5", "0", "13")} & {path for code, path in device.requests if code != 1}
