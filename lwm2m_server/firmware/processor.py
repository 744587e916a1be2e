"""The manifest processor: what a device does with a manifest (draft-ietf-suit-manifest-37, section 6).

Sans-I/O: `update` and `invocation` are generators that yield effects and are sent the answers. A condition is
answered with true or false, a directive with true when done, with false or a `Refusal` when not. They end
normally when the procedure is complete and raise `Refusal` when it is not.

Rules: a failed condition ends its sequence; inside try-each that is soft and the next branch is tried,
elsewhere it ends the procedure. A failed directive always ends the procedure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from lwm2m_server.firmware.commands import (
    Condition,
    Directive,
    OverrideParameters,
    RunSequence,
    Sequence,
    SetComponentIndex,
    TryEach,
    Unknown,
)
from lwm2m_server.firmware.effects import (
    Copy,
    DeviceFacts,
    Effect,
    Fetch,
    Invoke,
    MatchContent,
    MatchImage,
    Procedure,
    Swap,
    Write,
)
from lwm2m_server.firmware.envelope import Verified
from lwm2m_server.firmware.manifest import Manifest
from lwm2m_server.firmware.preflight import INVOCATION, UPDATE, check_manifest, check_sizes, check_versions
from lwm2m_server.firmware.refusals import Malformed, Refusal, RefusalCode, refusal
from lwm2m_server.firmware.suit import (
    ComponentId,
    ConditionCode,
    Digest,
    DirectiveCode,
    ParameterKey,
    component_text,
)


def preflight(verified: Verified, facts: DeviceFacts) -> Refusal | None:
    """Why this device would refuse the manifest before it loads a byte; `None` when it would not.

    In the order of section 6.2: sequence number, components, vendor and class; then our own rules: the
    version must not go down and the image must fit.
    """
    try:
        check_manifest(verified.manifest, facts)
        _drive_shared(_Processor(verified.manifest, facts))
        check_versions(verified, facts)
        check_sizes(verified, facts)
    except Refusal as refused:
        return refused
    return None


def update(verified: Verified, facts: DeviceFacts) -> Procedure:
    """Run the update procedure: payload-fetch, install, validate. `preflight` goes first."""
    refused = preflight(verified, facts)
    if refused is not None:
        raise refused
    yield from _Processor(verified.manifest, facts).procedure(UPDATE)


def invocation(verified: Verified, facts: DeviceFacts) -> Procedure:
    """Run the invocation procedure: validate, load, invoke."""
    check_manifest(verified.manifest, facts)
    yield from _Processor(verified.manifest, facts).procedure(INVOCATION)


def _drive_shared(processor: _Processor) -> None:
    """Run the shared sequence alone; what needs an effect there is left for the procedure itself."""
    run = processor.shared()
    try:
        next(run)
        while True:
            run.send(True)
    except StopIteration:
        return


# -- the processor ---------------------------------------------------------------------


class _ConditionFailed(Exception):
    """A condition does not hold; `soft` when only its sequence ends."""

    def __init__(self, refused: Refusal, *, soft: bool) -> None:
        super().__init__(refused.message)
        self.refused = refused
        self.soft = soft


@dataclass
class _Scope:
    """A sequence being run: its selected components and whether failures are soft in it."""

    current: tuple[int, ...] = (0,)
    soft_failure: bool = False
    may_soften: bool = False


@dataclass
class _Processor:
    manifest: Manifest
    facts: DeviceFacts
    parameters: list[dict[ParameterKey, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = [{} for _ in self.manifest.common.components]

    def procedure(self, names: Iterable[str]) -> Procedure:
        for name in names:
            sequence: Sequence | None = getattr(self.manifest, name)
            if sequence:
                yield from self.shared()
                yield from self._top(sequence)

    def shared(self) -> Procedure:
        yield from self._top(self.manifest.common.shared_sequence)

    def _top(self, sequence: Sequence) -> Procedure:
        try:
            yield from self._run(sequence, _Scope())
        except _ConditionFailed as failed:
            raise failed.refused from None

    def _run(self, sequence: Sequence, scope: _Scope) -> Procedure:
        for command in sequence:
            match command:
                case SetComponentIndex():
                    scope.current = self._select(command)
                case OverrideParameters():
                    self._override(command, scope)
                case Condition():
                    for index in scope.current:
                        yield from self._condition(command.code, index, scope)
                case Directive():
                    for index in scope.current:
                        yield from self._directive(command.code, index)
                case TryEach():
                    yield from self._try_each(command, scope)
                case RunSequence():
                    yield from self._nested(command, scope)
                case Unknown():
                    raise refusal(
                        RefusalCode.UNSUPPORTED, f"command {command.code} is not supported", field="manifest"
                    )

    def _nested(self, command: RunSequence, scope: _Scope) -> Procedure:
        try:
            yield from self._run(command.sequence, _Scope(scope.current, may_soften=True))
        except _ConditionFailed as failed:
            if not failed.soft:
                raise _ConditionFailed(failed.refused, soft=scope.soft_failure) from None

    def _try_each(self, command: TryEach, scope: _Scope) -> Procedure:
        last: Refusal | None = None
        for branch in command.branches:
            try:
                yield from self._run(branch, _Scope(scope.current, soft_failure=True, may_soften=True))
            except _ConditionFailed as failed:
                if not failed.soft:
                    raise
                last = failed.refused
            else:
                return
        if last is not None and not command.optional:
            raise last

    def _select(self, command: SetComponentIndex) -> tuple[int, ...]:
        index, count = command.index, len(self.parameters)
        wanted = range(count) if index is True else index if isinstance(index, tuple) else (int(index),)
        if any(number >= count for number in wanted):
            raise Malformed("a command selects a component that the manifest does not have", field="manifest")
        return tuple(wanted)

    def _override(self, command: OverrideParameters, scope: _Scope) -> None:
        for key, value in command.parameters.known():
            if key is ParameterKey.SOFT_FAILURE:
                if not scope.may_soften:
                    raise Malformed(
                        "soft-failure may only be set inside try-each and run-sequence", field="manifest"
                    )
                scope.soft_failure = bool(value)
                continue
            for index in scope.current:
                self.parameters[index][key] = value

    def _condition(self, code: ConditionCode, index: int, scope: _Scope) -> Procedure:
        if code is ConditionCode.IMAGE_MATCH:
            digest, size = (
                self._get(index, ParameterKey.IMAGE_DIGEST),
                self._get(index, ParameterKey.IMAGE_SIZE),
            )
            effect = (
                MatchImage(self._component(index), digest, _int(size)) if isinstance(digest, Digest) else None
            )
            holds = effect is not None and (yield effect) is True
        elif code is ConditionCode.CHECK_CONTENT:
            content = self._get(index, ParameterKey.CONTENT)
            holds = (
                isinstance(content, bytes) and (yield MatchContent(self._component(index), content)) is True
            )
        else:
            holds = self._holds(code, index)
        if not holds:
            raise _ConditionFailed(self._why(code, index), soft=scope.soft_failure)

    def _holds(self, code: ConditionCode, index: int) -> bool:
        match code:
            case ConditionCode.VENDOR_IDENTIFIER:
                return self._get(index, ParameterKey.VENDOR_ID) in self.facts.vendor_ids
            case ConditionCode.CLASS_IDENTIFIER:
                return self._get(index, ParameterKey.CLASS_ID) in self.facts.class_ids
            case ConditionCode.DEVICE_IDENTIFIER:
                wanted = self._get(index, ParameterKey.DEVICE_ID)
                return wanted is not None and wanted == self.facts.device_id
            case ConditionCode.COMPONENT_SLOT:
                slot = self._get(index, ParameterKey.COMPONENT_SLOT)
                return slot is not None and slot == self.facts.components[self._component(index)].slot
            case _:
                return False

    def _why(self, code: ConditionCode, index: int) -> Refusal:
        known, said = _CONDITION_REFUSALS[code]
        return refusal(
            known, f"{said} (component {component_text(self._component(index))})", field=code.name.lower()
        )

    def _directive(self, code: DirectiveCode, index: int) -> Procedure:
        answer = yield self._effect(code, index)
        if isinstance(answer, Refusal):
            raise answer
        if not answer:
            known = RefusalCode.FETCH_FAILED if code is DirectiveCode.FETCH else RefusalCode.UNSUPPORTED
            raise refusal(known, f"{code.name.lower()} failed", field=code.name.lower())

    def _effect(self, code: DirectiveCode, index: int) -> Effect:
        component = self._component(index)
        if code is DirectiveCode.FETCH:
            digest, uri = self._get(index, ParameterKey.IMAGE_DIGEST), self._get(index, ParameterKey.URI)
            if not isinstance(uri, str):
                raise Malformed("fetch without a URI", field="manifest")
            size, arguments = (
                self._get(index, ParameterKey.IMAGE_SIZE),
                self._get(index, ParameterKey.FETCH_ARGS),
            )
            return Fetch(
                component, uri, digest if isinstance(digest, Digest) else None, _int(size), _bytes(arguments)
            )
        if code is DirectiveCode.WRITE:
            content = _bytes(self._get(index, ParameterKey.CONTENT))
            if content is None:
                raise Malformed("write without content", field="manifest")
            return Write(component, content)
        if code is DirectiveCode.INVOKE:
            return Invoke(component, _bytes(self._get(index, ParameterKey.INVOKE_ARGS)))
        source = _int(self._get(index, ParameterKey.SOURCE_COMPONENT))
        if source is None or source >= len(self.parameters):
            raise Malformed(f"{code.name.lower()} without a source component", field="manifest")
        kind = Copy if code is DirectiveCode.COPY else Swap
        return kind(component, self._component(source))

    def _get(self, index: int, key: ParameterKey) -> object:
        return self.parameters[index].get(key)

    def _component(self, index: int) -> ComponentId:
        return self.manifest.common.components[index]


_CONDITION_REFUSALS: Final = {
    ConditionCode.VENDOR_IDENTIFIER: (RefusalCode.VENDOR_MISMATCH, "the manifest is for another vendor"),
    ConditionCode.CLASS_IDENTIFIER: (
        RefusalCode.CLASS_MISMATCH,
        "the manifest is for another class of device",
    ),
    ConditionCode.DEVICE_IDENTIFIER: (RefusalCode.CLASS_MISMATCH, "the manifest is for another device"),
    ConditionCode.COMPONENT_SLOT: (RefusalCode.COMPONENT_MISMATCH, "the manifest is for another slot"),
    ConditionCode.IMAGE_MATCH: (
        RefusalCode.DIGEST_MISMATCH,
        "the image does not have the digest in the manifest",
    ),
    ConditionCode.CHECK_CONTENT: (RefusalCode.DIGEST_MISMATCH, "the content is not the one in the manifest"),
    ConditionCode.ABORT: (RefusalCode.UNSUPPORTED, "the manifest has no way for this device"),
}


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None
