"""Our own definitions: they load, and they say what the registry's files say (where those are at hand)."""

from pathlib import Path as FilePath

import pytest

from lwm2m_server.lwm2m import SUIT_AGENT, Range, ResourceType, load_file

REGISTRY_FILES = FilePath(__file__).resolve().parents[4] / "shared" / "oma-objects"
NOT_OBJECTS = {"DDF.xml", "Common.xml", "LWM2M_senml_units.xml"}

needs_registry = pytest.mark.skipif(
    not REGISTRY_FILES.is_dir(), reason="the OMA registry's files (../shared/oma-objects) are not here"
)


@pytest.mark.parametrize(
    ("number", "versions"),
    [
        (0, ["1.0", "1.1", "1.2"]),
        (1, ["1.0", "1.1", "1.2"]),
        (2, ["1.0", "1.1"]),
        (3, ["1.0", "1.1", "1.2"]),
        (4, ["1.0", "1.1", "1.2", "1.3"]),
        (5, ["1.0", "1.1", "1.2"]),
        (6, ["1.0"]),
        (7, ["1.0"]),
        (9, ["1.0"]),
        (3303, ["1.0", "1.1"]),
        (33629, ["1.0"]),
        (42800, ["1.0"]),
    ],
)
def test_the_core_objects_are_defined(registry, number, versions):
    assert [each.version for each in registry.definitions() if each.id == number] == versions


def test_every_definition_describes_itself(registry):
    for definition in registry.definitions():
        assert definition.description, definition.id
        for resource in definition.resources.values():
            assert resource.description, (definition.id, resource.id)
            assert (resource.type is ResourceType.NONE) == (resource.operations == "E"), (
                definition.id,
                resource.id,
            )


def test_file_names_tell_object_and_version(objects_folder):
    for file in objects_folder.glob("*.xml"):
        (definition,) = load_file(file)
        assert file.name == f"{definition.id}-{definition.version}.xml"


def test_the_advanced_firmware_object_has_its_resources(registry):
    resources = registry.get(33629).resources
    assert sorted(resources) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
    assert resources[5].limits == Range(0, 13)
    assert resources[16].type is ResourceType.OBJLNK
    assert resources[16].multiple
    assert registry.get(33629).multiple


def test_the_manifest_agent_is_single_and_read_only(registry):
    definition = registry.get(SUIT_AGENT)
    assert not definition.multiple
    assert [(each.id, each.type.value) for each in definition.resources.values()] == [
        (0, "Opaque"),
        (1, "Opaque"),
        (2, "Unsigned Integer"),
        (3, "Opaque"),
        (4, "String"),
        (5, "String"),
        (6, "Time"),
        (7, "Opaque"),
        (8, "Unsigned Integer"),
    ]
    assert [each.id for each in definition.resources.values() if each.multiple] == [7, 8]
    assert all(
        each.operations == "R" and each.mandatory == (each.id < 6) for each in definition.resources.values()
    )


@needs_registry
def test_every_object_of_the_registry_loads():
    files = [file for file in REGISTRY_FILES.rglob("*.xml") if file.name not in NOT_OBJECTS]
    assert len(files) > 700
    for file in files:
        for definition in load_file(file):
            assert definition.resources or definition.name


@needs_registry
def test_our_facts_are_the_registrys(objects_folder):
    compared = 0
    for file in objects_folder.glob("*.xml"):
        (ours,) = load_file(file)
        theirs_file = REGISTRY_FILES / "version_history" / f"{ours.id}-{ours.version.replace('.', '_')}.xml"
        if ours.id in {33629, 42800}:  # not in the set
            continue
        (theirs,) = load_file(theirs_file)
        assert (ours.id, ours.version, ours.urn) == (theirs.id, theirs.version, theirs.urn)
        assert (ours.multiple, ours.mandatory) == (theirs.multiple, theirs.mandatory)
        assert ours.resources.keys() == theirs.resources.keys()
        for number, mine in ours.resources.items():
            other = theirs.resources[number]
            assert mine.name == other.name
            assert (mine.operations, mine.type, mine.multiple, mine.mandatory) == (
                other.operations,
                other.type,
                other.multiple,
                other.mandatory,
            )
            if other.limits is not None:
                assert mine.limits == other.limits, (ours.id, number)
            assert mine.description != other.description
        compared += 1
    assert compared == 23
