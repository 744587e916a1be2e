import dataclasses

import pytest

from lwm2m_server.lwm2m import ObjectDefinition, ObjectRegistry, Path, Range, ResourceType, parse_object_list
from lwm2m_server.lwm2m.model import ResourceDefinition, frozen_resources, parse_range


def _object(number, version, *resources):
    return ObjectDefinition(number, version, f"Object {number}", "", False, True, frozen_resources(resources))


def _resource(number, kind=ResourceType.INTEGER, limits=""):
    return ResourceDefinition(number, f"R{number}", "RW", False, False, kind, limits)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("0..7", Range(0, 7)),
        ("0-7", Range(0, 7)),
        (" 0 .. 7 ", Range(0, 7)),
        ("1...25", Range(1, 25)),
        ("-140..-44", Range(-140, -44)),
        ("-1..1", Range(-1, 1)),
        ("0.0..1.0", Range(0, 1)),
        ("0..255 bytes", Range(0, 255)),
        ("1..64 Bytes", Range(1, 64)),
        ("16 bytes", Range(16, 16)),
        ("0..18446744073709551615", Range(0, 2**64)),
        ("", None),
        ("16,32,48", None),
        ("16-32-48 bytes", None),
        ("0..3, 99", None),
        ("255", None),
        ("8-Bits", None),
        ("7..0", None),
        ("0: RELEASED", None),
        ("9" * 100 + "..9", None),
    ],
)
def test_a_range_is_read_where_it_is_one(text, limits):
    assert parse_range(text) == limits


def test_a_width_in_bytes_does_not_bound_a_number():
    assert _resource(0, ResourceType.INTEGER, "2 bytes").limits is None
    assert _resource(0, ResourceType.OPAQUE, "2 bytes").limits == Range(2, 2)


def test_the_registry_finds_the_nearest_version():
    registry = ObjectRegistry([_object(5, version) for version in ("1.0", "1.2", "2.1")])
    assert registry.get(5, "1.2").version == "1.2"
    assert registry.get(5, "1.1").version == "1.0"
    assert registry.get(5, "1.10").version == "1.2"
    assert registry.get(5, "2.0").version == "2.1"
    assert registry.get(5, "3.0").version == "2.1"
    assert registry.get(5, "0.9").version == "1.0"
    assert registry.get(5).version == "2.1"
    assert registry.definition(5).version == "2.1"
    assert registry.get(6) is None
    assert registry.definition(6) is None


def test_ten_is_a_higher_version_than_nine():
    registry = ObjectRegistry([_object(5, "1.10"), _object(5, "1.9")])
    assert registry.get(5).version == "1.10"


def test_definitions_laid_over_replace_the_same_version_only():
    registry = ObjectRegistry([_object(5, "1.0"), _object(5, "1.1")])
    other = dataclasses.replace(_object(5, "1.1"), name="Ours")
    overlaid = registry.overlaid([other, _object(6, "1.0")])
    assert [(each.id, each.version, each.name) for each in overlaid.definitions()] == [
        (5, "1.0", "Object 5"),
        (5, "1.1", "Ours"),
        (6, "1.0", "Object 6"),
    ]
    assert registry.get(5, "1.1").name == "Object 5"


def test_a_device_counts_with_the_version_that_it_registered(registry):
    named = registry.for_device(parse_object_list(b"</5>;ver=1.1,</5/0>"), "1.0")
    assert named.definition(5).version == "1.1"
    assert named.resource(Path.of(5, 0, 5)).range == "0..11"


@pytest.mark.parametrize(("lwm2m", "version"), [("1.0", "1.0"), ("1.1", "1.0"), ("1.2", "1.1")])
def test_a_device_that_names_no_version_counts_with_its_default(registry, lwm2m, version):
    model = registry.for_device(parse_object_list(b"</5/0>"), lwm2m)
    assert model.definition(5).version == version


def test_a_resource_of_a_newer_version_is_known_all_the_same(registry):
    model = registry.for_device(parse_object_list(b"</5/0>"), "1.0")
    assert 10 not in model.definition(5).resources
    assert model.resource(Path.of(5, 0, 10)).name == "Cancel"


def test_only_resources_and_their_instances_have_definitions(registry):
    assert registry.resource(Path.of(3)) is None
    assert registry.resource(Path.of(3, 0)) is None
    assert registry.resource(Path.of(3, 0, 7)).name == "Power Source Voltage"
    assert registry.resource(Path.of(3, 0, 7, 1)).name == "Power Source Voltage"
    assert registry.resource(Path.of(3, 0, 999)) is None
    assert registry.resource(Path.of(999, 0, 1)) is None


def test_definitions_are_frozen_and_hashable():
    definition = _object(5, "1.0", _resource(1), _resource(0))
    assert list(definition.resources) == [0, 1]
    assert hash(definition) == hash(_object(5, "1.0", _resource(0), _resource(1)))
    with pytest.raises(TypeError):
        definition.resources[2] = _resource(2)
