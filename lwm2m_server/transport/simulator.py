"""The simulator: fleets of light devices for trying campaigns, and load that measures (`engine/simulator`)."""

from collections.abc import Sequence
from dataclasses import dataclass

from lwm2m_server._engine import Fleet, Load

__all__ = ["DeviceSecurity", "Fleet", "Load"]


@dataclass(frozen=True, repr=False)
class DeviceSecurity:
    """How simulated devices secure their traffic; device n has the name prefix + six digits of n.

    Pre-shared keys: the identity is the endpoint name, the key the first 16 bytes of
    HMAC-SHA256(`psk_secret`, name). Raw public keys: `keys` (PKCS #8 of P-256 in DER, one a device) and
    `server_public_key` (SubjectPublicKeyInfo in DER), the only one that is taken. Certificates: `keys`,
    `certificates` (a chain in DER for each, the end entity first), `trust` (authorities of the server in
    DER), and `server_name` if that must stand in the server's certificate. `handshake_timeout`: seconds
    until a flight is sent again for the first time, of each device up to half longer. Devices may share
    an address when `connection_ids` are used.
    """

    psk_secret: bytes | None = None
    keys: Sequence[bytes] = ()
    certificates: Sequence[Sequence[bytes]] = ()
    server_public_key: bytes | None = None
    trust: Sequence[bytes] = ()
    server_name: str | None = None
    connection_ids: bool = True
    handshake_timeout: float = 2.0
