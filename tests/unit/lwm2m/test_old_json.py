import json

import pytest

from lwm2m_server.lwm2m import CodecError, ContentFormat, Node, ObjectLink, Path, decode

DEVICE = Path.of(3, 0)


def _decode(document, path=DEVICE, *args, **options):
    return decode(ContentFormat.LEGACY_JSON, json.dumps(document).encode(), path, *args, **options)


def test_the_example_of_the_specification_is_read(registry):
    document = {
        "bn": "/3/0/",
        "e": [
            {"n": "0", "sv": "Open Mobile Alliance"},
            {"n": "6/0", "v": 1},
            {"n": "9", "v": 100},
            {"n": "13", "v": 1367491215},
            {"n": "22/0", "ov": "3:0"},
        ],
    }
    assert _decode(document, DEVICE, registry) == (
        Node(Path.of(3, 0, 0), "Open Mobile Alliance"),
        Node(Path.of(3, 0, 6, 0), 1),
        Node(Path.of(3, 0, 9), 100),
        Node(Path.of(3, 0, 13), 1367491215),
        Node(Path.of(3, 0, 22, 0), ObjectLink(3, 0)),
    )


@pytest.mark.parametrize(
    "document",
    [
        {"e": [{"n": "9", "v": 1}]},
        {"bn": "/3/0", "e": [{"n": "/9", "v": 1}]},
        {"bn": "/3/0", "e": [{"n": "9", "v": 1}]},
        {"bn": "/3/0/9", "e": [{"n": "", "v": 1}]},
        {"bn": "/3/0/9", "e": [{"v": 1}]},
        {"bn": "/3", "e": [{"n": "0/9", "v": 1}]},
    ],
)
def test_names_are_relative_to_the_base_or_to_the_request(document):
    assert _decode(document) == (Node(Path.of(3, 0, 9), 1),)


def test_booleans_opaque_and_times_are_read(registry):
    assert _decode({"e": [{"n": "6", "bv": True}]}, Path.of(1, 0), registry)[0].value is True
    assert _decode({"e": [{"n": "0", "sv": "AAE="}]}, Path.of(5, 0), registry)[0].value == b"\0\1"
    assert _decode({"bt": 1.7e9, "e": [{"n": "9", "v": 1, "t": 5}, {"n": "9", "v": 2}]})[0].time == 1.7e9 + 5
    assert _decode({"bt": -10, "e": [{"n": "9", "v": 1}]}, now=1.7e9)[0].time == 1.7e9 - 10
    assert _decode({"e": [{"n": "9", "v": 1}]}, now=1.7e9)[0].time is None


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"e": {}},
        {"e": [1]},
        {"bn": 1, "e": [{"v": 1}]},
        {"e": [{"n": 9, "v": 1}]},
        {"e": [{"n": "9"}]},
        {"e": [{"n": "9", "v": True}]},
        {"e": [{"n": "9", "v": "1"}]},
        {"e": [{"n": "9", "ov": "x"}]},
        {"e": [{"n": "9", "v": 1 << 70}]},
        {"e": [{"n": "9", "v": 1, "t": "x"}]},
        {"bt": True, "e": [{"n": "9", "v": 1}]},
        {"bn": "/4/0", "e": [{"n": "9", "v": 1}]},
        {"e": [{"n": "x", "v": 1}]},
        {"e": [{"n": "9" * 500, "v": 1}]},
        {"e": [{"n": "9", "v": 1}] * 20_000},
    ],
)
def test_a_broken_document_is_one_named_error(document):
    with pytest.raises(CodecError):
        _decode(document)


def test_opaque_that_is_no_base64_is_refused(registry):
    with pytest.raises(CodecError, match="base64"):
        _decode({"e": [{"n": "0", "sv": "!"}]}, Path.of(5, 0), registry)
