"""How a device asks for a delta instead of the image that its manifest names.

    GET  <path of the image>/delta ? from=<digest of its base> & accept=<method>,<method>
    2.05 application/cbor {1: method, 2: path, 3: bytes of the patch, 4: its SHA-256}
    4.04 there is none: take the image;  5.03 it is being made: ask again after Max-Age, or take the image

The patch is then fetched like any image, in blocks, under its own path and ETag. One that did not serve is
reported, so that the device is not offered it again:

    POST <path of the image>/delta ? patch=<its digest> & reason=<code>
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lwm2m_server.errors import InvalidInput
from lwm2m_server.firmware import cbor
from lwm2m_server.firmware.refusals import Malformed

SEGMENT: Final = "delta"
"""The path segment after those of the image."""
MAX_DESCRIPTION: Final = 512  # bytes
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9-]{1,40}")
_MAX_METHODS: Final = 16
_METHOD, _PATH, _SIZE, _PATCH_DIGEST = range(1, 5)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a device asks with: the digest of its base, and the methods that it understands."""

    base: bytes
    methods: tuple[str, ...]

    def query(self) -> tuple[str, ...]:
        """Return the Uri-Query options."""
        return (f"from={self.base.hex()}", f"accept={','.join(self.methods)}")


@dataclass(frozen=True, slots=True)
class Report:
    """A patch that the device could not use, and why (a code such as `digest-mismatch`)."""

    patch: bytes
    reason: str

    def query(self) -> tuple[str, ...]:
        """Return the Uri-Query options."""
        return (f"patch={self.patch.hex()}", f"reason={self.reason}")


@dataclass(frozen=True, slots=True)
class Description:
    """The answer: how the patch works, where it is (path segments), its bytes and SHA-256."""

    method: str
    path: tuple[str, ...]
    size: int
    digest: bytes

    def encode(self) -> bytes:
        """Return the CBOR map."""
        path = "/" + "/".join(self.path)
        return cbor.encode({_METHOD: self.method, _PATH: path, _SIZE: self.size, _PATCH_DIGEST: self.digest})


def read_wish(query: Sequence[str]) -> Wish:
    """Read the options of a GET; raises InvalidInput. Unknown ones are ignored."""
    given = _options(query)
    methods = tuple(name for name in given.get("accept", "").split(",") if _NAME.fullmatch(name))
    if not methods or len(methods) > _MAX_METHODS:
        raise InvalidInput(f"Name 1 to {_MAX_METHODS} methods.", field="accept")
    return Wish(_digest(given, "from"), methods)


def read_report(query: Sequence[str]) -> Report:
    """Read the options of a POST; raises InvalidInput. Unknown ones are ignored."""
    given = _options(query)
    reason = given.get("reason", "")
    if not _NAME.fullmatch(reason):
        raise InvalidInput("Name the reason by a code of small letters, digits and hyphens.", field="reason")
    return Report(_digest(given, "patch"), reason)


def read_description(payload: bytes) -> Description:
    """Read a server's answer; raises `Malformed` (a refusal) or InvalidInput."""
    values: Any = cbor.decode(payload, field="delta", max_size=MAX_DESCRIPTION)
    if not isinstance(values, dict) or not {_METHOD, _PATH, _SIZE, _PATCH_DIGEST} <= set(values):
        raise Malformed("the description of a delta is a map with the keys 1 to 4", field="delta")
    method = cbor.as_text(values[_METHOD], "method")
    path = cbor.as_text(values[_PATH], "path")
    segments = tuple(path[1:].split("/"))
    if not path.startswith("/") or len(path) > 255 or not all(segments):
        raise Malformed("the path of a delta is absolute", field="path")
    size = cbor.as_int(values[_SIZE], "size", low=1, high=2**32 - 1)
    return Description(method, segments, size, cbor.as_bytes(values[_PATCH_DIGEST], "digest", size=32))


def _options(query: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (option.partition("=") for option in query)}


def _digest(given: dict[str, str], name: str) -> bytes:
    text = given.get(name, "")
    if not _DIGEST.fullmatch(text):
        raise InvalidInput("A digest has 64 hex digits in small letters.", field=name)
    return bytes.fromhex(text)
