"""The update machine step by step: each rule of object 5 and each habit of known clients."""

from __future__ import annotations

from typing import Any

import pytest

from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.refusals import UPDATE_RESULT, RefusalCode
from lwm2m_server.firmware.update_job import Ask, DeviceView, Kind, Method, Phase, UpdateJob
from update_drive import (
    BAD_REQUEST,
    BOTH,
    BUSY,
    CHANGED,
    INCOMPLETE,
    NEW,
    NOT_ALLOWED,
    NOT_FOUND,
    PULL,
    PUSH,
    SIZE,
    TOO_LARGE,
    Drive,
)


def test_job_begins_by_observing_and_reading() -> None:
    drive = Drive()
    assert isinstance(drive.actions[0], ev.Observe)
    assert isinstance(drive.asked, ev.ReadStatus)


def test_nothing_is_asked_of_a_device_that_is_not_registered() -> None:
    drive = Drive(view=DeviceView())
    assert drive.actions == ()
    assert isinstance(drive.feed(ev.Registered()).asked, ev.ReadStatus)


def test_device_that_runs_the_target_already_is_left_alone() -> None:
    assert Drive().status(0, version=NEW).ended() == ("succeeded", "already-current")


def test_transfer_begins_without_reset_only_when_idle_without_result() -> None:
    assert isinstance(Drive().status(0, 0).asked, ev.WriteUri)
    for state, result in ((0, 1), (0, 8), (1, 0), (2, 0)):
        assert isinstance(Drive().status(state, result).asked, ev.Reset)


@pytest.mark.parametrize(("delivery", "by_uri"), [(PULL, True), (BOTH, True), (PUSH, False), ({}, True)])
def test_reset_is_an_empty_uri_unless_the_device_only_takes_pushes(
    delivery: dict[str, int], by_uri: bool
) -> None:
    assert Drive().status(2, **delivery).asked == ev.Reset(2, by_uri)


def test_reset_that_does_nothing_is_tried_the_other_way_and_then_given_up() -> None:
    drive = Drive().status(1, **PUSH)
    ways = []
    while drive.outcome is None:
        assert isinstance(drive.asked, ev.Reset)
        ways.append(drive.asked.by_uri)
        drive.answer(CHANGED).status(1, **PUSH)
    assert ways == [False, True, False, True]
    assert drive.ended() == ("failed", "stalled")


def test_old_result_that_the_device_never_clears_is_not_taken_for_ours() -> None:
    drive = Drive().status(0, 8)
    for _ in range(3):
        drive.answer(CHANGED).status(0, 8)
    assert isinstance(drive.answer(CHANGED).status(0, 8).asked, ev.WriteUri)
    assert drive.answer(CHANGED).status(0, 8).outcome is None


@pytest.mark.parametrize(
    ("kind", "prefer", "status", "expected"),
    [
        (Kind.IMAGE, None, PULL, ev.WriteUri), (Kind.IMAGE, None, PUSH, ev.Push),
        (Kind.IMAGE, None, BOTH, ev.WriteUri),
        (Kind.IMAGE, Method.PUSH, BOTH, ev.Push), (Kind.IMAGE, None, {}, ev.WriteUri),
        (Kind.MANIFEST, None, PULL, ev.WriteUri), (Kind.MANIFEST, None, PUSH, ev.Push),
        (Kind.MANIFEST, None, BOTH, ev.Push),
        (Kind.MANIFEST, Method.PULL, BOTH, ev.Push),
        (Kind.IMAGE, None, BOTH | {"protocols": frozenset({1, 3})}, ev.Push),
        (Kind.IMAGE, None, BOTH | {"protocols": frozenset({0, 99})}, ev.WriteUri),
    ],
)  # fmt: skip
def test_way_of_delivery_follows_the_device(
    kind: Kind, prefer: Method | None, status: dict[str, Any], expected: type
) -> None:
    assert isinstance(Drive(kind=kind, prefer=prefer).status(0, **status).asked, expected)


def test_uri_is_chosen_by_the_protocols_of_the_device() -> None:
    drive = Drive(uris=("coaps://s/a", "coap://s/b")).status(0, delivery=0, protocols=frozenset({0}))
    assert drive.asked == ev.WriteUri(2, "coap://s/b")


def test_no_common_way_is_final() -> None:
    drive = Drive().status(0, delivery=0, protocols=frozenset({2}))
    assert drive.ended() == ("failed", "protocol")
    assert drive.outcome is not None
    assert not drive.outcome.retryable


