"""CoRE link format (RFC 6690) as LwM2M devices write it, and the object list of a registration.

Real devices write blanks after commas, quoted and bare attribute values, leave the root link out, name one
object in several links or name only its instances (Core TS 6.2.1). All of that is taken; what can't be
understood at all is one InvalidInput. Work is linear in the payload, and the payload is bounded.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m.paths import MAX_DEPTH, MAX_ID, Path

MAX_PAYLOAD = 65536
MAX_LINKS = 8192
MAX_ROOT_SEGMENTS = 8
MAX_ROOT_LENGTH = 255
# Payloads up to this size are remembered: fleets of one model send the same bytes again and again.
_CACHED_PAYLOAD = 2048

# One attribute: name, then optionally a quoted value (with escapes) or a bare one up to the next ';' or ','.
_ATTRIBUTE = re.compile(r'\s*;\s*([^\s=;,"<>]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"<>]*)))?', re.DOTALL)
_TARGET = re.compile(r"\s*<([^<>]*)>")
_SEPARATOR = re.compile(r"\s*(?:,\s*|$)")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_VERSION = re.compile(r"[0-9]{1,5}\.[0-9]{1,5}\Z")
_BARE = re.compile(r"[0-9.]+\Z")


@dataclass(frozen=True, slots=True)
class Link:
    """One link: its target as written, its attributes in order; a flag has None."""

    target: str
    attributes: tuple[tuple[str, str | None], ...] = ()

    def get(self, name: str) -> str | None:
        """Return the first value of an attribute; None when absent or a bare flag."""
        for key, value in self.attributes:
            if key == name:
                return value
        return None

    def __str__(self) -> str:
        return f"<{self.target}>" + "".join(
            f";{name}" if value is None else f";{name}={_quoted(value)}" for name, value in self.attributes
        )


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """One object of a device: its version if the device named one, and its instances in ascending order."""

    id: int
    version: str | None = None
    instances: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectList:
    """What a device supports, as it registered it.

    `root` is the alternate path's segments (() for `/`), `content_formats` the root link's `ct`, `objects`
    ascends by id.
    """

    root: tuple[str, ...] = ()
    content_formats: tuple[int, ...] = ()
    objects: tuple[ObjectEntry, ...] = ()

    def get(self, object_id: int) -> ObjectEntry | None:
        """Find an object's entry."""
        for entry in self.objects:
            if entry.id == object_id:
                return entry
        return None

    def __contains__(self, what: Path | int) -> bool:
        """Tell whether an object (by id) or a path's object or instance is there."""
        if isinstance(what, int):
            return self.get(what) is not None
        if what.object is None:
            return True
        entry = self.get(what.object)
        return entry is not None and (what.instance is None or what.instance in entry.instances)

    def serialise(self) -> bytes:
        """Write the canonical link format; `parse_object_list` gives an equal value back."""
        prefix = "".join(f"/{segment}" for segment in self.root)
        attributes: list[tuple[str, str | None]] = [("rt", "oma.lwm2m")]
        if self.content_formats:
            attributes.append(("ct", " ".join(map(str, self.content_formats))))
        links = [Link(prefix or "/", tuple(attributes))]
        for entry in self.objects:
            if entry.version is not None:
                links.append(Link(f"{prefix}/{entry.id}", (("ver", entry.version),)))
            elif not entry.instances:
                links.append(Link(f"{prefix}/{entry.id}"))
            links.extend(Link(f"{prefix}/{entry.id}/{instance}") for instance in entry.instances)
        return format_links(links)


