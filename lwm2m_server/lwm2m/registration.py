"""Register and Update requests of a device (OMA LwM2M Core TS 6.2, Transport TS 6.4.3).

Query parameters come in any order and are read as a set. A malformed one is InvalidInput whose `field` is the
parameter (answer 4.00 with the text as diagnostic); a version that this server doesn't speak is
UnsupportedVersion (answer 4.12, after which a device may offer an older one at once).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m.links import ObjectList, parse_object_list

SUPPORTED_VERSIONS = ("1.0", "1.1", "1.2")
DEFAULT_LIFETIME = 86400
# Lifetime 0 means "for ever" from 1.1 on; the unsigned 32-bit range bounds the rest.
MAX_LIFETIME = 0xFFFF_FFFF
MAX_ENDPOINT_BYTES = 255
MAX_PARAMETERS = 32
MAX_PARAMETER_BYTES = 255
# MAX_TRANSMIT_WAIT (RFC 7252 4.8.2): an Update sent in time may still be on its way for so long.
EXPIRY_MARGIN = 93.0

_BINDING = re.compile(r"[UMHTSN]{1,6}\Z")
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}(?:\.[0-9]{1,3})?\Z")

# Versions of the core objects where a device names none (Core TS 1.1 and 1.2, appendix E); everything else is
# 1.0.
_DEFAULT_VERSIONS = {
    "1.1": {0: "1.1", 1: "1.1", 3: "1.1", 4: "1.2"},
    "1.2": {0: "1.2", 1: "1.2", 2: "1.1", 3: "1.2", 4: "1.3", 5: "1.1"},
}


class UnsupportedVersion(InvalidInput):
    """The device offers an LwM2M version that this server doesn't speak: answer 4.12 Precondition Failed."""

    code = "unsupported-version"


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What an Update changes; None is unchanged."""

    lifetime: int | None = None
    binding: str | None = None
    queue_mode: bool | None = None
    sms_number: str | None = None
    objects: ObjectList | None = None
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def bare(self) -> bool:
        """Tell whether the Update only says "still here"."""
        return self == UpdateRequest()


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """A registration as the device stated it.

    `lifetime` is in seconds (0: for ever), `binding` the transports without Q, such as "U" or "UT", `extra`
    the query parameters that LwM2M doesn't define, in their order.
    """

    endpoint: str
    lifetime: int = DEFAULT_LIFETIME
    version: str = "1.0"
    binding: str = "U"
    queue_mode: bool = False
    sms_number: str | None = None
    objects: ObjectList = field(default_factory=ObjectList)
    extra: tuple[tuple[str, str], ...] = ()

    def object_version(self, object_id: int) -> str:
        """Return the version the device named for an object, else the LwM2M version's default."""
        entry = self.objects.get(object_id)
        named = entry.version if entry is not None else None
        return named or default_object_version(self.version, object_id)

    def updated(self, update: UpdateRequest) -> "RegisterRequest":
        """Apply an Update; an object list replaces the old one, also right after Register."""
        return replace(
            self,
            lifetime=self.lifetime if update.lifetime is None else update.lifetime,
            binding=self.binding if update.binding is None else update.binding,
            queue_mode=self.queue_mode if update.queue_mode is None else update.queue_mode,
            sms_number=self.sms_number if update.sms_number is None else update.sms_number,
            objects=self.objects if update.objects is None else update.objects,
            extra=update.extra or self.extra,
        )


def parse_register(query: Sequence[str], payload: bytes) -> RegisterRequest:
    """Read a Register: Uri-Query options and the link list.

    Raises InvalidInput (field = parameter or "links") for 4.00 and UnsupportedVersion for 4.12.
    """
    parameters, extra = _parameters(query)
    # The version comes first: whoever speaks another one may mean the other parameters differently.
    version = _version(parameters.get("lwm2m"))
    if "ep" not in parameters:
        raise InvalidInput("The endpoint name is missing", field="ep", hint="Register with ep=<name>")
    endpoint = checked_endpoint(parameters["ep"])
    binding, queued = _binding(parameters.get("b"))
    lifetime = _lifetime(parameters["lt"]) if "lt" in parameters else DEFAULT_LIFETIME
    return RegisterRequest(
        endpoint=endpoint,
        lifetime=lifetime,
        version=version,
        binding=binding or "U",
        queue_mode=queued or "Q" in parameters,
        sms_number=_sms(parameters),
        objects=parse_object_list(payload),
        extra=extra,
    )


