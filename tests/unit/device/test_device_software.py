"""One application over its flash: what each stage keeps, what a restart finds, and what damage does."""

import pytest

from lwm2m_device.layout import Layout
from lwm2m_device.software_machine import Result, Stage, State, Trigger
from lwm2m_server.firmware.images import VERSION_LINE
from lwm2m_server.firmware.refusals import Refusal
from powercuts import NEW, envelope_for
from powercuts.software import SoftwareBench

PACKAGE = NEW[:700]


@pytest.fixture
def bench(memory_file):
    made = SoftwareBench(memory_file)
    made.start()
    yield made
    made.close()


def arrive(application, stage):
    """Bring an application, which has 1.0.0 running, to a stage by the shortest way."""
    if stage is Stage.ACTIVE:
        return
    if stage is Stage.STARTING:
        application.request(Trigger.DEACTIVATE)
        application.request(Trigger.ACTIVATE)
        return
    if stage in (Stage.INACTIVE, Stage.UNINSTALLING):
        application.request(Trigger.DEACTIVATE if stage is Stage.INACTIVE else Trigger.UNINSTALL)
        return
    application.request(Trigger.FOR_UPDATE)
    if stage is Stage.CLEARING:
        application.request(Trigger.UNINSTALL)
    if stage in (Stage.INITIAL, Stage.CLEARING):
        return
    application.request(Trigger.PACKAGE)
    application.accept_envelope(envelope_for(PACKAGE))
    if stage is Stage.DOWNLOADING:
        return
    application.expect(b"tag")
    application.store(PACKAGE)
    application.finish()
    if stage is Stage.INSTALLING:
        application.request(Trigger.INSTALL)


@pytest.mark.parametrize("stage", set(Stage) - {Stage.DOWNLOADED})
def test_each_stage_outlives_a_restart_with_what_is_in_place(bench, stage):
    application = bench.start()
    arrive(application, stage)
    assert application.state.stage is stage
    again = bench.start()
    assert again.state == application.state
    assert again.software is not None
    assert again.software.version == "1.0.0"


def test_an_update_for_which_room_was_made_leaves_the_old_version_in_place_until_the_new_one_is_installed(
    bench,
):
    application = bench.start()
    arrive(application, Stage.DELIVERED)
    assert (application.name, application.version) == ("meter", "2.0.0")
    assert application.software.version == "1.0.0"
    application.request(Trigger.UNINSTALL)
    assert (application.version, application.state.stage) == ("1.0.0", Stage.INITIAL)
    arrive(application, Stage.INSTALLING)
    application.installed()
    assert (application.version, application.software.version) == ("2.0.0", "2.0.0")
    assert (application.state.floor, application.state.stage.state) == (2, State.INSTALLED)


def test_removed_software_leaves_nothing_but_the_sequence_number(bench):
    application = bench.start()
    arrive(application, Stage.INSTALLING)
    application.installed()
    application.request(Trigger.UNINSTALL)
    application.removed()
    assert (application.version, application.software) == ("", None)
    assert (application.state.stage, application.state.floor) == (Stage.INITIAL, 2)
    assert application.name == "meter"  # the place is for it


@pytest.mark.parametrize(
    ("stage", "fail", "back", "result"),
    [
        (Stage.INSTALLING, "install_failed", Stage.DELIVERED, Result.INSTALL_FAILED),
        (Stage.UNINSTALLING, "remove_failed", Stage.INACTIVE, Result.UNINSTALL_FAILED),
        (Stage.CLEARING, "remove_failed", Stage.INITIAL, Result.UNINSTALL_FAILED),
        (Stage.STARTING, "start_failed", Stage.INACTIVE, Result.DEVICE_DEFINED),
        (Stage.ACTIVE, "start_failed", Stage.INACTIVE, Result.DEVICE_DEFINED),
    ],
)
def test_what_a_hook_could_not_do_leaves_things_as_they_were(bench, stage, fail, back, result):
    application = bench.start()
    arrive(application, stage)
    getattr(application, fail)("the disk is on fire")
    assert (application.state.stage, application.state.result) == (back, result)
    assert application.state.text == "the disk is on fire"
    assert application.software.version == "1.0.0"


def test_a_refusal_falls_back_to_initial_and_says_why(bench):
    application = bench.start()
    arrive(application, Stage.DOWNLOADING)
    with pytest.raises(Refusal) as caught:
        application.store(PACKAGE + b"more")
    application.refused(caught.value)
    state = application.state
    assert (state.stage, state.result, state.code) == (Stage.INITIAL, Result.INTEGRITY, "size-mismatch")
    assert application.software.version == "1.0.0"


def test_a_package_with_another_digest_is_refused(bench):
    application = bench.start()
    arrive(application, Stage.DOWNLOADING)
    application.expect(b"tag")
    application.store(PACKAGE[::-1])
    with pytest.raises(Refusal) as caught:
        application.finish()
    application.refused(caught.value)
    assert (application.state.stage, application.state.code) == (Stage.INITIAL, "digest-mismatch")


