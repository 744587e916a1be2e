import pytest

from lwm2m_server.errors import DeviceError, InvalidInput
from lwm2m_server.lwm2m import (
    Attributes,
    CodecError,
    ContentFormat,
    Node,
    Operation,
    Path,
    check,
    create,
    decode,
    delete,
    discover,
    discovered_of,
    execute,
    expect,
    nodes_of,
    observe,
    parse_arguments,
    read,
    write,
    write_attributes,
)

STATE = Path.of(5, 0, 3)
GET, POST, PUT, DELETE = 1, 2, 3, 4


def test_read_and_observe_are_a_get_with_accept():
    assert read(STATE, accept=112) == Operation("read", STATE, GET, ("5", "0", "3"), accept=112)
    assert observe(STATE) == Operation("observe", STATE, GET, ("5", "0", "3"))


def test_discover_asks_for_links():
    assert discover(Path.of(5)) == Operation("discover", Path.of(5), GET, ("5",), accept=40)


def test_write_replaces_with_put_and_adds_with_post(registry):
    path = Path.of(1, 0)
    nodes = (Node(Path.of(1, 0, 1), 300),)
    operation = write(path, nodes, ContentFormat.TLV, model=registry)
    assert (operation.code, operation.path, operation.content_format) == (PUT, ("1", "0"), 11542)
    assert operation.payload == b"\xc2\x01\x01\x2c"
    assert operation.leaves == (Path.of(1, 0, 1),)
    assert write(path, nodes, ContentFormat.TLV, replace=False).code == POST


def test_a_reset_of_the_package_is_one_zero_byte(registry):
    path = Path.of(5, 0, 0)
    operation = write(path, [Node(path, b"\0")], ContentFormat.OPAQUE, model=registry)
    assert (operation.code, operation.payload, operation.content_format) == (PUT, b"\0", 42)


def test_values_that_do_not_fit_are_not_sent(registry):
    with pytest.raises(CodecError) as caught:
        write(Path.of(1, 0, 1), [Node(Path.of(1, 0, 1), "soon")], ContentFormat.TEXT, model=registry)
    assert caught.value.field == "/1/0/1"


def test_execute_sends_arguments_as_text_and_nothing_without():
    operation = execute(Path.of(5, 0, 2))
    assert (operation.code, operation.payload, operation.content_format) == (POST, b"", None)
    operation = execute(Path.of(33629, 0, 2), "0='</33629/1>,</33629/2>'")
    assert (operation.payload, operation.content_format) == (b"0='</33629/1>,</33629/2>'", 0)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", ()),
        ("0", ((0, None),)),
        ("0,1", ((0, None), (1, None))),
        ("0='text',1,9=''", ((0, "text"), (1, None), (9, ""))),
        ("0='</33629/1>,</33629/2>'", ((0, "</33629/1>,</33629/2>"),)),
        ("0='a=b'", ((0, "a=b"),)),
    ],
)
def test_arguments_are_digits_with_or_without_values(text, arguments):
    assert parse_arguments(text) == arguments


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "10",
        "0=",
        "0=text",
        "0='text",
        "0='it's'",
        "0=' '",
        "0='\\'",
        "0='\"'",
        "0,",
        ",0",
        "0 ",
        "0='ä'",
        "0" * 2000,
    ],
)
def test_other_arguments_are_refused_before_sending(text):
    with pytest.raises(InvalidInput) as caught:
        execute(Path.of(5, 0, 2), text)
    assert caught.value.field == "arguments"


def test_attributes_go_in_the_query():
    operation = write_attributes(Path.of(3303, 0, 5700), Attributes.from_mapping({"pmin": 1, "gt": 30}))
    assert (operation.code, operation.query, operation.payload) == (PUT, ("pmin=1", "gt=30"), b"")
    with pytest.raises(InvalidInput):
        write_attributes(Path.of(3303, 0), Attributes.from_mapping({"gt": 30}))


def test_create_names_the_instance_or_leaves_it_to_the_device(registry):
    wanted = create(Path.of(1, 7), [Node(Path.of(1, 7, 1), 60)], ContentFormat.TLV, model=registry)
    assert (wanted.code, wanted.path) == (POST, ("1",))
    assert decode(11542, wanted.payload, Path.of(1), registry) == (Node(Path.of(1, 7, 1), 60),)
    free = create(Path.of(1), [Node(Path.of(1, 0, 1), 60)], ContentFormat.TLV, model=registry)
    assert free.payload == b"\xc1\x01\x3c"
    assert create(Path.of(1, 7), [], ContentFormat.TLV).payload == b"\x00\x07"
    senml = create(Path.of(1, 7), [Node(Path.of(1, 7, 1), 60)], ContentFormat.SENML_JSON)
    assert senml.payload == b'[{"bn":"/1/7/","n":"1","v":60}]'
    for path, nodes in ((Path.of(1), [Node(Path.of(1, 0, 1), 60)]), (Path.of(1, 7), [])):
        with pytest.raises(InvalidInput, match="TLV"):
            create(path, nodes, ContentFormat.SENML_JSON)


def test_delete_takes_instances_and_resource_instances():
    assert delete(Path.of(1, 7)) == Operation("delete", Path.of(1, 7), DELETE, ("1", "7"))
    assert delete(Path.of(1, 7, 1, 2)).path == ("1", "7", "1", "2")


