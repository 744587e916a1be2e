"""Any text is a filter or gives one `FilterError`; a filter's own text is read as the same filter."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from lwm2m_server.devices.attributes import BUILT_IN, AttributeType
from lwm2m_server.devices.filter import Ago, All, And, FilterError, Not, Operator, Or, Test, parse
from lwm2m_server.devices.filter_lexer import MAX_LENGTH
from lwm2m_server.devices.filter_tree import LISTS, ORDERING

OWN = {"region": AttributeType.TEXT, "ring": AttributeType.NUMBER, "beta": AttributeType.BOOLEAN}
COMPONENTS = {
    "component.modem.version": AttributeType.VERSION,
    "software.meter.version": AttributeType.VERSION,
    "software.meter.active": AttributeType.BOOLEAN,
    "component.board/a.b-c_d.digest": AttributeType.IDENTIFIER,
}
TYPES = {**BUILT_IN, **COMPONENTS, **OWN}
EQUAL = {Operator.EQUAL, Operator.NOT_EQUAL}
PATTERNS = {Operator.LIKE, Operator.NOT_LIKE, Operator.STARTS_WITH, Operator.NOT_STARTS_WITH}
OPERATORS = {
    AttributeType.TEXT: EQUAL | ORDERING | LISTS | PATTERNS,
    AttributeType.VERSION: EQUAL | ORDERING | LISTS | PATTERNS,
    AttributeType.NUMBER: EQUAL | ORDERING | LISTS,
    AttributeType.BOOLEAN: EQUAL | LISTS,
    AttributeType.TIME: ORDERING,
    AttributeType.IDENTIFIER: EQUAL | LISTS,
}
PRINTABLE = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="*"), max_size=12)
VERSIONS = st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,3}(-rc\.?[0-9])?", fullmatch=True)
TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
AGO = st.builds(Ago, st.integers(0, 10**9 - 1))
LITERALS = {
    AttributeType.TEXT: PRINTABLE,
    AttributeType.VERSION: VERSIONS,
    AttributeType.NUMBER: st.integers(-(2**53), 2**53)
    | st.floats(-1e6, 1e6).map(lambda x: int(x) if x.is_integer() else x),
    AttributeType.BOOLEAN: st.booleans(),
    AttributeType.TIME: TIMES.map(datetime.timestamp) | AGO,
    AttributeType.IDENTIFIER: st.binary(min_size=1, max_size=32).map(bytes.hex),
}


@st.composite
def leaves(draw):
    name = draw(st.sampled_from(sorted(TYPES)))
    type_ = TYPES[name]
    operator = draw(st.sampled_from(sorted({*OPERATORS[type_], Operator.EXISTS})))
    if operator is Operator.EXISTS:
        return Test(name, type_, operator)
    literals = PRINTABLE if operator in PATTERNS else LITERALS[type_]
    many = st.lists(literals, min_size=1, max_size=3) if operator in LISTS else st.tuples(literals)
    return Test(name, type_, operator, tuple(draw(many)))


TREES = st.recursive(
    leaves() | st.just(All()),
    lambda trees: (
        trees.map(Not)
        | st.lists(trees, min_size=2, max_size=3).map(lambda parts: And(tuple(parts)))
        | st.lists(trees, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts)))
    ),
    max_leaves=8,
)


@given(TREES.filter(lambda tree: len(str(tree)) <= MAX_LENGTH))
def test_the_text_of_a_tree_is_read_as_the_same_tree(tree):
    assert parse(str(tree), OWN) == tree


WORDS = st.sampled_from(
    [
        *TYPES,
        *(
            "and",
            "or",
            "not",
            "in",
            "like",
            "starts",
            "with",
            "exists",
            "all",
            "ago",
            "(",
            ")",
            ",",
            "=",
            "<",
        ),
        *('"x"', "'y'", "1.2", "-5", "2d", "true", "2026-01-31", "\\", '"'),
    ]
)


@given(st.text(max_size=60) | st.lists(WORDS, max_size=12).map(" ".join))
def test_any_text_is_a_filter_or_one_error_that_points_into_it(text):
    error = None
    try:
        tree = parse(text, OWN)
    except FilterError as caught:
        error = caught
    if error is None:
        assert parse(str(tree), OWN) == tree
    else:
        assert 0 <= error.position <= len(text)
        assert error.message.startswith(f"column {error.position + 1}: ")
