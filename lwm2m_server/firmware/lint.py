"""What a device would do with a manifest, step by step, and what an author may want to know of it.

The device is described by its facts; images are taken to be what their manifest says. Nothing here is a
judgement of trust: signatures are those of `Verified`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lwm2m_server.firmware.commands import Condition, Directive, OverrideParameters, SetComponentIndex, walk
from lwm2m_server.firmware.describe import describe_command
from lwm2m_server.firmware.effects import (
    Answer,
    ApplyDelta,
    Authorize,
    Copy,
    DeviceFacts,
    Effect,
    Fetch,
    MatchContent,
    MatchImage,
    Procedure,
    Swap,
    Wait,
    Write,
)
from lwm2m_server.firmware.encryption import describe_encryption, parse_encryption_info
from lwm2m_server.firmware.envelope import Verified
from lwm2m_server.firmware.manifest import SEQUENCES, Manifest
from lwm2m_server.firmware.processor import Step, invocation, preflight, update
from lwm2m_server.firmware.refusals import Refusal, RefusalCode, refusal
from lwm2m_server.firmware.suit import ComponentId, ConditionCode, Digest, DirectiveCode, component_text

_SHOWN = 16
"""Digits of a digest in a step: enough to tell images apart."""


@dataclass(frozen=True, slots=True)
class LintStep:
    """One thing that the device does or asks. `outcome` is `ok`, `no` (the next branch is tried) or a code."""

    sequence: str
    component: str
    depth: int
    text: str
    outcome: str


@dataclass(frozen=True, slots=True)
class LintResult:
    """Whether the device takes the manifest; `refused` is why not. `warnings` are for the author."""

    steps: tuple[LintStep, ...]
    refused: Refusal | None
    warnings: tuple[str, ...]
    fetched: tuple[str, ...] = ()
    invoked: bool = False


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is not in the manifest: digests (SHA-256) that components hold now, and the application's answer.

    What is put into one of the `failing` components is never what it should be.
    """

    installed: Mapping[ComponentId, bytes] = field(default_factory=dict)
    failing: frozenset[ComponentId] = frozenset()
    authorized: bool = True


def lint(verified: Verified, facts: DeviceFacts, assumed: Assumptions | None = None) -> LintResult:
    """Run update and invocation on a device that exists only here."""
    run = _Run(assumed or Assumptions())
    refused = preflight(verified, facts)
    if refused is None:
        refused = run.drive(update(verified, facts, run.told)) or run.drive(
            invocation(verified, facts, run.told)
        )
    else:
        run.steps.append(LintStep("before", "", 0, refused.field or "manifest", str(refused.code)))
    return LintResult(
        tuple(run.steps),
        refused,
        tuple(warnings_of(verified.manifest)),
        tuple(run.fetched),
        invoked=refused is None and verified.manifest.invoke is not None,
    )


class _Run:
    """Answers effects as a device would whose transfers always work."""

    def __init__(self, assumed: Assumptions) -> None:
        self._assumed = assumed
        self._content: dict[ComponentId, Digest | bytes] = {
            component: Digest(-16, digest) for component, digest in assumed.installed.items()
        }
        self.steps: list[LintStep] = []
        self.fetched: list[str] = []
        self._last: Effect | None = None

    def drive(self, procedure: Procedure) -> Refusal | None:
        try:
            effect = next(procedure)
            while True:
                self._last = effect
                effect = procedure.send(self._answer(effect))
        except StopIteration:
            return None
        except Refusal as refused:
            return refused

    def told(self, step: Step) -> None:
        text = describe_command(step.command)
        if isinstance(self._last, Fetch):
            size = "" if self._last.size is None else f", {self._last.size} bytes"
            text += f" {self._last.uri}{size}"
        if isinstance(self._last, Copy) and self._last.encryption is not None:
            text += f" {_decryption(self._last)}"
        if isinstance(self._last, MatchImage):
            text += f" {self._last.digest.value.hex()[:_SHOWN]}"
        if isinstance(self._last, ApplyDelta):
            text += f" from {component_text(self._last.source)}"
        outcome = "ok" if step.refused is None else "no" if step.soft else str(step.refused.code)
        self.steps.append(LintStep(step.sequence, component_text(step.component), step.depth, text, outcome))
        self._last = None

    def _answer(self, effect: Effect) -> Answer:
        match effect:
            case Fetch():
                self.fetched.append(effect.uri)
                if effect.digest is None:
                    return refusal(
                        RefusalCode.DIGEST_MISMATCH, "an image without a digest is fetched", field="fetch"
                    )
                self._content[effect.component] = effect.digest
            case MatchImage() if effect.component in self._assumed.failing:
                return False
            case MatchImage():
                held = self._content.get(effect.component)
                return effect.digest.matches(held) if isinstance(held, bytes) else held == effect.digest
            case MatchContent():
                held = self._content.get(effect.component)
                wanted = effect.content
                return (
                    held == wanted if isinstance(held, bytes) else held is not None and held.matches(wanted)
                )
            case Write():
                self._content[effect.component] = effect.content
            case Copy(encryption=None):
                self._move(effect.component, effect.source)
            case Copy():
                return self._decrypt(effect)
            case ApplyDelta():
                self._content.pop(effect.component, None)
                if effect.digest is not None:
                    self._content[effect.component] = effect.digest
            case Swap():
                before = self._content.pop(effect.component, None)
                self._move(effect.component, effect.source)
                self._content.pop(effect.source, None)
                if before is not None:
                    self._content[effect.source] = before
            case Authorize():
                return self._assumed.authorized
            case Wait() | _:
                pass
        return True

    def _decrypt(self, copy: Copy) -> Answer:
        """With the right key the result is what the manifest says; this device may have it."""
        try:
            parse_encryption_info(copy.encryption or b"")
        except Refusal as refused:
            return refused
        self._content.pop(copy.component, None)
        if copy.digest is not None:
            self._content[copy.component] = copy.digest
        return True

    def _move(self, component: ComponentId, source: ComponentId) -> None:
        self._content.pop(component, None)
        if source in self._content:
            self._content[component] = self._content[source]


