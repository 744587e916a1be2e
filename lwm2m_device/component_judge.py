"""The manifest processor of a device with several components: what a manifest wants installed where, in which order.

The procedure is run as if every image arrived. What it fetches, and in which order, is the package; and for each
component it is run again as if that one could not be installed: if the manifest comes to its end all the same, its
failure is no failure of the others (soft), else nothing may stay installed (all or nothing).
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from lwm2m_device.bootloader import Authorise, Boot
from lwm2m_device.components import Relations
from lwm2m_device.judges import ManifestJudge, Offer, identifiers, trusted_keys
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.slots import ImageHeader
from lwm2m_server import versions
from lwm2m_server.firmware.commands import Condition
from lwm2m_server.firmware.effects import (
    Answer,
    Authorize,
    ComponentState,
    Copy,
    DeviceFacts,
    Effect,
    Fetch,
    MatchImage,
)
from lwm2m_server.firmware.encryption import payload_component
from lwm2m_server.firmware.envelope import Verified, verify
from lwm2m_server.firmware.facts import ManifestFacts
from lwm2m_server.firmware.inplace import delta_component
from lwm2m_server.firmware.preflight import check_approval
from lwm2m_server.firmware.processor import Step, preflight, update
from lwm2m_server.firmware.refusals import Mismatch, Refusal, RefusalCode, refusal
from lwm2m_server.firmware.suit import ComponentId, ConditionCode, class_id, component_text, vendor_id


class Entangled(Mismatch):
    """Other instances are in the way (conflicting-state), or have to be updated first (dependency-missing)."""

    def __init__(self, code: RefusalCode, message: str, instances: AbstractSet[int]) -> None:
        super().__init__(message, code=code.value, field="components")
        self.instances = tuple(sorted(instances))


@dataclass(frozen=True)
class Installed:
    """What is installed in an instance; None when nothing is. `lost`: what runs there is not known for sure."""

    image: ImageHeader | None
    lost: bool = False


@dataclass(frozen=True)
class Item:
    """An image of a package, and the instance that it is for."""

    instance: int
    offer: Offer
    soft: bool = False


@dataclass(frozen=True)
class Package:
    """The images of a manifest that are not installed yet, in their order, and all instances that it has one for."""

    items: tuple[Item, ...]
    instances: frozenset[int]


@dataclass(frozen=True)
class Stored:
    """What was stored for an instance: SHA-256 and bytes of the image, SHA-256 of what was fetched."""

    digest: bytes
    size: int
    fetched: bytes


def version_of(facts: ManifestFacts, component: ComponentId) -> str | None:
    """Return the version that a manifest names for a component; that of the first one is the manifest's."""
    for index, each in enumerate(facts.components):
        if each.component == component:
            return facts.version if index == 0 else each.version
    return None


def component_authoriser(settings: DeviceSettings, component: ComponentId) -> Authorise:
    """Return what is asked before an image of this component is started, or handed to its hook."""
    keys = trusted_keys(settings)

    def authorise(envelope: bytes | None, header: ImageHeader) -> bool:
        if envelope is None:
            return False
        try:
            verified = verify(envelope, keys)
            check_approval(verified)
        except Refusal:
            return False
        facts = verified.facts
        named = any(
            each.component == component and header.digest in each.digests for each in facts.components
        )
        said = facts.sequence_number, version_of(facts, component)
        return named and said == (header.sequence, header.version)

    return authorise


