"""Every (state, trigger) of object 5 Firmware Update: what is legal, with which result and code."""

import pytest

from lwm2m_device.machine import REQUESTS, Result, State, Trigger, refusal, step

IDLE, DOWNLOADING, DOWNLOADED, UPDATING = State
OK, BAD, NOT_NOW = 68, 128, 133
CAUSE = None

# Row: what is legal from a state, written down anew from the object's definition.
LEGAL = {
    IDLE: {
        Trigger.PACKAGE: (DOWNLOADING, Result.INITIAL, OK),
        Trigger.PACKAGE_NUL: (IDLE, Result.INITIAL, OK),
        Trigger.URI: (DOWNLOADING, Result.INITIAL, OK),
        Trigger.URI_EMPTY: (IDLE, Result.INITIAL, OK),
        Trigger.URI_INVALID: (IDLE, Result.INVALID_URI, BAD),
        Trigger.URI_SCHEME: (IDLE, Result.UNSUPPORTED_PROTOCOL, BAD),
    },
    DOWNLOADING: {
        Trigger.PACKAGE_NUL: (IDLE, Result.INITIAL, OK),
        Trigger.URI_EMPTY: (IDLE, Result.INITIAL, OK),
        Trigger.CANCEL: (IDLE, Result.CANCELLED, OK),
        Trigger.RECEIVED: (DOWNLOADED, Result.INITIAL, OK),
        Trigger.DOWNLOAD_FAILED: (IDLE, CAUSE, OK),
        Trigger.DEFERRED: (DOWNLOADING, Result.DEFERRED, OK),
        Trigger.AGREED: (DOWNLOADING, Result.INITIAL, OK),
    },
    DOWNLOADED: {
        Trigger.PACKAGE_NUL: (IDLE, Result.INITIAL, OK),
        Trigger.URI_EMPTY: (IDLE, Result.INITIAL, OK),
        Trigger.CANCEL: (IDLE, Result.CANCELLED, OK),
        Trigger.UPDATE: (UPDATING, Result.INITIAL, OK),
        Trigger.DOWNLOAD_FAILED: (IDLE, CAUSE, OK),
        Trigger.DEFERRED: (DOWNLOADED, Result.DEFERRED, OK),
    },
    UPDATING: {
        Trigger.BOOTED: (IDLE, Result.UPDATED, OK),
        Trigger.INSTALL_FAILED: (IDLE, CAUSE, OK),
    },
}