def _decryption(copy: Copy) -> str:
    at = f"from {component_text(copy.source)}, decrypting"
    try:
        found = describe_encryption(copy.encryption or b"")
    except Refusal as refused:
        return f"{at}: {refused.message}"
    return f"{at} by {found['algorithm']}, key {' or '.join(found['key_ids'])} ({found['key_wrap']})"


def warnings_of(manifest: Manifest) -> Iterator[str]:
    """What is legal and may still not be meant."""
    shared = list(walk(manifest.common.shared_sequence))
    asked = {command.code for command in shared if isinstance(command, Condition)}
    if not {ConditionCode.VENDOR_IDENTIFIER, ConditionCode.CLASS_IDENTIFIER} <= asked:
        yield "the shared sequence does not check both vendor and class: any device may take it"
    for name in SEQUENCES.values():
        sequence = getattr(manifest, name)
        if not isinstance(sequence, tuple):
            continue
        several = len(manifest.common.components) > 1
        if several and not isinstance(sequence[0], SetComponentIndex):
            yield f"{name} does not begin with set-component-index though there are several components"
        commands = list(walk(sequence))
        loads = [c for c in commands if isinstance(c, Directive) and c.code in _LOADING]
        matches = any(
            isinstance(c, Condition) and c.code in (ConditionCode.IMAGE_MATCH, ConditionCode.CHECK_CONTENT)
            for c in commands
        )
        if loads and not matches:
            yield f"{name} loads an image and does not match its digest"
        if any(isinstance(c, OverrideParameters) and c.parameters.other for c in commands):
            yield f"{name} sets parameters that are not known here"
    if manifest.validate is None:
        yield "there is no validate sequence: nothing is checked before the start"
    if manifest.invoke is None:
        yield "there is no invoke sequence: the device is not told what to start"
    if manifest.set_version is None:
        yield "there is no machine-readable version: devices can't compare it"
    if manifest.text is None:
        yield "there is no text: plain devices can't be compared with manufacturer and model"
    if manifest.sequence_number == 0:
        yield "the sequence number is 0, which every device accepts again and again"


_LOADING = frozenset(
    {
        DirectiveCode.FETCH,
        DirectiveCode.COPY,
        DirectiveCode.WRITE,
        DirectiveCode.SWAP,
        DirectiveCode.APPLY_DELTA,
    }
)


def difference(one: object, two: object, at: str = "") -> Iterator[tuple[str, object, object]]:
    """Where two descriptions (`describe`) differ: path, what the first says, what the second says."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in dict.fromkeys((*one, *two)):
            yield from difference(one.get(key), two.get(key), f"{at}/{key}" if at else str(key))
    elif isinstance(one, list) and isinstance(two, list):
        for index in range(max(len(one), len(two))):
            first = one[index] if index < len(one) else None
            second = two[index] if index < len(two) else None
            yield from difference(first, second, f"{at}/{index}")
    elif one != two or type(one) is not type(two):
        yield at, one, two