def parse_update(query: Sequence[str], payload: bytes, *, version: str = "1.0") -> UpdateRequest:
    """Read an Update; an empty payload leaves the objects as they are. Raises InvalidInput for 4.00.

    `version` is the registration's LwM2M version: in 1.0 queue mode is a part of `b`, so `b=U` ends it; from
    1.1 on it is a parameter of its own, and one that isn't sent hasn't changed.
    """
    parameters, extra = _parameters(query)
    binding: str | None = None
    queue_mode: bool | None = None
    if "b" in parameters:
        binding, queued = _binding(parameters["b"])
        queue_mode = queued if queued or version == "1.0" else None
    if "Q" in parameters:
        queue_mode = True
    return UpdateRequest(
        lifetime=_lifetime(parameters["lt"]) if "lt" in parameters else None,
        binding=binding,
        queue_mode=queue_mode,
        sms_number=_sms(parameters),
        objects=parse_object_list(payload) if payload else None,
        extra=extra,
    )


def default_object_version(lwm2m_version: str, object_id: int) -> str:
    """Return the object version that holds when a device of this LwM2M version names none."""
    return _DEFAULT_VERSIONS.get(lwm2m_version, {}).get(object_id, "1.0")


def expires_at(last_seen: float, lifetime: int, margin: float = EXPIRY_MARGIN) -> float:
    """Return when a registration ends (seconds since the epoch): lifetime plus margin; lifetime 0 never ends.

    Devices refresh anywhere from a fifth to the whole of their lifetime, so missed Updates are never counted.
    """
    return float("inf") if lifetime == 0 else last_seen + lifetime + margin


_KNOWN = frozenset({"ep", "lt", "lwm2m", "b", "Q", "sms"})


def _parameters(query: Sequence[str]) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    if len(query) > MAX_PARAMETERS:
        raise InvalidInput(
            f"{len(query)} query parameters; at most {MAX_PARAMETERS} are taken", field="query"
        )
    known: dict[str, str] = {}
    extra: list[tuple[str, str]] = []
    for item in query:
        name, _, value = item.partition("=")
        if name not in _KNOWN:
            if not item.isprintable():
                raise InvalidInput("A query parameter holds control characters", field="query")
            extra.append((name, value))
        elif name in known:
            raise InvalidInput(f"{name} is given twice", field=name, hint=f"Send {name} once")
        else:
            known[name] = value
    return known, tuple(extra)


def checked_endpoint(name: str) -> str:
    """Return an endpoint name that may be used as one; raises InvalidInput (field "ep") for others."""
    size = len(name) if name.isascii() else len(name.encode("utf-8", "surrogatepass"))
    if not 0 < size <= MAX_ENDPOINT_BYTES:
        raise InvalidInput(
            f"The endpoint name has {size} bytes",
            field="ep",
            hint=f"It must have 1 to {MAX_ENDPOINT_BYTES} bytes",
        )
    if not name.isprintable() or name != name.strip():
        raise InvalidInput(
            "The endpoint name holds control characters, or begins or ends with a blank",
            field="ep",
            hint="Use printable characters, such as urn:imei:490154203237518",
        )
    return name


def _version(text: str | None) -> str:
    if text is None:
        return "1.0"  # Awa leaves it out
    if text in SUPPORTED_VERSIONS:
        return text
    if not _VERSION.match(text):
        raise InvalidInput(
            f"{text[:20]!r} is not an LwM2M version", field="lwm2m", hint="Send lwm2m=1.0, 1.1 or 1.2"
        )
    raise UnsupportedVersion(
        f"LwM2M {text} is not supported", field="lwm2m", hint="This server speaks 1.0, 1.1 and 1.2"
    )


def _lifetime(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or int(text) > MAX_LIFETIME:
        raise InvalidInput(
            f"{text[:20]!r} is not a lifetime",
            field="lt",
            hint=f"Send whole seconds from 0 to {MAX_LIFETIME}, for example lt=300",
        )
    return int(text)


def _binding(text: str | None) -> tuple[str, bool]:
    """Split "UQ" (1.0) into transports and queue mode; "Q" alone and absence leave the transport in use."""
    if text is None:
        return "U", False
    transports = text.replace("Q", "")
    if not (_BINDING.match(transports) or text == "Q") or len(set(text)) != len(text):
        raise InvalidInput(
            f"{text[:20]!r} is not a binding",
            field="b",
            hint="Send some of the letters U, T, S, N, M, H (in LwM2M 1.0 also Q), each once, such as b=UQ",
        )
    return transports or "U", "Q" in text


def _sms(parameters: dict[str, str]) -> str | None:
    number = parameters.get("sms")
    if number is None:
        return None
    digits = number.removeprefix("+")
    if not (digits.isascii() and digits.isdecimal() and 1 <= len(digits) <= 20):
        raise InvalidInput(
            f"{number[:24]!r} is not a telephone number", field="sms", hint="Send digits (MSISDN)"
        )
    return number
