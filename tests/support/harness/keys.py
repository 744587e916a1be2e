"""Keys and certificates of one test run, as files in the forms that peers want."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BEGINS, _ENDS = datetime(2020, 1, 1, tzinfo=UTC), datetime(2060, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Files:
    """A key pair with its certificate: `key`, `public` and `certificate` in `.pem` and `.der`."""

    folder: Path
    name: str

    def file(self, what: str, form: str = "pem") -> Path:
        return self.folder / f"{self.name}.{what}.{form}"

    def text(self, what: str) -> str:
        return self.file(what).read_text()


class ServerKeys(Files):
    """What the server presents, with the authority of devices beside it."""

    def toml(self) -> str:
        """Return the settings that name the files."""
        return f'private_key = "{self.file("key")}"\ncertificate = "{self.file("certificate")}"\n'


@dataclass(frozen=True)
class DeviceKeys(Files):
    """What one device has, all three kinds of it."""

    server: Files
    authority: Path

    @property
    def psk(self) -> str:
        """The pre-shared key in hex."""
        return self.file("psk", "hex").read_text()

    def material(self, kind: str) -> dict[str, str]:
        """Return what `POST /credentials` takes."""
        return {
            "psk": {"key": self.psk},
            "rpk": {"public_key": self.text("public")},
            "x509": {"certificate": self.text("certificate")},
        }[kind]

    def flags(self, kind: str) -> list[str]:
        """Return the flags of `lwm2m-device run`."""
        server = self.server
        given = {
            "psk": {"psk-identity": self.name, "psk-key-file": self.file("psk", "hex")},
            "rpk": {"key": self.file("key"), "server-key": server.file("public")},
            "x509": {
                "key": self.file("key"),
                "certificate": self.file("certificate"),
                "authority": self.authority,
                "server-name": "localhost",
            },
        }[kind]
        return [word for name, value in given.items() for word in (f"--{name}", str(value))]

    def properties(self, kind: str) -> dict[str, str]:
        """Return the properties of the Leshan device."""
        files = {
            "psk": {},
            "rpk": {"public": self.file("public", "der"), "server.key": self.server.file("public", "der")},
            "x509": {
                "certificate": self.file("certificate", "der"),
                "server.certificate": self.server.file("certificate", "der"),
            },
        }[kind]
        if kind == "psk":
            return {"psk.identity": self.name, "psk.key": self.psk}
        return {"key": str(self.file("key", "der"))} | {name: str(file) for name, file in files.items()}


class Pki:
    """An authority that issues in a folder. Everything is made anew for each run, nothing is ever committed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority of a test run")
        self.authority = folder / "authority.pem"
        self.authority.write_bytes(self._issue(self._name, self._key, ()).public_bytes(Encoding.PEM))
        self.server = ServerKeys(folder, "server")
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        )
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        self._write(self.server, "localhost", (names, usage))

    def device(self, endpoint: str) -> DeviceKeys:
        """Make keys and a certificate whose common name is the endpoint name."""
        keys = DeviceKeys(self._folder, endpoint, self.server, self.authority)
        self._write(keys, endpoint, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),))
        keys.file("psk", "hex").write_text(secrets.token_hex(16))
        return keys

    def _write(self, files: Files, common: str, extensions: tuple[x509.ExtensionType, ...]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(_name(common), key, extensions)
        for ending, form in (("pem", Encoding.PEM), ("der", Encoding.DER)):
            written = {
                "key": key.private_bytes(form, PrivateFormat.PKCS8, NoEncryption()),
                "public": key.public_key().public_bytes(form, PublicFormat.SubjectPublicKeyInfo),
                "certificate": certificate.public_bytes(form),
            }
            for what, content in written.items():
                file = files.file(what, ending)
                file.write_bytes(content)
                file.chmod(0o600)

    def _issue(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: tuple[x509.ExtensionType, ...]
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_BEGINS)
            .not_valid_after(_ENDS)
            .add_extension(x509.BasicConstraints(subject == self._name, None), critical=True)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
