"""The application's consent: accept, defer or refuse, at the download and at the installation."""

import asyncio
import json

import pytest

from lwm2m_device.consent import (
    BROKEN_SECONDS,
    Accept,
    ConsentPhase,
    ConsentProgram,
    Defer,
    HookFailed,
    Question,
    Refuse,
    parse_answer,
)
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.transport import Code

IMAGE = b"firmware-version: 2.0.0\n" + bytes(range(256)) * 40
DEFERRED, CANCELLED = 11, 10
DOWNLOAD, INSTALL = ConsentPhase


class Application:
    """Answers in turn, the last answer again and again; keeps what it was asked and when."""

    def __init__(self, clock, **answers):
        self.answers = {phase: list(answers.get(phase, [Accept()])) for phase in ("download", "install")}
        self.asked: list[tuple[float, Question]] = []
        self._clock = clock

    async def ask(self, question):
        self.asked.append((self._clock.now(), question))
        answers = self.answers[question.phase]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def questions(self, phase):
        return [question for _, question in self.asked if question.phase is phase]


async def offer(world, *, period: int = 0, severity: int | None = None) -> None:
    world.server.publish(IMAGE, world.folder)
    assert await world.server.write("/5/0/13", str(period).encode()) == Code.CHANGED
    if severity is not None:
        assert await world.server.write("/5/0/11", str(severity).encode()) == Code.CHANGED
    assert await world.server.write("/5/0/0", world.envelope(IMAGE), 42) == Code.CHANGED
    await world.pass_time(2)


async def refusal(world) -> tuple[str, str]:
    return await world.server.text(f"/{SUIT_AGENT}/0/4"), await world.server.text(f"/{SUIT_AGENT}/0/5")


async def until(world) -> int:
    return int(await world.server.text(f"/{SUIT_AGENT}/0/6"))


async def version(world) -> str:
    return await world.server.text("/3/0/3")


@pytest.mark.protection("device", "consent")
async def test_the_application_is_asked_before_the_download_and_before_the_installation(world):
    application = Application(world.network.clock)
    await world.run(consent=application)
    await offer(world, period=600, severity=0)
    assert application.questions(DOWNLOAD) == [Question(DOWNLOAD, "2.0.0", len(IMAGE), "critical", 0, 600)]
    assert not application.questions(INSTALL)
    assert await world.server.state() == (2, 0)
    assert await world.server.execute("/5/0/2") == Code.CHANGED
    await world.pass_time(5)
    assert application.questions(INSTALL) == [Question(INSTALL, "2.0.0", len(IMAGE), "critical", 0, 600)]
    assert await version(world) == "2.0.0"


async def test_a_deferred_download_fetches_nothing_until_the_application_is_asked_again(world):
    application = Application(world.network.clock, download=[Defer(100), Accept()])
    await world.run(consent=application)
    await offer(world, period=600)
    assert await world.server.state() == (1, DEFERRED)
    assert not [each for each in world.server.seen if each.path[:1] == ("fw",)]
    first, _ = application.asked[0]
    assert await until(world) == int(first + 100)
    await world.pass_time(110)
    assert await world.server.state() == (2, 0)
    assert await until(world) == 0
    assert application.questions(DOWNLOAD)[1].deferred == pytest.approx(100)


async def test_a_deferred_installation_stays_downloaded_with_result_11_and_happens_later_by_itself(world):
    application = Application(world.network.clock, install=[Defer(100), Accept()])
    await world.run(consent=application)
    await offer(world, period=600)
    assert await world.server.execute("/5/0/2") == Code.CHANGED
    await world.pass_time(2)
    assert await world.server.state() == (2, DEFERRED)
    assert await version(world) == "1.0.0"
    assert await world.server.execute("/5/0/2") == Code.CHANGED, "it may be ordered again, to no effect"
    await world.pass_time(2)
    assert len(application.questions(INSTALL)) == 1
    await world.pass_time(120)
    assert await version(world) == "2.0.0"
    assert await world.server.state() == (0, 1)


