"""What a Register states, parsed once for all devices that state the same, and the ids of registrations."""

import os
from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache

from lwm2m_server.lwm2m.links import ObjectList
from lwm2m_server.lwm2m.registration import checked_endpoint, parse_register

# So many statements of at most this size are remembered: a fleet of one model sends the same bytes but for its names.
_REMEMBERED = 512
_REMEMBERED_PAYLOAD = 2048
_ID_BYTES = 8
_ID_CHARACTERS = 16
# The digits of base64 in the order of their values, all of them safe in a path.
_SORTABLE = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz",
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a Register says apart from the name of the device, in the terms of `Registration`."""

    lifetime: int
    version: str
    binding: str
    queue_mode: bool
    links: str
    objects: tuple[str, ...]


def object_paths(objects: ObjectList) -> tuple[str, ...]:
    """Return an object list as sorted paths: `/3/0` for instances, `/5` for an object without one."""
    paths: list[str] = []
    for entry in objects.objects:
        if entry.instances:
            paths.extend(f"/{entry.id}/{instance}" for instance in entry.instances)
        else:
            paths.append(f"/{entry.id}")
    return tuple(paths)


def new_ids(now: float, count: int) -> list[str]:
    """Return ids of registrations: 16 characters of [-0-9A-Z_a-z], 64 bits of them random.

    They begin with the time (seconds), and their text sorts as it does: devices that register together stand
    together in the index, where random ids would touch a page each.
    """
    prefix = (int(now) & 0xFFFFFFFF).to_bytes(4, "big")
    random = os.urandom(_ID_BYTES * count)
    raw = b"".join(prefix + random[at : at + _ID_BYTES] for at in range(0, len(random), _ID_BYTES))
    # 12 bytes are 16 characters without padding: all are encoded at once.
    text = b64encode(raw).translate(_SORTABLE).decode()
    return [text[at : at + _ID_CHARACTERS] for at in range(0, len(text), _ID_CHARACTERS)]


def parse_statement(
    query: tuple[str, ...], payload: bytes, default: str | None = None
) -> tuple[str, Statement]:
    """Return the endpoint name and what is stated of it; raises as `parse_register` does.

    `default` is the name that the sender's identity may use: it need not be said then (OMA LwM2M Core 1.1 6.2.1).
    """
    if len(payload) <= _REMEMBERED_PAYLOAD:
        for at, item in enumerate(query):
            if item.startswith("ep="):
                statement = _remembered(query[:at] + query[at + 1 :], payload)
                return checked_endpoint(item[3:]), statement
        if default is not None:
            return checked_endpoint(default), _remembered(query, payload)
    elif default is not None and not any(item.startswith("ep=") for item in query):
        query = (f"ep={default}", *query)
    return _parsed(query, payload)


@lru_cache(maxsize=_REMEMBERED)
def _remembered(others: tuple[str, ...], payload: bytes) -> Statement:
    # A second name among the others is refused here, as two of one parameter are.
    return _parsed(("ep=-", *others), payload)[1]


def _parsed(query: tuple[str, ...], payload: bytes) -> tuple[str, Statement]:
    stated = parse_register(query, payload)
    statement = Statement(
        lifetime=stated.lifetime,
        version=stated.version,
        binding=stated.binding,
        queue_mode=stated.queue_mode,
        links=payload.decode("utf-8", "replace"),
        objects=object_paths(stated.objects),
    )
    return stated.endpoint, statement
