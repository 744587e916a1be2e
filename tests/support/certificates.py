"""Keys and certificates that are made for one run of the tests."""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

FAR = datetime(2060, 1, 1, tzinfo=UTC)


def public_key() -> bytes:
    """Return a raw public key, DER."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Issuer:
    """An authority that issues what a test asks for."""

    def __init__(self, name: str = "test authority", *, ends: datetime = FAR) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._name, self._key, ends)
        self.certificate = builder.add_extension(x509.BasicConstraints(True, None), True).sign(
            self._key, SHA256()
        )

    def _builder(self, subject, key, ends) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
            .not_valid_after(ends)
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, *cn: str, dns=(), uri=(), ends: datetime = FAR) -> x509.Certificate:
        """Issue a device's certificate with these names."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in cn])
        builder = self._builder(subject, ec.generate_private_key(ec.SECP256R1()), ends)
        names = [*map(x509.DNSName, dns), *map(x509.UniformResourceIdentifier, uri)]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        return builder.sign(self._key, SHA256())


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def authority() -> str:
    """Return an authority's certificate, PEM."""
    return Issuer().pem
