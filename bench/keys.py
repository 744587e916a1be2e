"""Keys of a run: all derived from a secret in a file that lives as long as the run, so every process has the same."""

import secrets
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from lwm2m_device.fleet_security import Credentials, Device, endpoints, read_secret, table
from lwm2m_server.devices.identities import Kind
from lwm2m_server.transport.simulator import DeviceSecurity

_SERVER = "server"


class Keys:
    """Credentials of the devices and of the servers under measurement."""

    def __init__(self, file: Path) -> None:
        """A file that isn't there is made."""
        self.file = file
        if not file.exists():
            # without a line end: every peer takes the bytes as they are
            file.write_text(secrets.token_hex(32))
        secret = read_secret(file)
        self._psk = Credentials(Kind.PSK, secret)
        self._rpk = Credentials(Kind.RPK, secret)

    def psk(self, endpoint: str) -> bytes:
        """Return the pre-shared key of a device."""
        return self._psk.device(endpoint).psk

    def psk_devices(self, *, connection_ids: bool = True) -> DeviceSecurity:
        """Return what simulated devices with pre-shared keys need."""
        return DeviceSecurity(psk_secret=self._psk.secret, connection_ids=connection_ids)

    def rpk_devices(self, count: int, *, one_key: bool = False) -> DeviceSecurity:
        """Return what that many simulated devices with raw public keys need; with `one_key` they share it."""
        names = endpoints("rpk-", 1 if one_key else count)
        keys = [self._rpk.device(name).private_key for name in names]
        return DeviceSecurity(
            keys=keys * count if one_key else keys, server_public_key=self.server.public_key
        )

    @property
    def shared(self) -> Device:
        """The key pair of devices that share one."""
        return self._rpk.device(next(iter(endpoints("rpk-", 1))))

    @property
    def server(self) -> Device:
        """The key pair of the servers."""
        return self._rpk.device(_SERVER)

    @property
    def server_pem(self) -> bytes:
        """The servers' private key."""
        key = load_der_private_key(self.server.private_key, None)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def csv(self, prefix: str, count: int) -> str:
        """Return what `lwm2m credentials import` takes: pre-shared keys of that many devices."""
        return table(self._psk, prefix, count)
