"""Deltas that a manifest names: which branch a device takes, and that every other one is harmless."""

import hashlib
from dataclasses import replace

import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.build import ManifestDescription, build_manifest
from lwm2m_server.firmware.commands import (
    Condition,
    Directive,
    OverrideParameters,
    Parameters,
    SetComponentIndex,
    TryEach,
    Unknown,
    encode_sequence,
    parse_sequence,
    walk,
)
from lwm2m_server.firmware.describe import describe
from lwm2m_server.firmware.description import EncryptedPayload
from lwm2m_server.firmware.effects import ApplyDelta, ComponentState, DeviceFacts, Fetch, MatchImage, Room
from lwm2m_server.firmware.encryption import encryption_info
from lwm2m_server.firmware.envelope import Verified, read_unverified
from lwm2m_server.firmware.facts import facts_of
from lwm2m_server.firmware.inplace import NamedDelta, branches, delta_component, is_delta, read_branch
from lwm2m_server.firmware.lint import Assumptions, lint
from lwm2m_server.firmware.manifest import Manifest
from lwm2m_server.firmware.parameters import parse_parameters
from lwm2m_server.firmware.processor import preflight, update
from lwm2m_server.firmware.refusals import Refusal, RefusalCode, refusal
from lwm2m_server.firmware.suit import ConditionCode, Digest, DirectiveCode, class_id, vendor_id

MAIN = (b"\x00",)
STAGED = delta_component(MAIN)
NEW, OLD, OLDER = (hashlib.sha256(name).digest() for name in (b"new", b"old", b"older"))
DELTAS = tuple(
    NamedDelta(
        base=base,
        base_size=900 + number,
        digest=hashlib.sha256(b"delta" + base).digest(),
        size=100 + number,
        uri=f"/fw/delta-{number}",
        memory=4096,
        segment=512,
    )
    for number, base in enumerate((OLD, OLDER))
)
DESCRIPTION = ManifestDescription(
    vendor_domain="acme.example",
    class_name="meter",
    version="2.0.0",
    sequence_number=7,
    image_digest=NEW,
    image_size=1000,
    image_uri="/fw/new",
    deltas=DELTAS,
)
VENDOR = vendor_id("acme.example")
ROOM = Room(4096, 512)


def verified(description: ManifestDescription = DESCRIPTION) -> Verified:
    envelope = build_manifest(description)
    manifest = read_unverified(envelope)
    return Verified(envelope, manifest, facts_of(manifest), b"")


def device(room: Room | None = ROOM, **main: object) -> DeviceFacts:
    return DeviceFacts(
        vendor_ids=frozenset({VENDOR}),
        class_ids=frozenset({class_id(VENDOR, "meter")}),
        components={MAIN: ComponentState(version="1.0.0", in_place=room, **main), STAGED: ComponentState()},
    )


def fetched(room: Room | None, held: bytes) -> list[str]:
    result = lint(verified(), device(room), Assumptions({MAIN: held}))
    assert result.refused is None
    assert not result.warnings
    return list(result.fetched)


def test_a_device_takes_the_branch_of_the_image_that_it_runs() -> None:
    assert fetched(ROOM, OLD) == ["/fw/delta-0"]
    assert fetched(ROOM, OLDER) == ["/fw/delta-1"]
    assert fetched(ROOM, bytes(32)) == ["/fw/new"]
    assert fetched(ROOM, NEW) == []


@pytest.mark.parametrize("room", [None, Room(2048, 512), Room(4096, 1024), Room(8192, 768)])
def test_a_device_that_has_no_such_memory_takes_the_whole_image(room: Room | None) -> None:
    assert fetched(room, OLD) == ["/fw/new"]


@pytest.mark.parametrize("room", [Room(4096, 512), Room(8192, 256)])
def test_a_larger_memory_and_smaller_pages_serve_too(room: Room) -> None:
    assert fetched(room, OLD) == ["/fw/delta-0"]


def test_the_steps_of_a_branch_are_asked_for_in_their_order_with_its_own_parameters() -> None:
    effects = []
    procedure = update(verified(), device())
    effect = next(procedure)
    with pytest.raises(StopIteration):
        while True:
            effects.append(effect)
            wrong = isinstance(effect, MatchImage) and len(effects) == 1  # it does not hold the new one yet
            effect = procedure.send(not wrong)
    new, old, sent = (Digest(-16, value) for value in (NEW, OLD, DELTAS[0].digest))
    assert effects == [
        MatchImage(MAIN, new, 1000),
        MatchImage(MAIN, old, 900),
        Fetch(STAGED, "/fw/delta-0", sent, 100),
        MatchImage(STAGED, sent, 100),
        ApplyDelta(MAIN, STAGED, new, 1000),
        MatchImage(MAIN, new, 1000),
        MatchImage(MAIN, new, 1000),  # validate
    ]


def test_a_delta_that_can_not_be_applied_ends_the_update_and_no_other_branch_is_tried() -> None:
    procedure = update(verified(), device())
    next(procedure)
    effect = procedure.send(False)
    while not isinstance(effect, ApplyDelta):
        effect = procedure.send(True)
    with pytest.raises(Refusal) as caught:
        procedure.send(refusal(RefusalCode.DIGEST_MISMATCH, "it does not fit"))
    assert caught.value.code == "digest-mismatch"


