"""The software machine step by step: each rule of object 9 and of what counts as success."""

from __future__ import annotations

from typing import Any

import pytest

from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.software_events import Activate, Install, ReadSoftware, Uninstall
from lwm2m_server.firmware.software_job import Ask, SoftwareView
from lwm2m_server.firmware.update_job import Kind, Method, Phase
from software_drive import (
    BAD_REQUEST,
    BUSY,
    CHANGED,
    INCOMPLETE,
    NEW,
    NOT_ALLOWED,
    NOT_FOUND,
    OLD,
    SIZE,
    TOO_LARGE,
    SoftwareDrive,
)


def until_ended(drive: SoftwareDrive, *status: Any, **more: Any) -> SoftwareDrive:
    """Answer every read in the same way until the job ends."""
    while drive.outcome is None:
        if drive.job.ask is Ask.READ:
            drive.status(*status, **more)
        else:
            drive.wake()
    return drive


def test_job_begins_by_observing_and_reading() -> None:
    drive = SoftwareDrive()
    assert isinstance(drive.actions[0], ev.Observe)
    assert isinstance(drive.asked, ReadSoftware)


def test_nothing_is_asked_of_a_device_that_is_not_registered() -> None:
    drive = SoftwareDrive(view=SoftwareView())
    assert drive.actions == ()
    assert isinstance(drive.feed(ev.Registered()).asked, ReadSoftware)


def test_device_without_the_instance_is_final() -> None:
    drive = SoftwareDrive().answer(NOT_FOUND)
    assert drive.ended() == ("failed", "no-software-object")
    assert drive.outcome is not None
    assert not drive.outcome.retryable


def test_version_that_is_installed_already_is_left_alone_even_when_it_is_switched_off() -> None:
    for active in (True, False):
        drive = SoftwareDrive().status(4, 2, version=NEW, active=active)
        assert drive.ended() == ("succeeded", "already-current")


def test_what_an_attempt_before_has_installed_is_switched_on_and_not_delivered_again() -> None:
    drive = SoftwareDrive(again=True).status(4, 2, version=NEW, active=False)
    assert isinstance(drive.asked, Activate)
    drive.answer(CHANGED).status(4, 2, version=NEW, active=True)
    assert drive.ended() == ("succeeded", "confirmed-version")


@pytest.mark.protection("server", "foreign-application")
def test_an_instance_with_another_application_is_never_touched() -> None:
    for state in range(5):
        drive = SoftwareDrive().status(state, 0, name="foreign", version=OLD, active=True)
        assert drive.ended() == ("failed", "no-application-place")


def test_an_empty_instance_takes_the_application() -> None:
    assert isinstance(SoftwareDrive().status(0, 0, name="").asked, ev.WriteUri)


@pytest.mark.protection("server", "lost-application")
def test_what_is_in_place_is_uninstalled_for_update_only_and_then_delivered() -> None:
    drive = SoftwareDrive().status(4, 2, version=OLD, active=True)
    assert drive.asked == Uninstall(2, for_update=True)
    assert isinstance(drive.answer(CHANGED).status(0, 0, version=OLD).asked, ev.WriteUri)


def test_a_device_that_refuses_for_update_keeps_what_it_has() -> None:
    drive = SoftwareDrive().status(4, 2, version=OLD, active=True)
    for _ in range(4):
        assert drive.asked == Uninstall(drive.job.ask_number, for_update=True)
        drive.answer(BAD_REQUEST).status(4, 2, version=OLD, active=True)
    assert drive.ended() == ("failed", "stalled")


@pytest.mark.parametrize("state", [1, 2, 3])
def test_a_package_left_by_another_is_dropped_and_without_argument_where_that_is_refused(state: int) -> None:
    drive = SoftwareDrive().status(state, 1)
    assert drive.asked == Uninstall(2, for_update=True)
    assert drive.answer(BAD_REQUEST).status(state, 1).asked == Uninstall(4, for_update=False)


def test_an_uninstall_that_takes_its_time_is_not_repeated_at_once() -> None:
    drive = SoftwareDrive().status(4, 2, version=OLD).answer(CHANGED).status(4, 2, version=OLD)
    assert drive.idle
    assert isinstance(drive.wake().status(0, 0, version=OLD).asked, ev.WriteUri)


def test_an_old_result_is_cleared_by_uninstall_or_remembered_as_old() -> None:
    drive = SoftwareDrive().status(0, 58)
    for _ in range(4):
        assert isinstance(drive.asked, Uninstall)
        drive.answer(CHANGED).status(0, 58)
    assert isinstance(drive.asked, ev.WriteUri)
    assert drive.answer(CHANGED).status(0, 58).outcome is None
    # once the device has begun anew it counts again
    drive.wake().status(1, 1)
    assert drive.wake().status(0, 58).ended() == ("failed", "update-failed")


def test_failed_uninstall_ends_the_attempt() -> None:
    drive = SoftwareDrive().status(4, 2, version=OLD).answer(CHANGED).status(4, 59, version=OLD)
    assert drive.ended() == ("failed", "uninstall-failed")


