import pytest

from lwm2m_server.lwm2m import Negotiation, Path

INSTANCE, RESOURCE, PACKAGE, LIST = Path.of(5, 0), Path.of(5, 0, 3), Path.of(5, 0, 0), Path.of(5, 0, 8)
CONTENT, NOT_ACCEPTABLE, UNSUPPORTED, SERVER_ERROR, NOT_FOUND = 69, 134, 143, 160, 132


@pytest.mark.parametrize(
    ("version", "formats", "order"),
    [
        ("1.0", (), (11542, 0)),
        ("1.1", (), (112, 110, 11542, 0)),
        ("1.2", (), (112, 110, 11542, 0)),
        ("1.1", (110,), (110, 112, 11542, 0)),
        ("1.1", (60, 110, 112, 11542, 11543), (112, 110, 11542, 0)),
        ("1.0", (1542, 1543), (1542, 11542, 0)),
    ],
)
def test_the_order_comes_from_the_version_and_from_what_the_device_named(version, formats, order):
    assert Negotiation.initial(version, formats).order == order


def test_refusals_fall_down_the_list_until_none_is_left():
    state = Negotiation.initial("1.1")
    tried = []
    while (accept := state.accept(RESOURCE)) is not None:
        tried.append(accept)
        state = state.after(accept, NOT_ACCEPTABLE)
    assert tried == [112, 110, 11542, 0]
    assert state.accept(INSTANCE) is None


@pytest.mark.parametrize("code", [NOT_ACCEPTABLE, UNSUPPORTED, SERVER_ERROR])
def test_each_refusal_moves_on(code):
    assert Negotiation.initial("1.1").after(112, code).accept(INSTANCE) == 110


def test_other_errors_say_nothing_of_formats():
    state = Negotiation.initial("1.1")
    assert state.after(112, NOT_FOUND) == state
    assert state.after(None, NOT_ACCEPTABLE) == state


def test_what_worked_is_asked_for_again():
    state = (
        Negotiation.initial("1.1").after(112, NOT_ACCEPTABLE).after(110, NOT_ACCEPTABLE).after(11542, CONTENT)
    )
    assert state.worked == 11542
    assert state.accept(INSTANCE) == 11542
    assert state.write_format(INSTANCE) == 11542
    # When it stops working, it is forgotten.
    assert state.after(11542, NOT_ACCEPTABLE).worked is None


def test_a_format_that_was_refused_and_then_worked_is_taken_again():
    state = Negotiation.initial("1.1").after(112, SERVER_ERROR).after(112, CONTENT)
    assert state.refused == ()
    assert state.accept(INSTANCE) == 112


def test_text_that_worked_for_one_value_is_not_asked_for_several():
    state = Negotiation.initial("1.1").after(0, CONTENT)
    assert state.accept(INSTANCE) == 112
    assert Negotiation(order=(0,)).accept(INSTANCE) is None
    assert Negotiation(order=(0,)).accept(RESOURCE) == 0


def test_several_values_of_a_resource_need_a_format_with_names(registry):
    assert Negotiation(order=(0, 11542)).accept(LIST, registry) == 11542
    assert Negotiation(order=(0, 11542)).accept(LIST.child(0), registry) == 0


def test_one_value_is_written_as_text_or_opaque(registry):
    state = Negotiation.initial("1.1")
    assert state.write_format(Path.of(5, 0, 1), registry) == 0
    assert state.write_format(PACKAGE, registry) == 42
    assert state.write_format(INSTANCE, registry) == 112
    assert Negotiation.initial("1.0").write_format(INSTANCE, registry) == 11542
    refused = state.after(42, UNSUPPORTED).after(0, UNSUPPORTED)
    assert refused.write_format(PACKAGE, registry) == 112
    assert refused.write_format(Path.of(5, 0, 1), registry) == 112


def test_when_everything_was_refused_tlv_is_written():
    state = Negotiation.initial("1.0").after(11542, UNSUPPORTED)
    assert state.write_format(INSTANCE) == 11542


def test_composite_is_used_only_after_a_success():
    state = Negotiation.initial("1.1")
    assert state.composite is None
    assert state.with_composite(False).composite is False
    assert state.with_composite(True).composite is True


def test_it_can_be_stored():
    state = Negotiation.initial("1.1").after(112, NOT_ACCEPTABLE).after(110, CONTENT).with_composite(False)
    assert Negotiation.from_json(state.to_json()) == state


@pytest.mark.parametrize(
    "data", [{}, {"order": 1}, {"order": ["x"], "worked": None, "refused": []}, {"order": [1]}]
)
def test_what_was_not_stored_is_refused(data):
    with pytest.raises(ValueError, match="stored"):
        Negotiation.from_json(data)