def test_device_without_object_5_is_final() -> None:
    assert Drive().answer(NOT_FOUND).ended() == ("failed", "no-firmware-object")


def test_success_needs_a_registration_with_the_new_version() -> None:
    drive = Drive().installing()
    assert drive.job.phase is Phase.INSTALLING
    assert isinstance(drive.feed(ev.Registered()).asked, ev.ReadStatus)
    assert drive.job.phase is Phase.CONFIRMING
    assert drive.status(0, 1, version=NEW).ended() == ("succeeded", "confirmed-version")


def test_target_version_with_result_0_is_a_success() -> None:
    assert Drive().installing().feed(ev.Registered()).status(0, 0, version="v1.1").ended()[0] == "succeeded"


def test_digest_counts_where_the_device_reports_one() -> None:
    image = bytes([7]) * 32
    good = (
        Drive(target_digest=image)
        .installing()
        .feed(ev.Registered())
        .status(0, 1, version=NEW, running_digest=image)
    )
    assert good.ended() == ("succeeded", "confirmed-digest")
    bad = Drive(target_digest=image).installing().feed(ev.Registered())
    assert bad.status(0, 1, version=NEW, running_digest=bytes(32)).ended() == ("failed", "digest-mismatch")


@pytest.mark.parametrize("result", [0, 1])
def test_old_version_after_the_installation_is_a_roll_back(result: int) -> None:
    assert Drive().installing().feed(ev.Registered()).status(0, result).ended() == ("failed", "rolled-back")


def test_third_version_after_the_installation_is_nobodys_offer() -> None:
    drive = Drive().installing().feed(ev.Registered()).status(0, 1, version="7.0.0")
    assert drive.ended() == ("failed", "wrong-version")


def test_result_1_before_the_reboot_is_no_evidence_yet() -> None:
    drive = Drive().installing().feed(ev.Notified(state=0, result=1)).status(0, 1)
    assert drive.outcome is None
    assert drive.feed(ev.Registered()).status(0, 1, version=NEW).ended()[0] == "succeeded"


def test_result_1_with_the_old_version_and_no_reboot_is_judged_after_a_while() -> None:
    drive = Drive().installing()
    while drive.outcome is None:
        drive.wake()
        if drive.job.ask is Ask.READ:
            drive.status(0, 1)
    assert drive.ended() == ("failed", "rolled-back")
    assert drive.now < 600


def test_without_version_and_digest_nothing_is_confirmed() -> None:
    drive = Drive().installing().feed(ev.Registered())
    while drive.outcome is None:
        if drive.job.ask is Ask.READ:
            drive.status(0, 1, version=None)
        else:
            drive.wake()
    assert drive.ended() == ("failed", "unconfirmed")


def test_package_version_stands_in_for_a_missing_version_with_result_1() -> None:
    drive = Drive().installing().feed(ev.Registered()).status(0, 1, version=None, package_version=NEW)
    assert drive.ended() == ("succeeded", "confirmed-version")


def test_notification_of_updating_before_the_answer_counts_as_accepted() -> None:
    drive = Drive().downloaded()
    assert isinstance(drive.asked, ev.Execute)
    drive.feed(ev.Notified(state=3))
    assert drive.job.phase is Phase.INSTALLING
    assert drive.idle
    drive.answer(CHANGED)
    assert drive.idle


def test_execute_without_answer_is_repeated_only_when_the_state_proves_that_it_was_lost() -> None:
    assert isinstance(Drive().downloaded().answer(None).wake().status(2).asked, ev.Execute)
    drive = Drive().downloaded().answer(None).wake().status(3)
    assert drive.idle
    assert drive.job.phase is Phase.INSTALLING


def test_accepted_execute_is_not_repeated_while_the_device_stays_in_downloaded() -> None:
    drive = Drive().installing()
    for _ in range(20):
        drive.wake()
        if drive.job.ask is Ask.READ:
            drive.status(2)
        assert not [action for action in drive.actions if isinstance(action, ev.Execute)]


def test_execute_is_repeated_after_a_restart_that_left_the_package() -> None:
    assert isinstance(Drive().installing().feed(ev.Registered()).status(2).asked, ev.Execute)


def test_execute_is_given_up_after_some_restarts() -> None:
    drive = Drive().installing()
    while drive.outcome is None:
        drive.feed(ev.Registered()).status(2)
        if drive.outcome is None:
            drive.answer(CHANGED)
    assert drive.ended() == ("failed", "update-failed")