async def test_after_the_maximum_defer_period_the_application_is_not_asked_any_more(world):
    application = Application(world.network.clock, install=[Defer(70)])
    await world.run(consent=application)
    await offer(world, period=200)
    await world.server.execute("/5/0/2")
    await world.pass_time(190)
    assert await version(world) == "1.0.0"
    assert [round(each.may_defer) for each in application.questions(INSTALL)] == [200, 130, 60]
    await world.pass_time(30)
    assert await version(world) == "2.0.0"
    assert len(application.questions(INSTALL)) == 3


async def test_the_period_counts_for_download_and_installation_together(world):
    application = Application(world.network.clock, download=[Defer(150), Accept()], install=[Defer(1000)])
    await world.run(consent=application)
    await offer(world, period=200)
    await world.pass_time(160)
    assert await world.server.state() == (2, 0)
    await world.server.execute("/5/0/2")
    await world.pass_time(2)
    assert await until(world) == int(application.asked[0][0] + 200)
    await world.pass_time(58)
    assert await version(world) == "2.0.0"


async def test_a_period_of_0_allows_no_deferral_but_the_application_is_still_asked(world):
    application = Application(world.network.clock, download=[Defer(100)], install=[Defer(100)])
    await world.run(consent=application)
    await offer(world, period=0)
    assert await world.server.state() == (2, 0)
    await world.server.execute("/5/0/2")
    await world.pass_time(5)
    assert await version(world) == "2.0.0"
    assert [question.phase for _, question in application.asked] == [DOWNLOAD, INSTALL]


@pytest.mark.protection("device", "consent")
@pytest.mark.parametrize("phase", ConsentPhase)
async def test_a_refusal_ends_the_update_and_says_why(world, phase):
    application = Application(world.network.clock, **{phase.value: [Refuse("the pump\nruns")]})
    await world.run(consent=application)
    await offer(world, period=600)
    if phase is INSTALL:
        await world.server.execute("/5/0/2")
        await world.pass_time(2)
    assert await world.server.state() == (0, CANCELLED)
    assert await refusal(world) == ("refused-by-application", "the pump runs")
    assert await version(world) == "1.0.0"


@pytest.mark.parametrize("phase", ConsentPhase)
async def test_a_deferral_outlives_a_restart(world, phase):
    clock = world.network.clock
    application = Application(clock, **{phase.value: [Defer(300), Accept()]})
    await world.run(consent=application)
    await offer(world, period=600)
    if phase is INSTALL:
        await world.server.execute("/5/0/2")
        await world.pass_time(2)
    state, end = await world.server.state(), await until(world)
    assert state[1] == DEFERRED
    await world.kill()
    await world.network.advance(100)
    await world.run(consent=application)
    assert (await world.server.state(), await until(world)) == (state, end)
    await world.pass_time(100)
    assert len(application.questions(phase)) == 1
    await world.pass_time(150)
    assert len(application.questions(phase)) == 2
    assert application.questions(phase)[1].deferred == pytest.approx(300, abs=10)
    assert await world.server.state() == ((2, 0) if phase is DOWNLOAD else (0, 1))


async def test_an_accepted_download_is_not_asked_for_again_after_a_restart(world):
    application = Application(world.network.clock)
    await world.run(consent=application)
    world.server.publish(IMAGE, world.folder)
    offered = asyncio.ensure_future(world.server.write("/5/0/0", world.envelope(IMAGE), 42))
    while not application.asked:
        await asyncio.sleep(0)
    await world.kill()
    assert await offered == Code.CHANGED
    await world.run(consent=application)
    await world.pass_time(5)
    assert await world.server.state() == (2, 0)
    assert len(application.questions(DOWNLOAD)) == 1


async def test_a_reset_ends_a_deferral(world):
    application = Application(world.network.clock, install=[Defer(100), Accept()])
    await world.run(consent=application)
    await offer(world, period=600)
    await world.server.execute("/5/0/2")
    await world.pass_time(2)
    assert await world.server.execute("/5/0/10") == Code.CHANGED
    assert await world.server.state() == (0, CANCELLED)
    await world.pass_time(200)
    assert await version(world) == "1.0.0"
    assert len(application.questions(INSTALL)) == 1