@pytest.mark.parametrize(
    ("kind", "prefer", "expected"),
    [
        (Kind.IMAGE, None, ev.WriteUri),
        (Kind.IMAGE, Method.PUSH, ev.Push),
        (Kind.MANIFEST, None, ev.Push),
        (Kind.MANIFEST, Method.PULL, ev.Push),
    ],
)
def test_manifests_are_pushed_and_files_pulled_unless_preferred_otherwise(
    kind: Kind, prefer: Method | None, expected: type
) -> None:
    assert isinstance(SoftwareDrive(kind=kind, prefer=prefer).status(0).asked, expected)


@pytest.mark.parametrize("code", [NOT_FOUND, NOT_ALLOWED, BAD_REQUEST])
def test_a_way_that_the_device_does_not_have_gives_way_to_the_other(code: int) -> None:
    drive = SoftwareDrive().status(0).answer(code).status(0)
    assert isinstance(drive.asked, ev.Push)
    assert drive.pushed(code, 0).status(0).ended() == ("failed", "device-error")


def test_an_address_that_the_device_can_not_use_is_followed_by_a_push() -> None:
    drive = SoftwareDrive().status(0).answer(BAD_REQUEST).status(0, 56)
    assert isinstance(drive.asked, Uninstall)
    assert isinstance(drive.answer(CHANGED).status(0).asked, ev.Push)


def test_too_large_for_a_push_is_pulled() -> None:
    drive = SoftwareDrive(kind=Kind.MANIFEST).status(0).pushed(TOO_LARGE, 2048).status(0)
    assert isinstance(drive.asked, ev.WriteUri)


def test_a_push_goes_on_where_it_stopped_and_begins_again_when_the_device_forgot() -> None:
    drive = SoftwareDrive(kind=Kind.MANIFEST).status(0)
    drive.feed(ev.PushProgress(drive.job.ask_number, 4096)).pushed(None, 4096).wake().status(1, 1)
    assert drive.asked == ev.Push(drive.job.ask_number, 4096)
    drive.pushed(INCOMPLETE, 4096).status(1, 1)
    assert drive.asked == ev.Push(drive.job.ask_number, 0)


def test_busy_is_waited_out_as_long_as_the_device_says() -> None:
    drive = SoftwareDrive().status(0).answer(BUSY, max_age=90)
    assert drive.idle
    assert drive.wake_at == 90
    assert isinstance(drive.wake().status(0).asked, ev.WriteUri)


def test_install_is_sent_in_delivered_only() -> None:
    drive = SoftwareDrive().pulling().status(2, 1)
    assert drive.idle
    assert isinstance(drive.wake().status(3, 3).asked, Install)
    assert drive.job.phase is Phase.DOWNLOADED


def test_install_without_answer_is_repeated_only_when_delivered_has_lasted() -> None:
    drive = SoftwareDrive().delivered().answer(None)
    sent = drive.now
    while drive.job.ask is not Ask.INSTALL:
        if drive.job.ask is Ask.READ:
            drive.status(3, 3)
        else:
            drive.wake()
    assert drive.now - sent >= drive.job.timers.settle


def test_an_installation_under_way_is_not_ordered_twice() -> None:
    drive = SoftwareDrive().installing()
    while drive.now < 3000:
        drive.wake()
        if drive.job.ask is Ask.READ:
            drive.status(3, 3)
        assert drive.outcome is None
    assert drive.job.installs == 1


def test_success_is_installed_with_the_wanted_version_and_active() -> None:
    drive = SoftwareDrive().installing().feed(ev.Notified(state=4, result=2))
    assert isinstance(drive.asked, ReadSoftware)
    assert drive.status(4, 2, version=NEW, active=True).ended() == ("succeeded", "confirmed-version")


@pytest.mark.parametrize("news", [ev.Notified(state=4), ev.Notified(result=58)])
def test_news_of_an_installation_that_come_before_its_answer_are_followed_at_once(news: ev.Notified) -> None:
    drive = SoftwareDrive().delivered().feed(news)
    assert drive.idle
    assert isinstance(drive.answer(CHANGED).asked, ReadSoftware)
    assert SoftwareDrive().delivered().answer(CHANGED).idle


def test_result_2_alone_is_no_success() -> None:
    assert SoftwareDrive().installing().wake().status(3, 2).outcome is None
    assert SoftwareDrive().installing().wake().status(4, 2, version=OLD, active=True).outcome is None


def test_what_was_installed_is_activated() -> None:
    drive = SoftwareDrive().activating()
    assert isinstance(drive.asked, Activate)
    assert drive.answer(CHANGED).status(4, 2, version=NEW, active=True).ended()[0] == "succeeded"


def test_what_was_switched_off_before_stays_so() -> None:
    drive = SoftwareDrive().status(4, 2, version=OLD, active=False).answer(CHANGED).status(0)
    drive.answer(CHANGED).status(3, 3).answer(CHANGED).wake()
    assert drive.status(4, 2, version=NEW, active=False).ended() == ("succeeded", "confirmed-version")


