"""What operators state of a credential, checked: from JSON, from options of a command, from a line of CSV."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.serialization import Encoding

from lwm2m_server.devices.identities import Kind, canonical, psk_identity, psk_text
from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m.registration import checked_endpoint
from lwm2m_server.services.public_keys import (
    certificate_of,
    ends_at,
    identity_of_certificate,
    identity_of_key,
    public_key_der,
)

GENERATED = 16  # bytes of a key that is made here
MAX_KEY = 64

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the credential itself consists of; which of these are needed depends on the kind.

    `identity` of a pre-shared key may be left out: then it is the endpoint name. Of a public key or a certificate
    it may stand instead of the thing itself. `key` is hex.
    """

    identity: str = ""
    key: str = field(default="", repr=False)
    public_key: str = ""
    certificate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A credential that can be stored. `key` is the plain pre-shared key."""

    identity: str
    key: bytes | None = field(default=None, repr=False)
    public: bytes | None = None
    expires_at: float | None = None


def endpoint_name(text: str) -> str:
    """Return an endpoint name; `InvalidInput` (field `endpoint`)."""
    try:
        return checked_endpoint(text)
    except InvalidInput as error:
        raise InvalidInput(error.message, field="endpoint", hint=error.hint) from None


def kind_of(text: str) -> Kind:
    """Return the kind; `InvalidInput` (field `kind`)."""
    try:
        return Kind(text.strip().lower())
    except ValueError:
        raise InvalidInput(
            f"'{text[:40]}' is no kind of credential.", field="kind", hint=f"Kinds are {', '.join(Kind)}."
        ) from None


def checked(
    kind: Kind, endpoint: str, material: Material, *, now: float, random: Random | None = secrets.token_bytes
) -> Checked:
    """Check what was stated. Without a pre-shared key one is made by `random`; None: it must be stated.

    Raises `InvalidInput` naming the field.
    """
    match kind:
        case Kind.PSK:
            _none_of(kind, public_key=material.public_key, certificate=material.certificate)
            identity = psk_text(psk_identity(material.identity or endpoint))
            return Checked(identity=identity, key=_psk(material.key, random))
        case Kind.RPK:
            _none_of(kind, key=material.key, certificate=material.certificate)
            if not material.public_key:
                return Checked(identity=_digest(kind, material.identity, "public_key"))
            der = public_key_der(material.public_key)
            return Checked(identity=_same(material.identity, identity_of_key(der)), public=der)
        case Kind.X509:
            _none_of(kind, key=material.key, public_key=material.public_key)
            if not material.certificate:
                return Checked(identity=_digest(kind, material.identity, "certificate"))
            found = certificate_of(material.certificate)
            der = found.public_bytes(Encoding.DER)
            if (ends := ends_at(found)) <= now:
                raise InvalidInput(
                    "The certificate has expired.", field="certificate", hint="Issue a new one."
                )
            identity = _same(material.identity, identity_of_certificate(der))
            return Checked(identity=identity, public=der, expires_at=ends)


def _psk(text: str, random: Random | None) -> bytes:
    packed = "".join(text.split())
    if not packed and random is not None:
        return random(GENERATED)
    try:
        key = bytes.fromhex(packed)
    except ValueError:
        key = b""
    if not 0 < len(key) <= MAX_KEY:
        # The text is not repeated: it may be a key with a mistake in it.
        raise InvalidInput(
            f"The key is not 1 to {MAX_KEY} bytes in hex.",
            field="key",
            hint="Such as 32 hex digits for the usual 16 bytes.",
        )
    return key


def _digest(kind: Kind, identity: str, instead: str) -> str:
    if not identity:
        raise InvalidInput(
            f"A credential of kind {kind} needs the {instead.replace('_', ' ')} or its identity.",
            field=instead,
            hint=f"Give it as PEM or DER, or {kind}: and its SHA-256 as identity.",
        )
    text = canonical(identity)
    if not text.startswith(f"{kind}:"):
        raise InvalidInput(f"{text} is not of the kind {kind}.", field="identity", hint="Make them agree.")
    return text


def _same(stated: str, found: str) -> str:
    if stated and canonical(stated) != found:
        raise InvalidInput(
            "The identity is not the SHA-256 of what was given.",
            field="identity",
            hint=f"Leave it out, or write {found}.",
        )
    return found


def _none_of(kind: Kind, **unused: str) -> None:
    for name, text in unused.items():
        if text:
            raise InvalidInput(
                f"A credential of kind {kind} has no {name.replace('_', ' ')}.",
                field=name,
                hint="Leave it out, or choose another kind.",
            )