async def test_update_outside_downloaded_is_refused_with_an_application_too(world):
    await world.run(consent=Application(world.network.clock))
    assert await world.server.execute("/5/0/2") == Code.METHOD_NOT_ALLOWED


@pytest.mark.parametrize("broken", [RuntimeError("crashed"), None, Defer(-1), Defer(float("nan"))])
async def test_a_broken_hook_puts_the_update_off_within_the_period(world, broken):
    application = Application(world.network.clock, install=[broken])
    await world.run(consent=application)
    await offer(world, period=100)
    await world.server.execute("/5/0/2")
    await world.pass_time(BROKEN_SECONDS - 10)
    assert await world.server.state() == (2, DEFERRED)
    await world.pass_time(60)
    assert await version(world) == "2.0.0"
    assert any("consent hook does not work" in line for line in world.log)


async def test_a_deferral_without_a_hook_any_more_ends_at_once(world):
    await world.run(consent=Application(world.network.clock, install=[Defer(300)]))
    await offer(world, period=600)
    await world.server.execute("/5/0/2")
    await world.pass_time(2)
    await world.kill()
    await world.run()
    await world.pass_time(5)
    assert await version(world) == "2.0.0"


# the program

QUESTION = Question(INSTALL, "2.0.0", 7, "mandatory", 1.5, 60)


def program(folder, script):
    file = folder / "hook"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def test_a_program_gets_the_question_as_json_and_answers_in_json(tmp_path):
    hook = program(tmp_path, f"""cat > {tmp_path}/asked; echo '{{"answer": "defer", "seconds": 600}}'""")
    assert asyncio.run(ConsentProgram(hook, 60).ask(QUESTION)) == Defer(600)
    assert json.loads((tmp_path / "asked").read_text()) == {
        "phase": "install", "version": "2.0.0", "size": 7, "severity": "mandatory", "deferred": 1.5,
        "may_defer": 60,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 3", "ended with code 3"), ("echo yes", "no JSON"), ("sleep 100 & sleep 100", "no answer within")],
)
def test_a_program_that_does_not_answer_has_failed(tmp_path, script, said):
    limit = 0.2 if "sleep" in script else 60
    with pytest.raises(HookFailed, match=said):
        asyncio.run(ConsentProgram(program(tmp_path, script), limit).ask(QUESTION))


def test_a_program_that_is_missing_or_reads_nothing(tmp_path):
    with pytest.raises(HookFailed, match="can't be started"):
        asyncio.run(ConsentProgram(tmp_path / "none", 60).ask(QUESTION))
    hook = program(tmp_path, """exec 0<&-; echo '{"answer": "accept"}'""")
    assert asyncio.run(ConsentProgram(hook, 60).ask(QUESTION)) == Accept()


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        (b'{"answer": "accept"}', Accept()),
        (b'{"answer": "defer", "seconds": 0.5}', Defer(0.5)),
        (b'{"answer": "refuse", "text": "no"}', Refuse("no")),
    ],
)
def test_answers_that_are_understood(output, answer):
    assert parse_answer(output) == answer


@pytest.mark.parametrize(
    "output",
    [
        b"", b"[]", b"{}", b'{"answer": "maybe"}', b'{"answer": "accept", "more": 1}', b'{"answer": "refuse"}',
        b'{"answer": "defer"}', b'{"answer": "defer", "seconds": 0}', b'{"answer": "defer", "seconds": -5}',
        b'{"answer": "defer", "seconds": true}', b'{"answer": "defer", "seconds": NaN}',
        b'{"answer": "defer", "seconds": Infinity}', b'{"answer": "defer", "seconds": "60"}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_answers_that_are_not_understood(output):
    with pytest.raises(HookFailed):
        parse_answer(output)
