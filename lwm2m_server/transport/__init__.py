"""The network as asyncio sees it: the engine behind `Transport`, and a fake in memory for tests."""

from lwm2m_server.transport.api import (
    Alive,
    Cancelled,
    Download,
    Failure,
    Notification,
    Peer,
    PeerGone,
    Progress,
    Request,
    RequestReset,
    RequestTimeout,
    Response,
    TransferFailed,
    Transport,
    TransportBusy,
    TransportError,
)
from lwm2m_server.transport.codes import Code, dotted, is_success
from lwm2m_server.transport.engine import EngineTransport
from lwm2m_server.transport.memory import MemoryNetwork, MemoryTransport

__all__ = [
    "Alive",
    "Cancelled",
    "Code",
    "Download",
    "EngineTransport",
    "Failure",
    "MemoryNetwork",
    "MemoryTransport",
    "Notification",
    "Peer",
    "PeerGone",
    "Progress",
    "Request",
    "RequestReset",
    "RequestTimeout",
    "Response",
    "TransferFailed",
    "Transport",
    "TransportBusy",
    "TransportError",
    "dotted",
    "is_success",
]
