"""The registration lines of real clients, as captured; shortened ends are completed in kind."""

import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m import (
    ObjectEntry,
    ObjectList,
    UnsupportedVersion,
    UpdateRequest,
    default_object_version,
    expires_at,
    parse_register,
    parse_update,
)

WAKAAMA = (
    b'</>;rt="oma.lwm2m";ct=110,</1>;ver=1.1,</1/0>,</2/0>,</3/0>,</4/0>,</5/0>,</6/0>,</7/0>,'
    b"</31024>;ver=1.0,</31024/10>,</31024/11>,</31024/12>"
)
ANJAY_3 = b"</1/1>,</2>,</3/0>,</10>;ver=1.1,</10/0>,</11>,</25>;ver=2.0,</25/0>,</33629>"
ANJAY_2 = b'</1/1>,</2>,</3/0>,</10>;ver="1.1",</10/0>,</11>'
LESHAN_1 = b'</>;rt="oma.lwm2m", </1/0>, </3/0>, </6/0>, </3303/0>'
LESHAN_2 = b'</>;rt="oma.lwm2m";ct="60 110 112 11542 11543",</1/0>,</3>;ver=1.2,</3/0>,</5>;ver=1.1,</5/0>'
AWA = b"</1/0>,</2/0>,</4/0>,</5>,</3/0>"
NODE_LIB = b"</5/0>,</3/0>"


def _query(text):
    return tuple(text.split("&"))


def test_wakaama_registers():
    request = parse_register(_query("lwm2m=1.1&ep=wak1&b=U&lt=60"), WAKAAMA)
    assert (request.endpoint, request.version, request.lifetime, request.binding) == ("wak1", "1.1", 60, "U")
    assert request.queue_mode is False
    assert request.objects.root == ()
    assert request.objects.content_formats == (110,)
    assert request.objects.get(1) == ObjectEntry(1, "1.1", (0,))
    assert request.objects.get(31024) == ObjectEntry(31024, "1.0", (10, 11, 12))
    assert [entry.id for entry in request.objects.objects] == [1, 2, 3, 4, 5, 6, 7, 31024]


def test_anjay_3_registers_with_1_2_and_without_binding_and_root_link():
    request = parse_register(_query("lwm2m=1.2&ep=anj12&lt=60"), ANJAY_3)
    assert (request.endpoint, request.version, request.lifetime, request.binding) == ("anj12", "1.2", 60, "U")
    assert request.objects.content_formats == ()
    assert request.objects.get(2) == ObjectEntry(2)
    assert request.objects.get(25) == ObjectEntry(25, "2.0", (0,))
    assert request.objects.get(33629) == ObjectEntry(33629)


def test_anjay_offers_an_older_version_after_4_12():
    with pytest.raises(UnsupportedVersion) as caught:
        parse_register(_query("lwm2m=1.3&ep=anj12&lt=60"), ANJAY_3)
    assert caught.value.field == "lwm2m"
    assert parse_register(_query("lwm2m=1.1&ep=anj12&lt=60"), ANJAY_3).version == "1.1"


def test_anjay_2_quotes_its_versions():
    request = parse_register(_query("lwm2m=1.0&ep=anj2&lt=10"), ANJAY_2)
    assert request.objects.get(10) == ObjectEntry(10, "1.1", (0,))


def test_leshan_1_puts_blanks_behind_commas():
    request = parse_register(_query("b=U&lwm2m=1.0&lt=96000&ep=leshan1"), LESHAN_1)
    assert (request.endpoint, request.version, request.lifetime) == ("leshan1", "1.0", 96000)
    assert [entry.id for entry in request.objects.objects] == [1, 3, 6, 3303]
    assert all(entry.instances == (0,) for entry in request.objects.objects)


def test_leshan_2_states_formats_and_object_versions_of_its_own():
    request = parse_register(_query("b=U&lwm2m=1.1&lt=10&ep=lsh2"), LESHAN_2)
    assert request.objects.content_formats == (60, 110, 112, 11542, 11543)
    assert request.object_version(3) == "1.2"
    assert request.object_version(5) == "1.1"
    assert request.object_version(1) == "1.1"


def test_awa_leaves_the_version_out():
    request = parse_register(_query("ep=awa1&lt=30&b=U"), AWA)
    assert request.version == "1.0"
    assert request.objects.get(5) == ObjectEntry(5)


def test_awa_sends_its_objects_again_in_an_update_at_once():
    request = parse_register(_query("ep=awa1&lt=30&b=U"), AWA)
    update = parse_update(_query("lt=30&b=U"), b"</1/0>,</3/0>,</5/0>")
    assert not update.bare
    updated = request.updated(update)
    assert [entry.id for entry in updated.objects.objects] == [1, 3, 5]
    assert updated.objects.get(5) == ObjectEntry(5, None, (0,))
    assert (updated.endpoint, updated.version, updated.lifetime) == ("awa1", "1.0", 30)


def test_node_lib_registers():
    request = parse_register(_query("ep=lnl1&lt=85671&lwm2m=1.0&b=U"), NODE_LIB)
    assert request.lifetime == 85671
    assert [entry.id for entry in request.objects.objects] == [3, 5]


def test_the_order_of_parameters_means_nothing():
    one = parse_register(("ep=a", "lt=60", "lwm2m=1.1", "b=U"), b"</3/0>")
    assert one == parse_register(("b=U", "lwm2m=1.1", "lt=60", "ep=a"), b"</3/0>")


def test_absent_parameters_have_their_defaults():
    request = parse_register(("ep=a",), b"</3/0>")
    assert (request.version, request.lifetime, request.binding, request.queue_mode) == (
        "1.0",
        86400,
        "U",
        False,
    )
    assert request.sms_number is None


