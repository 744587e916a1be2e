"""Components: what a device reports of its own, and what a manifest puts into which of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from lwm2m_server.devices.records import ComponentFacts, Facts
from lwm2m_server.firmware.encryption import is_payload
from lwm2m_server.firmware.inplace import is_delta
from lwm2m_server.firmware.suit import ComponentId, component_of, component_text
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import ObjectLink, Value
from lwm2m_server.store.records import JsonValue, StoredManifest

ADVANCED_UPDATE = 33629
"""Object Advanced Firmware Update: an instance for each component."""
NAME, VERSION, LINKED, CONFLICTING = 14, 15, 16, 17
DIGESTS, CAPACITIES = 7, 8  # of the SUIT Update Agent; the resource instance is that of object 33629
_AGENT = Path.of(SUIT_AGENT, 0)
_DIGEST_BYTES = 32
MAIN = "00"
"""What manifests call the main component where nobody gave it another name."""

Values = dict[Path, Value]


@dataclass(frozen=True, slots=True)
class Target:
    """What a manifest puts into one component: the image that is installed there, by SHA-256, and its bytes.

    `version` is None where the manifest does not say it.
    """

    name: str
    version: str | None
    digest: bytes
    size: int


def components_of(values: Values, instances: Sequence[int]) -> tuple[ComponentFacts, ...]:
    """Pick the components out of what was read of these instances; those without a name are called by number."""
    return tuple(_component(values, instance) for instance in instances if _is_there(values, instance))


def capacity_of(values: Values) -> int | None:
    """How many bytes the main image may have."""
    return _count(values.get(_AGENT.child(CAPACITIES).child(0)))


def _component(values: Values, instance: int) -> ComponentFacts:
    own = Path.of(ADVANCED_UPDATE, instance)
    name, version = values.get(own.child(NAME)), values.get(own.child(VERSION))
    digest = values.get(_AGENT.child(DIGESTS).child(instance))
    return ComponentFacts(
        instance=instance,
        name=name if isinstance(name, str) and name else str(instance),
        version=version if isinstance(version, str) and version else None,
        digest=digest if isinstance(digest, bytes) and len(digest) == _DIGEST_BYTES else None,
        capacity=_count(values.get(_AGENT.child(CAPACITIES).child(instance))),
        linked=links_of(values, own.child(LINKED)),
        conflicting=links_of(values, own.child(CONFLICTING)),
    )


def links_of(values: Values, resource: Path) -> tuple[int, ...]:
    """Return the instances of object 33629 that a resource names."""
    found = (value for path, value in values.items() if resource.contains(path))
    return tuple(
        sorted(
            {
                value.instance
                for value in found
                if isinstance(value, ObjectLink) and value.object == ADVANCED_UPDATE
            }
        )
    )


def _is_there(values: Values, instance: int) -> bool:
    own = Path.of(ADVANCED_UPDATE, instance)
    return any(own.contains(path) for path in values)


def _count(value: Value | None) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def targets_of(manifest: StoredManifest) -> tuple[Target, ...]:
    """What the manifest installs, in its order; what others are decrypted or made from is left out."""
    found = [_target(entry) for entry in _entries(manifest)]
    targets = [target for target in found if target is not None]
    if not targets:
        return (Target(MAIN, manifest.version, manifest.installed_digest, manifest.image_size),)
    first = targets[0]
    # the version of the update is that of its first component
    return (Target(first.name, manifest.version, first.digest, first.size), *targets[1:])


def sent_sizes(manifest: StoredManifest) -> dict[bytes, int]:
    """Bytes of each image that devices fetch, by digest: not those that the envelope carries, and no deltas."""
    found: dict[bytes, int] = {}
    for entry in _entries(manifest):
        component, digest, size = _id(entry), entry.get("digest"), entry.get("size")
        fetched = not entry.get("encrypted") and not entry.get("integrated") and not is_delta(component)
        if fetched and isinstance(digest, str) and isinstance(size, int):
            found[bytes.fromhex(digest)] = size
    return found or {manifest.image_digest: manifest.image_size}


def named_deltas(manifest: StoredManifest) -> list[tuple[bytes, bytes, int]]:
    """The deltas that the manifest names: the digest of the image that each makes, its own, its bytes."""
    found: list[tuple[bytes, bytes, int]] = []
    for entry in _entries(manifest):
        image, deltas = entry.get("digest"), entry.get("deltas")
        for delta in deltas if isinstance(deltas, list) else []:
            if isinstance(delta, dict) and isinstance(image, str):
                digest, size = delta.get("digest"), delta.get("size")
                if isinstance(digest, str) and isinstance(size, int):
                    found.append((bytes.fromhex(image), bytes.fromhex(digest), size))
    return found


def first_of(facts: Facts, manifest: StoredManifest) -> ComponentFacts | None:
    """The component through whose instance a manifest is delivered; None where the device has none of that name."""
    return facts.component(targets_of(manifest)[0].name)


def _entries(manifest: StoredManifest) -> list[dict[str, JsonValue]]:
    entries = manifest.data.get("components")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _id(entry: dict[str, JsonValue]) -> ComponentId:
    text = entry.get("component")
    return (component_of(text) if isinstance(text, str) else None) or ()


def _target(entry: dict[str, JsonValue]) -> Target | None:
    component, digest, size, version = _id(entry), *(entry.get(key) for key in ("digest", "size", "version"))
    made = not component or is_payload(component) or is_delta(component)
    if made or not isinstance(digest, str) or not isinstance(size, int):
        return None
    # written anew: manifests of earlier servers have all their components in hex
    return Target(
        component_text(component),
        version if isinstance(version, str) else None,
        bytes.fromhex(digest),
        size,
    )
