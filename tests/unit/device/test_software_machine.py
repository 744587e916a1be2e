"""Every (stage, trigger) of object 9 Software Management: what is legal, with which result and code."""

import pytest

from lwm2m_device.software_machine import REQUESTS, Result, Stage, State, Trigger, step

OK, BAD = 68, 128
CAUSE = None

# Row: what is legal at a stage, written down anew from the object's definition and its test specification.
INSTALLED = {
    Trigger.ACTIVATE: (Stage.STARTING, Result.INSTALLED, OK),
    Trigger.DEACTIVATE: (Stage.INACTIVE, Result.INSTALLED, OK),
    Trigger.UNINSTALL: (Stage.UNINSTALLING, Result.INSTALLED, OK),
    Trigger.FOR_UPDATE: (Stage.INITIAL, Result.INITIAL, OK),
    Trigger.FAILED: (Stage.INITIAL, CAUSE, OK),
}
DROPPED = {
    Trigger.UNINSTALL: (Stage.INITIAL, Result.INITIAL, OK),
    Trigger.FOR_UPDATE: (Stage.INITIAL, Result.INITIAL, OK),
    Trigger.FAILED: (Stage.INITIAL, CAUSE, OK),
}
LEGAL = {
    Stage.INITIAL: {
        Trigger.PACKAGE: (Stage.DOWNLOADING, Result.DOWNLOADING, OK),
        Trigger.URI: (Stage.DOWNLOADING, Result.DOWNLOADING, OK),
        Trigger.URI_INVALID: (Stage.INITIAL, Result.INVALID_URI, BAD),
        Trigger.UNINSTALL: (Stage.CLEARING, Result.INITIAL, OK),
        Trigger.FOR_UPDATE: (Stage.INITIAL, Result.INITIAL, OK),
    },
    Stage.DOWNLOADING: DROPPED | {Trigger.RECEIVED: (Stage.DOWNLOADED, Result.DOWNLOADING, OK)},
    Stage.DOWNLOADED: DROPPED | {Trigger.VERIFIED: (Stage.DELIVERED, Result.VERIFIED, OK)},
    Stage.DELIVERED: DROPPED | {Trigger.INSTALL: (Stage.INSTALLING, Result.VERIFIED, OK)},
    Stage.INSTALLING: {
        Trigger.INSTALLED: (Stage.INACTIVE, Result.INSTALLED, OK),
        Trigger.INSTALL_FAILED: (Stage.DELIVERED, Result.INSTALL_FAILED, OK),
        Trigger.FAILED: (Stage.INITIAL, CAUSE, OK),
    },
    Stage.INACTIVE: INSTALLED,
    Stage.STARTING: INSTALLED
    | {
        Trigger.STARTED: (Stage.ACTIVE, Result.INSTALLED, OK),
        Trigger.START_FAILED: (Stage.INACTIVE, Result.DEVICE_DEFINED, OK),
    },
    Stage.ACTIVE: INSTALLED
    | {
        Trigger.ACTIVATE: (Stage.ACTIVE, Result.INSTALLED, OK),
        Trigger.START_FAILED: (Stage.INACTIVE, Result.DEVICE_DEFINED, OK),
    },
    Stage.UNINSTALLING: {
        Trigger.REMOVED: (Stage.INITIAL, Result.INITIAL, OK),
        Trigger.REMOVE_FAILED: (Stage.INACTIVE, Result.UNINSTALL_FAILED, OK),
    },
    Stage.CLEARING: {
        Trigger.REMOVED: (Stage.INITIAL, Result.INITIAL, OK),
        Trigger.REMOVE_FAILED: (Stage.INITIAL, Result.UNINSTALL_FAILED, OK),
    },
}


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_stage_and_trigger_does_what_the_definition_says(stage, trigger):
    found = step(stage, trigger)
    legal = LEGAL[stage].get(trigger)
    if legal is None:
        assert found is None
    else:
        assert found is not None
        assert (found.stage, found.result, found.code) == legal


def test_install_is_possible_in_delivered_only_and_activation_in_installed_only():
    for stage in Stage:
        if step(stage, Trigger.INSTALL) is not None:
            assert stage.state is State.DELIVERED
        for trigger in (Trigger.ACTIVATE, Trigger.DEACTIVATE):
            assert step(stage, trigger) is None or stage.state is State.INSTALLED


def test_only_what_runs_shows_as_active():
    for stage in Stage:
        for trigger in REQUESTS:
            found = step(stage, trigger)
            if found is not None and found.stage is Stage.ACTIVE:
                assert stage is Stage.ACTIVE


def test_whatever_is_not_under_way_can_be_started_over_by_uninstall():
    under_way = {Stage.INSTALLING, Stage.UNINSTALLING, Stage.CLEARING}
    for stage in set(Stage) - under_way:
        found = step(stage, Trigger.FOR_UPDATE)
        assert found is not None
        assert (found.stage, found.result) == (Stage.INITIAL, Result.INITIAL)


def test_a_success_of_object_9_is_reached_by_an_event_of_the_device_alone():
    for stage in Stage:
        for trigger in REQUESTS:
            found = step(stage, trigger)
            if found is not None and found.result is Result.INSTALLED:
                assert stage.state is State.INSTALLED
