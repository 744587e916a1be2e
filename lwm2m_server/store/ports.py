# ruff: noqa: A002  `filter` and `type` are the words of the field
"""What the services ask of a store: small protocols, one a concern, and `Store`, which bundles them.

Every method that writes returns after its change is durable. Writes that come at the same time share a commit
(group commit), each still succeeding or failing on its own. Lists come in keyset pages. A state only ever
changes by compare-and-set on (state, revision), together with its events, in one transaction.

`lwm2m_server.store.open_sqlite` gives the real one, `lwm2m_server.store.memory.MemoryStore` the one for
tests. Errors: `NotFound`, `Conflict`, `InvalidInput` as the methods say; `StoreError` when the database
itself fails.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from lwm2m_server.campaigns.records import Campaign, Deployment, DeploymentState, StateCount
from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.devices.filter import Filter
from lwm2m_server.devices.records import AttributeValue, Device, Facts, Observation, Registration
from lwm2m_server.store.delta_ports import DeltaStore
from lwm2m_server.store.image_keys import ImageKeyStore
from lwm2m_server.store.records import (
    Event,
    LiveRegistration,
    NewEvent,
    Page,
    Registered,
    RegistrationUpdate,
    StoredImage,
    StoredManifest,
    Token,
    TrustedKey,
)
from lwm2m_server.store.security_ports import AuthorityStore, CredentialStore, SessionStore


class DeviceStore(Protocol):
    """Devices by endpoint name."""

    async def get(self, endpoint: str) -> Device | None:
        """Return the device, or None."""
        ...

    async def get_many(self, endpoints: Iterable[str]) -> dict[str, Device]:
        """Return those of the devices that exist, by endpoint."""
        ...

    async def page(
        self, *, filter: Filter | None = None, now: float, after: str | None = None, limit: int = 100
    ) -> Page[Device]:
        """Return devices that match, by endpoint; `now` resolves times such as `2d ago`."""
        ...

    async def endpoints(
        self, *, filter: Filter | None = None, now: float, after: str | None = None, limit: int = 1000
    ) -> Page[str]:
        """Return endpoints that match, in order; the cheap way to walk over a fleet."""
        ...

    async def count(self, *, filter: Filter | None = None, now: float) -> int:
        """Count the devices that match."""
        ...

    async def set_facts(self, endpoint: str, facts: Facts) -> bool:
        """Write those facts that aren't None; False when the device is unknown."""
        ...

    async def set_formats(self, endpoint: str, formats: Mapping[str, int | bool]) -> bool:
        """Replace what was learned of the device's abilities; False when the device is unknown."""
        ...

    async def set_attributes(
        self,
        endpoint: str,
        changes: Mapping[str, AttributeValue | None],
        *,
        revision: int | None = None,
        events: Sequence[NewEvent] = (),
    ) -> Device:
        """Set attributes, or remove those whose new value is None, and return the device as it is then.

        The first value of a name fixes its type (text, number, boolean) for the whole fleet. Raises
        `NotFound` for the device, `InvalidInput` for a bad name, value or type, `Conflict` when `revision` is
        given and stale.
        """
        ...

    async def attribute_types(self) -> dict[str, AttributeType]:
        """Return the operators' attributes that exist, for `devices.filter.parse`."""
        ...

    async def define_attribute(
        self, name: str, type: AttributeType, *, events: Sequence[NewEvent] = ()
    ) -> None:
        """Fix a type ahead of values (`version` must be defined so); no event when it has that type already.

        Raises `Conflict` if it has another one.
        """
        ...

    async def delete(self, endpoint: str, *, events: Sequence[NewEvent] = ()) -> bool:
        """Forget the device, its observations and attributes; its events and deployments stay."""
        ...


