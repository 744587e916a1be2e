"""Key pairs and certificates for both ends of a secure transport, made for one run of the tests."""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

LONG_AGO, FAR = datetime(2000, 1, 1, tzinfo=UTC), datetime(2060, 1, 1, tzinfo=UTC)


class KeyPair:
    """A key of P-256 as `Security` takes it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "authority") -> None:
        self._own = KeyPair()
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._name, self._own, FAR, x509.BasicConstraints(ca=True, path_length=None))
        self.der = certificate.public_bytes(Encoding.DER)

    def issue(
        self, name: str, pair: KeyPair, *names: x509.GeneralName, ends: datetime = FAR
    ) -> x509.Certificate:
        """Issue a certificate for this common name and these alternative names."""
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return self._sign(subject, pair, ends, *([x509.SubjectAlternativeName(names)] if names else []))

    def _sign(
        self, subject: x509.Name, pair: KeyPair, ends: datetime, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
        builder = builder.public_key(pair.key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(LONG_AGO).not_valid_after(ends)
        for extension in extensions:
            builder = builder.add_extension(extension, isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._own.key, SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
