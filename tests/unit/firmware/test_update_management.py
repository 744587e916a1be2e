"""Conditions and directives of update management and trust domains, and who may sign, rule by rule."""

from dataclasses import replace
from typing import Any

import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    CopyParameters,
    Directive,
    OverrideMultiple,
    OverrideParameters,
    Parameters,
    SetComponentIndex,
    SetParameters,
)
from lwm2m_server.firmware.effects import (
    Authorize,
    ComponentState,
    Copy,
    DeviceFacts,
    Effect,
    Fetch,
    MatchImage,
    Wait,
    Write,
)
from lwm2m_server.firmware.envelope import Verified
from lwm2m_server.firmware.facts import facts_of
from lwm2m_server.firmware.keys import KeyType, SigningKey
from lwm2m_server.firmware.lint import lint
from lwm2m_server.firmware.manifest import Common, Dependency, Manifest
from lwm2m_server.firmware.processor import update
from lwm2m_server.firmware.refusals import Refusal
from lwm2m_server.firmware.suit import ConditionCode, Digest, DirectiveCode
from lwm2m_server.firmware.suit_versions import Comparison, VersionMatch, requirements
from lwm2m_server.firmware.trust import Role, TrustAnchor, judge

MAIN, OTHER = (b"\x00",), (b"\x01",)
FACTS = DeviceFacts(
    vendor_ids=frozenset(),
    class_ids=frozenset(),
    components={MAIN: ComponentState(version="1.2.0"), OTHER: ComponentState(version="7.0.0-rc.1")},
    now=1000.0,
    battery=500,
)
DIGEST = Digest.of(b"image")
FETCH = Directive(DirectiveCode.FETCH)


def setting(**parameters: Any) -> OverrideParameters:
    return OverrideParameters(Parameters(**parameters))


def package(*commands: Command, approver: bytes | None = None, **members: Any) -> Verified:
    manifest = Manifest(sequence_number=6, common=Common((MAIN, OTHER)), install=commands, **members)
    return Verified(b"", manifest, facts_of(manifest), b"", approver, (), {"#x": b"image"})


def run(verified: Verified, *, facts: DeviceFacts = FACTS, held: bool = True) -> list[Effect]:
    effects: list[Effect] = []
    procedure = update(verified, facts)
    try:
        effect = next(procedure)
        while True:
            effects.append(effect)
            effect = procedure.send(held)
    except StopIteration:
        return effects


def code(verified: Verified, **options: Any) -> str:
    with pytest.raises(Refusal) as caught:
        run(verified, **options)
    assert caught.value.field
    return str(caught.value.code)


@pytest.mark.parametrize(
    ("condition", "parameters", "good", "bad", "refused"),
    [
        (ConditionCode.USE_BEFORE, {"use_before": 1001}, {}, {"now": 1001.0}, "expired"),
        (ConditionCode.USE_BEFORE, {"use_before": 1001}, {}, {"now": None}, "expired"),
        (ConditionCode.MINIMUM_BATTERY, {"minimum_battery": 500}, {}, {"battery": 499}, "battery-low"),
        (ConditionCode.MINIMUM_BATTERY, {"minimum_battery": 500}, {}, {"battery": None}, "battery-low"),
        (
            ConditionCode.VERSION,
            {"version": VersionMatch(Comparison.LESSER, (2,))},
            {},
            {"components": {MAIN: ComponentState(version="2.0"), OTHER: ComponentState()}},
            "precursor-mismatch",
        ),
        (
            ConditionCode.VERSION,
            {"version": VersionMatch(Comparison.LESSER, (2,))},
            {},
            {"components": {MAIN: ComponentState(), OTHER: ComponentState()}},
            "precursor-mismatch",
        ),
    ],
)
def test_condition_holds_refuses_and_fails_without_its_parameter(
    condition: ConditionCode,
    parameters: dict[str, Any],
    good: dict[str, Any],
    bad: dict[str, Any],
    refused: str,
) -> None:
    asking = package(setting(**parameters), Condition(condition))
    assert run(asking, facts=replace(FACTS, **good)) == []
    assert code(asking, facts=replace(FACTS, **bad)) == refused
    assert code(package(Condition(condition))) == refused


def test_image_not_match_is_the_opposite_of_image_match_and_needs_a_digest() -> None:
    asking = package(setting(image_digest=DIGEST), Condition(ConditionCode.IMAGE_NOT_MATCH))
    assert run(asking, held=False) == [MatchImage(MAIN, DIGEST)]
    assert code(asking) == "precursor-mismatch"
    assert code(package(Condition(ConditionCode.IMAGE_NOT_MATCH)), held=False) == "precursor-mismatch"