class RegistrationStore(Protocol):
    """Registrations, in batches as the transport hands them over.

    Each list answers position by position; an item that failed alone is its exception, the others are
    durable. Events written here: `device.registered`, `device.updated` (only when more than liveness
    changed), `device.deregistered`, `device.expired`.
    """

    async def register(self, registrations: Sequence[Registration]) -> list[Registered | Exception]:
        """Make or replace registrations. The facts, attributes and observations of a known endpoint stay.

        `ForeignName` for one without identity where the endpoint has credentials, or has registered with an
        identity before; that an identity may use the endpoint name is the caller's to check.
        """
        ...

    async def update(self, updates: Sequence[RegistrationUpdate]) -> list[Registration | Exception | None]:
        """Apply Updates.

        The registration as it is then, None where the id is not registered (answer 4.04), `ForeignName` where
        it is not the sender's (see `rules.foreign`).
        """
        ...

    async def alive(self, beats: Sequence[tuple[str, float]]) -> None:
        """Record Updates that changed nothing: (registration id, seconds since the epoch).

        Unknown ids are ignored. The distance between `last_seen` and `expires_at` stays. Writes no events.
        """
        ...

    async def deregister(
        self, ends: Sequence[tuple[str, str | None]], *, now: float
    ) -> list[str | Exception | None]:
        """End registrations at the device's wish: (registration id, owner as in `RegistrationUpdate`).

        The endpoint, None where the id is not registered, `ForeignName` where it is not the sender's.
        """
        ...

    async def expire(self, *, now: float, limit: int = 1000) -> list[Registered]:
        """End at most `limit` registrations whose `expires_at` has passed, and return them.

        Call again while the list is full.
        """
        ...

    async def find(self, registration_id: str) -> Registration | None:
        """Return the live registration under this id."""
        ...

    async def live(self, *, after: str | None = None, limit: int = 1000) -> Page[LiveRegistration]:
        """Walk over all live registrations (by endpoint), to hand them to the engine after a restart."""
        ...


class ObservationStore(Protocol):
    """Wishes to observe, by (endpoint, path, owner)."""

    async def add(self, observation: Observation) -> bool:
        """Add or replace; False when it was there before. Raises `NotFound` for the device."""
        ...

    async def remove(self, endpoint: str, path: str, owner: str) -> bool:
        """Remove; False when there was none."""
        ...

    async def of(self, endpoint: str) -> list[Observation]:
        """Return all of one device, by path and owner."""
        ...

    async def observed(self, *, after: str | None = None, limit: int = 1000) -> Page[str]:
        """Walk over the registered devices that have any, by endpoint."""
        ...


class ImageStore(Protocol):
    """Descriptions of images; the bytes are in `lwm2m_server.store.files.FileStore`."""

    async def add(self, image: StoredImage, *, events: Sequence[NewEvent] = ()) -> bool:
        """Add; False (and nothing changed, no events) when this digest is there already."""
        ...

    async def get(self, digest: bytes) -> StoredImage | None:
        """Return the image, or None."""
        ...

    async def page(self, *, after: str | None = None, limit: int = 100) -> Page[StoredImage]:
        """Return images by digest."""
        ...

    async def delete(self, digest: bytes, *, events: Sequence[NewEvent] = ()) -> bool:
        """Delete; False when unknown. Raises `Conflict` while a manifest names it."""
        ...


class ManifestStore(Protocol):
    """Verified manifests."""

    async def add(self, manifest: StoredManifest, *, events: Sequence[NewEvent] = ()) -> bool:
        """Add; False when this id is there already. Raises `NotFound` for the image."""
        ...

    async def get(self, manifest_id: str) -> StoredManifest | None:
        """Return the manifest, or None."""
        ...

    async def page(self, *, after: str | None = None, limit: int = 100) -> Page[StoredManifest]:
        """Return manifests by id."""
        ...

    async def highest_sequence(self, vendor_id: bytes, class_id: bytes) -> int | None:
        """Return the highest sequence number stored for this class of devices."""
        ...

    async def delete(self, manifest_id: str, *, events: Sequence[NewEvent] = ()) -> bool:
        """Delete; False when unknown. Raises `Conflict` while a campaign names it."""
        ...


