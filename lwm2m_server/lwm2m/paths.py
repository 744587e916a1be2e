"""Paths of the object model: object, instance, resource, resource instance (OMA LwM2M Core TS, 7.3).

A path is absolute within the device's LwM2M root; an alternate root (`</lwm2m>;rt="oma.lwm2m"`) is a matter
of `links.ObjectList.root` and of the requests built in `operations`.
"""

from dataclasses import dataclass
from functools import lru_cache

from lwm2m_server.errors import InvalidInput

# 65535 is reserved (Core TS, table of identifiers: MAX_ID).
MAX_ID = 65534
MAX_DEPTH = 4
# "/65534" four times.
_MAX_TEXT = 24


@dataclass(frozen=True, slots=True, order=True)
class Path:
    """Up to four ids; none at all is the root `/`."""

    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.ids) > MAX_DEPTH:
            raise InvalidInput(
                f"A path has at most four levels, not {len(self.ids)}",
                field="path",
                hint="Write /object/instance/resource/resource-instance, for example /3/0/9",
            )
        for number in self.ids:
            if not 0 <= number <= MAX_ID:
                raise InvalidInput(
                    f"{number} is not an id", field="path", hint=f"Ids are whole numbers from 0 to {MAX_ID}"
                )

    @classmethod
    def of(cls, *ids: int) -> "Path":
        """Make a path of its ids: `Path.of(3, 0, 9)`."""
        return cls(ids)

    @classmethod
    def parse(cls, text: str) -> "Path":
        """Read `/3/0/9`, `3/0/9` or `/`; raises InvalidInput that names the part at fault."""
        return _parse(text)

    @property
    def depth(self) -> int:
        """0 root, 1 object, 2 instance, 3 resource, 4 resource instance."""
        return len(self.ids)

    @property
    def object(self) -> int | None:
        """Object id, None for the root."""
        return self.ids[0] if self.ids else None

    @property
    def instance(self) -> int | None:
        """Object instance id, if the path has one."""
        return self.ids[1] if len(self.ids) > 1 else None

    @property
    def resource(self) -> int | None:
        """Resource id, if the path has one."""
        return self.ids[2] if len(self.ids) > 2 else None

    @property
    def resource_instance(self) -> int | None:
        """Resource instance id, if the path has one."""
        return self.ids[3] if len(self.ids) > 3 else None

    @property
    def parent(self) -> "Path":
        """The path one level up; the root is its own parent."""
        return Path(self.ids[:-1])

    @property
    def segments(self) -> tuple[str, ...]:
        """The ids as Uri-Path segments of a CoAP request."""
        return tuple(map(str, self.ids))

    def child(self, number: int) -> "Path":
        """Go one level down."""
        return Path((*self.ids, number))

    def contains(self, other: "Path") -> bool:
        """Tell whether `other` is this path or lies below it."""
        return other.ids[: len(self.ids)] == self.ids

    def __str__(self) -> str:
        return "/" + "/".join(map(str, self.ids))


ROOT = Path()


@lru_cache(maxsize=4096)
def _parse_short(text: str) -> Path:
    body = text.strip("/") if text.count("/") < _MAX_TEXT else text
    if not body:
        return ROOT
    ids = []
    for part in body.split("/"):
        # isdecimal() takes other scripts' digits too: ids are ASCII.
        if not (part.isascii() and part.isdecimal()) or len(part) > 5:
            raise InvalidInput(
                f"{part[:20]!r} in {text!r} is not an id",
                field="path",
                hint=f"Write /object/instance/resource, numbers from 0 to {MAX_ID}, for example /3/0/9",
            )
        ids.append(int(part))
    return Path(tuple(ids))


def _parse(text: str) -> Path:
    if len(text) > _MAX_TEXT + 8:
        raise InvalidInput(
            f"{text[:40]!r}… is too long for a path",
            field="path",
            hint="Write /object/instance/resource/resource-instance, for example /3/0/9",
        )
    return _parse_short(text)
