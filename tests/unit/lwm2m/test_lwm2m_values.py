import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m import ObjectLink, Path, ResourceType, conform, from_json, nodes_from_json, to_json
from lwm2m_server.lwm2m.model import ResourceDefinition

PATH = Path.of(3, 0, 9)


def _resource(kind, limits=""):
    return ResourceDefinition(9, "Thing", "RW", False, False, kind, limits)


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (ResourceType.STRING, "x", "x"),
        (ResourceType.CORELNK, "</3>", "</3>"),
        (ResourceType.INTEGER, -(2**63), -(2**63)),
        (ResourceType.INTEGER, 5.0, 5),
        (ResourceType.UNSIGNED, 2**64 - 1, 2**64 - 1),
        (ResourceType.FLOAT, 5, 5.0),
        (ResourceType.BOOLEAN, True, True),
        (ResourceType.OPAQUE, "AP8=", b"\x00\xff"),
        (ResourceType.OPAQUE, b"\x00", b"\x00"),
        (ResourceType.TIME, 1_700_000_000, 1_700_000_000),
        (ResourceType.TIME, 0.5, 0.5),
        (ResourceType.OBJLNK, "3:0", ObjectLink(3, 0)),
    ],
)
def test_a_users_value_takes_its_type(kind, given, value):
    taken = from_json(given, _resource(kind), PATH)
    assert taken == value
    assert type(taken) is type(value)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (ResourceType.STRING, 1),
        (ResourceType.STRING, b"x"),
        (ResourceType.INTEGER, "1"),
        (ResourceType.INTEGER, 1.5),
        (ResourceType.INTEGER, True),
        (ResourceType.INTEGER, 2**63),
        (ResourceType.INTEGER, float("inf")),
        (ResourceType.INTEGER, float("nan")),
        (ResourceType.UNSIGNED, -1),
        (ResourceType.UNSIGNED, 2**64),
        (ResourceType.FLOAT, float("nan")),
        (ResourceType.FLOAT, 10**400),
        (ResourceType.FLOAT, False),
        (ResourceType.BOOLEAN, 1),
        (ResourceType.BOOLEAN, "true"),
        (ResourceType.OPAQUE, "!"),
        (ResourceType.OPAQUE, 1),
        (ResourceType.TIME, "now"),
        (ResourceType.TIME, float("inf")),
        (ResourceType.OBJLNK, "3/0"),
        (ResourceType.OBJLNK, "3:70000"),
        (ResourceType.NONE, "x"),
        (ResourceType.STRING, None),
        (ResourceType.STRING, ["x"]),
        (ResourceType.STRING, {"x": 1}),
    ],
)
def test_a_users_value_of_another_type_is_refused_by_path_and_with_a_way_out(kind, given):
    with pytest.raises(InvalidInput) as caught:
        from_json(given, _resource(kind), PATH)
    assert caught.value.field == "/3/0/9"
    assert "Thing" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "limits", "good", "bad"),
    [
        (ResourceType.INTEGER, "0..100", 100, 101),
        (ResourceType.FLOAT, "-1.5..1.5", -1.5, 1.6),
        (ResourceType.STRING, "0..3", "abc", "abcd"),
        (ResourceType.STRING, "0..3 bytes", "äb", "äöb"),
        (ResourceType.OPAQUE, "2 bytes", "AAA=", "AAAA"),
    ],
)
def test_the_range_holds_numbers_and_lengths(kind, limits, good, bad):
    from_json(good, _resource(kind, limits), PATH)
    with pytest.raises(InvalidInput) as caught:
        from_json(bad, _resource(kind, limits), PATH)
    assert limits in caught.value.message
    assert limits in caught.value.hint


def test_without_a_definition_the_json_type_decides():
    assert [from_json(value, None, PATH) for value in ("x", 1, 1.5, True)] == ["x", 1, 1.5, True]
    for value in (None, [], float("inf")):
        with pytest.raises(InvalidInput):
            from_json(value, None, PATH)


def test_values_become_json():
    assert [to_json(value) for value in ("x", 1, 1.5, True, b"\x00\xff", ObjectLink(3, 0))] == [
        "x",
        1,
        1.5,
        True,
        "AP8=",
        "3:0",
    ]


def test_long_values_are_cut_in_messages():
    with pytest.raises(InvalidInput) as caught:
        from_json("x" * 10_000, _resource(ResourceType.INTEGER), PATH)
    assert len(caught.value.message) < 300


def test_a_number_that_is_true_or_false_is_a_boolean_on_the_wire():
    assert conform(1, ResourceType.BOOLEAN) is True
    assert conform(0.0, ResourceType.BOOLEAN) is False
    with pytest.raises(ValueError, match="Boolean"):
        conform(2, ResourceType.BOOLEAN)
    with pytest.raises(ValueError, match="Integer"):
        conform(True, ResourceType.INTEGER)


def test_an_object_link_has_two_forms():
    assert ObjectLink.parse("3:65535") == ObjectLink(3, 65535)
    assert ObjectLink.from_bytes(bytes(ObjectLink(3, 65535))) == ObjectLink(3, 65535)
    for text in ("", ":", "3:", "3:-1", "3:0:1", "٣:0"):
        with pytest.raises(ValueError, match=text or "^$"):
            ObjectLink.parse(text)
    with pytest.raises(ValueError, match="3 bytes"):
        ObjectLink.from_bytes(b"\0\0\0")


def test_a_scalar_is_one_leaf(registry):
    ((path, value, time),) = nodes_from_json(Path.of(1, 0, 1), 300, registry)
    assert (path, value, time) == (Path.of(1, 0, 1), 300, None)


def test_objects_of_ids_or_names_become_leaves(registry):
    given = {"1": 300, "Binding": "U", 6: True}
    assert {str(node.path): node.value for node in nodes_from_json(Path.of(1, 0), given, registry)} == {
        "/1/0/1": 300,
        "/1/0/7": "U",
        "/1/0/6": True,
    }
    given = {"0": {"2": {"0": 1, "5": 16}}}
    assert {str(node.path): node.value for node in nodes_from_json(Path.of(2), given, registry)} == {
        "/2/0/2/0": 1,
        "/2/0/2/5": 16,
    }


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("/1/0", 5, "/1/0"),
        ("/1", "x", "/1"),
        ("/3/0/6", 5, "/3/0/6"),
        ("/1/0", {"x": 1}, "/1/0"),
        ("/1/0", {"70000": 1}, "path"),
        ("/1/0", {"1": "x"}, "/1/0/1"),
        ("/3/0/6/0", {"0": 1}, "/3/0/6/0"),
        ("/1/0", {"1": None}, "/1/0/1"),
        ("/1/0", {"1": [1]}, "/1/0/1"),
    ],
)
def test_json_that_does_not_fit_the_path_is_refused_by_path(registry, path, value, field):
    with pytest.raises(InvalidInput) as caught:
        nodes_from_json(Path.parse(path), value, registry)
    assert caught.value.field == field
    assert caught.value.hint