class TrustStore(Protocol):
    """Public keys whose signatures count."""

    async def add(self, key: TrustedKey, *, events: Sequence[NewEvent] = ()) -> bool:
        """Add; False when this key id is there already."""
        ...

    async def get(self, key_id: str) -> TrustedKey | None:
        """Return the key, also when it is revoked."""
        ...

    async def all(self, *, revoked: bool = False) -> list[TrustedKey]:
        """Return all keys by id, the revoked ones only when asked for."""
        ...

    async def change(self, key: TrustedKey, *, events: Sequence[NewEvent] = ()) -> bool:
        """Replace name, roles, validity and `requires`; False when the key is unknown or revoked."""
        ...

    async def revoke(self, key_id: str, *, now: float, events: Sequence[NewEvent] = ()) -> bool:
        """Stop trusting the key; False when it is unknown or revoked already."""
        ...


class CampaignStore(Protocol):
    """Campaigns."""

    async def add(self, campaign: Campaign, *, events: Sequence[NewEvent] = ()) -> None:
        """Add. Raises `Conflict` when the id or the name is taken, `NotFound` for the manifest."""
        ...

    async def get(self, campaign_id: str) -> Campaign | None:
        """Return the campaign, or None."""
        ...

    async def find(self, name: str) -> Campaign | None:
        """Return the campaign of this name, or None."""
        ...

    async def page(
        self, *, states: Iterable[str] | None = None, after: str | None = None, limit: int = 100
    ) -> Page[Campaign]:
        """Return campaigns by id, of these states only when they are given."""
        ...

    async def change(self, old: Campaign, new: Campaign, *, events: Sequence[NewEvent] = ()) -> bool:
        """Write `new` if the row still has the state and revision of `old`; else change nothing: False.

        `new.revision` must be `old.revision + 1`, the id stays (`ValueError`). Edits of drafts go this way
        too.
        """
        ...

    async def delete(self, campaign: Campaign, *, events: Sequence[NewEvent] = ()) -> bool:
        """Delete with its deployments if it still has this state and revision; False otherwise."""
        ...


class DeploymentStore(Protocol):
    """Devices in campaigns, by (campaign id, endpoint)."""

    async def add(self, deployments: Sequence[Deployment], *, events: Sequence[NewEvent] = ()) -> int:
        """Add those that aren't there yet and return how many were new: a snapshot may be repeated safely.

        Raises `NotFound` for the campaign.
        """
        ...

    async def get(self, campaign_id: str, endpoint: str) -> Deployment | None:
        """Return the deployment, or None."""
        ...

    async def page(
        self,
        campaign_id: str,
        *,
        state: DeploymentState | None = None,
        reason: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Deployment]:
        """Return deployments of a campaign by endpoint, of this state and reason only when given."""
        ...

    async def of(self, endpoint: str) -> list[Deployment]:
        """Return all deployments of one device, the newest first."""
        ...

    async def open(self, endpoint: str) -> list[Deployment]:
        """Return the active deployments of one device (offered … confirming).

        The gateway asks at each contact.
        """
        ...

    async def open_many(self, endpoints: Iterable[str]) -> dict[str, list[Deployment]]:
        """Return the active deployments of those of the devices that have any: `open` for a whole batch."""
        ...

    async def active(
        self, campaign_id: str, *, after: str | None = None, limit: int = 1000
    ) -> Page[Deployment]:
        """Return the active deployments of a campaign by endpoint, to go on after a restart."""
        ...

    async def due(self, campaign_id: str, *, now: float, limit: int) -> list[Deployment]:
        """Return pending deployments that need not wait (any more), those that never waited first."""
        ...

    async def next_retry(self, campaign_id: str) -> float | None:
        """Return the earliest `retry_at` of pending deployments that wait."""
        ...

    async def change(self, old: Deployment, new: Deployment, *, events: Sequence[NewEvent] = ()) -> bool:
        """Write `new` if the row still has the state and revision of `old`; else change nothing: False.

        `new.revision` must be `old.revision + 1`, the key stays (`ValueError`).
        """
        ...

    async def progress(self, campaign_id: str, endpoint: str, *, offset: int, size: int, now: float) -> None:
        """Record how far the transfer of an active deployment has come.

        No revision, no event; ignored when `now` is before `updated_at` or the deployment isn't active.
        """
        ...

    async def statistics(self, campaign_id: str) -> list[StateCount]:
        """Count the deployments by state and reason."""
        ...


