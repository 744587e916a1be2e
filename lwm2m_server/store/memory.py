"""The store in memory: every port over dictionaries, for tests.  Held to the same contract tests as SQLite.

Nothing here waits, so each method is atomic. Records are frozen and handed out as they are.
"""

from lwm2m_server.store.image_keys import MemoryImageKeyStore
from lwm2m_server.store.memory_campaigns import MemoryCampaignStore, MemoryDeploymentStore
from lwm2m_server.store.memory_content import (
    MemoryImageStore,
    MemoryManifestStore,
    MemoryTokenStore,
    MemoryTrustStore,
)
from lwm2m_server.store.memory_deltas import MemoryDeltaStore
from lwm2m_server.store.memory_devices import (
    MemoryDeviceStore,
    MemoryObservationStore,
    MemoryRegistrationStore,
)
from lwm2m_server.store.memory_security import (
    MemoryAuthorityStore,
    MemoryCredentialStore,
    MemorySessionStore,
)
from lwm2m_server.store.memory_tables import MemoryEventStore, Tables


class MemoryStore:
    """See `ports.Store`."""

    def __init__(self) -> None:
        tables = Tables()
        self.events = MemoryEventStore(tables)
        self.devices = MemoryDeviceStore(tables)
        self.registrations = MemoryRegistrationStore(tables)
        self.observations = MemoryObservationStore(tables)
        self.images = MemoryImageStore(tables)
        self.manifests = MemoryManifestStore(tables)
        self.trust = MemoryTrustStore(tables)
        self.image_keys = MemoryImageKeyStore(tables)
        self.campaigns = MemoryCampaignStore(tables)
        self.deployments = MemoryDeploymentStore(tables)
        self.deltas = MemoryDeltaStore(tables)
        self.tokens = MemoryTokenStore(tables)
        self.credentials = MemoryCredentialStore(tables)
        self.authorities = MemoryAuthorityStore(tables)
        self.sessions = MemorySessionStore(tables)

    async def close(self) -> None:
        """Nothing to finish."""