@pytest.mark.parametrize(
    "build",
    [
        lambda: read(Path()),
        lambda: observe(Path()),
        lambda: discover(Path()),
        lambda: discover(Path.of(1, 2, 3, 4)),
        lambda: write(Path.of(1), [], 11542),
        lambda: write(Path.of(1, 2, 3, 4), [], 11542, replace=False),
        lambda: execute(Path.of(5, 0)),
        lambda: execute(Path.of(5, 0, 2, 0)),
        lambda: create(Path.of(5, 0, 2), [], 11542),
        lambda: create(Path(), [], 11542),
        lambda: delete(Path.of(5)),
        lambda: delete(Path.of(5, 0, 1)),
        lambda: write_attributes(Path(), Attributes.from_mapping({"pmin": 1})),
    ],
)
def test_a_level_that_the_operation_does_not_have_is_refused(build):
    with pytest.raises(InvalidInput) as caught:
        build()
    assert caught.value.field == "path"
    assert caught.value.hint


def test_an_alternate_root_stands_before_every_path(registry):
    root = ("lwm2m",)
    operations = (
        read(STATE, root=root),
        observe(STATE, root=root),
        discover(STATE, root=root),
        execute(STATE, root=root),
        delete(Path.of(5, 0), root=root),
        write(STATE, [Node(STATE, 1)], 0, root=root),
        write_attributes(STATE, Attributes.from_mapping({"pmin": 1}), root=root),
        create(Path.of(5), [], 11542, root=root),
    )
    assert all(operation.path[0] == "lwm2m" for operation in operations)
    assert all(operation.path[1] == "5" for operation in operations)


@pytest.mark.parametrize(
    ("operation", "field"),
    [
        (execute(Path.of(5, 0, 3)), "/5/0/3"),
        (read(Path.of(5, 0, 0)), "/5/0/0"),
        (observe(Path.of(5, 0, 2)), "/5/0/2"),
        (write(STATE, [Node(STATE, 1)], 0), "/5/0/3"),
        (write(Path.of(5, 0, 2), [Node(Path.of(5, 0, 2), 1)], 0), "/5/0/2"),
        (write(Path.of(5, 0), [Node(STATE, 1)], 11542), "/5/0/3"),
        (write(Path.of(1, 0), [Node(Path.of(1, 0, 1, 0), 1)], 11542), "/1/0/1/0"),
        (read(Path.of(5, 0, 4)), "/5/0/4"),
        (execute(Path.of(5, 0, 99)), "/5/0/99"),
        (create(Path.of(5, 1), [], 11542), "/5/1"),
        (write_attributes(Path.of(3, 0, 0), Attributes.from_mapping({"gt": 1})), "/3/0/0"),
    ],
)
def test_what_the_definition_forbids_is_refused_before_sending(registry, operation, field):
    with pytest.raises(InvalidInput) as caught:
        check(operation, registry)
    assert caught.value.field == field
    assert caught.value.hint


@pytest.mark.parametrize(
    "operation",
    [
        read(STATE),
        read(Path.of(5)),
        read(Path.of(3, 0, 6, 1)),
        observe(STATE),
        execute(Path.of(5, 0, 2)),
        discover(Path.of(5, 0, 2)),
        write(Path.of(5, 0, 1), [Node(Path.of(5, 0, 1), "")], 0),
        write(Path.of(2, 0, 2), [Node(Path.of(2, 0, 2, 1), 3)], 11542),
        create(Path.of(3303, 1), [Node(Path.of(3303, 1, 5700), 1.0)], 11542),
        create(Path.of(5), [], 11542),
        delete(Path.of(3303, 1)),
        write_attributes(Path.of(3303, 0, 5700), Attributes.from_mapping({"gt": 1})),
        write_attributes(Path.of(3, 0, 0), Attributes.from_mapping({"pmin": 1})),
        # Unknown objects pass: the device knows them.
        execute(Path.of(31024, 10, 2)),
        write(Path.of(31024, 10), [Node(Path.of(31024, 10, 1), 1)], 11542),
    ],
)
def test_what_the_definition_allows_passes(registry, operation):
    check(operation, registry)


@pytest.mark.parametrize("code", [64, 65, 66, 67, 68, 69])
def test_every_success_is_one(code):
    expect(read(STATE), code)


@pytest.mark.parametrize(
    ("code", "dotted"),
    [(132, "4.04"), (133, "4.05"), (160, "5.00"), (163, "5.03"), (95, "2.31"), (0, "0.00")],
)
def test_an_error_answer_carries_its_code_and_path(code, dotted):
    with pytest.raises(DeviceError) as caught:
        expect(read(STATE), code)
    assert caught.value.code == dotted
    assert caught.value.field == "/5/0/3"
    assert dotted in caught.value.message


def test_the_devices_diagnostic_is_shown_and_cleaned():
    with pytest.raises(DeviceError) as caught:
        expect(execute(Path.of(5, 0, 2)), 133, b"not\x1b[2J downloaded\n\xff" + b"x" * 10_000)
    assert "not[2J downloaded" in caught.value.message
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 400


def test_answers_become_values_and_links(registry):
    assert nodes_of(read(STATE), 69, 11542, b"\xc1\x03\x02", registry) == (Node(STATE, 2),)
    with pytest.raises(DeviceError):
        nodes_of(read(STATE), 132, None, b"", registry)
    with pytest.raises(CodecError):
        nodes_of(read(STATE), 69, 11542, b"\xc1", registry)
    found = discovered_of(discover(Path.of(5)), 69, b"</5>,</5/0>")
    assert [str(each.path) for each in found] == ["/5", "/5/0"]
    with pytest.raises(DeviceError):
        discovered_of(discover(Path.of(5)), 161, b"")
