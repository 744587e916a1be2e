"""The update machine and devices with several components: the evidence, and what Results 12 and 13 mean."""

from __future__ import annotations

from typing import Any

import pytest

from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.update_job import Goal, Kind, Shown
from update_drive import CHANGED, Drive

MAIN, MODEM, OTHER = (bytes([number]) * 32 for number in (1, 2, 9))
GOALS = (
    Goal(name="00", version="2.0.0", digest=MAIN, before="1.0.0"),
    Goal(name="modem", version="5.0", digest=MODEM, before="4.9"),
)


def shown(main: str | None, modem: str | None, *digests: bytes | None) -> tuple[Shown, ...]:
    first, second = digests or (None, None)
    return (
        Shown(instance=0, name="00", version=main, digest=first),
        Shown(instance=1, name="modem", version=modem, digest=second),
    )


OLD, NEW = shown("1.0.0", "4.9"), shown("2.0.0", "5.0", MAIN, MODEM)


def drive(**job: Any) -> Drive:
    return Drive(
        **{"kind": Kind.MANIFEST, "instance": "/33629/0", "goals": GOALS, "target_version": "2.0.0"} | job
    )


def installing(**job: Any) -> Drive:
    return drive(**job).status(0, components=OLD).pushed(CHANGED).status(2).answer(CHANGED)


def came_back(components: tuple[Shown, ...], result: int = 1, **more: Any) -> Drive:
    """Return the machine after the device has installed, restarted and shown its components."""
    run = installing().feed(ev.Registered())
    return run.status(0, result, version=components[0].version, components=components, **more)


def test_components_are_asked_for_where_they_can_be_evidence() -> None:
    run = drive()
    assert run.asked == ev.ReadStatus(1, settings=False, components=True)
    run.status(0, components=OLD).pushed(CHANGED)
    assert isinstance(run.asked, ev.ReadStatus)
    assert not run.asked.components
    run.status(2).answer(CHANGED).feed(ev.Registered())
    assert isinstance(run.asked, ev.ReadStatus)
    assert run.asked.components


def test_success_is_that_every_component_shows_its_version_and_digest() -> None:
    run = came_back(NEW)
    assert run.ended() == ("succeeded", "confirmed-digest")
    assert run.outcome is not None
    assert "00 2.0.0, modem 5.0" in run.outcome.text


def test_a_component_that_reports_no_digest_is_told_by_its_version() -> None:
    assert came_back(shown("2.0.0", "5.0", MAIN, None)).ended() == ("succeeded", "confirmed-version")


def test_the_main_version_alone_is_no_success() -> None:
    run = came_back(shown("2.0.0", "4.9", MAIN, OTHER))
    assert run.ended() == ("failed", "partly-installed")
    assert run.outcome is not None
    assert (run.outcome.retryable, run.outcome.max_retries) == (True, 1)
    assert "old modem 4.9" in run.outcome.text


def test_nothing_is_decided_on_components_that_were_not_read() -> None:
    run = installing().feed(ev.Registered()).status(0, 1, version="2.0.0", components=None)
    assert run.outcome is None


def test_another_digest_under_the_new_version_is_a_failure() -> None:
    assert came_back(shown("2.0.0", "5.0", MAIN, OTHER)).ended() == ("failed", "digest-mismatch")


def test_all_old_versions_are_a_rollback() -> None:
    assert came_back(OLD).ended() == ("failed", "rolled-back")


def test_a_version_that_nobody_offered_is_named() -> None:
    run = came_back(shown("2.0.0", "4.7"))
    assert run.ended() == ("failed", "wrong-version")
    assert run.outcome is not None
    assert "modem 4.7" in run.outcome.text


def test_a_component_without_a_version_ends_unconfirmed_after_a_while() -> None:
    run = came_back(shown("2.0.0", None))
    assert run.outcome is None
    for _ in range(10):
        if run.outcome is None:
            run.wake()
            run.status(0, 1, version="2.0.0", components=shown("2.0.0", None))
    assert run.ended() == ("failed", "unconfirmed")


def test_a_component_without_a_wanted_version_needs_its_digest() -> None:
    goals = (Goal(name="modem", version=None, digest=MODEM, before="4.9"),)
    run = installing(goals=goals).feed(ev.Registered())
    run.status(0, 1, components=shown("1.0.0", "5.5", None, MODEM))
    assert run.ended() == ("succeeded", "confirmed-digest")


def test_a_device_that_has_everything_is_left_alone() -> None:
    assert drive().status(0, version="2.0.0", components=NEW).ended() == ("succeeded", "already-current")


@pytest.mark.parametrize("result", [0, 12])
def test_components_in_the_way_are_reset_and_the_update_is_offered_again(result: int) -> None:
    run = installing().wake().status(0, 12, components=OLD, conflicting=(1, 2))
    assert isinstance(run.asked, ev.Reset)
    assert run.asked.others == (1, 2)
    run.answer(CHANGED).status(0, result, components=OLD)
    if result:
        assert run.asked == ev.Reset(run.job.ask_number, by_uri=False)
        run.answer(CHANGED).status(0, 0, components=OLD)
    assert isinstance(run.asked, ev.Push)
    assert run.job.phase == "offered"


def test_a_conflict_that_stays_ends_with_the_names() -> None:
    run = installing()
    for _ in range(2):
        run.wake().status(0, 12, components=OLD, conflicting=(1, 7)).answer(CHANGED)
        run.status(0, 0, components=OLD).pushed(CHANGED).status(2).answer(CHANGED)
    run.wake().status(0, 12, components=OLD, conflicting=(1, 7))
    assert run.ended() == ("failed", "conflicting-state")
    assert run.outcome is not None
    assert run.outcome.text.endswith(": modem, instance 7")
    assert run.outcome.retryable


def test_a_conflict_without_names_is_left_to_another_attempt() -> None:
    assert installing().wake().status(0, 12, components=OLD).ended() == ("failed", "conflicting-state")


def test_a_missing_dependency_names_what_must_come_first() -> None:
    run = installing().wake().status(2, 13, components=OLD, conflicting=(1,))
    assert run.ended() == ("failed", "dependency-missing")
    assert run.outcome is not None
    assert run.outcome.text.endswith(": modem")
    assert run.outcome.max_retries == 1