# What a request that is not legal is answered.
REFUSED = {
    IDLE: {Trigger.UPDATE: NOT_NOW, Trigger.CANCEL: NOT_NOW},
    DOWNLOADING: {
        Trigger.PACKAGE: BAD,
        Trigger.URI: BAD,
        Trigger.URI_INVALID: BAD,
        Trigger.URI_SCHEME: BAD,
        Trigger.UPDATE: NOT_NOW,
    },
    DOWNLOADED: {
        Trigger.PACKAGE: BAD,
        Trigger.URI: BAD,
        Trigger.URI_INVALID: BAD,
        Trigger.URI_SCHEME: BAD,
    },
    UPDATING: dict.fromkeys(REQUESTS, NOT_NOW),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_state_and_trigger_does_what_the_definition_says(state, trigger):
    found = step(state, trigger)
    legal = LEGAL[state].get(trigger)
    if legal is None:
        assert found is None
        if trigger in REQUESTS:
            assert refusal(state, trigger) == REFUSED[state][trigger]
    else:
        assert (found.state, found.result, found.code) == legal


def test_every_request_is_either_legal_or_refused_in_every_state():
    for state in State:
        assert set(LEGAL[state]) & REQUESTS | set(REFUSED[state]) == REQUESTS


# The same through the updater, with flash below it.


def arrive(updater, state, bench, images, make_envelope):
    """Bring an updater into a state by the shortest legal way."""
    if state is IDLE:
        return
    updater.request(Trigger.PACKAGE)
    updater.accept_envelope(make_envelope(images[1]))
    if state is DOWNLOADING:
        return
    updater.expect(b"tag")
    updater.store(images[1])
    updater.finish()
    if state is UPDATING:
        updater.request(Trigger.UPDATE)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", sorted(REQUESTS, key=lambda each: each.name))
def test_the_updater_follows_the_table_and_keeps_it_over_a_restart(
    bench, images, make_envelope, state, trigger
):
    updater = bench.start()
    arrive(updater, state, bench, images, make_envelope)
    assert updater.state.state is state
    before = updater.state
    code = updater.request(trigger, uri="/fw/x", source="coap://server/fw/x")
    legal = LEGAL[state].get(trigger)
    if legal is None:
        assert code == REFUSED[state][trigger]
        assert updater.state == before
    else:
        assert (updater.state.state, updater.state.result, code) == legal
    if updater.state.state is not UPDATING:
        again = bench.start()
        assert (again.state.state, again.state.result) == (updater.state.state, updater.state.result)


@pytest.mark.parametrize("trigger", [Trigger.PACKAGE_NUL, Trigger.URI_EMPTY, Trigger.CANCEL])
def test_a_reset_of_a_downloaded_image_drops_it(bench, images, make_envelope, trigger):
    updater = bench.start()
    arrive(updater, DOWNLOADED, bench, images, make_envelope)
    assert updater.slot.is_intact()
    updater.request(trigger)
    assert updater.slot.header() is None


def test_a_reset_in_idle_leaves_the_previous_image_alone(bench, images, make_envelope):
    updater = bench.start()
    arrive(updater, UPDATING, bench, images, make_envelope)
    updater.install()
    loader, boot = bench.boot()
    updated = bench.updater(loader, boot)
    updated.reconcile()
    updated.confirm()
    assert updated.slot.header().version == "1.0.0"
    updated.request(Trigger.URI_EMPTY)
    assert updated.slot.is_intact()


def test_severity_and_defer_period_outlive_updates_and_restarts(bench, images, make_envelope):
    updater = bench.start()
    updater.configure(severity=0, defer=600)
    arrive(updater, DOWNLOADED, bench, images, make_envelope)
    updater.request(Trigger.CANCEL)
    again = bench.start()
    assert (again.state.severity, again.state.defer) == (0, 600)


def test_the_time_of_the_last_change_is_that_of_the_state_not_of_the_result(bench):
    updater = bench.start()
    bench.clock.advance(50)
    updater.request(Trigger.PACKAGE)
    changed = updater.state.changed
    assert changed == bench.clock.now()
    bench.clock.advance(50)
    updater.fail(Result.CONNECTION_LOST, "fetch-failed", "gone")
    assert updater.state.changed == changed + 50


def test_a_manifest_still_on_its_way_at_power_loss_ends_with_connection_lost(bench):
    bench.start().request(Trigger.PACKAGE)
    again = bench.start()
    assert (again.state.state, again.state.result) == (IDLE, Result.CONNECTION_LOST)
    assert again.state.code == "fetch-failed"


@pytest.mark.protection("device", "changed-etag")
def test_a_changed_entity_tag_starts_the_image_over(bench, images, make_envelope):
    updater = bench.start()
    arrive(updater, DOWNLOADING, bench, images, make_envelope)
    updater.expect(b"one")
    updater.store(images[1][:1024])
    again = bench.start()
    assert again.offset == 1024
    again.expect(b"one")
    assert again.offset == 1024
    again.expect(b"two")
    assert again.offset == 0


def test_a_plain_image_that_names_no_version_or_an_old_one_is_refused(plain_bench):
    from lwm2m_server.firmware.refusals import Refusal

    for image, code in ((b"\x00" * 100, "unsupported"), (b"firmware-version: 1.0.0\n", "version-rollback")):
        updater = plain_bench.start()
        updater.request(Trigger.PACKAGE)
        updater.store(image)
        with pytest.raises(Refusal) as caught:
            updater.finish()
        assert caught.value.code == code
        updater.refused(caught.value)
        assert updater.state.state is IDLE
