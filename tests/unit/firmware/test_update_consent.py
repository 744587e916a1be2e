"""The update machine while a device defers, and what a campaign says of severity and patience."""

from __future__ import annotations

import pytest

from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.update_job import Ask, Phase
from update_drive import BAD_REQUEST, BUSY, CHANGED, NEW, NOT_ALLOWED, NOT_FOUND, Drive


def test_deferral_is_waited_for_within_bounds() -> None:
    drive = Drive().downloaded().answer(CHANGED)
    while drive.outcome is None:
        drive.wake()
        if drive.job.ask is Ask.READ and drive.outcome is None:
            drive.status(2, 11)
    assert drive.ended() == ("failed", "deferred")
    assert drive.job.timers.deferral <= drive.now <= drive.job.timers.deferral + 60


@pytest.mark.parametrize("period", [0, 100_000])
def test_deferral_may_last_for_the_period_of_the_job_and_a_margin(period: int) -> None:
    drive = Drive(max_defer=period).downloaded().answer(CHANGED)
    while drive.outcome is None:
        drive.wake()
        if drive.job.ask is Ask.READ and drive.outcome is None:
            drive.status(2, 11)
    assert drive.ended() == ("failed", "deferred")
    assert period <= drive.now <= period + drive.job.timers.downloaded + 60


def test_deferred_installation_is_downloaded_again_and_is_not_ordered_twice() -> None:
    drive = Drive().installing()
    assert drive.job.phase is Phase.INSTALLING
    drive.wake().status(2, 11, deferred_until=5000.0)
    assert drive.job.phase is Phase.DOWNLOADED
    assert (drive.job.deferred_since, drive.job.deferred_until) == (drive.now, 5000.0)
    for _ in range(50):
        drive.feed(ev.Registered()).status(2, 11)
        assert drive.idle
        assert drive.job.phase is Phase.DOWNLOADED
    drive.feed(ev.Notified(state=3, result=0)).status(3)
    assert drive.job.phase is Phase.INSTALLING
    assert drive.job.deferred_since is None
    assert drive.feed(ev.Registered()).status(0, 1, version=NEW).ended() == ("succeeded", "confirmed-version")


def test_deferred_installation_that_fails_later_is_a_failure_of_the_installation() -> None:
    drive = Drive().installing().wake().status(2, 11)
    assert drive.wake().status(0, 8).ended() == ("failed", "update-failed")
    rolled = Drive().installing().wake().status(2, 11).wake().status(3).feed(ev.Registered()).status(0, 0)
    assert rolled.ended() == ("failed", "rolled-back")


def test_deferred_download_is_waited_for_and_goes_on() -> None:
    drive = Drive().pulling()
    while drive.now < 5 * drive.job.timers.downloading:
        drive.wake()
        if drive.job.ask is Ask.READ:
            drive.status(1, 11, deferred_until=9000.0)
            assert drive.job.deferred_until == 9000.0
    assert drive.outcome is None
    assert drive.job.phase is Phase.DOWNLOADING
    drive.wake().status(1)
    assert drive.job.deferred_since is None
    assert drive.job.progress_at == drive.now, "the download has its full time"
    assert isinstance(drive.wake().status(2).asked, ev.Execute)


def test_device_that_defers_need_not_be_there_all_the_time() -> None:
    drive = Drive(max_defer=50_000).installing().wake().status(2, 11).feed(ev.Gone())
    while drive.now < 49_000:
        assert drive.feed(ev.Tick(), after=1000.0).outcome is None
    assert isinstance(drive.feed(ev.Registered()).asked, ev.ReadStatus)
    drive.feed(ev.Gone())
    while drive.outcome is None:
        drive.wake()
    assert drive.ended() == ("failed", "silent")


def test_cancel_during_a_deferral_resets_the_device() -> None:
    drive = Drive().installing().wake().status(2, 11).feed(ev.CancelRequested()).wake().status(2, 11)
    assert isinstance(drive.asked, ev.Reset)
    assert drive.answer(CHANGED).status(0).ended() == ("cancelled", "aborted")


def test_deferral_over_before_the_cancel_arrives_is_awaited() -> None:
    drive = Drive().installing().wake().status(2, 11).feed(ev.CancelRequested()).wake().status(3)
    assert drive.idle
    assert drive.feed(ev.Registered()).status(0, 1, version=NEW).ended()[0] == "succeeded"


# -- severity and defer period --

THERE = {"severity": 1, "max_defer": 0}


def test_settings_are_asked_for_only_when_the_job_brings_some() -> None:
    assert Drive().asked == ev.ReadStatus(1, settings=False)
    assert Drive(severity=0).asked == ev.ReadStatus(1, settings=True)
    assert Drive(max_defer=0).asked == ev.ReadStatus(1, settings=True)


@pytest.mark.parametrize(
    ("job", "status", "expected"),
    [
        ({"severity": 0, "max_defer": 600}, THERE, ev.Configure(2, 0, 600)),
        ({"severity": 1, "max_defer": 600}, THERE, ev.Configure(2, None, 600)),
        ({"severity": 2}, THERE, ev.Configure(2, 2, None)),
        ({"severity": 1, "max_defer": 0}, THERE, None),
        ({"severity": 0, "max_defer": 600}, {}, None),
        ({"severity": 0, "max_defer": 600}, {"severity": 1}, ev.Configure(2, 0, None)),
        ({}, THERE, None),
    ],
)
def test_settings_are_written_before_the_delivery_where_the_device_has_them_and_they_differ(
    job: dict[str, int], status: dict[str, int], expected: ev.Action | None
) -> None:
    drive = Drive(**job).status(0, **status)
    assert isinstance(drive.asked, ev.WriteUri) if expected is None else drive.asked == expected


@pytest.mark.parametrize("code", [CHANGED, NOT_FOUND, NOT_ALLOWED, BAD_REQUEST])
def test_settings_that_a_device_refuses_do_not_stop_its_update(code: int) -> None:
    drive = Drive(severity=0).status(0, **THERE).answer(code).status(0, **THERE)
    assert isinstance(drive.asked, ev.WriteUri)


def test_settings_are_written_again_when_the_answer_was_lost_or_the_device_busy() -> None:
    drive = Drive(severity=0).status(0, **THERE).answer(None).wake().status(0, **THERE)
    assert isinstance(drive.asked, ev.Configure)
    drive.answer(BUSY).wake().status(0, **THERE)
    assert isinstance(drive.asked, ev.Configure)
    assert isinstance(drive.answer(None).wake().status(0, severity=0).asked, ev.WriteUri)


def test_settings_are_written_after_the_reset_not_into_another_update() -> None:
    drive = Drive(severity=0).status(2, **THERE)
    assert isinstance(drive.asked, ev.Reset)
    assert isinstance(drive.answer(CHANGED).status(0, **THERE).asked, ev.Configure)


# -- time --
