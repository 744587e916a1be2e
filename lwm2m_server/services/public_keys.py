"""Public keys and certificates as people hand them over: PEM, or DER as bytes, in hex or in base64."""

import base64
import binascii
import hashlib
from datetime import UTC

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from lwm2m_server.devices.identities import Kind, Source, digest_text
from lwm2m_server.errors import InvalidInput

MAX_CERTIFICATE = 8192  # bytes; what a handshake message may have
_SUBJECT = {"public_key": "public key", "certificate": "certificate"}
_HINT = "Give PEM, or DER in hex or base64."


def der_of(text: str, field: str) -> bytes:
    """Return the DER that a text holds in hex or base64; `InvalidInput` when it holds neither."""
    packed = "".join(text.split())
    try:
        return bytes.fromhex(packed)
    except ValueError:
        pass
    try:
        return base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(
            f"The {_SUBJECT[field]} is neither PEM nor hex nor base64.", field=field, hint=_HINT
        ) from None


def public_key_der(text: str) -> bytes:
    """Return a raw public key as DER SubjectPublicKeyInfo. Raises `InvalidInput` for what is no P-256 key."""
    _no_private_key(text, "public_key")
    try:
        if "-----BEGIN" in text:
            key = load_pem_public_key(text.encode())
        else:
            key = load_der_public_key(der_of(text, "public_key"))
    except ValueError:
        raise InvalidInput("That is not a public key.", field="public_key", hint=_HINT) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput(
            "The public key is not of the curve P-256.",
            field="public_key",
            hint="Devices speak TLS_ECDHE_ECDSA with P-256 (RFC 7925 4.4); make such a key.",
        )
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate_of(text: str) -> x509.Certificate:
    """Return a certificate. Raises `InvalidInput`."""
    _no_private_key(text, "certificate")
    try:
        if "-----BEGIN" in text:
            found = x509.load_pem_x509_certificates(text.encode())[0]
        else:
            found = x509.load_der_x509_certificate(der_of(text, "certificate"))
        found.public_key()
        size = len(found.public_bytes(Encoding.DER))
    except (ValueError, x509.UnsupportedGeneralNameType):
        raise InvalidInput("That is not a certificate.", field="certificate", hint=_HINT) from None
    if size > MAX_CERTIFICATE:
        raise InvalidInput(
            f"The certificate has {size} bytes.", field="certificate", hint=f"At most {MAX_CERTIFICATE} fit."
        )
    return found


def identity_of_key(der: bytes) -> str:
    """Return the identity of a raw public key."""
    return digest_text(Kind.RPK, hashlib.sha256(der).digest())


def identity_of_certificate(der: bytes) -> str:
    """Return the identity of a certificate."""
    return digest_text(Kind.X509, hashlib.sha256(der).digest())


def names_of(certificate: x509.Certificate, source: Source) -> tuple[str, ...]:
    """Return the names of this kind in a certificate; none when they can't be read."""
    try:
        if source is Source.CN:
            found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            return tuple(str(each.value) for each in found)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if source is Source.DNS:
            return tuple(names.get_values_for_type(x509.DNSName))
        if source is Source.URI:
            return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    except (ValueError, x509.ExtensionNotFound, x509.UnsupportedGeneralNameType):
        pass
    return ()


def ends_at(certificate: x509.Certificate) -> float:
    """Return when a certificate expires, seconds since the epoch."""
    return certificate.not_valid_after_utc.astimezone(UTC).timestamp()


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate may issue others (RFC 5280 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound):
        return False


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority itself has signed the certificate."""
    if certificate.issuer != authority.subject:
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001  each kind of key fails in its own way, and none of them is a yes
        return False
    return True


def _no_private_key(text: str, field: str) -> None:
    if "PRIVATE KEY" in text:
        raise InvalidInput(
            "That is a private key, which never goes to a server; it was not kept.",
            code="private-key",
            field=field,
            hint=f"Give the {_SUBJECT[field]}.",
        )