def test_a_package_that_rots_after_its_delivery_is_not_installed(bench):
    application = bench.start()
    arrive(application, Stage.DELIVERED)
    place = bench.layout.slot(1).image.start
    bench.flash.rot(1, 3, start=place, length=len(PACKAGE))
    again = bench.start()
    assert (again.state.stage, again.state.result) == (Stage.INITIAL, Result.INTEGRITY)
    assert again.software.version == "1.0.0"


def test_software_that_rots_is_given_up_and_its_place_is_free(bench):
    application = bench.start()
    slot = bench.layout.slot(application.state.place)
    bench.flash.rot(1, 3, start=slot.image.start, length=application.software.size)
    again = bench.start()
    assert (again.state.stage, again.state.result) == (Stage.INITIAL, Result.INTEGRITY)
    assert (again.software, again.version) == (None, "")
    arrive(again, Stage.INSTALLING)
    again.installed()
    assert bench.start().version == "2.0.0"


def test_a_record_that_rots_in_both_copies_counts_as_not_installed_and_keeps_the_sequence_number(bench):
    application = bench.start()
    arrive(application, Stage.INSTALLING)
    application.installed()
    region = bench.layout.update
    half = region.length // 2
    for start in (region.start, region.start + half):
        bench.flash.rot(start, 20, start=start, length=64)
    again = bench.start()
    assert (again.state.stage, again.state.result) == (Stage.INITIAL, Result.DEVICE_DEFINED)
    assert (again.state.code, again.state.floor) == ("state-damaged", 2)


def test_a_new_place_without_software_is_empty(memory_file):
    bench = SoftwareBench(memory_file, version=None)
    application = bench.start()
    assert (application.name, application.version, application.state.stage) == ("meter", "", Stage.INITIAL)
    contents = bench.contents()
    bench.start()
    assert bench.contents() == contents  # what the factory did is done once
    bench.close()


def test_plain_files_name_their_version_and_must_be_newer(memory_file):
    bench = SoftwareBench(memory_file, layout=Layout(page_size=256, slot_size=768), plain=True)
    for version, code in (("2.0.0", None), ("1.5.0", "version-rollback")):
        application = bench.start()
        application.request(Trigger.FOR_UPDATE)
        application.request(Trigger.PACKAGE)
        application.store(VERSION_LINE + version.encode() + b"\ncontent")
        if code is None:
            application.finish()
            application.request(Trigger.INSTALL)
            application.installed()
        else:
            with pytest.raises(Refusal) as caught:
                application.finish()
            assert caught.value.code == code
            application.refused(caught.value)
        assert application.software.version == "2.0.0"
    bench.close()


def test_a_pull_that_was_only_begun_is_begun_again_and_a_push_is_lost_with_the_power(bench):
    application = bench.start()
    application.request(Trigger.FOR_UPDATE)
    application.request(Trigger.URI, source="coap://server/fw/x")
    assert bench.start().state.stage is Stage.DOWNLOADING
    bench.start().request(Trigger.UNINSTALL)
    bench.start().request(Trigger.PACKAGE)
    again = bench.start()
    assert (again.state.stage, again.state.result) == (Stage.INITIAL, Result.CONNECTION_LOST)


def test_a_changed_entity_tag_starts_over(bench):
    application = bench.start()
    arrive(application, Stage.DOWNLOADING)
    application.expect(b"one")
    application.store(PACKAGE[:512])
    again = bench.start()
    assert again.offset == 512
    again.expect(b"one")
    assert again.offset == 512
    again.expect(b"two")
    assert again.offset == 0


def test_the_wish_to_be_told_of_objects_outlives_updates(bench):
    bench.start().set_tells_objects(value=True)
    application = bench.start()
    arrive(application, Stage.INSTALLING)
    application.installed()
    assert bench.start().state.tells_objects


def test_the_sequence_number_never_goes_down(bench):
    for sequence in (7, 3):
        application = bench.start()
        application.request(Trigger.FOR_UPDATE)
        application.request(Trigger.PACKAGE)
        application.accept_envelope(envelope_for(PACKAGE, sequence=sequence))
        application.expect(b"%d" % sequence)
        application.store(PACKAGE)
        application.finish()
        application.request(Trigger.INSTALL)
        application.installed()
        assert application.state.floor == 7


def test_a_package_that_rots_while_the_hook_works_does_not_take_over(bench):
    application = bench.start()
    arrive(application, Stage.INSTALLING)
    bench.flash.rot(1, 3, start=bench.layout.slot(1).image.start, length=len(PACKAGE))
    application.installed()
    assert (application.state.stage, application.state.result) == (Stage.INITIAL, Result.INTEGRITY)
    assert application.software.version == "1.0.0"