class ComponentJudge(ManifestJudge):
    """Runs manifests through the processor, with all components of this device."""

    def __init__(
        self,
        settings: DeviceSettings,
        boot: Boot,
        floor: Callable[[], int],
        capacity: int,
        now: Callable[[], float],
    ) -> None:
        super().__init__(settings, boot, floor, capacity, now)
        self.relations = Relations.of(settings.component, settings.components)
        self._identifiers = (settings.component, *(each.identifier for each in settings.components))
        self._capacities = (capacity, *(each.slot_size for each in settings.components))
        self._device = tuple(frozenset({each}) for each in identifiers(settings))

    def package(self, envelope: bytes, installed: tuple[Installed, ...]) -> Package:
        """Verify an envelope and return what it wants fetched; raises Refusal.

        `installed` is what each instance has, or will have when this package's turn comes.
        """
        verified = verify(envelope, self._keys, now=self._now())
        facts = self._device_facts(installed)
        refused = preflight(verified, facts)
        if refused is not None:
            raise refused
        run = self._run(verified, facts, installed)
        items = [
            self._item(each, run, verified, facts, installed)
            for each in run.order
            if self._is_new(each, run, verified, installed)
        ]
        if not items:
            raise _nothing(run)
        return Package(tuple(items), frozenset(map(self._identifiers.index, run.order)))

    def complete_package(
        self, envelope: bytes, installed: tuple[Installed, ...], stored: Mapping[int, Stored]
    ) -> None:
        """Run the whole procedure with the images that were stored, by instance; raises Refusal."""
        verified = verify(envelope, self._keys, now=self._now())
        by_component = {self._identifiers[instance]: each for instance, each in stored.items()}
        self._run(verified, self._device_facts(installed), installed, stored=by_component)

    def _device_facts(self, installed: tuple[Installed, ...]) -> DeviceFacts:
        vendors, classes = self._device
        components: dict[ComponentId, ComponentState] = {}
        for instance, identifier in enumerate(self._identifiers):
            image = installed[instance].image
            state = ComponentState(
                version=None if image is None else image.version,
                capacity=self._capacities[instance],
                vendor_ids=vendors | self._own(instance)[0],
                class_ids=classes | self._own(instance)[1],
            )
            components[identifier] = state
            components[payload_component(identifier)] = ComponentState(
                capacity=state.capacity, vendor_ids=state.vendor_ids, class_ids=state.class_ids
            )
            # Known, so that a manifest with deltas in place is read, though this device takes the whole image.
            components[delta_component(identifier)] = ComponentState(
                vendor_ids=state.vendor_ids, class_ids=state.class_ids
            )
        return DeviceFacts(
            vendor_ids=vendors,
            class_ids=classes,
            components=components,
            sequence_number=self._floor(),
            now=self._now(),
            battery=self._settings.battery,
        )

    def _own(self, instance: int) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """Return vendor and class of a component's own; the main one has those of the device."""
        if instance == 0:
            return frozenset(), frozenset()
        component = self._settings.components[instance - 1]
        vendor = vendor_id((component.vendor or self._settings.vendor).lower())
        name = component.class_name or f"{self._settings.class_name}-{component.name}"
        return frozenset({vendor}), frozenset({class_id(vendor, name)})

    def _run(
        self,
        verified: Verified,
        facts: DeviceFacts,
        installed: tuple[Installed, ...],
        *,
        failing: ComponentId | None = None,
        stored: Mapping[ComponentId, Stored] | None = None,
    ) -> "_Run":
        """Run the procedure, as if all images arrived, but for `failing`; raises Refusal."""
        digests = {
            identifier: None if present.image is None or present.lost else present.image.digest
            for identifier, present in zip(self._identifiers, installed, strict=True)
        }
        run = _Run(digests, failing, stored, authorized=not self._settings.unauthorized)
        procedure = update(verified, facts, run.trace)
        try:
            effect = next(procedure)
            while True:
                effect = procedure.send(run.answer(effect))
        except StopIteration:
            return run
        except Refusal as error:
            raise self._explained(error, run, verified) from None

    def _explained(self, error: Refusal, run: "_Run", verified: Verified) -> Refusal:
        """Say which instance is lacking when the version asked for is one of a component that stays as it is."""
        component = run.version_of
        if error.code != RefusalCode.PRECURSOR_MISMATCH or component is None:
            return error
        if any(
            each.uris or each.is_decrypted
            for each in verified.facts.components
            if each.component == component
        ):
            return error
        if component not in self._identifiers:
            return error
        text = f"The update needs another version of {component_text(component)} first."
        return Entangled(RefusalCode.DEPENDENCY_MISSING, text, {self._identifiers.index(component)})

    def _is_new(
        self, component: ComponentId, run: "_Run", verified: Verified, installed: tuple[Installed, ...]
    ) -> bool:
        """Say whether an image is to be installed, not there already; raises Refusal for an older one."""
        instance = self._identifiers.index(component)
        image, lost = installed[instance].image, installed[instance].lost
        version = version_of(verified.facts, component)
        if version is None or versions.try_parse(version) is None:
            raise refusal(
                RefusalCode.UNSUPPORTED,
                f"The manifest names no version for component {component_text(component)}.",
                field="version",
            )
        if image is None:
            return True
        digest = run.result(component)
        if not lost and digest == image.digest and version == image.version:
            return False
        if instance == 0 and not verified.facts.downgrade:
            self._newer_version_than(version, image.version)
        return True

    def _newer_version_than(self, version: str, running: str) -> None:
        if versions.try_parse(running) is not None and versions.compare(version, running) <= 0:
            raise refusal(
                RefusalCode.VERSION_ROLLBACK,
                f"Version {version} is not newer than {running}.",
                field="version",
            )

    def _item(
        self,
        component: ComponentId,
        run: "_Run",
        verified: Verified,
        facts: DeviceFacts,
        installed: tuple[Installed, ...],
    ) -> Item:
        fetch, copy = run.source(component)
        version = version_of(verified.facts, component) or ""
        offer = self._offer_of(fetch, copy, version, verified.facts.sequence_number)
        soft = True
        try:
            self._run(verified, facts, installed, failing=component)
        except Refusal:
            soft = False
        return Item(self._identifiers.index(component), offer, soft)


