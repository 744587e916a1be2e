import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m import MAX_ID, ROOT, Path


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("/", ()),
        ("", ()),
        ("/3", (3,)),
        ("/3/", (3,)),
        ("3/0", (3, 0)),
        ("/3/0/9", (3, 0, 9)),
        ("/65534/65534/65534/65534", (65534,) * 4),
    ],
)
def test_a_path_is_read_with_or_without_its_outer_slashes(text, ids):
    assert Path.parse(text) == Path(ids)


@pytest.mark.parametrize(
    "text",
    [
        "/65535",
        "/3/0/9/0/1",
        "/a",
        "/3//9",
        "/-1",
        "/3/0/9?",
        "/٣",
        "/3 /0",
        "/100000",
        "x" * 1000,
        "/" * 1000,
        "/1e3",
    ],
)
def test_what_is_no_path_is_refused_with_a_way_out(text):
    with pytest.raises(InvalidInput) as caught:
        Path.parse(text)
    assert caught.value.field == "path"
    assert caught.value.hint


def test_a_path_knows_its_levels():
    path = Path.of(3, 0, 7, 1)
    assert (path.depth, path.object, path.instance, path.resource, path.resource_instance) == (4, 3, 0, 7, 1)
    assert path.parent == Path.of(3, 0, 7)
    assert path.segments == ("3", "0", "7", "1")
    assert str(path) == "/3/0/7/1"
    assert (ROOT.object, ROOT.instance, ROOT.resource, ROOT.resource_instance) == (None,) * 4
    assert str(ROOT) == "/"
    assert ROOT.parent == ROOT


def test_a_path_contains_itself_and_what_lies_below():
    instance = Path.of(3, 0)
    assert instance.contains(instance)
    assert instance.contains(Path.of(3, 0, 9))
    assert not instance.contains(Path.of(3))
    assert not instance.contains(Path.of(3, 1, 0))
    assert ROOT.contains(instance)


def test_a_path_has_four_levels_and_ids_in_range():
    assert Path.of(MAX_ID).child(0) == Path.of(MAX_ID, 0)
    with pytest.raises(InvalidInput):
        Path.of(1, 2, 3, 4).child(5)
    with pytest.raises(InvalidInput):
        Path.of(3).child(MAX_ID + 1)


def test_paths_sort_by_their_numbers():
    assert sorted([Path.of(10), Path.of(3, 0), Path.of(3)]) == [Path.of(3), Path.of(3, 0), Path.of(10)]