def parse_links(payload: bytes) -> tuple[Link, ...]:
    """Split a link-format payload; raises InvalidInput (field = "links") that says where it breaks."""
    if len(payload) > MAX_PAYLOAD:
        raise _broken(f"The link list has {len(payload)} bytes; at most {MAX_PAYLOAD} are taken")
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise _broken(f"The link list is not UTF-8 at byte {error.start}") from None
    links: list[Link] = []
    # Zero bytes, blanks and stray commas at the end come from C string handling in small clients.
    end = len(text.rstrip(" \t\r\n\0,"))
    position = 0
    while position < end:
        target = _TARGET.match(text, position, end)
        if target is None:
            raise _broken(
                f"A link must start with '<' at character {position}: {text[position : position + 20]!r}"
            )
        position = target.end()
        attributes: list[tuple[str, str | None]] = []
        while (match := _ATTRIBUTE.match(text, position, end)) is not None:
            name, quoted, bare = match.groups()
            attributes.append((name, _ESCAPED.sub(r"\1", quoted) if quoted is not None else bare))
            position = match.end()
        links.append(Link(target.group(1), tuple(attributes)))
        if len(links) > MAX_LINKS:
            raise _broken(f"The link list has more than {MAX_LINKS} links")
        separator = _SEPARATOR.match(text, position, end)
        if separator is None:
            raise _broken(f"A comma is missing at character {position}: {text[position : position + 20]!r}")
        position = separator.end()
    return tuple(links)


def format_links(links: Iterable[Link]) -> bytes:
    """Write links as RFC 6690 does, without blanks."""
    return ",".join(map(str, links)).encode()


def parse_object_list(payload: bytes) -> ObjectList:
    """Read the links of a Register or Update; equal small payloads share one frozen value."""
    return _parse_cached(payload) if len(payload) <= _CACHED_PAYLOAD else _parse_object_list(payload)


def link_path(target: str, root: tuple[str, ...] = ()) -> Path | None:
    """Turn a link's target into a path below `root`; None for targets that aren't LwM2M paths."""
    segments = [segment for segment in target.split("/", len(root) + MAX_DEPTH + 2) if segment]
    if tuple(segments[: len(root)]) != root or len(segments) > len(root) + MAX_DEPTH:
        return None
    ids = []
    for segment in segments[len(root) :]:
        if len(segment) > 5 or not (segment.isascii() and segment.isdecimal()) or int(segment) > MAX_ID:
            return None
        ids.append(int(segment))
    return Path(tuple(ids))


def _parse_object_list(payload: bytes) -> ObjectList:
    links = parse_links(payload)
    root: tuple[str, ...] = ()
    formats: tuple[int, ...] = ()
    for link in links:
        if "oma.lwm2m" in (link.get("rt") or "").split():
            root = _root(link.target)
            formats = _numbers(link.get("ct"))
            break
    else:
        # Without rt the root link may still tell the formats.
        formats = next((_numbers(link.get("ct")) for link in links if link.target == "/"), ())
    found: dict[int, tuple[str | None, set[int]]] = {}
    for link in links:
        path = link_path(link.target, root)
        if path is None or path.object is None:
            continue  # links to other things (another resource directory, gateway prefixes) are allowed
        version, instances = found.get(path.object, (None, set()))
        if path.depth == 1:
            version = _version(link.get("ver")) or version
        if path.instance is not None:
            instances.add(path.instance)
        found[path.object] = (version, instances)
    objects = tuple(
        ObjectEntry(number, version, tuple(sorted(instances)))
        for number, (version, instances) in sorted(found.items())
    )
    return ObjectList(root, formats, objects)


_parse_cached = lru_cache(maxsize=2048)(_parse_object_list)


def _root(target: str) -> tuple[str, ...]:
    segments = tuple(segment for segment in target.split("/") if segment)
    if len(segments) > MAX_ROOT_SEGMENTS or len(target) > MAX_ROOT_LENGTH:
        raise _broken(
            f"The LwM2M root {target[:40]!r} is longer than {MAX_ROOT_SEGMENTS} segments or 255 characters"
        )
    return segments


def _version(text: str | None) -> str | None:
    # A nonsense version is the same as none: Discover and the resources themselves tell better.
    return text if text is not None and _VERSION.match(text) else None


def _numbers(text: str | None) -> tuple[int, ...]:
    # Bounded: content formats are 16-bit, and nobody has more than a few dozen.
    parts = (text or "").replace(",", " ").split()[:64]
    return tuple(int(part) for part in parts if len(part) <= 5 and part.isascii() and part.isdecimal())


def _quoted(value: str) -> str:
    # Numbers and versions go bare as the Core TS shows them; lists and text are quoted.
    if _BARE.match(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _broken(message: str) -> InvalidInput:
    return InvalidInput(message, field="links", hint="Links look like </1/0>,</3/0>,</5>;ver=1.1 (RFC 6690)")