def test_queue_mode_is_uq_in_1_0_and_a_bare_q_from_1_1():
    assert parse_register(("ep=a", "b=UQ"), b"").queue_mode
    assert parse_register(("ep=a", "b=UQ"), b"").binding == "U"
    assert parse_register(("ep=a", "lwm2m=1.1", "b=U", "Q"), b"").queue_mode
    assert parse_register(("ep=a", "lwm2m=1.1", "b=UT"), b"").binding == "UT"


def test_queue_mode_ends_with_b_in_1_0_only():
    assert parse_update(("b=U",), b"").queue_mode is False
    assert parse_update(("b=U",), b"", version="1.1").queue_mode is None
    assert parse_update(("b=U", "Q"), b"", version="1.1").queue_mode is True
    assert parse_update(("b=UQ",), b"").queue_mode is True
    assert parse_update(("Q",), b"").queue_mode is True


def test_parameters_that_lwm2m_does_not_define_are_kept():
    request = parse_register(("ep=a", "region=eu", "debug", "x=1=2"), b"")
    assert request.extra == (("region", "eu"), ("debug", ""), ("x", "1=2"))
    assert request.updated(parse_update(("lt=5",), b"")).extra == request.extra


def test_an_sms_number_is_kept():
    assert parse_register(("ep=a", "sms=+491701234567"), b"").sms_number == "+491701234567"
    with pytest.raises(InvalidInput) as caught:
        parse_register(("ep=a", "sms=call me"), b"")
    assert caught.value.field == "sms"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ((), "ep"),
        (("lt=60",), "ep"),
        (("ep=",), "ep"),
        (("ep",), "ep"),
        (("ep=" + "x" * 256,), "ep"),
        (("ep=" + "ä" * 128,), "ep"),
        (("ep=a\nb",), "ep"),
        (("ep=a\x00",), "ep"),
        (("ep= a",), "ep"),
        (("ep=\u202ea",), "ep"),
        (("ep=a", "ep=b"), "ep"),
        (("ep=a", "lt=-1"), "lt"),
        (("ep=a", "lt="), "lt"),
        (("ep=a", "lt"), "lt"),
        (("ep=a", "lt=1.5"), "lt"),
        (("ep=a", "lt=4294967296"), "lt"),
        (("ep=a", "lt=" + "9" * 5000), "lt"),
        (("ep=a", "lt=٣"), "lt"),
        (("ep=a", "lwm2m=x"), "lwm2m"),
        (("ep=a", "lwm2m="), "lwm2m"),
        (("ep=a", "b=X"), "b"),
        (("ep=a", "b="), "b"),
        (("ep=a", "b=UU"), "b"),
        (("ep=a", "x=\x1b[2J"), "query"),
        (("ep=a", *(f"x{number}=" for number in range(64))), "query"),
    ],
)
def test_a_malformed_parameter_is_named(query, field):
    with pytest.raises(InvalidInput) as caught:
        parse_register(query, b"</3/0>")
    assert caught.value.field == field
    assert not isinstance(caught.value, UnsupportedVersion)


def test_a_malformed_object_list_is_named():
    with pytest.raises(InvalidInput) as caught:
        parse_register(("ep=a",), b"3/0")
    assert caught.value.field == "links"


@pytest.mark.parametrize("version", ["0.9", "1.3", "2.0", "1.0.2"])
def test_other_versions_are_unsupported_and_not_malformed(version):
    with pytest.raises(UnsupportedVersion) as caught:
        parse_register((f"lwm2m={version}",), b"")
    assert caught.value.code == "unsupported-version"
    assert "1.2" in caught.value.hint


def test_a_bare_update_changes_nothing():
    assert parse_update((), b"").bare
    assert parse_update((), b"") == UpdateRequest()
    request = parse_register(("ep=a", "lt=60", "b=UQ"), b"</3/0>")
    assert request.updated(parse_update((), b"")) == request


def test_an_update_with_a_lifetime_changes_that_alone():
    update = parse_update(("lt=77",), b"")
    assert update == UpdateRequest(lifetime=77)
    request = parse_register(("ep=a", "lt=60"), b"</3/0>")
    assert request.updated(update).lifetime == 77
    assert request.updated(update).objects == request.objects


def test_a_malformed_update_is_named():
    with pytest.raises(InvalidInput) as caught:
        parse_update(("lt=soon",), b"")
    assert caught.value.field == "lt"


@pytest.mark.parametrize(
    ("lwm2m", "number", "version"),
    [
        ("1.0", 5, "1.0"),
        ("1.1", 5, "1.0"),
        ("1.2", 5, "1.1"),
        ("1.0", 3, "1.0"),
        ("1.1", 3, "1.1"),
        ("1.2", 3, "1.2"),
        ("1.1", 3303, "1.0"),
        ("1.2", 33629, "1.0"),
    ],
)
def test_an_object_without_version_has_the_default_of_its_lwm2m_version(lwm2m, number, version):
    assert default_object_version(lwm2m, number) == version


def test_a_registration_ends_after_its_lifetime_and_a_margin():
    assert expires_at(1000.0, 60, margin=30.0) == 1090.0
    assert expires_at(1000.0, 60) > 1060.0
    assert expires_at(1000.0, 0) == float("inf")


def test_the_object_list_survives_storing():
    for payload in (WAKAAMA, ANJAY_3, ANJAY_2, LESHAN_1, LESHAN_2, AWA, NODE_LIB):
        objects = parse_register(("ep=a",), payload).objects
        assert isinstance(objects, ObjectList)
        again = parse_register(("ep=a",), objects.serialise()).objects
        assert again == objects
