"""A plain mapping (a YAML file, or the flags of a command) as a `ManifestDescription`.

```yaml
vendor: acme.example
class: meter-v2
version: 2.1.0
sequence: 8
manufacturer: Acme
model: M2
text: {en: Better clocks, de: Bessere Uhren}
use_before: 2027-01-01T00:00:00Z
minimum_battery: 500        # mWh
authorize: 0                # the application is asked; less is more urgent
downgrade: false
install: all-or-nothing     # or best-effort
sever: [text]
components:
  - {image: main.bin, requires: ">= 1.5, < 3.0"}
  - {id: modem, image: modem.bin, version: 5.1.0, integrated: true}
  - {id: radio, image: radio.bin, version: 1.0.0, encrypted: radio.bin.enc}
  - {id: sensor, image: sensor-2.bin, in_place: {from: [sensor-1.bin], slot_size: 65536, segment_size: 2048}}
```

`in_place` names the images that devices with one slot of that size, erased by segments, may run: the deltas are made.
`encrypted` names what `lwm2m firmware encrypt` made of the image; its encryption info lies beside it (`.info`).
A component may have a `class` of its own.
What a component does not say (version, manufacturer, model) the first one takes from the update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware.description import (
    ComponentDescription,
    EncryptedPayload,
    ManifestDescription,
    TextDescription,
)
from lwm2m_server.firmware.inplace import NamedDelta
from lwm2m_server.firmware.suit import ComponentId, component_of
from lwm2m_server.firmware.suit_versions import VersionMatch, requirements

MAX_COMPONENTS: Final = 32
ALL_OR_NOTHING: Final = "all-or-nothing"
BEST_EFFORT: Final = "best-effort"
INFO_SUFFIX: Final = ".info"
"""Behind the name of an encrypted payload: the file with its SUIT_Encryption_Info."""
_UPDATE: Final = frozenset(
    {"vendor", "class", "version", "sequence", "manufacturer", "model", "description", "text", "language",
     "use_before", "minimum_battery", "authorize", "downgrade", "install", "sever", "reference_uri",
     "components"}
)  # fmt: skip
_COMPONENT: Final = frozenset(
    {"id", "image", "uri", "class", "version", "manufacturer", "model", "description", "integrated", "requires",
     "encrypted", "in_place"}
)  # fmt: skip
_IN_PLACE: Final = frozenset({"from", "slot_size", "segment_size"})
SEGMENT_SIZE: Final = 4096
"""Bytes of flash that are erased at once, where a plan says nothing else."""


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """What a plan is told of an image file. `content` is asked for only where it is carried, or compared."""

    digest: bytes
    size: int
    version: str | None
    content: Callable[[], bytes]


def read_plan(plan: object, image: Callable[[str, str], PlannedImage]) -> ManifestDescription:
    """Read a mapping; `image` is called with a file's name and the field that names it.

    `InvalidInput` with the path of the member that does not fit.
    """
    update = _mapping(plan, "plan", _UPDATE)
    entries = update.get("components")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_COMPONENTS:
        raise InvalidInput(
            f"an update has 1 to {MAX_COMPONENTS} components",
            field="components",
            hint="list them: - image: FILE",
        )
    first, *further = [
        _component(entry, index, update, image, single=len(entries) == 1)
        for index, entry in enumerate(entries)
    ]
    language = _text(update, "language", "") or "en"
    said, texts = _texts(update, language)
    return ManifestDescription(
        vendor_domain=_text(update, "vendor", ""),
        class_name=_text(update, "class", ""),
        version=_version(update, "", first.version),
        sequence_number=_number(update, "sequence"),
        image_digest=first.digest,
        image_size=first.size,
        image_uri=first.uri,
        component=first.component,
        manufacturer=first.manufacturer,
        model=first.model,
        component_description=first.description,
        component_class=first.class_name,
        requires=first.requires,
        payload=first.payload,
        encrypted=first.encrypted,
        deltas=first.deltas,
        further=tuple(further),
        use_before=_moment(update.get("use_before"), "use_before"),
        minimum_battery=_number(update, "minimum_battery") if "minimum_battery" in update else None,
        authorize=_number(update, "authorize", low=-(2**63)) if "authorize" in update else None,
        downgrade=_flag(update, "downgrade", ""),
        best_effort=_best_effort(update),
        sever=tuple(_names(update, "sever")),
        description=said,
        language=language,
        texts=texts,
        reference_uri=_text(update, "reference_uri", ""),
    )


def component_id(text: str, field: str = "component") -> ComponentId:
    """Read a component's name (`component_text`): words or hex parts, joined by `/`."""
    found = component_of(text)
    if found is None:
        raise InvalidInput(
            f"'{text}' is not a component",
            field=field,
            hint="write a word such as modem, or hex digits such as 00; parts are joined by /",
        )
    return found


