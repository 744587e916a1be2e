"""`lwm2m certs`: a small authority and its certificates, for a first try. Everything happens offline."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, urlsplit

import typer

from lwm2m_server.cli.output import Output
from lwm2m_server.cli.session import offline, read_file, unreadable
from lwm2m_server.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

app = typer.Typer(help="Make a small authority and certificates, for a first try.", no_args_is_help=True)

_MAX_COMMON_NAME = 64  # X.520
_LABEL = 63  # RFC 1035
_SKEW = timedelta(hours=1)  # clocks of devices are late

Folder = Annotated[Path, typer.Argument(help="Holds the authority and all that it issues.", metavar="DIR")]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", help="Name or IP address by which devices reach the server; may be repeated."),
]
Days = Annotated[int, typer.Option(min=1, max=36_500, help="How long it is valid.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


class _Authority:
    """The files of one authority."""

    def __init__(self, folder: Path, *, force: bool) -> None:
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self.key = folder / "ca.key"
        self._force = force

    def make(self, days: int) -> None:
        """Make key and certificate."""
        from cryptography import x509

        key = _new_key()
        name = _subject("lwm2m test authority")
        builder = (
            _builder(name, name, key, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign=False), critical=True)
        )
        self.write(self.key, self.certificate, key, builder, key, None)

    def server(self, names: list[str], days: int) -> tuple[Path, Path]:
        """Issue a server's certificate; return its files."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        alternatives: list[x509.GeneralName] = [_server_name(name) for name in names]
        return self._issue(
            "server", names[0][:_MAX_COMMON_NAME], alternatives, ExtendedKeyUsageOID.SERVER_AUTH, days
        )

    def device(self, endpoint: str, days: int) -> tuple[Path, Path]:
        """Issue a device's certificate; return its files."""
        from cryptography.x509.oid import ExtendedKeyUsageOID

        from lwm2m_server.lwm2m.registration import checked_endpoint

        checked_endpoint(endpoint)
        file = Path("devices") / quote(endpoint, safe="-_:@+ ")
        return self._issue(
            str(file), endpoint, _device_names(endpoint), ExtendedKeyUsageOID.CLIENT_AUTH, days
        )

    def _issue(
        self,
        file: str,
        common_name: str,
        alternatives: "list[x509.GeneralName]",
        usage: "x509.ObjectIdentifier",
        days: int,
    ) -> tuple[Path, Path]:
        from cryptography import x509

        issuer, issuer_key = self._load()
        key = _new_key()
        builder = (
            _builder(_subject(common_name), issuer.subject, key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if alternatives:
            # Critical where it is the only name (RFC 5280 4.2.1.6).
            is_only = len(common_name) > _MAX_COMMON_NAME
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=is_only)
        paths = self.folder / f"{file}.key", self.folder / f"{file}.pem"
        self.write(*paths, key, builder, issuer_key, issuer)
        return paths

    def _load(self) -> "tuple[x509.Certificate, ec.EllipticCurvePrivateKey]":
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            certificate = x509.load_pem_x509_certificate(read_file(self.certificate, "DIR"))
            key = load_pem_private_key(read_file(self.key, "DIR"), None)
        except (ValueError, TypeError):
            raise InvalidInput(
                f"{self.folder} holds no authority that can be read",
                field="DIR",
                hint="'lwm2m certs new' makes one in another folder",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise InvalidInput(
                f"{self.key} does not belong to {self.certificate}", field="DIR", hint="restore the two files"
            )
        return certificate, key

    def write(
        self,
        key_file: Path,
        certificate_file: Path,
        key: "ec.EllipticCurvePrivateKey",
        builder: "x509.CertificateBuilder",
        issuer_key: "ec.EllipticCurvePrivateKey",
        issuer: "x509.Certificate | None",
    ) -> None:
        """Sign and write both files, the key for its owner alone."""
        from cryptography import x509
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        certificate = builder.add_extension(identifier, critical=False).sign(issuer_key, SHA256())
        chain = certificate.public_bytes(Encoding.PEM)
        if issuer is not None:
            chain += issuer.public_bytes(Encoding.PEM)
        for file in (key_file, certificate_file):
            if file.exists() and not self._force:
                raise Conflict(
                    f"{file} exists already and is not overwritten", field="DIR", hint="--force overwrites it"
                )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(key_file, private, 0o600)
        _write(certificate_file, chain, 0o644)


def _write(file: Path, content: bytes, mode: int) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # what is there may be open to others
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
    except OSError as error:
        raise unreadable(file, "DIR", error) from None


def _new_key() -> "ec.EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _subject(common_name: str) -> "x509.Name":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    if len(common_name) > _MAX_COMMON_NAME:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: "x509.Name", issuer: "x509.Name", key: "ec.EllipticCurvePrivateKey", days: int
) -> "x509.CertificateBuilder":
    from cryptography import x509

    now = datetime.now(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, sign: bool) -> "x509.KeyUsage":
    """Return the usage of an end entity, which signs handshakes, or else of an authority."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=sign,
        key_cert_sign=not sign,
        crl_sign=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _server_name(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _is_dns_name(name):
        raise InvalidInput(
            f"'{name}' is neither a DNS name nor an IP address", field="--name", hint="such as lwm2m.example"
        )
    return x509.DNSName(name)


def _device_names(endpoint: str) -> "list[x509.GeneralName]":
    """Return what stands in subjectAltName: the endpoint name as URI or DNS name, where it is one."""
    from cryptography import x509

    if endpoint.isascii() and " " not in endpoint and urlsplit(endpoint).scheme:
        return [x509.UniformResourceIdentifier(endpoint)]
    if _is_dns_name(endpoint):
        return [x509.DNSName(endpoint)]
    if len(endpoint) > _MAX_COMMON_NAME:
        raise InvalidInput(
            f"'{endpoint}' is neither a URI nor a DNS name, and too long for a common name",
            field="ENDPOINT",
            hint=f"at most {_MAX_COMMON_NAME} characters fit there",
        )
    return []


def _is_dns_name(name: str) -> bool:
    labels = name.split(".")
    return len(name) <= 253 and all(
        0 < len(label) <= _LABEL
        and label.isascii()
        and label.replace("-", "").isalnum()
        and label.strip("-") == label
        for label in labels
    )


@app.command("new")
@offline
def new(
    out: Output,
    folder: Folder,
    name: Names = None,
    device: Annotated[
        list[str] | None, typer.Option("--device", help="Endpoint name of a device; may be repeated.")
    ] = None,
    days: Days = 365,
    force: Force = False,
) -> None:
    """Make an authority (P-256) and a server's certificate in a folder, and devices' ones if wished."""
    authority = _Authority(folder, force=force)
    authority.make(days)
    files = {"authority": str(authority.certificate)}
    key, certificate = authority.server(name or ["localhost", "127.0.0.1", "::1"], days)
    files |= {"server_certificate": str(certificate), "server_key": str(key)}
    for endpoint in device or []:
        key, certificate = authority.device(endpoint, days)
        files |= {f"{endpoint} certificate": str(certificate), f"{endpoint} key": str(key)}
    out.record(files)


@app.command("server")
@offline
def server(out: Output, folder: Folder, name: Names = None, days: Days = 365, force: Force = False) -> None:
    """Issue a server's certificate by the authority in the folder."""
    key, certificate = _Authority(folder, force=force).server(name or ["localhost", "127.0.0.1", "::1"], days)
    out.record({"certificate": str(certificate), "key": str(key)})


@app.command("device")
@offline
def device(
    out: Output,
    folder: Folder,
    endpoints: Annotated[
        list[str], typer.Argument(help="Endpoint names of the devices.", metavar="ENDPOINT...")
    ],
    days: Days = 365,
    force: Force = False,
) -> None:
    """Issue devices' certificates by the authority in the folder."""
    authority = _Authority(folder, force=force)
    made = []
    for endpoint in endpoints:
        key, certificate = authority.device(endpoint, days)
        made.append({"endpoint": endpoint, "certificate": str(certificate), "key": str(key)})
    out.records(made, [("endpoint", "endpoint"), ("certificate", "certificate"), ("key", "key")])