def test_method_not_allowed_on_execute_is_checked_against_the_state() -> None:
    assert isinstance(Drive().downloaded().answer(NOT_ALLOWED).status(2).asked, ev.Execute)
    assert Drive().downloaded().answer(NOT_ALLOWED).status(3).job.phase is Phase.INSTALLING


def test_other_error_on_execute_ends_the_attempt() -> None:
    assert Drive().downloaded().answer(BAD_REQUEST).status(2).ended() == ("failed", "device-error")


@pytest.mark.parametrize("phase", ["pulling", "downloaded", "installing"])
@pytest.mark.parametrize(
    ("result", "ending", "reason"),
    [
        (2, "failed", "storage-full"), (3, "failed", "out-of-memory"), (4, "failed", "connection-lost"),
        (5, "failed", "integrity"), (6, "rejected", "unsupported"), (7, "failed", "invalid-uri"),
        (8, "failed", "update-failed"), (10, "cancelled", "cancelled-by-device"),
        (12, "failed", "conflicting-state"),
        (13, "failed", "dependency-missing"), (99, "failed", "unknown-result"),
    ],
)  # fmt: skip
def test_every_update_result_has_its_outcome(phase: str, result: int, ending: str, reason: str) -> None:
    drive: Drive = getattr(Drive(), phase)()
    drive.feed(ev.Notified(state=0, result=result))
    if drive.job.ask is Ask.EXECUTE:
        drive.answer(None).wake()
    assert drive.status(0, result).ended() == (ending, reason)


def test_unsupported_protocol_is_answered_by_a_push_where_that_is_possible() -> None:
    assert isinstance(Drive().status(0, **BOTH).answer(BAD_REQUEST).status(0, 9, **BOTH).asked, ev.Reset)
    drive = (
        Drive().status(0, **BOTH).answer(CHANGED).status(0, 9, **BOTH).answer(CHANGED).status(0, 0, **BOTH)
    )
    assert isinstance(drive.asked, ev.Push)
    assert Drive().status(0, **PULL).answer(CHANGED).status(0, 9, **PULL).ended() == ("failed", "protocol")


def test_refused_write_is_judged_by_the_result() -> None:
    assert Drive().status(0, **PULL).answer(BAD_REQUEST).status(0, 5, **PULL).ended() == (
        "failed",
        "integrity",
    )


def test_refused_write_without_a_result_goes_the_other_way() -> None:
    assert isinstance(Drive().status(0, **BOTH).answer(NOT_ALLOWED).status(0, **BOTH).asked, ev.Push)
    assert Drive().status(0, **PULL).answer(NOT_ALLOWED).status(0, **PULL).ended() == (
        "failed",
        "device-error",
    )


def test_write_refused_because_of_another_package_is_repeated_after_a_reset() -> None:
    drive = Drive().status(0).answer(BAD_REQUEST).status(2)
    assert isinstance(drive.asked, ev.Reset)
    assert isinstance(drive.answer(CHANGED).status(0).asked, ev.WriteUri)


@pytest.mark.parametrize("code", list(RefusalCode))
def test_refusal_of_a_manifest_says_why(code: RefusalCode) -> None:
    drive = Drive(kind=Kind.MANIFEST).status(0, **PUSH).pushed(CHANGED)
    drive.status(0, UPDATE_RESULT[code], refusal_code=code.value, refusal_text="because", **PUSH)
    assert drive.outcome is not None
    assert (drive.outcome.reason, drive.outcome.text) == (code.value, "because")
    transfer = {
        "digest-mismatch",
        "size-mismatch",
        "storage-full",
        "fetch-failed",
        "battery-low",
        "state-damaged",
        "component-failed",
        "conflicting-state",
        "dependency-missing",
    }
    assert drive.outcome.ending == ("failed" if code.value in transfer else "rejected")


def test_refusal_that_does_not_fit_the_result_is_an_old_one() -> None:
    drive = Drive(kind=Kind.MANIFEST).status(0, **PUSH).pushed(CHANGED)
    assert drive.status(0, 4, refusal_code="signature", **PUSH).ended() == ("failed", "connection-lost")


def test_refusal_code_of_a_newer_device_is_kept_and_final() -> None:
    drive = Drive(kind=Kind.MANIFEST).status(0, **PUSH).pushed(CHANGED)
    assert drive.status(0, 6, refusal_code="from-the-future", **PUSH).ended() == (
        "rejected",
        "from-the-future",
    )


# -- push --


def test_push_goes_on_at_the_next_block_after_silence() -> None:
    drive = Drive().status(0, **PUSH).progress(4096).pushed(None, 4096)
    assert drive.job.phase is Phase.DOWNLOADING
    assert drive.wake().status(1, **PUSH).asked == ev.Push(4, 4096)