def test_a_device_that_does_not_know_the_condition_refuses_before_it_fetches_anything() -> None:
    """As a processor of another make reads it: what it does not know has no meaning but its number."""
    package = verified()

    def unknown(branch: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(
            Unknown(int(command.code), command.policy)
            if isinstance(command, Condition | Directive) and command.code < -256
            else command
            for command in branch
        )

    install = tuple(
        TryEach(tuple(unknown(branch) for branch in command.branches))
        if isinstance(command, TryEach)
        else command
        for command in package.manifest.install or ()
    )
    stranger = replace(package, manifest=replace(package.manifest, install=install))
    seen = []
    procedure = update(stranger, device())
    seen.append(next(procedure))
    seen.append(procedure.send(False))
    with pytest.raises(Refusal) as caught:
        procedure.send(True)
    assert caught.value.code == "unsupported"
    assert all(isinstance(effect, MatchImage) for effect in seen)


def test_a_device_without_the_component_for_deltas_refuses_beforehand() -> None:
    facts = replace(device(), components={MAIN: ComponentState(version="1.0.0")})
    refused = preflight(verified(), facts)
    assert refused is not None
    assert refused.code == "component-mismatch"


def test_an_image_that_does_not_fit_into_the_slot_is_refused_though_its_delta_would() -> None:
    refused = preflight(verified(), device(capacity=999))
    assert refused is not None
    assert refused.code == "storage-full"
    assert preflight(verified(), device(capacity=1000)) is None


def test_the_facts_name_the_new_image_and_the_deltas_but_never_a_base_as_something_to_install() -> None:
    main, staged = verified().facts.components
    assert (main.digests, main.sizes, main.uris) == ((NEW,), (1000,), ("/fw/new",))
    assert main.deltas == DELTAS
    assert is_delta(staged.component)
    assert not is_delta(main.component)
    assert staged.digests == tuple(delta.digest for delta in DELTAS)
    assert staged.uris == ("/fw/delta-0", "/fw/delta-1")
    shown = describe(verified().envelope)["components"][0]["deltas"][0]
    assert (shown["base"], shown["memory"], shown["segment"]) == (OLD.hex(), 4096, 512)


def test_a_branch_reads_back_as_it_was_made_and_any_other_form_as_plain_commands() -> None:
    made = branches(0, 1, digest=NEW, size=1000, uri="/fw/new", deltas=DELTAS)
    assert [read_branch(branch) for branch in made.branches] == [
        None,
        (0, 1, DELTAS[0]),
        (0, 1, DELTAS[1]),
        None,
    ]
    branch = made.branches[1]
    for at in range(len(branch)):
        assert read_branch((*branch[:at], SetComponentIndex(5), *branch[at + 1 :])) != (0, 1, DELTAS[0])
        assert read_branch((*branch[:at], *branch[at + 1 :])) is None
    assert parse_sequence(encode_sequence((made,)), "install") == (made,)


@pytest.mark.parametrize(
    "value", [1, [], [4096], [4096, 512, 1], [0, 512], [4096, 0], [4096, "512"], [4096, -1]]
)
def test_a_memory_that_can_not_be_is_malformed(value: object) -> None:
    with pytest.raises(Refusal) as caught:
        parse_parameters({-258: value}, "install")
    assert caught.value.code == "malformed"


def test_the_memory_is_an_array_of_two_sizes() -> None:
    sequence = (OverrideParameters(Parameters(in_place=(4096, 512))),)
    assert cbor.decode(encode_sequence(sequence), field="install") == [20, {-258: [4096, 512]}]
    assert parse_sequence(encode_sequence(sequence), "install") == sequence


@pytest.mark.parametrize("command", [Condition(ConditionCode.IN_PLACE), Directive(DirectiveCode.APPLY_DELTA)])
def test_the_shared_sequence_holds_neither(command: Condition | Directive) -> None:
    package = verified()
    common = replace(package.manifest.common, shared_sequence=(command,))
    manifest: Manifest = replace(package.manifest, common=common)
    refused = preflight(replace(package, manifest=manifest), device())
    assert refused is not None
    assert refused.code == "malformed"


def test_what_makes_no_sense_is_not_built() -> None:
    itself = replace(DELTAS[0], base=NEW)
    hidden = EncryptedPayload(
        digest=bytes(32), size=1000, info=encryption_info(bytes(16), [(bytes(16), b"k")])
    )
    for wrong in (
        replace(DESCRIPTION, deltas=(DELTAS[0], DELTAS[0])),
        replace(DESCRIPTION, deltas=(itself,)),
        replace(DESCRIPTION, encrypted=hidden),
    ):
        with pytest.raises(InvalidInput) as caught:
            build_manifest(wrong)
        assert caught.value.field == "in_place"


def test_lint_tells_where_each_branch_ends() -> None:
    result = lint(verified(), device(), Assumptions({MAIN: OLDER}))
    told = [(step.component, step.text, step.outcome) for step in result.steps if step.sequence == "install"]
    assert told[:3] == [
        ("00", f"condition image-match {digest.hex()[:16]}", outcome)
        for digest, outcome in ((NEW, "no"), (OLD, "no"), (OLDER, "ok"))
    ]
    assert ("00", "condition in-place", "ok") in told
    assert ("00", "directive apply-delta from 00/in-place", "ok") in told
    assert [type(each) for each in walk(verified().manifest.install or ())].count(TryEach) == 1
