"""The manifest processor: what a device does with a manifest (draft-ietf-suit-manifest-37, section 6).

Sans-I/O: `update` and `invocation` are generators that yield effects and are sent the answers. A condition is
answered with true or false, a directive with true when done, with false or a `Refusal` when not. They end
normally when the procedure is complete and raise `Refusal` when it is not.

Rules: a failed condition ends its sequence; inside try-each that is soft and the next branch is tried,
elsewhere it ends the procedure. A failed directive always ends the procedure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    CopyParameters,
    Directive,
    OverrideMultiple,
    OverrideParameters,
    Parameters,
    RunSequence,
    Sequence,
    SetComponentIndex,
    SetParameters,
    TryEach,
    Unknown,
)
from lwm2m_server.firmware.conditions import holds, why_not
from lwm2m_server.firmware.effects import (
    ApplyDelta,
    Authorize,
    Copy,
    DeviceFacts,
    Effect,
    Fetch,
    Invoke,
    MatchContent,
    MatchImage,
    Procedure,
    Swap,
    Wait,
    Write,
)
from lwm2m_server.firmware.envelope import Verified
from lwm2m_server.firmware.preflight import (
    INVOCATION,
    UPDATE,
    check_approval,
    check_manifest,
    check_sizes,
    check_versions,
)
from lwm2m_server.firmware.refusals import Malformed, Refusal, RefusalCode, refusal
from lwm2m_server.firmware.suit import (
    ComponentId,
    ConditionCode,
    Digest,
    DirectiveCode,
    ParameterKey,
)


@dataclass(frozen=True, slots=True)
class Step:
    """A command that has ended, for `lint`: in which sequence, how deep in branches, for which component.

    `refused` says why it failed; `soft` that only its sequence ends with it.
    """

    sequence: str
    depth: int
    component: ComponentId
    command: Command
    refused: Refusal | None = None
    soft: bool = False


Trace = Callable[[Step], None]


def preflight(verified: Verified, facts: DeviceFacts) -> Refusal | None:
    """Why this device would refuse the manifest before it loads a byte; `None` when it would not.

    In the order of section 6.2: sequence number, components, vendor and class; then our own rules: the
    version must not go down (`check_approval`) and the image must fit.
    """
    try:
        check_manifest(verified.manifest, facts)
        _drive_shared(_Processor(verified, facts))
        check_versions(verified, facts)
        check_sizes(verified, facts)
    except Refusal as refused:
        return refused
    return None


def update(verified: Verified, facts: DeviceFacts, trace: Trace | None = None) -> Procedure:
    """Run the update procedure: payload-fetch, install, validate. `preflight` goes first.

    `trace` is told of each command as it ends.
    """
    refused = preflight(verified, facts)
    if refused is not None:
        raise refused
    yield from _Processor(verified, facts, trace).procedure(UPDATE)


def invocation(verified: Verified, facts: DeviceFacts, trace: Trace | None = None) -> Procedure:
    """Run the invocation procedure: validate, load, invoke."""
    check_manifest(verified.manifest, facts)
    check_approval(verified)
    yield from _Processor(verified, facts, trace).procedure(INVOCATION)


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
    depth: int = 0


@dataclass
class _Processor:
    verified: Verified
    facts: DeviceFacts
    trace: Trace | None = None
    parameters: list[dict[ParameterKey, object]] = field(default_factory=list)
    running: str = ""

    def __post_init__(self) -> None:
        self.manifest = self.verified.manifest
        self.parameters = [{} for _ in self.manifest.common.components]

    def procedure(self, names: Iterable[str]) -> Procedure:
        for name in names:
            sequence: Sequence | None = getattr(self.manifest, name)
            if sequence:
                yield from self.shared()
                self.running = name
                yield from self._top(sequence)

    def shared(self) -> Procedure:
        self.running = "shared_sequence"
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
                    self._override(command.parameters, scope)
                case SetParameters():
                    self._override(command.parameters, scope, keep=True)
                case OverrideMultiple():
                    for index, given in command.entries:
                        scope.current = self._select(SetComponentIndex(index))
                        self._override(given, scope)
                case CopyParameters():
                    self._copy_parameters(command, scope)
                case Condition():
                    for index in scope.current:
                        yield from self._traced(command, index, scope)
                case Directive():
                    for index in scope.current:
                        yield from self._traced(command, index, scope)
                case TryEach():
                    yield from self._try_each(command, scope)
                case RunSequence():
                    yield from self._nested(command, scope)
                case Unknown():
                    raise refusal(
                        RefusalCode.UNSUPPORTED, f"command {command.code} is not supported", field="manifest"
                    )

    def _traced(self, command: Condition | Directive, index: int, scope: _Scope) -> Procedure:
        step = Step(self.running, scope.depth, self._component(index), command)
        try:
            if isinstance(command, Condition):
                yield from self._condition(command.code, index, scope)
            else:
                yield from self._directive(command.code, index)
        except _ConditionFailed as failed:
            self._tell(replace(step, refused=failed.refused, soft=failed.soft))
            raise
        except Refusal as refused:
            self._tell(replace(step, refused=refused))
            raise
        self._tell(step)

    def _tell(self, step: Step) -> None:
        if self.trace is not None:
            self.trace(step)

    def _nested(self, command: RunSequence, scope: _Scope) -> Procedure:
        try:
            inner = _Scope(scope.current, may_soften=True, depth=scope.depth + 1)
            yield from self._run(command.sequence, inner)
        except _ConditionFailed as failed:
            if not failed.soft:
                raise _ConditionFailed(failed.refused, soft=scope.soft_failure) from None

    def _try_each(self, command: TryEach, scope: _Scope) -> Procedure:
        last: Refusal | None = None
        for branch in command.branches:
            try:
                inner = _Scope(scope.current, soft_failure=True, may_soften=True, depth=scope.depth + 1)
                yield from self._run(branch, inner)
            except _ConditionFailed as failed:
                if not failed.soft:
                    raise
                last = failed.refused
            else:
                return
        if last is not None and not command.optional:
            raise _ConditionFailed(last, soft=scope.soft_failure)

    def _select(self, command: SetComponentIndex) -> tuple[int, ...]:
        index, count = command.index, len(self.parameters)
        wanted = range(count) if index is True else index if isinstance(index, tuple) else (int(index),)
        if any(number >= count for number in wanted):
            raise Malformed("a command selects a component that the manifest does not have", field="manifest")
        return tuple(wanted)

    def _override(self, given: Parameters, scope: _Scope, *, keep: bool = False) -> None:
        """Set parameters of the current components; `keep` leaves those that are set already."""
        for key, value in given.known():
            if key is ParameterKey.SOFT_FAILURE:
                if not scope.may_soften:
                    raise Malformed(
                        "soft-failure may only be set inside try-each and run-sequence", field="manifest"
                    )
                scope.soft_failure = bool(value)
                continue
            for index in scope.current:
                if not (keep and key in self.parameters[index]):
                    self.parameters[index][key] = value

    def _copy_parameters(self, command: CopyParameters, scope: _Scope) -> None:
        for source, numbers in command.entries:
            (index,) = self._select(SetComponentIndex(source))
            for key in (ParameterKey(number) for number in numbers if number in set(ParameterKey)):
                if key not in self.parameters[index]:
                    raise Malformed("a parameter is copied that is not set", field="manifest")
                for target in scope.current:
                    self.parameters[target][key] = self.parameters[index][key]

    def _condition(self, code: ConditionCode, index: int, scope: _Scope) -> Procedure:
        component = self._component(index)
        held = False
        if code in (ConditionCode.IMAGE_MATCH, ConditionCode.IMAGE_NOT_MATCH):
            digest = self._get(index, ParameterKey.IMAGE_DIGEST)
            size = _int(self._get(index, ParameterKey.IMAGE_SIZE))
            if isinstance(digest, Digest):
                answer = yield MatchImage(component, digest, size)
                held = (answer is True) == (code is ConditionCode.IMAGE_MATCH)
        elif code is ConditionCode.CHECK_CONTENT:
            content = _bytes(self._get(index, ParameterKey.CONTENT))
            held = content is not None and (yield MatchContent(component, content)) is True
        elif code is ConditionCode.UPDATE_AUTHORIZED:
            priority = _int(self._get(index, ParameterKey.UPDATE_PRIORITY))
            held = (yield Authorize(component, priority)) is True
        else:
            state = self.facts.components.get(component)
            approved = self.verified.approver_id is not None
            held = holds(code, self.parameters[index], self.facts, state, approved=approved)
        if not held:
            raise _ConditionFailed(why_not(code, component), soft=scope.soft_failure)

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
            return self._fetch(component, index)
        if code is DirectiveCode.WRITE:
            content = _bytes(self._get(index, ParameterKey.CONTENT))
            if content is None:
                raise Malformed("write without content", field="manifest")
            return Write(component, content, self._encryption(index))
        if code is DirectiveCode.INVOKE:
            return Invoke(component, _bytes(self._get(index, ParameterKey.INVOKE_ARGS)))
        if code is DirectiveCode.WAIT:
            events = self._get(index, ParameterKey.WAIT_INFO)
            if not isinstance(events, tuple):
                raise Malformed("wait without what to wait for", field="manifest")
            return Wait(component, events)
        source = _int(self._get(index, ParameterKey.SOURCE_COMPONENT))
        if source is None or source >= len(self.parameters):
            raise Malformed(f"{code.name.lower()} without a source component", field="manifest")
        if code in (DirectiveCode.COPY, DirectiveCode.APPLY_DELTA):
            found = self._get(index, ParameterKey.IMAGE_DIGEST)
            digest = found if isinstance(found, Digest) else None
            size = _int(self._get(index, ParameterKey.IMAGE_SIZE))
            if code is DirectiveCode.APPLY_DELTA:
                return ApplyDelta(component, self._component(source), digest, size)
            return Copy(component, self._component(source), self._encryption(index), digest, size)
        return Swap(component, self._component(source))

    def _fetch(self, component: ComponentId, index: int) -> Fetch:
        uri, digest = self._get(index, ParameterKey.URI), self._get(index, ParameterKey.IMAGE_DIGEST)
        if not isinstance(uri, str):
            raise Malformed("fetch without a URI", field="manifest")
        return Fetch(
            component,
            uri,
            digest if isinstance(digest, Digest) else None,
            _int(self._get(index, ParameterKey.IMAGE_SIZE)),
            _bytes(self._get(index, ParameterKey.FETCH_ARGS)),
            self.verified.payloads.get(uri),
            self._encryption(index),
        )

    def _encryption(self, index: int) -> bytes | None:
        return _bytes(self._get(index, ParameterKey.ENCRYPTION_INFO))

    def _get(self, index: int, key: ParameterKey) -> object:
        return self.parameters[index].get(key)

    def _component(self, index: int) -> ComponentId:
        return self.manifest.common.components[index]


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None