def test_push_goes_on_after_a_new_registration_and_after_a_restart_of_the_server() -> None:
    drive = Drive().status(0, **PUSH).progress(4096)
    drive.feed(ev.Registered())
    assert isinstance(drive.actions[0], ev.StopPush)
    assert drive.status(1, **PUSH).asked == ev.Push(4, 4096)
    drive.job, drive.view = UpdateJob.from_json(drive.job.to_json()), DeviceView(registered=True)
    assert drive.feed(ev.Started()).status(1, **PUSH).asked == ev.Push(6, 4096)


def test_push_begins_again_when_the_device_forgot_it() -> None:
    assert Drive().status(0, **PUSH).progress(4096).pushed(None, 4096).wake().status(
        0, **PUSH
    ).asked == ev.Push(4, 0)


def test_lost_sequence_begins_at_block_0_a_bounded_number_of_times() -> None:
    drive = Drive().status(0, **PUSH).progress(4096)
    for _ in range(200):
        if drive.outcome is not None:
            break
        if drive.job.ask is Ask.PUSH:
            drive.progress(1024).pushed(INCOMPLETE, 1024)
        else:
            drive.status(0, **PUSH)
    assert drive.ended() == ("failed", "transfer-failed")


def test_too_large_body_is_offered_for_pull() -> None:
    drive = Drive(kind=Kind.MANIFEST).status(0, **BOTH).progress(8192).pushed(TOO_LARGE, 8192)
    assert isinstance(drive.status(1, **BOTH).asked, ev.Reset)
    assert isinstance(drive.answer(CHANGED).status(0, **BOTH).asked, ev.WriteUri)


def test_too_large_body_is_final_when_the_device_cannot_pull() -> None:
    drive = Drive().status(0, **PUSH).progress(8192).pushed(TOO_LARGE, 8192).status(0, **PUSH)
    assert drive.ended() == ("failed", "storage-full")


def test_lock_out_after_a_broken_push_is_met_with_the_next_block() -> None:
    """The device answers 5.03 to reads for 300 s, and takes only the exact next block."""
    drive = Drive().status(0, **PUSH).progress(4096).pushed(None, 4096)
    begin = drive.now
    while drive.now - begin < 300:
        drive.wake()
        if drive.job.ask is Ask.READ:
            drive.answer(BUSY)
        if drive.job.ask is Ask.PUSH:
            assert drive.asked == ev.Push(drive.job.ask_number, 4096)
            drive.pushed(BUSY, 4096)
        assert drive.outcome is None
    drive.wake()
    drive.answer(BUSY)
    assert drive.progress(8192).pushed(CHANGED).status(2, **PUSH).job.phase is Phase.DOWNLOADED


def test_busy_device_is_asked_later_and_longest_for_the_time_of_the_phase() -> None:
    drive = Drive().status(0)
    while drive.outcome is None:
        if drive.job.ask is Ask.URI:
            drive.answer(BUSY, max_age=120.0)
        elif drive.job.ask is Ask.READ:
            drive.status(0)
        else:
            drive.wake()
    assert drive.ended() == ("failed", "busy")
    assert drive.now >= drive.job.timers.offered


def test_final_acknowledgement_that_was_lost_does_no_harm() -> None:
    drive = Drive().status(0, **PUSH).progress(9216).pushed(None, 9216).wake().status(2, **PUSH)
    assert isinstance(drive.asked, ev.Execute)
    drive = Drive().status(0, **PUSH).progress(9216).pushed(BAD_REQUEST, 9216).status(2, **PUSH)
    assert isinstance(drive.asked, ev.Execute)


def test_nothing_else_is_asked_during_a_push() -> None:
    drive = Drive().status(0, **PUSH)
    for event in (
        ev.Notified(state=1),
        ev.Tick(),
        ev.PushProgress(drive.job.ask_number, 1024),
        ev.Notified(result=0),
    ):
        assert drive.feed(event).actions == ()


# -- pull --


def test_download_progress_keeps_a_slow_pull_alive() -> None:
    drive = Drive().pulling()
    for offset in range(0, SIZE, 100):
        drive.feed(ev.DownloadProgress(offset + 1), after=600.0)
        if drive.job.ask is Ask.READ:
            drive.status(1)
        assert drive.outcome is None
    assert drive.job.offset > SIZE - 200


