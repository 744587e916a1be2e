"""Credentials of a fleet of light devices, all derived from one secret, so that a file of 16 bytes is the fleet.

Pre-shared keys are HMAC-SHA256(secret, endpoint) cut to 16 bytes. Private keys are numbers of P-256 from the same
function, and an authority of the fleet signs certificates without chance (RFC 6979): the same secret and endpoint
always give the same credentials.
"""

import base64
import csv
import hashlib
import hmac
import io
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lwm2m_device import files
from lwm2m_server.devices.identities import Kind
from lwm2m_server.errors import InvalidInput

COLUMNS = ("endpoint", "kind", "identity", "key", "public_key", "certificate")
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256, SEC 2
_SECRET_BYTES = 32
_LEAST_SECRET = 16
_KEY_BYTES = 16
_BEGINS, _ENDS = datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, tzinfo=UTC)


def endpoints(prefix: str, count: int) -> Iterator[str]:
    """Return the names that the simulator gives its devices."""
    return (f"{prefix}{number:06d}" for number in range(count))


def read_secret(file: Path) -> bytes:
    """Return the secret of a fleet; a file that isn't there is made. Raises InvalidInput."""
    if not file.exists():
        files.write_private(file, f"{secrets.token_hex(_SECRET_BYTES)}\n", "secret")
    secret = files.read(file, "secret").strip()
    if len(secret) < _LEAST_SECRET:
        raise InvalidInput(
            f"The secret in {file} has {len(secret)} bytes.",
            field="secret",
            hint=f"It needs {_LEAST_SECRET} at least; a file that is missing is made.",
        )
    return secret


@dataclass(frozen=True)
class Device:
    """One device's credentials: a pre-shared key, or a private key (PKCS#8), its public half
    (SubjectPublicKeyInfo) and a certificate, all in DER.
    """

    endpoint: str
    psk: bytes = b""
    private_key: bytes = b""
    public_key: bytes = b""
    certificate: bytes = b""

    def row(self, kind: Kind) -> Sequence[str]:
        """Return the line of a CSV file for `lwm2m credentials import`."""
        own = {
            Kind.PSK: (self.endpoint, self.psk.hex(), "", ""),
            Kind.RPK: ("", "", base64.b64encode(self.public_key).decode(), ""),
            Kind.X509: ("", "", "", base64.b64encode(self.certificate).decode()),
        }
        return (self.endpoint, kind.value, *own[kind])


class Credentials:
    """The credentials of all devices that a secret stands for."""

    def __init__(self, kind: Kind, secret: bytes) -> None:
        self.kind = kind
        self.secret = secret
        self._authority_key = self._private_key("authority")
        self._subject = _name("authority of a simulated fleet")
        self.authority = self._issue(self._subject, self._authority_key.public_key(), serial=1)

    def device(self, endpoint: str) -> Device:
        """Derive the credentials of one device."""
        if self.kind is Kind.PSK:
            return Device(endpoint, psk=self._digest(endpoint)[:_KEY_BYTES])
        key = self._private_key(f"device {endpoint}")
        public = key.public_key()
        certificate = b""
        if self.kind is Kind.X509:
            serial = int.from_bytes(self._digest(f"serial {endpoint}")[:16]) >> 1
            issued = self._issue(_name(endpoint), public, serial=serial)
            certificate = issued.public_bytes(Encoding.DER)
        return Device(
            endpoint,
            private_key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            public_key=public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            certificate=certificate,
        )

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self.secret, text.encode(), hashlib.sha256)

    def _private_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        # Not quite uniform, by 2^-32: good enough where the keys only ever open simulated devices.
        number = int.from_bytes(self._digest(f"private key of {name}")) % (_ORDER - 1) + 1
        return ec.derive_private_key(number, ec.SECP256R1())

    def _issue(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, *, serial: int
    ) -> x509.Certificate:
        is_authority = subject == self._subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(_BEGINS)
            .not_valid_after(_ENDS)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
            builder = builder.add_extension(usage, critical=False)
        return builder.sign(self._authority_key, SHA256(), ecdsa_deterministic=True)


def table(credentials: Credentials, prefix: str, count: int) -> str:
    """Return the CSV that `lwm2m credentials import` takes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(credentials.device(name).row(credentials.kind) for name in endpoints(prefix, count))
    return out.getvalue()


def _name(common: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    except ValueError:
        raise InvalidInput(
            f"{common!r} is too long for a certificate.",
            field="prefix",
            hint="A name has 64 characters at most.",
        ) from None
