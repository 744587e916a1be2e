"""Any link list and any query is a value or one named error; what is written is read back."""

from hypothesis import example, given
from hypothesis import strategies as st

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m import (
    Link,
    ObjectEntry,
    ObjectList,
    Path,
    format_links,
    parse_discover,
    parse_links,
    parse_object_list,
    parse_register,
    parse_update,
)


def outcome(parse, *arguments):
    """Return what the parser returns, or the field that its one named error names."""
    try:
        return parse(*arguments), None
    except InvalidInput as error:
        return None, error.field


ids = st.integers(0, 65534)
versions = st.none() | st.builds("{}.{}".format, st.integers(0, 99), st.integers(0, 99))
entries = st.builds(
    ObjectEntry, ids, versions, st.sets(ids, max_size=5).map(lambda found: tuple(sorted(found)))
)
segments = st.text(st.sampled_from("abcxyz-_"), min_size=1, max_size=8)
object_lists = st.builds(
    ObjectList,
    st.lists(segments, max_size=3).map(tuple),
    st.lists(st.integers(0, 65535), max_size=5).map(tuple),
    st.lists(entries, max_size=8, unique_by=lambda entry: entry.id).map(
        lambda found: tuple(sorted(found, key=lambda entry: entry.id))
    ),
)
targets = st.text(st.characters(codec="utf-8", exclude_characters="<>"), max_size=20)
names = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789-"), min_size=1, max_size=8)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
links = st.builds(Link, targets, st.lists(st.tuples(names, st.none() | texts), max_size=4).map(tuple))


@given(object_lists)
def test_an_object_list_is_read_as_it_was_written(objects):
    assert parse_object_list(objects.serialise()) == objects


@given(st.lists(links, max_size=6))
def test_links_are_read_as_they_were_written(written):
    assert parse_links(format_links(written)) == tuple(written)


@given(
    st.binary(max_size=300) | st.text(st.sampled_from('<>/;,="\\ 0135aver.\n'), max_size=120).map(str.encode)
)
@example(b"<" + b"/" * 200 + b">")
def test_any_bytes_are_links_or_one_named_error(payload):
    objects, field = outcome(parse_object_list, payload)
    discovered, discover_field = outcome(parse_discover, payload)
    if field is not None:
        assert (field, discover_field) == ("links", "links")
        return
    assert [entry.id for entry in objects.objects] == sorted({entry.id for entry in objects.objects})
    assert all(list(entry.instances) == sorted(set(entry.instances)) for entry in objects.objects)
    assert len({each.path for each in discovered}) == len(discovered)


_parameters = st.lists(
    texts
    | st.builds("{}={}".format, st.sampled_from(["ep", "lt", "lwm2m", "b", "Q", "sms"]), texts)
    | st.sampled_from(["ep=a", "lt=60", "lwm2m=1.0", "lwm2m=1.1", "lwm2m=1.2", "b=U", "b=UQ", "Q", "sms=49"]),
    max_size=7,
)


@given(_parameters)
def test_any_query_is_a_registration_or_one_named_error(query):
    for parse in (parse_register, parse_update):
        request, field = outcome(parse, query, b"</3/0>")
        if request is None:
            assert field in {"ep", "lt", "lwm2m", "b", "Q", "sms", "query"}
        else:
            assert request.lifetime is None or 0 <= request.lifetime < 1 << 32


@given(st.text(max_size=40))
def test_any_text_is_a_path_or_one_named_error(text):
    path, field = outcome(Path.parse, text)
    assert field == "path" if path is None else Path.parse(str(path)) == path