class EventStore(Protocol):
    """The outbox: what happened, in the order of commits."""

    async def append(self, events: Sequence[NewEvent]) -> None:
        """Append; for events that come without another change."""
        ...

    async def after(
        self, event_id: int, *, limit: int = 500, endpoint: str | None = None, campaign_id: str | None = None
    ) -> list[Event]:
        """Return events with a higher id, the oldest first, of one device or campaign only when given."""
        ...

    async def before(
        self,
        event_id: int | None = None,
        *,
        limit: int = 100,
        endpoint: str | None = None,
        campaign_id: str | None = None,
    ) -> list[Event]:
        """Return events with a lower id (None: from the end), the newest first: the history for people."""
        ...

    async def last_id(self) -> int:
        """Return the id of the newest event, 0 when there never was one."""
        ...

    async def wait(self, event_id: int) -> int:
        """Return the newest id as soon as it is higher than `event_id`."""
        ...

    async def prune(self, *, before: float, limit: int = 10_000) -> int:
        """Delete at most `limit` events older than `before`, never the newest; return how many."""
        ...


class TokenStore(Protocol):
    """Access tokens of the API."""

    async def add(self, token: Token, *, events: Sequence[NewEvent] = ()) -> None:
        """Add. Raises `Conflict` when the id or the name is taken."""
        ...

    async def by_hash(self, secret_hash: bytes) -> Token | None:
        """Return the token with this hash, also when it is revoked or expired."""
        ...

    async def all(self) -> list[Token]:
        """Return all tokens by id."""
        ...

    async def revoke(self, token_id: str, *, now: float, events: Sequence[NewEvent] = ()) -> bool:
        """Revoke; False when it is unknown or revoked already."""
        ...


class Store(Protocol):
    """All of them over one database."""

    @property
    def devices(self) -> DeviceStore:
        """Devices by endpoint name."""
        ...

    @property
    def registrations(self) -> RegistrationStore:
        """Registrations, in batches."""
        ...

    @property
    def observations(self) -> ObservationStore:
        """Wishes to observe."""
        ...

    @property
    def images(self) -> ImageStore:
        """Descriptions of images."""
        ...

    @property
    def manifests(self) -> ManifestStore:
        """Verified manifests."""
        ...

    @property
    def trust(self) -> TrustStore:
        """Public keys whose signatures count."""
        ...

    @property
    def image_keys(self) -> ImageKeyStore:
        """Public keys of boot loaders."""
        ...

    @property
    def campaigns(self) -> CampaignStore:
        """Campaigns."""
        ...

    @property
    def deployments(self) -> DeploymentStore:
        """Devices in campaigns."""
        ...

    @property
    def deltas(self) -> DeltaStore:
        """Deltas, their failures, and transfers."""
        ...

    @property
    def events(self) -> EventStore:
        """The outbox."""
        ...

    @property
    def tokens(self) -> TokenStore:
        """Access tokens of the API."""
        ...

    @property
    def credentials(self) -> CredentialStore:
        """Credentials of devices."""
        ...

    @property
    def authorities(self) -> AuthorityStore:
        """Issuers of their certificates."""
        ...

    @property
    def sessions(self) -> SessionStore:
        """Exported sessions."""
        ...

    async def close(self) -> None:
        """Finish what is under way and close the database."""
        ...