def test_the_application_is_asked_with_the_priority() -> None:
    asking = package(setting(update_priority=-3), Condition(ConditionCode.UPDATE_AUTHORIZED))
    assert run(asking) == [Authorize(MAIN, -3)]
    assert code(asking, held=False) == "not-authorized"


def test_wait_names_its_events() -> None:
    wait = Directive(DirectiveCode.WAIT)
    assert run(package(setting(wait_info=((5, 2000),)), wait)) == [Wait(MAIN, ((5, 2000),))]
    assert code(package(wait)) == "malformed"


def test_effects_carry_integrated_payloads_and_encryption() -> None:
    commands = (
        setting(uri="#x", encryption_info=b"e", image_digest=DIGEST, content=b"c", source_component=1),
        FETCH,
        Directive(DirectiveCode.WRITE),
        Directive(DirectiveCode.COPY),
    )
    assert run(package(*commands)) == [
        Fetch(MAIN, "#x", DIGEST, content=b"image", encryption=b"e"),
        Write(MAIN, b"c", b"e"),
        Copy(MAIN, OTHER, b"e", DIGEST),
    ]


def test_parameters_of_several_components_are_set_copied_and_kept() -> None:
    commands = (
        OverrideMultiple(((0, Parameters(uri="/a")), (1, Parameters(uri="/b", image_size=9)))),
        FETCH,
        SetComponentIndex(0),
        SetParameters(Parameters(uri="/ignored", image_size=3)),
        FETCH,
        CopyParameters(((1, (21,)),)),
        FETCH,
    )
    assert run(package(*commands)) == [
        Fetch(OTHER, "/b", size=9),
        Fetch(MAIN, "/a", size=3),
        Fetch(MAIN, "/b", size=3),
    ]
    assert code(package(CopyParameters(((1, (21,)),)))) == "malformed"


@pytest.mark.parametrize(
    "verified",
    [
        package(Directive(DirectiveCode.PROCESS_DEPENDENCY)),
        package(Directive(DirectiveCode.UNLINK)),
        package(Condition(ConditionCode.DEPENDENCY_INTEGRITY)),
        package(Condition(ConditionCode.IS_DEPENDENCY)),
        package(setting(other=((30, {}),))),
        Verified(
            b"",
            manifest := Manifest(sequence_number=6, common=Common((MAIN, OTHER), (), (Dependency(1),))),
            facts_of(manifest),
            b"",
        ),
    ],
)
def test_what_is_parsed_but_not_supported_is_refused_before_anything_is_done(verified: Verified) -> None:
    assert code(verified) == "unsupported"


def test_custom_parameters_are_hints() -> None:
    assert run(package(setting(uri="/x", other=((-300, 1),)), FETCH)) == [Fetch(MAIN, "/x")]


def test_candidate_verification_runs_between_fetching_and_installing() -> None:
    order = package(
        setting(uri="/b"), FETCH,
        payload_fetch=(setting(uri="/a"), FETCH),
        candidate_verification=(setting(image_digest=DIGEST), Condition(ConditionCode.IMAGE_MATCH)),
    )  # fmt: skip
    assert [type(effect) for effect in run(order)] == [Fetch, MatchImage, Fetch]


def test_operator_approval_holds_by_a_second_signature_and_not_in_the_shared_sequence() -> None:
    approval = Condition(ConditionCode.OPERATOR_APPROVAL)
    assert code(package(approval)) == "not-approved"
    assert run(package(approval, approver=b"k")) == []
    manifest = Manifest(sequence_number=6, common=Common((MAIN,), (approval,)), install=(setting(uri="/x"),))
    shared = Verified(b"", manifest, facts_of(manifest), b"", b"k")
    assert code(shared) == "malformed"


@pytest.mark.parametrize(
    ("text", "present", "holds"),
    [
        ("> 1.0", (1, 0, 0), False), ("> 1.0", (1, 0, 1), True), (">= 1.0", (1, 0, 0), True),
        ("= 1.2.3", (1, 2, 3), True), ("== 1.2.3", (1, 2, 4), False), ("<= 2.0", (2, 0, 0), True),
        ("< 2.0", (2, 0, 0), False), ("< 2.0.0-rc.1", (2, 0, 0, -2, 5), True), ("< 2.0", (2, 0, 0, -1, 1), False),
        ("> 2.0.0-rc.1", (2, 0, 0), True), (">= 1.0", (1,), True),
    ],
)  # fmt: skip
def test_versions_are_compared_number_by_number_as_far_as_the_manifest_says(
    text: str, present: tuple[int, ...], holds: bool
) -> None:
    (match,) = requirements(text)
    assert match.holds(present) is holds


