"""Where protocol meets domain: the services that the faces (REST, CLI) and the composition root use.

`Services` is what `lwm2m_server.api.create_app` gets. Every service raises the errors of
`lwm2m_server.errors`.
"""

from dataclasses import dataclass

from lwm2m_server.services.access import AccessService
from lwm2m_server.services.campaigns import CampaignService
from lwm2m_server.services.credentials import CredentialService
from lwm2m_server.services.deltas import DeltaService
from lwm2m_server.services.directory import DirectoryService
from lwm2m_server.services.events import EventFeed
from lwm2m_server.services.health import HealthService
from lwm2m_server.services.operations import OperationService
from lwm2m_server.services.releases import ReleaseService
from lwm2m_server.services.server_key import ServerKeys
from lwm2m_server.services.uploads import UploadService

__all__ = [
    "AccessService",
    "CampaignService",
    "CredentialService",
    "DeltaService",
    "DirectoryService",
    "EventFeed",
    "HealthService",
    "OperationService",
    "ReleaseService",
    "ServerKeys",
    "Services",
    "UploadService",
]


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a face may call."""

    directory: DirectoryService
    operations: OperationService
    releases: ReleaseService
    deltas: DeltaService
    uploads: UploadService
    campaigns: CampaignService
    credentials: CredentialService
    server_keys: ServerKeys
    access: AccessService
    events: EventFeed
    health: HealthService