def test_bytes_that_were_fetched_before_are_no_progress() -> None:
    drive = Drive().pulling()
    drive.feed(ev.DownloadProgress(5000))
    while drive.outcome is None:
        drive.feed(ev.DownloadProgress(100), after=50.0)
        if drive.job.ask is Ask.READ and drive.outcome is None:
            drive.status(1)
    assert drive.ended() == ("failed", "stalled")


def test_device_that_forgot_the_uri_gets_it_again() -> None:
    assert isinstance(Drive().pulling().feed(ev.Registered()).status(0).asked, ev.WriteUri)


def test_device_that_resumes_by_itself_is_left_alone() -> None:
    assert Drive().pulling().feed(ev.Registered()).status(1).idle


def test_offers_that_are_never_followed_are_bounded() -> None:
    drive = Drive().pulling()
    while drive.outcome is None:
        drive.feed(ev.Registered()).status(0)
        if drive.outcome is None:
            drive.answer(CHANGED)
    assert drive.ended() == ("failed", "stalled")


def test_jump_to_updating_is_followed() -> None:
    assert Drive().pulling().status(3).job.phase is Phase.INSTALLING


@pytest.mark.parametrize("phase", ["", "pulling", "downloaded", "installing"])
def test_silent_device_ends_the_job_in_every_phase(phase: str) -> None:
    drive = Drive()
    if phase:
        getattr(drive, phase)()
    while drive.outcome is None:
        drive.wake()
    assert drive.ended() == ("failed", "silent")
    assert drive.outcome.retryable


@pytest.mark.parametrize("phase", ["pulling", "downloaded", "installing"])
def test_device_that_is_gone_ends_the_job_as_silent(phase: str) -> None:
    drive: Drive = getattr(Drive(), phase)().feed(ev.Gone())
    while drive.outcome is None:
        assert drive.wake().actions == ()
    assert drive.ended() == ("failed", "silent")


def test_new_version_counts_at_the_deadline_though_the_device_never_left_updating() -> None:
    drive = Drive().installing().feed(ev.Registered())
    while drive.outcome is None:
        if drive.job.ask is Ask.READ:
            drive.status(3, version=NEW)
        else:
            drive.wake()
    assert drive.ended() == ("succeeded", "confirmed-version")


def test_device_that_restarts_for_ever_does_not_hold_its_job() -> None:
    drive = Drive().pulling()
    while drive.outcome is None:
        drive.feed(ev.Registered(), after=500.0)
        if drive.outcome is None and drive.job.ask is Ask.READ:
            drive.status(1)
    assert drive.ended()[0] == "failed"


def test_restart_of_the_server_gives_the_phase_its_time_again() -> None:
    drive = Drive().pulling().feed(ev.Gone())
    drive.view = DeviceView(registered=True)
    assert isinstance(drive.feed(ev.Started(), after=5000.0).asked, ev.ReadStatus)


# -- cancel --


def test_cancel_before_delivery_ends_at_once() -> None:
    assert Drive().feed(ev.CancelRequested()).ended() == ("cancelled", "aborted")


def test_cancel_during_a_push_stops_it_and_resets_the_device() -> None:
    drive = Drive().status(0, **PUSH).progress(4096).feed(ev.CancelRequested())
    assert isinstance(drive.actions[0], ev.StopPush)
    assert isinstance(drive.status(1, **PUSH).asked, ev.Reset)
    assert drive.answer(CHANGED).status(0, **PUSH).ended() == ("cancelled", "aborted")


def test_cancel_of_a_pull_resets_the_device() -> None:
    drive = Drive().pulling().status(1).feed(ev.CancelRequested()).wake()
    assert isinstance(drive.status(1).asked, ev.Reset)
    assert drive.answer(CHANGED).status(0).ended()[0] == "cancelled"


def test_cancel_of_an_unreachable_device_ends_at_once() -> None:
    assert Drive().pulling().feed(ev.Gone()).feed(ev.CancelRequested()).ended()[0] == "cancelled"


def test_cancel_ends_in_bounded_time_whatever_the_device_answers() -> None:
    drive = Drive().pulling().feed(ev.CancelRequested())
    while drive.outcome is None:
        drive.wake() if drive.job.ask is None else drive.answer(BUSY)
    assert drive.ended()[0] == "cancelled"
    assert drive.now <= drive.job.timers.answer


def test_cancel_after_the_execute_waits_for_the_outcome() -> None:
    drive = Drive().installing().feed(ev.CancelRequested())
    assert drive.outcome is None
    assert drive.feed(ev.Registered()).status(0, 1, version=NEW).ended()[0] == "succeeded"