@pytest.mark.parametrize("text", ["", "1.0", "> ", "~ 1.0", "> 1.0 2.0", ">= nightly", "> 1.0,"])
def test_what_requires_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        requirements(text)


AUTHOR, OPERATOR, SECOND = (
    SigningKey.generate().public,
    SigningKey.generate().public,
    SigningKey.generate(KeyType.ED25519).public,
)
BOTH = frozenset(Role)


@pytest.mark.parametrize(
    ("signers", "anchors", "now", "end"),
    [
        ([AUTHOR], [TrustAnchor(AUTHOR)], None, "ok"),
        ([AUTHOR], [TrustAnchor(AUTHOR, revoked=True)], 5.0, "key-revoked"),
        ([AUTHOR], [TrustAnchor(AUTHOR, not_after=5.0)], 4.9, "ok"),
        ([AUTHOR], [TrustAnchor(AUTHOR, not_after=5.0)], 5.0, "key-expired"),
        ([AUTHOR], [TrustAnchor(AUTHOR, not_after=5.0)], None, "key-expired"),
        ([AUTHOR], [TrustAnchor(AUTHOR, not_before=5.0)], 4.9, "key-not-yet-valid"),
        ([AUTHOR], [TrustAnchor(AUTHOR, not_before=5.0)], 5.0, "ok"),
        ([OPERATOR], [TrustAnchor(OPERATOR, frozenset({Role.OPERATOR_APPROVAL}))], 5.0, "role-mismatch"),
        ([AUTHOR], [TrustAnchor(AUTHOR, requires=KeyType.ED25519)], 5.0, "second-signature"),
        ([AUTHOR, SECOND], [TrustAnchor(AUTHOR, requires=KeyType.ED25519), TrustAnchor(SECOND)], 5.0, "ok"),
        (
            [AUTHOR, SECOND],
            [TrustAnchor(AUTHOR, requires=KeyType.ED25519), TrustAnchor(SECOND, revoked=True)],
            5.0,
            "second-signature",
        ),
        ([SECOND], [TrustAnchor(SECOND, requires=KeyType.ED25519)], 5.0, "second-signature"),
        ([AUTHOR, SECOND], [TrustAnchor(AUTHOR, revoked=True), TrustAnchor(SECOND)], 5.0, "ok"),
    ],
)
def test_whose_signatures_are_enough(signers: Any, anchors: Any, now: float | None, end: str) -> None:
    if end == "ok":
        assert judge(signers, anchors, now, field="x").author in signers
        return
    with pytest.raises(Refusal) as caught:
        judge(signers, anchors, now, field="x")
    assert (caught.value.code, caught.value.field) == (end, "x")


def test_an_approver_is_another_key_than_the_author() -> None:
    assert judge([AUTHOR], [TrustAnchor(AUTHOR, BOTH)], 5.0, field="x").approver is None
    anchors = [TrustAnchor(AUTHOR, BOTH), TrustAnchor(OPERATOR, frozenset({Role.OPERATOR_APPROVAL}))]
    assert judge([AUTHOR, OPERATOR], anchors, 5.0, field="x").approver == OPERATOR
    expired = [anchors[0], replace(anchors[1], not_after=5.0)]
    assert judge([AUTHOR, OPERATOR], expired, 5.0, field="x").approver is None


def test_lint_shows_the_branches_that_a_device_passes_over() -> None:
    from lwm2m_server.firmware.commands import TryEach

    version = Condition(ConditionCode.VERSION)
    branches = tuple(
        (setting(version=VersionMatch(Comparison.EQUAL, (number,)), uri=f"/{number}"), version)
        for number in (3, 1)
    )
    result = lint(package(TryEach(branches), setting(image_digest=DIGEST), FETCH), FACTS)
    assert [(step.depth, step.outcome) for step in result.steps] == [(1, "no"), (1, "ok"), (0, "ok")]
    assert (result.refused, result.fetched) == (None, ("/1",))
    assert any("does not match its digest" in warning for warning in result.warnings)
    assert any("vendor and class" in warning for warning in result.warnings)
