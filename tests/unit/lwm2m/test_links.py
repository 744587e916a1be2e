import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m import (
    Link,
    ObjectEntry,
    ObjectList,
    Path,
    format_links,
    link_path,
    parse_links,
    parse_object_list,
)
from lwm2m_server.lwm2m.links import MAX_LINKS, MAX_PAYLOAD


def test_attributes_are_read_quoted_bare_and_as_flags():
    links = parse_links(b'</>;rt="oma.lwm2m";ct="60 110",</5>;ver=1.1;obs')
    assert links == (
        Link("/", (("rt", "oma.lwm2m"), ("ct", "60 110"))),
        Link("/5", (("ver", "1.1"), ("obs", None))),
    )
    assert links[1].get("ver") == "1.1"
    assert links[1].get("obs") is None
    assert links[1].get("none") is None


def test_a_comma_or_semicolon_in_quotes_separates_nothing():
    (link,) = parse_links(rb'</1>;title="a,b;c<d>\"e\\"')
    assert link.get("title") == 'a,b;c<d>"e\\'


@pytest.mark.parametrize(
    "payload",
    [
        b"</1/0>, </3/0>",
        b"</1/0>,\r\n </3/0>\n",
        b" </1/0> ,</3/0>\0",
        b"</1/0>,</3/0>,",
        b"</1/0>\t,\t</3/0>",
    ],
)
def test_blanks_line_ends_and_trailing_commas_are_taken(payload):
    assert [link.target for link in parse_links(payload)] == ["/1/0", "/3/0"]


@pytest.mark.parametrize("payload", [b"", b" ", b",", b"\0"])
def test_nothing_is_an_empty_list(payload):
    assert parse_links(payload) == ()


@pytest.mark.parametrize(
    "payload",
    [
        b"/1/0",
        b"</1/0",
        b"</1/0></3/0>",
        b"</1/0>;",
        b'</1/0>;ver="1.1',
        b"</1/0>,,</3/0>",
        b"\xff\xfe",
        b"hello",
        b"</1/0>;=5",
        b'</1/0>;ver="1.1"x',
    ],
)
def test_what_is_no_link_list_is_refused_by_name(payload):
    with pytest.raises(InvalidInput) as caught:
        parse_links(payload)
    assert caught.value.field == "links"
    assert caught.value.hint


def test_the_list_is_bounded_in_bytes_and_links():
    with pytest.raises(InvalidInput, match="bytes"):
        parse_links(b"<" * (MAX_PAYLOAD + 1))
    with pytest.raises(InvalidInput, match="links"):
        parse_links(b"</1>," * (MAX_LINKS + 1))
    with pytest.raises(InvalidInput, match="root"):
        parse_object_list(b"<" + b"/a" * 9 + b'>;rt="oma.lwm2m"')


def test_links_are_written_without_blanks_and_quoted_where_needed():
    links = (Link("/", (("rt", "oma.lwm2m"), ("ct", "60 110"))), Link("/5", (("ver", "1.1"), ("obs", None))))
    assert format_links(links) == b'</>;rt="oma.lwm2m";ct="60 110",</5>;ver=1.1;obs'


def test_both_links_of_one_object_make_one_entry():
    assert parse_object_list(b"</25>;ver=2.0,</25/0>,</25/2>,</25/2>").objects == (
        ObjectEntry(25, "2.0", (0, 2)),
    )


def test_an_object_without_instances_is_there_but_empty():
    objects = parse_object_list(b"</2>,</33629>")
    assert objects.objects == (ObjectEntry(2), ObjectEntry(33629))
    assert 2 in objects
    assert Path.of(2) in objects
    assert Path.of(2, 0) not in objects
    assert 3 not in objects
    assert Path() in objects


def test_deeper_links_imply_object_and_instance():
    assert parse_object_list(b"</3/0/0>,</5/1/2/3>").objects == (
        ObjectEntry(3, None, (0,)),
        ObjectEntry(5, None, (1,)),
    )


@pytest.mark.parametrize("version", ["", "x", "1", "1.1.1", "99999999.1"])
def test_a_version_that_is_none_is_left_out(version):
    assert parse_object_list(f'</5>;ver="{version}"'.encode()).objects[0].version is None


def test_only_the_objects_own_link_tells_its_version():
    assert parse_object_list(b"</5/0>;ver=9.9,</5/1>").objects == (ObjectEntry(5, None, (0, 1)),)


def test_links_to_other_things_are_passed_over():
    assert parse_object_list(b"</d01/3/0>,</rd>,</1/0>,</70000>,</1/0/0/0/0>,<coap://x/>").objects == (
        ObjectEntry(1, None, (0,)),
    )


def test_an_alternate_root_is_taken_off_the_paths():
    objects = parse_object_list(b'</lwm2m>;rt="oma.lwm2m";ct=110,</lwm2m/1/0>,</lwm2m/5>;ver=1.1,</3/0>')
    assert objects == ObjectList(("lwm2m",), (110,), (ObjectEntry(1, None, (0,)), ObjectEntry(5, "1.1")))
    assert parse_object_list(objects.serialise()) == objects


def test_the_root_link_may_be_missing_or_without_formats():
    assert parse_object_list(b"</1/0>") == ObjectList((), (), (ObjectEntry(1, None, (0,)),))
    assert parse_object_list(b'</>;rt="oma.lwm2m",</1/0>').content_formats == ()
    assert parse_object_list(b"</>;ct=11542,</1/0>").content_formats == (11542,)


def test_equal_payloads_share_one_value_and_large_ones_are_not_kept():
    assert parse_object_list(b"</1/0>,</77/0>") is parse_object_list(bytes(bytearray(b"</1/0>,</77/0>")))
    large = b",".join(b"</%d/0>" % number for number in range(1000))
    assert parse_object_list(large) == parse_object_list(large)
    assert parse_object_list(large) is not parse_object_list(large)


def test_an_entry_is_found_by_id():
    objects = parse_object_list(b"</1/0>,</5>;ver=1.1")
    assert objects.get(5) == ObjectEntry(5, "1.1")
    assert objects.get(6) is None


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", Path()),
        ("/3/0", Path.of(3, 0)),
        ("3//0/", Path.of(3, 0)),
        ("/a", None),
        ("/1/2/3/4/5", None),
        ("/65535", None),
    ],
)
def test_a_target_becomes_a_path_or_nothing(target, path):
    assert link_path(target) == path
