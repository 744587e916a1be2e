"""The manifest processor: order of checks, try-each, soft failure, several components."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    Directive,
    OverrideParameters,
    Parameters,
    RunSequence,
    SetComponentIndex,
    TryEach,
    Unknown,
)
from lwm2m_server.firmware.effects import (
    Answer,
    ComponentState,
    Copy,
    DeviceFacts,
    Effect,
    Fetch,
    Invoke,
    MatchContent,
    MatchImage,
    Swap,
    Write,
    same_content,
)
from lwm2m_server.firmware.envelope import Verified, read_unverified
from lwm2m_server.firmware.facts import facts_of
from lwm2m_server.firmware.manifest import Common, Manifest
from lwm2m_server.firmware.processor import invocation, preflight, update
from lwm2m_server.firmware.refusals import Refusal, RefusalCode, refusal
from lwm2m_server.firmware.suit import ConditionCode, Digest, DirectiveCode, class_id, vendor_id

VENDOR = vendor_id("acme.example")
CLASS = class_id(VENDOR, "meter")
DIGEST = hashlib.sha256(b"image").digest()
MAIN, SECOND, THIRD = (b"\x00",), (b"\x01",), (b"\x02",)
FACTS = DeviceFacts(
    vendor_ids=frozenset({VENDOR}),
    class_ids=frozenset({CLASS, bytes(16)}),
    components={MAIN: ComponentState(version="1.0.0", capacity=1000, slot=1)},
    sequence_number=5,
    device_id=bytes([9]) * 16,
)
SIMPLE = read_unverified(
    build_manifest(
        ManifestDescription(
            vendor_domain="acme.example",
            class_name="meter",
            version="2.0.0",
            sequence_number=6,
            image_digest=DIGEST,
            image_size=900,
            image_uri="/fw/x",
        )
    )
)
FETCH, COPY, SWAP, WRITE, INVOKE = (
    Directive(code)
    for code in (
        DirectiveCode.FETCH, DirectiveCode.COPY, DirectiveCode.SWAP, DirectiveCode.WRITE,
        DirectiveCode.INVOKE,
    )
)  # fmt: skip
ABORT, MATCH, SLOT = (
    Condition(code) for code in (ConditionCode.ABORT, ConditionCode.IMAGE_MATCH, ConditionCode.COMPONENT_SLOT)
)


def setting(**parameters: Any) -> OverrideParameters:
    return OverrideParameters(Parameters(**parameters))


def verified(manifest: Manifest) -> Verified:
    return Verified(b"", manifest, facts_of(manifest), b"")


def installing(*commands: Command, components: tuple[tuple[bytes, ...], ...] = (MAIN,)) -> Verified:
    manifest = Manifest(sequence_number=6, common=Common(components), install=commands)
    return verified(manifest)


def run(
    package: Verified, answer: Callable[[Effect], Answer] = lambda _: True, facts: DeviceFacts = FACTS
) -> list[Effect]:
    effects: list[Effect] = []
    procedure = update(package, facts)
    try:
        effect = next(procedure)
        while True:
            effects.append(effect)
            effect = procedure.send(answer(effect))
    except StopIteration:
        return effects


def code_of(
    package: Verified, answer: Callable[[Effect], Answer] = lambda _: True, facts: DeviceFacts = FACTS
) -> str:
    with pytest.raises(Refusal) as caught:
        run(package, answer, facts)
    return caught.value.code


def test_simple_manifest_fetches_and_matches_twice() -> None:
    digest = Digest.of(b"image")
    assert run(verified(SIMPLE)) == [
        Fetch(MAIN, "/fw/x", digest, 900),
        MatchImage(MAIN, digest, 900),
        MatchImage(MAIN, digest, 900),
    ]


def test_invocation_matches_then_starts() -> None:
    procedure = invocation(verified(SIMPLE), FACTS)
    assert isinstance(next(procedure), MatchImage)
    assert procedure.send(True) == Invoke(MAIN)
    with pytest.raises(StopIteration):
        procedure.send(True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sequence_number": 7}, "sequence-rollback"),
        ({"components": {SECOND: ComponentState()}}, "component-mismatch"),
        ({"vendor_ids": frozenset()}, "vendor-mismatch"),
        ({"class_ids": frozenset({bytes(16)})}, "class-mismatch"),
        ({"components": {MAIN: ComponentState(version="2.0.1")}}, "version-rollback"),
        ({"components": {MAIN: ComponentState(capacity=899)}}, "storage-full"),
    ],
)
def test_preflight_refuses_before_a_byte_is_loaded(change: dict[str, Any], code: str) -> None:
    refused = preflight(verified(SIMPLE), replace(FACTS, **change))
    assert refused is not None
    assert (refused.code, bool(refused.field)) == (code, True)
    assert code_of(verified(SIMPLE), facts=replace(FACTS, **change)) == code


def test_sequence_number_is_checked_before_vendor_and_class() -> None:
    facts = replace(FACTS, sequence_number=99, vendor_ids=frozenset(), components={})
    refused = preflight(verified(SIMPLE), facts)
    assert refused is not None
    assert refused.code == "sequence-rollback"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sequence_number": 6},
        {"components": {MAIN: ComponentState()}},
        {"components": {MAIN: ComponentState(version="?")}},
    ],
)
def test_preflight_lets_what_fits_pass(change: dict[str, Any]) -> None:
    assert preflight(verified(SIMPLE), replace(FACTS, **change)) is None


def test_image_that_does_not_match_is_refused() -> None:
    assert code_of(verified(SIMPLE), lambda effect: not isinstance(effect, MatchImage)) == "digest-mismatch"


def test_failed_fetch_ends_the_update() -> None:
    assert code_of(verified(SIMPLE), lambda effect: not isinstance(effect, Fetch)) == "fetch-failed"
    full = refusal(RefusalCode.STORAGE_FULL, "no room")
    assert (
        code_of(verified(SIMPLE), lambda effect: full if isinstance(effect, Fetch) else True)
        == "storage-full"
    )


def test_first_branch_whose_conditions_hold_is_taken() -> None:
    branches = tuple((setting(component_slot=slot), SLOT, setting(uri=f"/{slot}")) for slot in range(3))
    assert run(installing(TryEach(branches), FETCH)) == [Fetch(MAIN, "/1")]


def test_failed_directive_in_a_branch_does_not_fall_through() -> None:
    package = installing(TryEach(((setting(uri="/a"), FETCH), (setting(uri="/b"), FETCH))))
    assert code_of(package, lambda _: False) == "fetch-failed"


def test_no_branch_ends_the_update_unless_none_is_fine() -> None:
    assert code_of(installing(TryEach(((ABORT,), (MATCH,))))) == "digest-mismatch"
    assert run(installing(TryEach(((ABORT,), (MATCH,)), optional=True))) == []


def test_hard_failure_in_a_branch_ends_the_update() -> None:
    assert (
        code_of(installing(TryEach(((setting(soft_failure=False), ABORT), (MATCH,)), optional=True)))
        == "unsupported"
    )


def test_nested_sequence_fails_hard_unless_it_says_otherwise() -> None:
    assert code_of(installing(RunSequence((ABORT,)))) == "unsupported"
    assert run(installing(RunSequence((setting(soft_failure=True), ABORT)))) == []
    package = installing(TryEach(((RunSequence((ABORT,)), setting(uri="/a")), (setting(uri="/b"),))), FETCH)
    assert run(package) == [Fetch(MAIN, "/b")]


def test_soft_failure_may_not_be_set_at_the_top() -> None:
    assert code_of(installing(setting(soft_failure=True))) == "malformed"


def test_commands_act_on_every_selected_component() -> None:
    facts = replace(FACTS, components=dict.fromkeys((MAIN, SECOND, THIRD), ComponentState()))
    package = installing(
        SetComponentIndex((0, 2)), setting(uri="/a"), FETCH, SetComponentIndex(True), setting(content=b"c"),
        WRITE,
        SetComponentIndex(1), setting(source_component=0), COPY, SWAP,
        components=(MAIN, SECOND, THIRD),
    )  # fmt: skip
    assert run(package, facts=facts) == [
        Fetch(MAIN, "/a"), Fetch(THIRD, "/a"), Write(MAIN, b"c"), Write(SECOND, b"c"), Write(THIRD, b"c"),
        Copy(SECOND, MAIN), Swap(SECOND, MAIN),
    ]  # fmt: skip


def test_selecting_a_component_that_is_not_there_is_malformed() -> None:
    manifest = Manifest(sequence_number=6, common=Common((MAIN,)), install=(SetComponentIndex(1), ABORT))
    with pytest.raises(Refusal, match="does not have"):
        facts_of(manifest)


def test_parameters_stay_from_sequence_to_sequence_and_the_shared_one_runs_first() -> None:
    manifest = replace(
        SIMPLE,
        payload_fetch=(setting(image_digest=Digest.of(b"other")), MATCH),
        install=(MATCH,),
        validate=None,
    )
    digests = [effect.digest for effect in run(verified(manifest)) if isinstance(effect, MatchImage)]
    assert digests == [Digest.of(b"other"), Digest.of(b"image")]


@pytest.mark.parametrize(
    ("parameters", "condition", "holds"),
    [
        ({"device_id": bytes([9]) * 16}, ConditionCode.DEVICE_IDENTIFIER, True),
        ({"device_id": bytes(16)}, ConditionCode.DEVICE_IDENTIFIER, False),
        ({"component_slot": 1}, ConditionCode.COMPONENT_SLOT, True),
        ({"component_slot": 2}, ConditionCode.COMPONENT_SLOT, False),
        ({"uri": "/x"}, ConditionCode.COMPONENT_SLOT, False),
        ({"uri": "/x"}, ConditionCode.DEVICE_IDENTIFIER, False),
        ({"uri": "/x"}, ConditionCode.VENDOR_IDENTIFIER, False),
        ({"uri": "/x"}, ConditionCode.CLASS_IDENTIFIER, False),
        ({"uri": "/x"}, ConditionCode.IMAGE_MATCH, False),
        ({"uri": "/x"}, ConditionCode.CHECK_CONTENT, False),
        ({"class_id": bytes(16)}, ConditionCode.CLASS_IDENTIFIER, True),
        ({"content": b"c"}, ConditionCode.CHECK_CONTENT, True),
    ],
)
def test_condition_holds_or_fails_also_without_its_parameter(
    parameters: dict[str, Any], condition: ConditionCode, holds: bool
) -> None:
    package = installing(setting(**parameters), Condition(condition))
    if holds:
        assert run(package) == ([MatchContent(MAIN, b"c")] if "content" in parameters else [])
    else:
        assert code_of(package)


@pytest.mark.parametrize("directive", [FETCH, COPY, SWAP, WRITE])
def test_directive_without_its_parameter_is_malformed(directive: Directive) -> None:
    assert code_of(installing(directive)) == "malformed"


@pytest.mark.protection("device", "unsupported")
def test_unknown_command_is_unsupported_before_anything_is_done() -> None:
    effects: list[Effect] = []
    package = installing(setting(uri="/x"), FETCH, Unknown(-300, None))
    assert code_of(package, lambda effect: not effects.append(effect)) == "unsupported"
    assert effects == []


def test_unknown_command_in_a_branch_that_is_not_taken_does_no_harm() -> None:
    assert run(installing(TryEach(((setting(component_slot=1), SLOT), (Unknown(-300, None),))))) == []
    assert code_of(installing(TryEach(((ABORT,), (Unknown(-300, None),))))) == "unsupported"


def test_shared_sequence_without_side_effects_only() -> None:
    manifest = Manifest(
        sequence_number=6, common=Common((MAIN,), (setting(uri="/x"), FETCH)), install=(ABORT,)
    )
    assert code_of(verified(manifest)) == "malformed"


def test_severed_sequence_that_did_not_come_along_is_malformed() -> None:
    assert code_of(verified(replace(SIMPLE, install=Digest.of(b"x")))) == "malformed"


def test_contents_are_compared_as_wholes() -> None:
    assert same_content(b"ab", b"ab")
    assert not same_content(b"ab", b"abc")
