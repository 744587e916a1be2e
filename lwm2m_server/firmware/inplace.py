"""Deltas that a manifest names: one branch of a try-each for each image that a device may run.

A delta that rewrites the only image of a device destroys its base, so it can't be negotiated as a transfer encoding:
the manifest names it by digest, for the digest of its base. The branches, in this order:

1. the component holds the new image already: nothing to do;
2. for each base: it holds that one, and the device can rewrite a memory of that size (`in-place`, ours); the delta
   is fetched into a component of its own (`delta_component`) and matched, applied (`apply-delta`, ours), and what
   it made is matched;
3. the whole image.

A branch sets every parameter that it uses. A failed condition leads to the next branch, a failed directive ends the
update, so a device has to know before it begins that a delta will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    Directive,
    OverrideParameters,
    Parameters,
    SetComponentIndex,
    TryEach,
)
from lwm2m_server.firmware.suit import DIGEST_SHA256, ComponentId, ConditionCode, Digest, DirectiveCode

_DELTA: Final = b"in-place"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDelta:
    """A delta from an image (`base`, SHA-256, and its bytes) for a memory of `memory` bytes in segments of `segment`.

    `digest` and `size` are its own, `uri` may be relative to the server that the manifest comes from. `content` are
    its bytes where they are at hand.
    """

    base: bytes
    base_size: int
    digest: bytes
    size: int
    uri: str
    memory: int
    segment: int
    content: bytes = field(default=b"", repr=False, compare=False)


def delta_component(component: ComponentId) -> ComponentId:
    """Return the component that takes the deltas for another one."""
    return (*component, _DELTA)


def is_delta(component: ComponentId) -> bool:
    """Say whether a component takes the deltas for another one."""
    return len(component) > 1 and component[-1] == _DELTA


def branches(
    index: int, source: int, *, digest: bytes, size: int, uri: str, deltas: Sequence[NamedDelta]
) -> TryEach:
    """Return the installation of component `index`, whose deltas are fetched into component `source`."""
    wanted = Parameters(image_digest=Digest(DIGEST_SHA256, digest), image_size=size)
    there = (SetComponentIndex(index), OverrideParameters(wanted), _MATCH)
    whole = Parameters(image_digest=wanted.image_digest, image_size=size, uri=uri)
    return TryEach(
        (
            there,
            *(_branch(index, source, wanted, delta) for delta in deltas),
            (SetComponentIndex(index), OverrideParameters(whole), _FETCH, _MATCH),
        )
    )


_MATCH: Final = Condition(ConditionCode.IMAGE_MATCH)
_FETCH: Final = Directive(DirectiveCode.FETCH)


def _branch(index: int, source: int, wanted: Parameters, delta: NamedDelta) -> tuple[Command, ...]:
    base = Parameters(
        image_digest=Digest(DIGEST_SHA256, delta.base),
        image_size=delta.base_size,
        in_place=(delta.memory, delta.segment),
    )
    sent = Parameters(image_digest=Digest(DIGEST_SHA256, delta.digest), image_size=delta.size, uri=delta.uri)
    made = Parameters(image_digest=wanted.image_digest, image_size=wanted.image_size, source_component=source)
    return (
        SetComponentIndex(index),
        OverrideParameters(base),
        _MATCH,
        Condition(ConditionCode.IN_PLACE),
        SetComponentIndex(source),
        OverrideParameters(sent),
        _FETCH,
        _MATCH,
        SetComponentIndex(index),
        OverrideParameters(made),
        Directive(DirectiveCode.APPLY_DELTA),
        _MATCH,
    )


def read_branch(branch: Sequence[Command]) -> tuple[int, int, NamedDelta] | None:
    """Read a branch as `branches` gives it: component, source, delta; None when it is any other one."""
    if len(branch) != _LENGTH:
        return None
    first, second = branch[0], branch[4]
    given = [
        each.parameters for each in (branch[1], branch[5], branch[9]) if isinstance(each, OverrideParameters)
    ]
    if (
        not isinstance(first, SetComponentIndex)
        or not isinstance(second, SetComponentIndex)
        or len(given) != 3
    ):
        return None
    base, sent, made = given
    if base.image_digest is None or sent.image_digest is None or base.in_place is None:
        return None
    delta = NamedDelta(
        base=base.image_digest.value,
        base_size=base.image_size or 0,
        digest=sent.image_digest.value,
        size=sent.image_size or 0,
        uri=sent.uri or "",
        memory=base.in_place[0],
        segment=base.in_place[1],
    )
    if type(first.index) is not int or type(second.index) is not int:
        return None
    wanted = Parameters(image_digest=made.image_digest, image_size=made.image_size)
    same = _branch(first.index, second.index, wanted, delta) == tuple(branch)
    return (first.index, second.index, delta) if same else None


_LENGTH: Final = 12
