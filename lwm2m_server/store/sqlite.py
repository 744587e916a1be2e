"""The store over SQLite: all ports on one file."""

import asyncio
from pathlib import Path

from lwm2m_server.store.database import Database
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.image_keys import SqlImageKeyStore
from lwm2m_server.store.ports import Store
from lwm2m_server.store.schema_check import is_current
from lwm2m_server.store.sql_campaigns import SqlCampaignStore, SqlDeploymentStore
from lwm2m_server.store.sql_content import SqlImageStore, SqlManifestStore, SqlTokenStore, SqlTrustStore
from lwm2m_server.store.sql_deltas import SqlDeltaStore
from lwm2m_server.store.sql_devices import SqlDeviceStore, SqlObservationStore
from lwm2m_server.store.sql_events import SqlEventStore
from lwm2m_server.store.sql_registrations import SqlRegistrationStore, forget_strays
from lwm2m_server.store.sql_security import SqlAuthorityStore, SqlCredentialStore, SqlSessionStore


class SqliteStore:
    """See `ports.Store`; made by `open_sqlite`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.devices = SqlDeviceStore(database)
        self.registrations = SqlRegistrationStore(database)
        self.observations = SqlObservationStore(database)
        self.images = SqlImageStore(database)
        self.manifests = SqlManifestStore(database)
        self.trust = SqlTrustStore(database)
        self.image_keys = SqlImageKeyStore(database)
        self.campaigns = SqlCampaignStore(database)
        self.deployments = SqlDeploymentStore(database)
        self.deltas = SqlDeltaStore(database)
        self.events = SqlEventStore(database)
        self.tokens = SqlTokenStore(database)
        self.credentials = SqlCredentialStore(database)
        self.authorities = SqlAuthorityStore(database)
        self.sessions = SqlSessionStore(database)

    async def close(self) -> None:
        """Finish what is under way and close the database."""
        await self._database.close()


async def open_sqlite(path: Path) -> Store:
    """Open the database at `path`: create it if need be, bring it to this version's schema, connect.

    Raises `StoreError` (damaged, locked, unreadable) or its `SchemaError` (of a newer server, of another
    program).
    """
    await asyncio.to_thread(_upgrade, path)
    database = Database(path)
    try:
        await database.open()
        await database.write(forget_strays)
    except StoreError:
        await database.close()
        raise
    return SqliteStore(database)


def _upgrade(path: Path) -> None:
    if not is_current(path):
        from lwm2m_server.store import migrate

        migrate.upgrade(path)
