"""Many light devices: the engine's simulator, watched."""

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from lwm2m_device import files, fleet_security, uri
from lwm2m_device.credentials import certificates, public_key
from lwm2m_device.settings import Log
from lwm2m_server.devices.identities import Kind
from lwm2m_server.errors import InvalidInput
from lwm2m_server.transport.simulator import DeviceSecurity, Fleet

_SLICE = 1.0  # seconds between two looks for Ctrl-C
_REPORT = 10  # slices between two lines of the log


@dataclass(frozen=True)
class FleetFiles:
    """What the flags name: the secret of the fleet, and what its devices believe of the server."""

    kind: Kind
    secret: Path | None
    server_key: Path | None = None
    authority: Path | None = None
    server_name: str = ""
    connection_id: bool = True
    handshake_timeout: float = 2.0

    def credentials(self) -> fleet_security.Credentials:
        """Return the credentials of all devices; raises InvalidInput."""
        if self.secret is None:
            raise InvalidInput(
                "The devices need credentials.",
                field="secret",
                hint="Name a file with --secret; it is made when it isn't there.",
            )
        return fleet_security.Credentials(self.kind, fleet_security.read_secret(self.secret))

    def write(self, prefix: str, count: int, table: Path | None, authority: Path | None) -> None:
        """Write credentials as CSV and the authority's certificate; raises InvalidInput."""
        credentials = self.credentials()
        if authority is not None:
            pem = credentials.authority.public_bytes(Encoding.PEM).decode()
            files.write_private(authority, pem, "authority-out")
        if table is not None:
            content = fleet_security.table(credentials, prefix, count)
            files.write_private(table, content, "credentials-out")

    def load(self, prefix: str, count: int) -> DeviceSecurity:
        """Return the credentials of so many devices; raises InvalidInput."""
        credentials = self.credentials()
        common: dict[str, Any] = {
            "connection_ids": self.connection_id,
            "handshake_timeout": self.handshake_timeout,
        }
        if self.kind is Kind.PSK:
            return DeviceSecurity(psk_secret=credentials.secret, **common)
        devices = [credentials.device(name) for name in fleet_security.endpoints(prefix, count)]
        common["keys"] = [device.private_key for device in devices]
        if self.kind is Kind.RPK:
            if self.server_key is None:
                raise InvalidInput(
                    "Devices with raw public keys must know the server's.",
                    field="server-key",
                    hint="Name its file with --server-key.",
                )
            server = public_key(files.read(self.server_key, "server-key"))
            return DeviceSecurity(server_public_key=server, **common)
        if self.authority is None:
            raise InvalidInput(
                "Devices with certificates must know whose they take.",
                field="authority",
                hint="Name the authority of the server's certificate with --authority.",
            )
        trust = certificates(files.read(self.authority, "authority"), "authority")
        return DeviceSecurity(
            certificates=[[device.certificate] for device in devices],
            trust=[each.public_bytes(Encoding.DER) for each in trust],
            server_name=self.server_name or None,
            **common,
        )


def run_fleet(
    server: str,
    count: int,
    *,
    files: FleetFiles,
    prefix: str,
    seconds: float | None,
    log: Log,
    **options: Any,
) -> dict[str, int]:
    """Let `count` devices live for so many seconds (None: until Ctrl-C) and return what happened.

    Raises InvalidInput for a server or options that can't be used.
    """
    target = uri.parse(server, field="server")
    security = files.load(prefix, count) if target.is_secure else None
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
        address = uri.address(str(found[0][4][0]), target.port)
        fleet = Fleet(address, count, prefix=prefix, security=security, **options)
    except OSError as error:
        raise InvalidInput(
            f"The host {target.host} has no address: {error.strerror}.", field="server"
        ) from None
    except Exception as error:  # noqa: BLE001  the engine's own error, which only the transport may import
        raise InvalidInput(f"The fleet can't start: {error}", field="fleet") from None
    sums: dict[str, int] = {}
    end = None if seconds is None else time.monotonic() + seconds
    rounds = 0
    try:
        while end is None or (left := end - time.monotonic()) > 0:
            sums = fleet.run(_SLICE if end is None else min(_SLICE, left))
            rounds += 1
            if rounds % _REPORT == 0:
                log(", ".join(f"{value} {name}" for name, value in sums.items()))
    except KeyboardInterrupt:
        log("Stopped")
    return sums
