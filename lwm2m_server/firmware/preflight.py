"""Checks of a verified manifest before anything in it runs (draft-ietf-suit-manifest-37, section 6.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lwm2m_server import versions
from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    Directive,
    OverrideMultiple,
    OverrideParameters,
    Sequence,
    SetParameters,
    Unknown,
    walk,
)
from lwm2m_server.firmware.effects import DeviceFacts
from lwm2m_server.firmware.envelope import Verified
from lwm2m_server.firmware.manifest import Manifest
from lwm2m_server.firmware.refusals import Malformed, RefusalCode, refusal
from lwm2m_server.firmware.suit import (
    CUSTOM,
    Digest,
    DirectiveCode,
    ManifestKey,
    ParameterKey,
    component_text,
)

UPDATE: Final = ("dependency_resolution", "payload_fetch", "candidate_verification", "install", "validate")
INVOCATION: Final = ("validate", "load", "invoke")


def check_manifest(manifest: Manifest, facts: DeviceFacts) -> None:
    """Check sequence number, components and commands: what can be told without running anything."""
    if manifest.sequence_number < facts.sequence_number:
        raise refusal(
            RefusalCode.SEQUENCE_ROLLBACK,
            f"sequence number {manifest.sequence_number} is below {facts.sequence_number}, accepted before",
            field="manifest/2",
        )
    for component in manifest.common.components:
        if component not in facts.components:
            raise refusal(
                RefusalCode.COMPONENT_MISMATCH,
                f"the device has no component {component_text(component)}",
                field="common/2",
            )
    if manifest.common.dependencies:
        raise refusal(
            RefusalCode.UNSUPPORTED, "dependencies on other manifests are not supported", field="common/1"
        )
    for name in dict.fromkeys((*UPDATE, *INVOCATION)):
        sequence = getattr(manifest, name)
        if isinstance(sequence, Digest):
            raise Malformed(
                f"the severed {name} sequence did not come along",
                field=f"manifest/{ManifestKey[name.upper()]}",
            )
        _check_commands(sequence or (), name)
        _check_parameters(sequence or (), name)
    _check_shared(manifest.common.shared_sequence)


def _check_commands(sequence: Iterable[Command], name: str) -> None:
    for command in sequence:
        if isinstance(command, Unknown):
            raise refusal(
                RefusalCode.UNSUPPORTED, f"command {command.code} in {name} is not supported", field=name
            )
    for command in walk(tuple(sequence)):
        if isinstance(command, Directive) and command.code in _BEYOND:
            raise refusal(
                RefusalCode.UNSUPPORTED, f"{command.code.name.lower()} in {name} is not supported", field=name
            )


_BEYOND: Final = frozenset({DirectiveCode.PROCESS_DEPENDENCY, DirectiveCode.UNLINK})


def _check_parameters(sequence: Sequence, name: str) -> None:
    """A parameter that is not known may change what a command means; only custom ones are mere hints."""
    known = set(ParameterKey)
    for command in walk(sequence):
        given = (
            [command.parameters]
            if isinstance(command, OverrideParameters | SetParameters)
            else [entry for _, entry in command.entries]
            if isinstance(command, OverrideMultiple)
            else []
        )
        for number in (number for item in given for number, _ in item.other):
            if number >= 0 and number not in known:
                raise refusal(
                    RefusalCode.UNSUPPORTED, f"parameter {number} in {name} is not supported", field=name
                )


def _check_shared(sequence: Sequence) -> None:
    _check_commands(sequence, "shared-sequence")
    _check_parameters(sequence, "shared-sequence")
    for command in walk(sequence):
        # section 8.4.5: no side effects but parameters, no custom commands
        if isinstance(command, Directive):
            raise Malformed(f"the shared sequence must not {command.code.name.lower()}", field="common/4")
        if isinstance(command, Condition) and command.code < CUSTOM:
            raise Malformed("the shared sequence must not hold custom commands", field="common/4")


def check_approval(verified: Verified) -> None:
    """A manifest that may go back to an older version needs the operator's signature, whatever is running."""
    if verified.facts.downgrade and verified.approver_id is None:
        raise refusal(
            RefusalCode.NOT_APPROVED,
            "the manifest may go back to an older version and no operator has approved it",
            field="envelope/2",
            hint="have a key with the role operator-approval sign it too",
        )


def check_versions(verified: Verified, facts: DeviceFacts) -> None:
    """Refuse to go below the version that is running, unless the manifest says that it may."""
    check_approval(verified)
    if verified.facts.downgrade:
        # each way back is taken once: the number must have gone up, not only stayed
        if verified.manifest.sequence_number <= facts.sequence_number:
            raise refusal(
                RefusalCode.SEQUENCE_ROLLBACK,
                f"sequence number {verified.manifest.sequence_number} of a downgrade is not above "
                f"{facts.sequence_number}, accepted before",
                field="manifest/2",
            )
        return
    for index, component in enumerate(verified.facts.components):
        wanted = versions.try_parse(verified.facts.version if index == 0 else component.version)
        running = versions.try_parse(facts.components[component.component].version)
        if wanted is not None and running is not None and wanted < running:
            raise refusal(
                RefusalCode.VERSION_ROLLBACK,
                f"version {wanted} is older than {running}, which is running",
                field="manifest/6",
            )


def check_sizes(verified: Verified, facts: DeviceFacts) -> None:
    """Refuse images that do not fit."""
    for component in verified.facts.components:
        capacity = facts.components[component.component].capacity
        largest = max(component.sizes, default=0)
        if capacity is not None and largest > capacity:
            raise refusal(
                RefusalCode.STORAGE_FULL,
                f"the image has {largest} bytes, but only {capacity} fit",
                field="image-size",
            )