def _component(
    entry: object,
    index: int,
    update: Mapping[str, Any],
    image: Callable[[str, str], PlannedImage],
    *,
    single: bool,
) -> ComponentDescription:
    at = "" if single else f"components/{index}/"
    given = _mapping(entry, f"components/{index}", _COMPONENT)
    name = _text(given, "image", at)
    if not name:
        raise InvalidInput("the component names no image", field=f"{at}image")
    found = image(name, f"{at}image")
    inherited = update if index == 0 else {}
    version = _text(given, "version", at) or _version(inherited, at, found.version)
    integrated = _flag(given, "integrated", at)
    hidden = _encrypted(given, at, image)
    sent = found if hidden is None else hidden[0]
    digest = sent.digest.hex()
    return ComponentDescription(
        component=component_id(_text(given, "id", at) or f"{index:02x}", f"{at}component"),
        digest=found.digest,
        size=found.size,
        uri=_text(given, "uri", at) or (f"#{digest}" if integrated else f"/fw/{digest}"),
        version=version,
        manufacturer=_text(given, "manufacturer", at) or _text(inherited, "manufacturer", at),
        model=_text(given, "model", at) or _text(inherited, "model", at),
        description=_text(given, "description", at),
        payload=sent.content() if integrated else None,
        encrypted=None if hidden is None else hidden[1],
        requires=_requirements(given, at),
        class_name=_text(given, "class", at),
        deltas=_deltas(given, at, image, found),
    )


def _deltas(
    given: Mapping[str, Any], at: str, image: Callable[[str, str], PlannedImage], found: PlannedImage
) -> tuple[NamedDelta, ...]:
    """Make a delta from each image that is named."""
    if given.get("in_place") is None:
        return ()
    # What makes deltas takes a while to load, and few manifests have any.
    from lwm2m_server.firmware.deltas import PatchError
    from lwm2m_server.firmware.deltas.named import make_named

    said = _mapping(given["in_place"], f"{at}in_place", _IN_PLACE)
    names = _names(said, "from")
    if not names or not said.get("slot_size"):
        raise InvalidInput(
            "deltas in place need the images that they start from, and the size of the slot",
            field=f"{at}in_place",
            hint="give --in-place-from FILE and --slot-size BYTES",
        )
    slot_size = _number(said, "slot_size", low=1)
    segment_size = _number(said, "segment_size", low=1) if "segment_size" in said else SEGMENT_SIZE
    made = []
    for name in names:
        base = image(name, f"{at}in_place")
        try:
            made.append(
                make_named(base.content(), found.content(), slot_size=slot_size, segment_size=segment_size)
            )
        except PatchError as error:
            raise InvalidInput(f"{name}: {error.message}", field=f"{at}in_place") from None
    return tuple(made)


def _encrypted(
    given: Mapping[str, Any], at: str, image: Callable[[str, str], PlannedImage]
) -> tuple[PlannedImage, EncryptedPayload] | None:
    """Read the encrypted payload, and what lies beside it."""
    name = _text(given, "encrypted", at)
    if not name:
        return None
    sent = image(name, f"{at}encrypted")
    info = image(name + INFO_SUFFIX, f"{at}encrypted").content()
    return sent, EncryptedPayload(digest=sent.digest, size=sent.size, info=info)


def _version(given: Mapping[str, Any], at: str, said: str | None) -> str:
    version = _text(given, "version", at) or said
    if not version:
        raise InvalidInput("the image does not say its version", field=f"{at}version", hint="give --version")
    return version


def _requirements(given: Mapping[str, Any], at: str) -> tuple[VersionMatch, ...]:
    text = _text(given, "requires", at)
    return requirements(text, f"{at}requires") if text else ()


def _texts(update: Mapping[str, Any], language: str) -> tuple[str, tuple[TextDescription, ...]]:
    """Return the description in the first language, and the other languages."""
    said = update.get("text") or {}
    if not isinstance(said, Mapping) or not all(
        isinstance(part, str) for pair in said.items() for part in pair
    ):
        raise InvalidInput("text is a mapping of language and words", field="text")
    first = _text(update, "description", "") or said.get(language, "")
    return first, tuple(TextDescription(tag, words) for tag, words in said.items() if tag != language)


def _moment(value: object, field: str) -> int | None:
    """Read seconds since 1970, or a date or time (UTC where it says no other zone)."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _wrong(field, "a time such as 2027-01-01T00:00:00Z") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        value = int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(field, "a time such as 2027-01-01T00:00:00Z")
    return value


def _mapping(value: object, field: str, known: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(field, "a mapping")
    for key in value:
        if key not in known:
            raise InvalidInput(
                f"{key!r} is not known here", field=field, hint=f"known are {', '.join(sorted(known))}"
            )
    return value


def _text(given: Mapping[str, Any], key: str, at: str) -> str:
    value = given.get(key)
    if value is None:
        return ""
    # YAML reads 2.1 and 00 as numbers: what was meant can't be told any more
    if not isinstance(value, str):
        raise InvalidInput(f"{key} must be text", field=f"{at}{key}", hint=f'put quotes around it: "{value}"')
    return value


def _number(given: Mapping[str, Any], key: str, low: int = 0) -> int:
    value = given.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise _wrong(key, f"a whole number, {low} or more" if low == 0 else "a whole number")
    return value


def _best_effort(given: Mapping[str, Any]) -> bool:
    policy = _text(given, "install", "") or ALL_OR_NOTHING
    if policy not in (ALL_OR_NOTHING, BEST_EFFORT):
        raise _wrong("install", f"{ALL_OR_NOTHING} or {BEST_EFFORT}")
    return policy == BEST_EFFORT


def _flag(given: Mapping[str, Any], key: str, at: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise _wrong(f"{at}{key}", "true or false")
    return value


def _names(given: Mapping[str, Any], key: str) -> Sequence[str]:
    value = given.get(key) or []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong(key, "a list of names")
    return value


def _wrong(field: str, wanted: str) -> InvalidInput:
    return InvalidInput(f"{field} must be {wanted}", field=field)
