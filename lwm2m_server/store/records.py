"""Records that only the store and the services know: events, files' descriptions, keys, tokens, and pages.

Devices are in `lwm2m_server.devices.records`, campaigns and deployments in `lwm2m_server.campaigns.records`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


def _no_data() -> Mapping[str, JsonValue]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some records in the order of their key.

    `next` continues after them (pass it as `after`); None at the end.
    """

    items: tuple[T, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """Something that happened, before the store gave it a number.

    `kind` is `subject.what` such as `device.registered` or `deployment.failed`; `data` is JSON for the faces.
    """

    kind: str
    at: float
    endpoint: str | None = None
    campaign_id: str | None = None
    data: Mapping[str, JsonValue] = field(default_factory=_no_data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of the outbox. `id` grows in the order of commits, never repeats and has no late arrivals."""

    id: int
    kind: str
    at: float
    endpoint: str | None = None
    campaign_id: str | None = None
    data: Mapping[str, JsonValue] = field(default_factory=_no_data)


class Registered(NamedTuple):
    """A Register that is durable.

    `created`: the endpoint was never seen before; `replaced`: the registration id that ended through it, for
    the engine to drop.
    """

    registration_id: str
    endpoint: str
    created: bool = False
    replaced: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationUpdate:
    """An Update (OMA LwM2M Core 6.2.2): what is None stays as it was.

    `expires_at` is computed by the caller from the lifetime that is now valid; None keeps the distance that
    the row has between `last_seen` and `expires_at`. `identity` is written with `address`: both or neither.
    `owner` is the endpoint name that the sender's identity may use, None for a sender without identity.
    """

    registration_id: str
    at: float
    address: str | None = None
    identity: str | None = None
    lifetime: int | None = None
    expires_at: float | None = None
    binding: str | None = None
    queue_mode: bool | None = None
    links: str | None = None
    objects: tuple[str, ...] | None = None
    owner: str | None = None


class LiveRegistration(NamedTuple):
    """What the engine needs to keep answering for a registration after a restart. A start makes one a device."""

    registration_id: str
    endpoint: str
    address: str
    identity: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image in the content files.

    `digest` is its SHA-256 (32 raw bytes), `size` in bytes, `format` what it was recognised as; `data` holds
    what the format's reader found (JSON).
    """

    digest: bytes
    size: int
    name: str
    created_at: float
    version: str | None = None
    format: str = "raw"
    created_by: str = ""
    data: Mapping[str, JsonValue] = field(default_factory=_no_data)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredManifest:
    """A verified manifest. `id` is chosen by the caller (the hex digest of `envelope` is a good one).

    `envelope` is the signed SUIT envelope byte by byte. `image_digest` names the file that is sent for its
    first component, `further_images` those of the others.
    """

    id: str
    name: str
    envelope: bytes
    key_id: str
    vendor_id: bytes
    class_id: bytes
    sequence: int
    version: str
    image_digest: bytes
    image_size: int
    created_at: float
    created_by: str = ""
    manufacturer: str | None = None
    model: str | None = None
    data: Mapping[str, JsonValue] = field(default_factory=_no_data)
    further_images: tuple[bytes, ...] = ()

    @property
    def installed_digest(self) -> bytes:
        """SHA-256 of what runs then: that of the plain image where an encrypted one is sent."""
        hidden = self._main.get("digest") if self.is_encrypted else None
        return bytes.fromhex(hidden) if isinstance(hidden, str) else self.image_digest

    @property
    def is_encrypted(self) -> bool:
        """Say whether the first component's image is sent encrypted."""
        return bool(self._main.get("encrypted"))

    @property
    def _main(self) -> Mapping[str, JsonValue]:
        components = self.data.get("components")
        first = components[0] if isinstance(components, list) and components else None
        return first if isinstance(first, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A public key whose manifests are accepted.

    `key_id` is lower hex; `public_key` is as the firmware package writes it (opaque here). A revoked key
    stays known so that old manifests can be explained. `roles`, `requires` (the algorithm of a second
    signature) are words of the firmware package; the key counts from `not_before` until before `not_after`.
    """

    key_id: str
    name: str
    algorithm: str
    public_key: bytes
    created_at: float
    created_by: str = ""
    revoked_at: float | None = None
    roles: tuple[str, ...] = ("image-author",)
    not_before: float | None = None
    not_after: float | None = None
    requires: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token of the API.

    Only `secret_hash` is kept; it must be a digest that can be looked up by.
    """

    id: str
    name: str
    secret_hash: bytes
    role: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What proves that a device is `endpoint`: a pre-shared key, a raw public key or a certificate.

    `identity` is the identity text; `kind` is its beginning (`psk`, `rpk`, `x509`). `secret` and `previous` are
    sealed keys; the latter counts until `previous_until`. `public` is the key or the certificate (DER), when it
    is known. `authority` is the id of the one that vouched for a certificate. None of both times: for ever.
    """

    identity: str
    kind: str
    endpoint: str
    created_at: float
    created_by: str = ""
    secret: bytes | None = field(default=None, repr=False)
    public: bytes | None = None
    previous: bytes | None = field(default=None, repr=False)
    previous_until: float | None = None
    rotated_at: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None
    authority: str | None = None
    revision: int = 0


class Grant(NamedTuple):
    """What a handshake needs of a `Credential`. A fleet that comes back makes one a device."""

    identity: str
    endpoint: str
    secret: bytes | None
    previous: bytes | None
    previous_until: float | None
    expires_at: float | None
    revoked_at: float | None
    authority: str | None

    def __repr__(self) -> str:
        return f"Grant({self.identity!r}, {self.endpoint!r})"  # the sealed keys belong in no log


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """An issuer of devices' certificates, and the rule by which a name in them gives the endpoint.

    `id` is the SHA-256 of `certificate` (DER) in hex.
    """

    id: str
    name: str
    certificate: bytes
    source: str
    pattern: str
    created_at: float
    created_by: str = ""


StoredSession = tuple[int, int, bytes, float]
"""A session of the secure transport, as it was exported: record (64 bits), generation, what is sealed, and when.

A plain tuple, as each handshake makes one.
"""


class ClaimedSession(NamedTuple):
    """What the transport needs to go on with a session after a restart. A start makes one a session."""

    record: int
    generation: int
    sealed: bytes