@pytest.mark.parametrize(("code", "result"), [(NOT_ALLOWED, 2), (CHANGED, 57)])
def test_an_application_that_does_not_start_is_a_failure_for_good(code: int, result: int) -> None:
    drive = SoftwareDrive().activating().answer(code).status(4, result, version=NEW, active=False)
    assert drive.ended() == ("failed", "activation-failed")
    assert drive.outcome is not None
    assert not drive.outcome.retryable


def test_an_application_that_stays_off_is_given_up_after_some_tries() -> None:
    drive = SoftwareDrive().activating()
    while drive.outcome is None:
        if drive.job.ask is Ask.ACTIVATE:
            drive.answer(CHANGED)
        elif drive.job.ask is Ask.READ:
            drive.status(4, 2, version=NEW, active=False)
        else:
            drive.wake()
    assert (drive.ended(), drive.job.activations) == (("failed", "activation-failed"), 3)


def test_a_new_registration_makes_the_evidence_be_read_again() -> None:
    drive = SoftwareDrive().activating().feed(ev.Registered())
    assert drive.view == SoftwareView(registered=True)
    assert isinstance(drive.asked, ReadSoftware)
    assert drive.job.phase is Phase.CONFIRMING
    assert drive.status(4, 2, version=OLD, active=True).ended() == ("failed", "wrong-version")
    good = SoftwareDrive().installing().feed(ev.Registered()).status(4, 2, version=NEW, active=True)
    assert good.ended() == ("succeeded", "confirmed-version")


def test_the_old_version_after_the_installation_is_a_roll_back() -> None:
    drive = SoftwareDrive().status(4, 2, version=OLD, active=True).answer(CHANGED).status(0)
    drive.answer(CHANGED).status(3, 3).answer(CHANGED).feed(ev.Registered())
    assert drive.status(4, 2, version=OLD, active=True).ended() == ("failed", "rolled-back")


def test_without_a_version_nothing_is_confirmed() -> None:
    assert until_ended(SoftwareDrive().installing(), 4, 2, version="").ended() == ("failed", "unconfirmed")


def test_failed_installation_stays_in_delivered_and_says_why() -> None:
    assert SoftwareDrive().installing().wake().status(3, 58).ended() == ("failed", "update-failed")
    assert SoftwareDrive().installing().wake().status(0, 53).ended() == ("failed", "integrity")
    assert until_ended(SoftwareDrive().installing(), 0, 0).ended() == ("failed", "update-failed")


def test_a_refused_manifest_ends_with_the_device_s_own_reason() -> None:
    drive = SoftwareDrive(kind=Kind.MANIFEST).status(0).pushed(CHANGED)
    drive.status(0, 54, reason="class-mismatch: not for this class")
    assert drive.ended() == ("rejected", "class-mismatch")
    assert drive.outcome is not None
    assert drive.outcome.text == "not for this class"


def test_cancelling_drops_the_package_by_uninstall_and_waits_for_what_can_not_be_undone() -> None:
    assert SoftwareDrive().feed(ev.CancelRequested()).ended() == ("cancelled", "aborted")
    drive = SoftwareDrive().pulling().feed(ev.CancelRequested())
    assert isinstance(drive.status(1, 1).asked, Uninstall)
    assert drive.answer(CHANGED).status(0).ended() == ("cancelled", "aborted")
    late = SoftwareDrive().installing().feed(ev.CancelRequested())
    assert late.outcome is None
    assert late.wake().status(4, 2, version=NEW, active=True).ended()[0] == "succeeded"


def test_silence_and_stillness_end_by_the_timer_of_the_phase() -> None:
    drive = SoftwareDrive()
    while drive.outcome is None:
        drive.answer(None) if drive.job.ask else drive.wake()
    assert drive.ended() == ("failed", "silent")
    assert until_ended(SoftwareDrive().pulling(), 1, 1).ended() == ("failed", "stalled")


def test_a_restart_of_the_server_asks_again_and_repeats_no_install() -> None:
    drive = SoftwareDrive().installing()
    drive.view = SoftwareView(registered=True)
    drive.feed(ev.Started())
    assert drive.job.ask is None or isinstance(drive.asked, ReadSoftware)
    drive.wake()
    assert drive.status(3, 3).idle
    assert drive.job.installs == 1


def test_late_answers_and_answers_to_others_are_ignored() -> None:
    drive = SoftwareDrive().status(0)
    number = drive.job.ask_number
    before = drive.job
    drive.feed(ev.Answered(number - 1, NOT_ALLOWED))
    assert drive.job == before
    drive.answer(CHANGED)
    after = drive.job
    drive.feed(ev.Answered(number, NOT_ALLOWED))
    assert (drive.job.error, drive.job.phase) == (after.error, after.phase)


def test_progress_of_a_pull_restarts_the_timer() -> None:
    drive = SoftwareDrive().pulling()
    for offset in range(1000, SIZE, 1000):
        drive.feed(ev.DownloadProgress(offset), after=800)
        assert drive.outcome is None
    assert drive.job.offset == 9000
