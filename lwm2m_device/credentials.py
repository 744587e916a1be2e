"""The device's credentials for coaps, from the files that its flags name, and what object 0 says of them.

A pre-shared key, a private key (raw public key), or a private key with a certificate: what is given decides the
security mode (LwM2M Core, resource /0/*/2). Keys come from files or the environment, so that none has to stand on
a command line.
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from lwm2m_device import files
from lwm2m_device.uri import CoapUri
from lwm2m_server.errors import InvalidInput
from lwm2m_server.transport import Security

MODE_PSK, MODE_RPK, MODE_X509, MODE_NONE = 0, 1, 2, 3
USAGE_TRUST_ANCHOR, USAGE_DOMAIN_ISSUED = 2, 3
_PEM = b"-----BEGIN"


@dataclass(frozen=True)
class CredentialFiles:
    """What the flags name. `psk_key` is in hex; files hold PEM or DER, `psk_key_file` hex."""

    psk_identity: str = ""
    psk_key: str = ""
    psk_key_file: Path | None = None
    key: Path | None = None
    certificate: Path | None = None
    server_key: Path | None = None
    server_certificate: Path | None = None
    authority: Path | None = None
    certificate_usage: int | None = None
    server_name: str = ""
    connection_id: bool = True
    handshake_timeout: float = 9.0

    def load(self, server: CoapUri, endpoint: str) -> Security | None:
        """Return the credentials, None for plain coap; raises InvalidInput for what can't be used."""
        if not server.is_secure:
            return None
        psk = self._psk(endpoint)
        if psk is not None and self.key is not None:
            raise InvalidInput(
                "A device has a pre-shared key or a private key, not both.",
                field="key",
                hint="Leave one out.",
            )
        if psk is not None:
            return self._security(psk=psk)
        if self.key is None:
            raise InvalidInput(
                "A device on coaps needs a key.",
                field="psk-key-file",
                hint="Give --psk-key-file, or --key with --server-key, or --key with --certificate.",
            )
        key = private_key(files.read(self.key, "key"))
        if self.certificate is None:
            return self._raw_public_key(key)
        return self._certificate(key, self.certificate, server)

    def _psk(self, endpoint: str) -> tuple[bytes, bytes] | None:
        text = self.psk_key
        if self.psk_key_file is not None:
            text = files.read(self.psk_key_file, "psk-key-file").decode("utf-8", "replace")
        if not text:
            return None
        try:
            key = bytes.fromhex("".join(text.split()))
        except ValueError:
            key = b""
        if not key:
            raise InvalidInput("The pre-shared key is not written in hex.", field="psk-key")
        return (self.psk_identity or endpoint).encode(), key

    def _raw_public_key(self, key: bytes) -> Security:
        if self.server_key is None:
            raise InvalidInput(
                "A device with a raw public key must know the server's.",
                field="server-key",
                hint="Name the file with --server-key, or give --certificate.",
            )
        return self._security(
            private_key=key, server_public_key=public_key(files.read(self.server_key, "server-key"))
        )

    def _certificate(self, key: bytes, file: Path, server: CoapUri) -> Security:
        chain = certificates(files.read(file, "certificate"), "certificate")
        trust = (
            ()
            if self.authority is None
            else certificates(files.read(self.authority, "authority"), "authority")
        )
        pinned = None
        if self.server_certificate is not None:
            found = certificates(
                files.read(self.server_certificate, "server-certificate"), "server-certificate"
            )
            pinned = found[0].public_bytes(Encoding.DER)
        usage = self.certificate_usage
        if usage is None:
            usage = USAGE_DOMAIN_ISSUED if pinned is not None else USAGE_TRUST_ANCHOR
        if pinned is None and usage == USAGE_TRUST_ANCHOR and trust:
            pinned = trust[0].public_bytes(Encoding.DER)
        if pinned is None or (usage < USAGE_TRUST_ANCHOR and not trust):
            raise InvalidInput(
                "A device with a certificate must know whose certificates it takes.",
                field="authority",
                hint="Name the authority with --authority, or the server's own with --server-certificate.",
            )
        return self._security(
            certificate=b"".join(each.public_bytes(Encoding.PEM) for each in chain),
            private_key=key,
            offer_raw_public_key=False,
            trust=tuple(each.public_bytes(Encoding.DER) for each in trust),
            server_certificate=pinned,
            certificate_usage=usage,
            server_name=self.server_name or _name_of(server),
        )

    def _security(self, **fields: object) -> Security:
        # A connection id of no length: the server gives one, and this device needs none to be found by.
        length = 0 if self.connection_id else None
        return Security(
            accept_raw_public_keys=False,
            connection_id_length=length,
            handshake_timeout=self.handshake_timeout,
            **fields,  # type: ignore[arg-type]
        )


def mode(security: Security | None) -> int:
    """Return the Security Mode, resource 2 of object 0."""
    if security is None:
        return MODE_NONE
    if security.psk is not None:
        return MODE_PSK
    return MODE_RPK if security.certificate is None else MODE_X509


def own_identity(security: Security | None) -> bytes:
    """Return Public Key or Identity, resource 3: identity, SubjectPublicKeyInfo or certificate (DER)."""
    if security is None or security.private_key is None:
        return b"" if security is None or security.psk is None else security.psk[0]
    if security.certificate is not None:
        return x509.load_pem_x509_certificates(security.certificate)[0].public_bytes(Encoding.DER)
    public = load_pem_private_key(security.private_key, None).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def secret_key(security: Security | None) -> bytes:
    """Return Secret Key, resource 5: the pre-shared key, or PKCS#8 (DER)."""
    if security is None or security.private_key is None:
        return b"" if security is None or security.psk is None else security.psk[1]
    key = load_pem_private_key(security.private_key, None)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def server_identity(security: Security | None) -> bytes:
    """Return Server Public Key, resource 4: what the server's certificate or key is held against (DER)."""
    if security is None:
        return b""
    return security.server_public_key or security.server_certificate or b""


def private_key(content: bytes) -> bytes:
    """Return a private key of P-256 as PKCS#8 in PEM; raises InvalidInput."""
    load = load_pem_private_key if _PEM in content else load_der_private_key
    try:
        key = load(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(
            "That is no unencrypted private key.", field="key", hint="PEM or DER (PKCS#8) of P-256."
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("The private key is not of the curve P-256.", field="key")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_key(content: bytes) -> bytes:
    """Return a server's public key as SubjectPublicKeyInfo in DER; raises InvalidInput."""
    load = load_pem_public_key if _PEM in content else load_der_public_key
    try:
        key = load(content)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput("That is no public key.", field="server-key", hint="PEM or DER.") from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificates(content: bytes, field: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a file, the end entity first; raises InvalidInput."""
    try:
        if _PEM in content:
            return tuple(x509.load_pem_x509_certificates(content))
        return (x509.load_der_x509_certificate(content),)
    except ValueError:
        raise InvalidInput("That is no certificate.", field=field, hint="PEM or DER.") from None


def _name_of(server: CoapUri) -> str | None:
    """A DNS name is asked for and looked for in the server's certificate; an address is not (RFC 6066 3)."""
    is_address = ":" in server.host or server.host.replace(".", "").isdecimal()
    return None if is_address else server.host
