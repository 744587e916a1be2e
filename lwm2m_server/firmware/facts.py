"""What server and device ask of a manifest: identifiers, sequence number, version, digests, sizes, URIs.

Found by going through the sequences once without running them; branches of a try-each all count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from lwm2m_server.firmware.commands import (
    Command,
    Condition,
    CopyParameters,
    OverrideMultiple,
    OverrideParameters,
    Parameters,
    RunSequence,
    SetComponentIndex,
    SetParameters,
    TryEach,
)
from lwm2m_server.firmware.inplace import NamedDelta, read_branch
from lwm2m_server.firmware.manifest import SEQUENCES, LanguageText, Manifest
from lwm2m_server.firmware.refusals import Malformed
from lwm2m_server.firmware.suit import (
    DIGEST_SHA256,
    ComponentId,
    ComponentTextKey,
    ConditionCode,
    Digest,
    ParameterKey,
    TextKey,
)
from lwm2m_server.firmware.suit_versions import version_from_integers, version_to_integers
from lwm2m_server.versions import try_parse

_COLLECTED: Final = tuple(name for name in SEQUENCES.values() if name != "uninstall")


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """One component. Several values stand where branches differ; the first is the first in the manifest.

    `digests` are SHA-256 values (32 bytes). `manufacturer` and `model` are what a plain device reports.
    `encryption` is the encoded SUIT_Encryption_Info of a component that is decrypted, `source` the index of
    the component that it is decrypted from. `deltas` can make its image of others (`inplace`); their digests are
    among those of the component that takes them.
    """

    component: ComponentId
    vendor_ids: tuple[bytes, ...] = ()
    class_ids: tuple[bytes, ...] = ()
    digests: tuple[bytes, ...] = ()
    sizes: tuple[int, ...] = ()
    uris: tuple[str, ...] = ()
    version: str | None = None
    manufacturer: str = ""
    model: str = ""
    vendor_domain: str = ""
    description: str = ""
    encryption: bytes | None = None
    source: int | None = None
    deltas: tuple[NamedDelta, ...] = ()

    @property
    def is_decrypted(self) -> bool:
        """Say whether its bytes never travel: they are made of those of another component."""
        return self.encryption is not None and self.source is not None


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """The whole manifest.

    `version` is the version of the update as text, `None` when the manifest names none. `use_before` is the
    moment (seconds since 1970) from which on no branch of it may be used. `downgrade`: it says of itself that
    it may go back to an older version, which needs an operator's approval.
    """

    sequence_number: int
    version: str | None
    components: tuple[ComponentFacts, ...]
    reference_uri: str | None = None
    description: str = ""
    use_before: int | None = None
    downgrade: bool = False

    @property
    def main(self) -> ComponentFacts:
        """The first component: the only one of a simple manifest."""
        return self.components[0]

    @property
    def vendor_id(self) -> bytes | None:
        """First vendor identifier of the first component."""
        return next(iter(self.main.vendor_ids), None)

    @property
    def class_id(self) -> bytes | None:
        """First class identifier of the first component."""
        return next(iter(self.main.class_ids), None)

    @property
    def image_digest(self) -> bytes | None:
        """SHA-256 of the image of the first component."""
        return next(iter(self.main.digests), None)

    @property
    def image_size(self) -> int | None:
        """Its size in bytes."""
        return next(iter(self.main.sizes), None)

    @property
    def image_uri(self) -> str | None:
        """Where it is fetched from; may be relative to where the manifest came from."""
        return next(iter(self.main.uris), None)


def facts_of(manifest: Manifest) -> ManifestFacts:
    """Facts of a manifest.

    `Malformed` when its machine-readable version and its text contradict each other.
    """
    collector = _Collector(len(manifest.common.components))
    collector.go(manifest.common.shared_sequence)
    for name in _COLLECTED:
        sequence = getattr(manifest, name)
        if isinstance(sequence, tuple):
            collector.select(SetComponentIndex(True if len(manifest.common.components) > 1 else 0))
            collector.go(sequence)
    text = _main_text(manifest.text) if isinstance(manifest.text, tuple) else None
    components = tuple(
        _component(component, found, text)
        for component, found in zip(manifest.common.components, collector.found, strict=True)
    )
    return ManifestFacts(
        sequence_number=manifest.sequence_number,
        version=_version(manifest, components[0].version),
        components=components,
        reference_uri=manifest.reference_uri,
        description=text.get(TextKey.UPDATE_DESCRIPTION) if text else "",
        use_before=min(collector.use_before, default=None),
        downgrade=collector.downgrade,
    )


def _main_text(texts: tuple[LanguageText, ...]) -> LanguageText:
    """Of several languages English, else the first one; vendor, model and version are the same in all."""
    return next((text for text in texts if text.language.split("-")[0].lower() == "en"), texts[0])


@dataclass
class _Found:
    vendor_ids: list[bytes] = field(default_factory=list)
    class_ids: list[bytes] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    encryptions: list[bytes] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    deltas: list[NamedDelta] = field(default_factory=list)
    use_before: int | None = None


class _Collector:
    def __init__(self, components: int) -> None:
        self.found = [_Found() for _ in range(components)]
        self.use_before: list[int] = []
        self.downgrade = False
        self._current: tuple[int, ...] = (0,)

    def go(self, sequence: Iterable[Command], *, certain: bool = True) -> None:
        """Go through a sequence; `certain` is false in branches, whose conditions may never be asked."""
        for command in sequence:
            match command:
                case SetComponentIndex():
                    self.select(command)
                case OverrideParameters() | SetParameters():
                    self._override(command.parameters, self._current)
                case OverrideMultiple():
                    self._multiple(command)
                case CopyParameters():
                    self._copy(command)
                case Condition():
                    self._condition(command.code, certain=certain)
                case TryEach():
                    for branch in command.branches:
                        if not self._delta(branch):
                            self.go(branch, certain=False)
                case RunSequence():
                    self.go(command.sequence, certain=False)
                case _:
                    pass

    def select(self, command: SetComponentIndex) -> None:
        index = command.index
        wanted = (
            range(len(self.found)) if index is True else index if isinstance(index, tuple) else (int(index),)
        )
        self._check(wanted)
        self._current = tuple(wanted)

    def _delta(self, branch: Iterable[Command]) -> bool:
        """Take a branch that applies a delta: its base is none of the digests that the component may have."""
        read = read_branch(tuple(branch))
        if read is None:
            return False
        index, source, delta = read
        self._check((index, source))
        _add(self.found[index].deltas, delta)
        _add(self.found[source].digests, delta.digest)
        _add(self.found[source].sizes, delta.size)
        _add(self.found[source].uris, delta.uri)
        return True

    def _check(self, wanted: Iterable[int]) -> None:
        if any(number >= len(self.found) for number in wanted):
            raise Malformed("a command selects a component that the manifest does not have", field="manifest")

    def _multiple(self, command: OverrideMultiple) -> None:
        self._check(index for index, _ in command.entries)
        for index, given in command.entries:
            self._override(given, (index,))
            self._current = (index,)

    def _copy(self, command: CopyParameters) -> None:
        names = {
            ParameterKey.VENDOR_ID: "vendor_ids",
            ParameterKey.CLASS_ID: "class_ids",
            ParameterKey.IMAGE_DIGEST: "digests",
            ParameterKey.IMAGE_SIZE: "sizes",
            ParameterKey.URI: "uris",
            ParameterKey.ENCRYPTION_INFO: "encryptions",
            ParameterKey.SOURCE_COMPONENT: "sources",
        }
        self._check(index for index, _ in command.entries)
        for index, numbers in command.entries:
            for name in (names[ParameterKey(number)] for number in numbers if number in set(names)):
                for target in self._current:
                    for value in getattr(self.found[index], name):
                        _add(getattr(self.found[target], name), value)

    def _condition(self, code: ConditionCode, *, certain: bool) -> None:
        if code is ConditionCode.OPERATOR_APPROVAL:
            self.downgrade = True
        elif code is ConditionCode.USE_BEFORE and certain:
            times = [self.found[index].use_before for index in self._current]
            self.use_before += [time for time in times if time is not None]

    def _override(self, given: Parameters, indices: Iterable[int]) -> None:
        digest = given.image_digest
        sha256 = digest.value if isinstance(digest, Digest) and digest.algorithm == DIGEST_SHA256 else None
        for number in indices:
            found = self.found[number]
            _add(found.vendor_ids, given.vendor_id)
            _add(found.class_ids, given.class_id)
            _add(found.digests, sha256)
            _add(found.sizes, given.image_size)
            _add(found.uris, given.uri)
            _add(found.encryptions, given.encryption_info)
            _add(found.sources, given.source_component)
            if given.use_before is not None:
                found.use_before = given.use_before


def _add(values: list[Any], value: Any) -> None:
    if value is not None and value not in values:
        values.append(value)


def _component(component: ComponentId, found: _Found, text: LanguageText | None) -> ComponentFacts:
    said = next((entry for entry in text.components if entry.component == component), None) if text else None
    return ComponentFacts(
        component,
        tuple(found.vendor_ids),
        tuple(found.class_ids),
        tuple(found.digests),
        tuple(found.sizes),
        tuple(found.uris),
        version=(said.get(ComponentTextKey.VERSION) or None) if said else None,
        manufacturer=said.get(ComponentTextKey.VENDOR_NAME) if said else "",
        model=said.get(ComponentTextKey.MODEL_NAME) if said else "",
        vendor_domain=said.get(ComponentTextKey.VENDOR_DOMAIN) if said else "",
        description=said.get(ComponentTextKey.DESCRIPTION) if said else "",
        encryption=next(iter(found.encryptions), None),
        source=next(iter(found.sources), None),
        deltas=tuple(found.deltas),
    )


def _version(manifest: Manifest, text: str | None) -> str | None:
    """Find the version: machine-readable where there is one, in the words of the text where both agree."""
    if manifest.set_version is None:
        return text
    machine = version_from_integers(manifest.set_version)
    if machine is None:
        raise Malformed("the manifest's version has no known form", field="manifest/6")
    parsed = try_parse(text)
    if text is None:
        return machine
    if parsed is None or version_to_integers(parsed) != manifest.set_version:
        raise Malformed(
            f"the manifest calls itself version {machine}, but its text says {text!r}",
            field="manifest/6",
        )
    return text
