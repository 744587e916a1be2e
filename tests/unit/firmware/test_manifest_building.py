"""From a description to a signed envelope and back: what is in it, and what is refused."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.build import ComponentDescription, ManifestDescription, build_manifest
from lwm2m_server.firmware.commands import (
    Condition,
    CopyParameters,
    Directive,
    OverrideMultiple,
    OverrideParameters,
    Parameters,
    RunSequence,
    SetComponentIndex,
    SetParameters,
    TryEach,
    Unknown,
    encode_sequence,
    parse_sequence,
)
from lwm2m_server.firmware.describe import describe
from lwm2m_server.firmware.effects import ComponentState, DeviceFacts
from lwm2m_server.firmware.envelope import parse_envelope, read_unverified, sign, verify, wrap
from lwm2m_server.firmware.facts import facts_of
from lwm2m_server.firmware.keys import SigningKey
from lwm2m_server.firmware.manifest import Manifest, encode_text, parse_manifest
from lwm2m_server.firmware.processor import preflight
from lwm2m_server.firmware.refusals import Malformed, NotTrusted, Refusal
from lwm2m_server.firmware.suit import ConditionCode, Digest, DirectiveCode, class_id, vendor_id
from lwm2m_server.firmware.suit_versions import Comparison, VersionMatch

KEY = SigningKey.generate()
DIGEST = hashlib.sha256(b"image").digest()
DESCRIPTION = ManifestDescription(
    vendor_domain="acme.example",
    class_name="meter-v2",
    version="2.1.0",
    sequence_number=7,
    image_digest=DIGEST,
    image_size=5,
    image_uri=f"/fw/{DIGEST.hex()}",
    manufacturer="Acme",
    model="M2",
    description="Better clocks",
)


def test_signed_envelope_says_what_was_described() -> None:
    facts = verify(sign(build_manifest(DESCRIPTION), KEY), [KEY.public]).facts
    vendor = vendor_id("acme.example")
    assert (facts.vendor_id, facts.class_id) == (vendor, class_id(vendor, "meter-v2"))
    assert (facts.version, facts.sequence_number) == ("2.1.0", 7)
    assert (facts.image_digest, facts.image_size, facts.image_uri) == (DIGEST, 5, DESCRIPTION.image_uri)
    assert (facts.main.manufacturer, facts.main.model) == ("Acme", "M2")
    assert (facts.main.component, facts.description) == ((b"\x00",), "Better clocks")


def test_same_description_gives_the_same_bytes() -> None:
    assert build_manifest(DESCRIPTION) == build_manifest(replace(DESCRIPTION, vendor_domain="ACME.example"))


@pytest.mark.parametrize(
    ("version", "machine"),
    [
        ("2.1", (2, 1, 0)),
        ("2.1.0-rc.3", (2, 1, 0, -1, 3)),
        ("2.1.0-beta", (2, 1, 0, -2)),
        ("2.1.0-alpha.1.2", (2, 1, 0, -3, 1, 2)),
        ("2.1.0+build.5", (2, 1, 0)),
        ("2.1.0.4", None),
        ("2.1.0-nightly.1", None),
    ],
)
def test_version_is_machine_readable_where_that_loses_nothing(
    version: str, machine: tuple[int, ...] | None
) -> None:
    envelope = build_manifest(replace(DESCRIPTION, version=version))
    manifest = read_unverified(envelope)
    assert manifest.set_version == machine
    assert facts_of(manifest).version == version


def test_version_in_the_text_must_not_contradict_the_machine_readable_one() -> None:
    manifest = read_unverified(build_manifest(DESCRIPTION))
    with pytest.raises(Malformed, match="text says"):
        sign(wrap(replace(manifest, set_version=(9, 0, 0))).encode(), KEY)


def test_version_comes_from_the_machine_readable_form_when_there_is_no_text() -> None:
    manifest = read_unverified(build_manifest(replace(DESCRIPTION, version="2.1.0-rc.3")))
    assert facts_of(replace(manifest, text=None)).version == "2.1.0-rc.3"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"vendor_domain": "acme"}, "vendor_domain"),
        ({"vendor_domain": "a b.example"}, "vendor_domain"),
        ({"class_name": " "}, "class_name"),
        ({"version": "new"}, "version"),
        ({"sequence_number": -1}, "sequence_number"),
        ({"sequence_number": 2**63}, "sequence_number"),
        ({"image_digest": b"short"}, "image_digest"),
        ({"image_size": 0}, "image_size"),
        ({"image_uri": ""}, "image_uri"),
        ({"image_uri": "/" + "x" * 255}, "image_uri"),
        ({"component": ()}, "component"),
        ({"component": (b"",)}, "component"),
        ({"language": ""}, "language"),
    ],
)
def test_description_that_does_not_fit_is_refused_by_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        build_manifest(replace(DESCRIPTION, **change))
    assert caught.value.field == field


def test_two_keys_may_sign_and_each_is_enough() -> None:
    other = SigningKey.generate()
    envelope = sign(sign(build_manifest(DESCRIPTION), KEY), other)
    assert verify(envelope, [KEY.public]).key_id == KEY.public.key_id
    assert verify(envelope, [other.public]).key_id == other.public.key_id


def test_number_of_signatures_is_bounded() -> None:
    envelope = build_manifest(DESCRIPTION)
    for _ in range(8):
        envelope = sign(envelope, KEY)
    with pytest.raises(Malformed, match="already has 8"):
        sign(envelope, KEY)


def test_signature_is_checked_before_the_manifest_is_read() -> None:
    parsed = parse_envelope(build_manifest(DESCRIPTION))
    garbage = b"\xff not CBOR"
    envelope = replace(parsed, manifest=garbage, digest=Digest.of(cbor.bstr(garbage))).encode()
    with pytest.raises(NotTrusted) as caught:
        verify(envelope, [KEY.public])
    assert caught.value.code == "signature"
    with pytest.raises(Malformed):
        sign(envelope, KEY)


def severed(name: str) -> tuple[Manifest, int, bytes]:
    manifest = read_unverified(build_manifest(DESCRIPTION))
    member = getattr(manifest, name)
    content = encode_text(member) if name == "text" else encode_sequence(member)
    change: dict[str, Any] = {name: Digest.of(cbor.bstr(content))}
    return replace(manifest, **change), 23 if name == "text" else 20, content


@pytest.mark.parametrize("name", ["text", "install"])
def test_severed_member_is_read_from_the_envelope(name: str) -> None:
    manifest, key, content = severed(name)
    envelope = sign(wrap(manifest, [(key, content)]).encode(), KEY)
    assert verify(envelope, [KEY.public]).facts == facts_of(read_unverified(build_manifest(DESCRIPTION)))


def test_changed_severed_member_is_refused() -> None:
    manifest, key, _ = severed("text")
    with pytest.raises(NotTrusted) as caught:
        read_unverified(wrap(manifest, [(key, encode_text(()))]).encode())
    assert caught.value.code == "signature"


def test_severed_member_that_was_not_announced_is_refused() -> None:
    manifest = read_unverified(build_manifest(DESCRIPTION))
    with pytest.raises(Malformed, match="not announced"):
        read_unverified(wrap(manifest, [(23, b"\xa0")]).encode())


COMMANDS = (
    SetComponentIndex(0),
    SetComponentIndex(True),
    SetComponentIndex((0, 2)),
    OverrideParameters(
        Parameters(
            vendor_id=bytes(16), class_id=bytes(16), image_digest=Digest.of(b""), component_slot=1,
            strict_order=True,
            soft_failure=False, image_size=9, content=b"c", uri="coap://x", source_component=1,
            invoke_args=b"i", encryption_info=b"e", use_before=2**40, minimum_battery=500, update_priority=-3,
            version=VersionMatch(Comparison.LESSER, (2, 0, 0, -1, 1)),
            wait_info=((1, -1), (2, 1), (4, [b"modem", [[2, [1, 0]]]]), (5, 1_800_000_000), (99, "later")),
            device_id=bytes(16), fetch_args=b"f", other=((-300, "hint"),),
        )
    ),
    SetParameters(Parameters(version=VersionMatch(Comparison.EQUAL, (1,), wrapped=False))),
    OverrideMultiple(((0, Parameters(uri="/a")), (1, Parameters(uri="/b", image_size=2)))),
    CopyParameters(((0, (3, 14)), (2, (21,)))),
    *(Condition(code, 3) for code in ConditionCode),
    Directive(DirectiveCode.FETCH, 0),
    Directive(DirectiveCode.SWAP, 15),
    Directive(DirectiveCode.WAIT, 2),
    Directive(DirectiveCode.PROCESS_DEPENDENCY, 0),
    Directive(DirectiveCode.UNLINK, 0),
    TryEach(((Condition(ConditionCode.ABORT),), (Directive(DirectiveCode.COPY),)), optional=True),
    TryEach(((Condition(ConditionCode.ABORT),), (RunSequence((Directive(DirectiveCode.WRITE),)),))),
    Unknown(-300, b"x"),
)  # fmt: skip


def test_every_command_survives_writing_and_reading() -> None:
    assert parse_sequence(encode_sequence(COMMANDS), "x") == COMMANDS


@pytest.mark.parametrize(
    "items",
    [
        [], [1], [1, 16], [12, []], [12, -1], [12, False], [15, [b"\x82\x03\x0f"]],
        [15, [None, b"\x82\x03\x0f"]], [20, {}],
        [20, {1: b"short"}], [20, {3: b"\x01"}], [20, {3: cbor.encode([-16, b"x"])}], [20, {14: -1}],
        [20, {21: b"x"}],
        [20, {13: 1}], [20, {"a": 1}], [21, True], ["1", 1], [32, b"\x80"],
        [20, {4: -1}], [20, {26: "1"}], [20, {27: b"1"}], [20, {28: [1]}], [20, {28: [6, [1]]}],
        [20, {28: [1, []]}], [20, {28: cbor.encode([1, [-4]])}], [20, {29: cbor.encode({})}],
        [20, {29: {5: 1}}], [20, {29: cbor.encode({5: -1})}], [20, {29: cbor.encode({4: [b"x"]})}],
        [34, {}], [34, {0: {}}], [34, {-1: {21: "/x"}}], [35, {}], [35, {0: []}], [35, {0: ["x"]}], [19, {}],
    ],
)  # fmt: skip
def test_malformed_sequences_are_refused(items: list[Any]) -> None:
    with pytest.raises(Malformed):
        parse_sequence(cbor.encode(items), "x")


@pytest.mark.parametrize("parameter", [{3: cbor.encode([-99, bytes(32)])}, {1: cbor.Tag(112, b"\x19\xd8")}])
def test_what_is_legal_but_not_known_is_unsupported(parameter: dict[int, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        parse_sequence(cbor.encode([20, parameter]), "x")
    assert caught.value.code == "unsupported"


def test_nesting_is_bounded() -> None:
    sequence = encode_sequence((Condition(ConditionCode.ABORT),))
    for _ in range(9):
        sequence = cbor.encode([32, sequence])
    with pytest.raises(Malformed, match="deeper"):
        parse_sequence(sequence, "x")


COMMON = cbor.encode({2: [[b"\x00"]]})


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({1: 2, 2: 0, 3: COMMON}, "unsupported"),
        ({1: 1, 3: COMMON}, "malformed"),
        ({1: 1, 2: 0}, "malformed"),
        ({1: 1, 2: -1, 3: COMMON}, "malformed"),
        ({1: 1, 2: 0, 3: COMMON, 99: 1}, "unsupported"),
        ({1: 1, 2: 0, 3: COMMON, 4: 1}, "malformed"),
        ({1: 1, 2: 0, 3: COMMON, 6: cbor.encode([])}, "malformed"),
        ({1: 1, 2: 0, 3: COMMON, 7: [-16, bytes(32)]}, "malformed"),
        ({1: 1, 2: 0, 3: COMMON, 23: cbor.encode({})}, "malformed"),
        ({1: 1, 2: 0, 3: COMMON, 23: cbor.encode({"en": {1: 2}})}, "malformed"),
        ({1: 1, 2: 0, 3: cbor.encode({2: []})}, "malformed"),
        ({1: 1, 2: 0, 3: cbor.encode({2: [[b"a"], [b"a"]]})}, "malformed"),
        ({1: 1, 2: 0, 3: cbor.encode({1: {}, 2: [[b"a"]]})}, "malformed"),
        ({1: 1, 2: 0, 3: cbor.encode({1: {1: {}}, 2: [[b"a"]]})}, "malformed"),
        ({1: 1, 2: 0, 3: cbor.encode({1: {0: {9: 0}}, 2: [[b"a"]]})}, "unsupported"),
        ({1: 1, 2: 0, 3: cbor.encode({2: [[b"a"]], 9: 0})}, "unsupported"),
    ],
)
def test_manifests_that_are_not_understood_in_full_are_refused(members: dict[int, Any], code: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_manifest(cbor.encode(members))
    assert caught.value.code == code
    assert caught.value.field


def test_software_identifier_changes_nothing_and_is_kept() -> None:
    data = cbor.encode({1: 1, 2: 0, 3: COMMON, 14: [-16, bytes(32)]})
    assert parse_manifest(data).encode() == data


def test_envelope_is_shown_in_full() -> None:
    shown = describe(sign(build_manifest(DESCRIPTION), KEY))
    assert shown["version"] == "2.1.0"
    assert shown["signatures"] == [{"algorithm": "ESP256", "key_id": KEY.public.key_id.hex()}]
    assert shown["components"][0]["digests"] == [DIGEST.hex()]
    assert [next(iter(entry)) for entry in shown["sequences"]["install"]] == [
        "directive",
        "directive",
        "condition",
    ]


def test_every_command_can_be_shown() -> None:
    manifest = read_unverified(build_manifest(DESCRIPTION))
    common = replace(manifest.common, components=((b"\x00",), (b"\x01",), (b"\x02",)))
    manifest = replace(manifest, common=common, load=COMMANDS[3:])
    shown = describe(wrap(manifest).encode())["sequences"]["load"]
    assert shown[0]["parameters"]["uri"] == "coap://x"
    assert shown[0]["parameters"]["version"] == "< 2.0.0-rc.1"
    assert shown[0]["parameters"]["wait-info"]["other-device-version"] == [b"modem".hex(), [[2, [1, 0]]]]
    assert shown[-1] == {"unknown": -300}


def test_trusted_manifest_can_be_large_but_not_without_bound() -> None:
    with pytest.raises(Malformed, match="more than"):
        parse_envelope(bytes(70_000))


def test_a_component_may_have_a_class_of_its_own() -> None:
    modem = ComponentDescription(
        component=(b"modem",),
        digest=DIGEST,
        size=5,
        uri="/fw/modem",
        version="5.0",
        class_name="meter-v2-modem",
    )
    envelope = sign(build_manifest(replace(DESCRIPTION, further=(modem,))), KEY)
    facts = verify(envelope, [KEY.public]).facts
    vendor = vendor_id("acme.example")
    device, own = class_id(vendor, "meter-v2"), class_id(vendor, "meter-v2-modem")
    assert [each.class_ids for each in facts.components] == [(device,), (device, own)]
    assert facts.class_id == device
    for classes, refused in (({device, own}, False), ({device}, True)):
        known = DeviceFacts(
            vendor_ids=frozenset({vendor}),
            class_ids=frozenset({device}),
            components={
                (b"\x00",): ComponentState(),
                (b"modem",): ComponentState(class_ids=frozenset(classes)),
            },
        )
        assert (preflight(verify(envelope, [KEY.public]), known) is not None) is refused
    single = replace(DESCRIPTION, component=(b"modem",), component_class="meter-v2-modem")
    assert verify(sign(build_manifest(single), KEY), [KEY.public]).facts.main.class_ids == (device, own)
