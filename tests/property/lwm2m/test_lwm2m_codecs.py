"""Any bytes decode to values or give one named error; what is written is read back."""

import math

from hypothesis import given
from hypothesis import strategies as st

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m import (
    CodecError,
    ContentFormat,
    Node,
    ObjectLink,
    Path,
    ResourceType,
    Value,
    decode,
    encode,
    parse_arguments,
    parse_ddf,
)
from lwm2m_server.lwm2m.model import ObjectDefinition, ObjectRegistry, ResourceDefinition, frozen_resources

NAMED_FORMATS = [ContentFormat.TLV, ContentFormat.SENML_JSON, ContentFormat.SENML_CBOR]
SINGLE_FORMATS = [ContentFormat.TEXT, ContentFormat.CBOR]
ALL_FORMATS = [*ContentFormat, None, 65535]

_VALUES: dict[ResourceType, st.SearchStrategy[Value]] = {
    ResourceType.STRING: st.text(st.characters(exclude_categories=["Cs"])),
    ResourceType.INTEGER: st.integers(-(2**63), 2**63 - 1),
    ResourceType.UNSIGNED: st.integers(0, 2**64 - 1),
    ResourceType.FLOAT: st.floats(allow_nan=False, allow_infinity=False),
    ResourceType.BOOLEAN: st.booleans(),
    ResourceType.OPAQUE: st.binary(max_size=300),
    ResourceType.TIME: st.integers(-(2**40), 2**40),
    ResourceType.OBJLNK: st.builds(ObjectLink, st.integers(0, 65535), st.integers(0, 65535)),
}
# Resource n is single and n + 100 multiple, of the n-th type.
_TYPES = list(_VALUES)
_MODEL = ObjectRegistry(
    [
        ObjectDefinition(
            7,
            "1.0",
            "Everything",
            "",
            False,
            True,
            frozen_resources(
                ResourceDefinition(number + offset, kind.value, "RW", bool(offset), False, kind)
                for number, kind in enumerate(_TYPES)
                for offset in (0, 100)
            ),
        )
    ]
)

ids = st.integers(0, 65534)
paths = st.lists(ids, max_size=4).map(lambda numbers: Path(tuple(numbers))) | st.sampled_from(
    [
        Path(),
        Path.of(7),
        Path.of(7, 0),
        *(Path.of(7, 0, number) for number in range(len(_TYPES))),
        Path.of(7, 0, 100, 1),
    ]
)


@st.composite
def instances(draw):
    """Leaves of one instance of object 7, in ascending order."""
    base = Path.of(7, draw(ids))
    numbers = st.sets(st.integers(0, len(_TYPES) - 1)).map(sorted)
    single = [Node(base.child(number), draw(_VALUES[_TYPES[number]])) for number in draw(numbers)]
    multiple = [
        Node(base.child(number + 100).child(instance), draw(_VALUES[_TYPES[number]]))
        for number in draw(numbers)
        for instance in sorted(draw(st.sets(ids, max_size=4)))
    ]
    return base, (*single, *multiple)


@given(instances(), st.sampled_from(NAMED_FORMATS), st.booleans())
def test_an_instance_is_read_as_it_was_written(instance, content_format, whole_object):
    base, nodes = instance
    path = base.parent if whole_object else base
    assert (
        decode(content_format, encode(content_format, path, nodes, _MODEL), path, _MODEL, strict=True)
        == nodes
    )


@given(st.data(), st.sampled_from(SINGLE_FORMATS))
def test_a_value_is_read_as_it_was_written(data, content_format):
    number = data.draw(st.integers(0, len(_TYPES) - 1))
    node = Node(Path.of(7, 0, number), data.draw(_VALUES[_TYPES[number]]))
    payload = encode(content_format, node.path, [node], _MODEL)
    assert decode(content_format, payload, node.path, _MODEL, strict=True) == (node,)


@given(st.sampled_from(ALL_FORMATS), st.binary(max_size=400), paths, st.booleans(), st.booleans())
def test_any_bytes_give_values_or_one_named_error(content_format, payload, path, strict, known):
    try:
        nodes = decode(content_format, payload, path, _MODEL if known else None, strict=strict, now=1.7e9)
    except CodecError:
        return
    assert len(nodes) <= len(payload) + 1
    for node in nodes:
        assert path.contains(node.path)
        assert node.path.depth >= 3
        assert not (isinstance(node.value, float) and not math.isfinite(node.value))


# Bytes that are nearly right reach deeper than any bytes do.
_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
)
_labels = st.sampled_from([-6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, "vlo", "n", "v", "bn", "x_"])
_records = st.lists(
    st.dictionaries(_labels, _scalars | st.sampled_from(["/7/0/", "/7/0/1", "0", "3:0"]), max_size=5),
    max_size=5,
)


@given(_records, paths, st.booleans())
def test_any_senml_records_give_values_or_one_named_error(records, path, strict):
    import cbor2

    payload = cbor2.dumps(records)
    try:
        nodes = decode(ContentFormat.SENML_CBOR, payload, path, _MODEL, strict=strict)
    except CodecError:
        return
    assert all(path.contains(node.path) for node in nodes)


@given(st.text(max_size=60))
def test_any_arguments_are_taken_or_refused(text):
    try:
        arguments = parse_arguments(text)
    except InvalidInput:
        return
    assert (
        ",".join(str(digit) + ("" if value is None else f"='{value}'") for digit, value in arguments) == text
    )


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"<LWM2M>", b"<?xml version='1.0'?><LWM2M><Object ", b"\xff\xfe"]),
)
def test_any_bytes_are_definitions_or_one_named_error(data, start):
    fields = []
    try:
        parse_ddf(start + data, "x.xml")
    except InvalidInput as error:
        fields.append(error.field)
    assert all(field.startswith("x.xml:") for field in fields)