@dataclass
class _Run:
    """One run of the procedure: answers its effects, and remembers what it fetched in which order."""

    installed: Mapping[ComponentId, bytes | None]
    failing: ComponentId | None
    stored: Mapping[ComponentId, Stored] | None
    authorized: bool
    fetched: dict[ComponentId, Fetch] = field(default_factory=dict)
    copied: dict[ComponentId, Copy] = field(default_factory=dict)
    order: list[ComponentId] = field(default_factory=list)
    version_of: ComponentId | None = None
    refused: Refusal | None = None

    def trace(self, step: Step) -> None:
        """Note why the last command failed."""
        if step.refused is None:
            return
        self.refused = step.refused
        command = step.command
        asked = isinstance(command, Condition) and command.code is ConditionCode.VERSION
        self.version_of = step.component if asked else None

    def answer(self, effect: Effect) -> Answer:
        """Answer one effect."""
        match effect:
            case Fetch():
                self.fetched[effect.component] = effect
                self._installs(effect.component)
            case Copy():
                if effect.source != payload_component(effect.component) or effect.source not in self.fetched:
                    return _unsupported("The manifest copies what this device does not copy.")
                self.copied[effect.component] = effect
                self._installs(effect.component)
            case MatchImage():
                return self._matches(effect)
            case Authorize():
                return self.authorized
            case _:
                return _unsupported(f"This device can't {type(effect).__name__.lower()}.")
        return True

    def result(self, component: ComponentId) -> bytes | None:
        """Return the SHA-256 that the component's image is to have."""
        effect = self.copied.get(component) or self.fetched[component]
        return None if effect.digest is None else effect.digest.value

    def source(self, component: ComponentId) -> tuple[Fetch, Copy | None]:
        """Return how the component's image comes: what is fetched, and the copy that decrypts it."""
        copy = self.copied.get(component)
        return self.fetched[component if copy is None else copy.source], copy

    def _installs(self, component: ComponentId) -> None:
        if component in self.installed and component not in self.order:
            self.order.append(component)

    def _matches(self, effect: MatchImage) -> bool:
        component = effect.component
        there = component in self.fetched or component in self.copied
        if not there:
            return effect.digest.value == self.installed.get(component)
        if component == self.failing:
            # Once: what `validate` asks later is asked of an image that was left out, or taken back.
            self.failing = None
            return False
        if self.stored is None:
            found = self.copied.get(component) or self.fetched[component]
            return found.digest == effect.digest
        return self._is_stored(effect)

    def _is_stored(self, effect: MatchImage) -> bool:
        assert self.stored is not None  # noqa: S101  asked for only then
        image = self.stored.get(effect.component)
        if image is not None:
            return effect.digest.value == image.digest and effect.size in (None, image.size)
        for component, payload in self.stored.items():
            if payload_component(component) == effect.component:
                return effect.digest.value == payload.fetched
        # It was left out because it is installed already.
        if effect.component in self.installed:
            return effect.digest.value == self.installed[effect.component]
        return effect.component in self.fetched


def _nothing(run: _Run) -> Refusal:
    """Say why a manifest wants nothing installed here."""
    if run.order:
        return refusal(
            RefusalCode.VERSION_ROLLBACK, "All images of the manifest are installed already.", field="version"
        )
    return run.refused or refusal(
        RefusalCode.UNSUPPORTED, "The manifest has nothing to fetch.", field="install"
    )


def _unsupported(message: str) -> Refusal:
    return refusal(RefusalCode.UNSUPPORTED, message, field="install")
