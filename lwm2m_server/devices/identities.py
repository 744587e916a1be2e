"""Identities that devices prove, as text, and the rules by which a certificate's names give an endpoint name.

One text for each identity: `psk:` and the identity of a pre-shared key (bytes that are not printable ASCII, and
`%`, percent-encoded), `rpk:` and the SHA-256 of the SubjectPublicKeyInfo, `x509:` and that of the certificate.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from lwm2m_server.errors import InvalidInput

MAX_PSK_IDENTITY = 128  # bytes (RFC 4279 5.3)
PLACE = "{endpoint}"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})|%")


class Kind(StrEnum):
    """What a credential is."""

    PSK = "psk"
    RPK = "rpk"
    X509 = "x509"


class Source(StrEnum):
    """Which names of a certificate a rule looks at."""

    CN = "cn"
    DNS = "dns"
    URI = "uri"
    NONE = "none"
    """No name: only certificates whose fingerprint is known are taken."""


def psk_text(identity: bytes) -> str:
    """Return the text of a pre-shared key's identity."""
    plain = (chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in identity)
    return f"{Kind.PSK}:{''.join(plain)}"


def psk_identity(text: str) -> bytes:
    """Return the bytes that a person wrote as text, with or without `psk:`; `InvalidInput` when they can't be.

    `%` begins the hex digits of a byte; other characters stand for their UTF-8.
    """

    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise _bad("has a % without two hex digits", "Write % itself as %25.")
        return bytes.fromhex(match[1].decode())

    identity = _ESCAPE.sub(byte, text.removeprefix(f"{Kind.PSK}:").encode("utf-8", "surrogatepass"))
    if not 0 < len(identity) <= MAX_PSK_IDENTITY:
        raise _bad(f"has {len(identity)} bytes", f"It must have 1 to {MAX_PSK_IDENTITY} bytes.")
    return identity


def digest_text(kind: Kind, digest: bytes) -> str:
    """Return the text of a public key or a certificate, given its SHA-256."""
    return f"{kind}:{digest.hex()}"


def canonical(text: str) -> str:
    """Return the one text of an identity that a person wrote; `InvalidInput` (field `identity`) for others."""
    kind, colon, rest = text.partition(":")
    if colon and kind == Kind.PSK:
        return psk_text(psk_identity(text))
    if colon and kind in {Kind.RPK, Kind.X509} and _DIGEST.fullmatch(rest.lower()):
        return f"{kind}:{rest.lower()}"
    raise _bad(
        f"'{text[:80]}' is none", "Write psk:<identity>, or rpk: or x509: and the SHA-256 as 64 hex digits."
    )


def _bad(what: str, hint: str) -> InvalidInput:
    return InvalidInput(f"The identity {what}.", field="identity", hint=hint)


@dataclass(frozen=True, slots=True)
class NameRule:
    """How an endpoint name stands in the names of a certificate: `pattern` has one `{endpoint}`.

    Raises `InvalidInput` for a pattern that can't be used.
    """

    source: Source
    pattern: str

    def __post_init__(self) -> None:
        if self.source is Source.NONE:
            if self.pattern:
                raise InvalidInput(
                    "Without a source of names there is nothing to match.",
                    field="pattern",
                    hint="Leave the pattern out, or choose cn, dns or uri.",
                )
            return
        rest = self.pattern.split(PLACE)
        if len(rest) != 2 or not all(part.isprintable() and "{" not in part for part in rest):
            raise InvalidInput(
                f"The pattern '{self.pattern[:80]}' has no place for the endpoint name, or several.",
                field="pattern",
                hint=f"Write it with one {PLACE}, such as urn:imei:{PLACE}, or just {PLACE}.",
            )

    def endpoints(self, names: Iterable[str]) -> set[str]:
        """Return what stands in the pattern's place in those names that match; the caller checks that."""
        if self.source is Source.NONE:
            return set()
        before, _, after = self._comparable(self.pattern).partition(PLACE)
        found = set()
        for name in map(self._comparable, names):
            if len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after):
                found.add(name[len(before) : len(name) - len(after)])
        return found

    def _comparable(self, name: str) -> str:
        # DNS names know no case (RFC 4343); a device must not get a second endpoint name by another one.
        return name.lower() if self.source is Source.DNS else name
