"""What an endpoint presents and whom it accepts when it speaks DTLS (RFC 7925, LwM2M Transport 5)."""

from dataclasses import dataclass

__all__ = ["DEFAULT_SUITES", "Security", "psk_identity"]

# Those that authenticate as they encrypt.
DEFAULT_SUITES = (
    "TLS_PSK_WITH_AES_128_CCM_8",
    "TLS_PSK_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Security:
    """Credentials and settings of secure listeners and of our client role.

    `certificate` is a PEM chain, the end entity first; `private_key` an unencrypted PEM PKCS #8 document with a key
    of P-256, which signs for the chain and is the raw public key (of our client role only without a chain).
    `trust` has the authorities (DER) that the certificates of the other side must lead to. With
    `accept_pinned_certificates` listeners ask about certificates of devices without such a path too, by a `LookUp`
    that is not `verified`. `suites` are the registered names of the cipher suites that are negotiated, the preferred
    one first.

    Only for our client role: `psk` is identity and key; `server_public_key` the SubjectPublicKeyInfo (DER) that a
    server with a raw public key must show; `server_name` is asked for (SNI) and looked for in the server's
    certificate; `certificate_usage` (0 to 3, LwM2M Core, resource /0/*/15) says what `server_certificate` (DER)
    means: 0 an authority on the path, 1 the server's own with a path, 2 the only authority, 3 the server's own
    without a path.

    `connection_id_length` is the length of the connection ids that we give out (RFC 9146): 0 asks for none but
    uses the peer's, None uses none at all; `node` becomes their first byte. `handshake_timeout` is in seconds until
    the first retransmission of a flight. With `sealing_key` (32 bytes) sessions of devices are exported, to outlive
    a restart. `key_log` delivers the secrets of all sessions as `KeyLog` events: for debugging only.
    """

    certificate: bytes | None = None
    private_key: bytes | None = None
    offer_raw_public_key: bool = True
    accept_raw_public_keys: bool = True
    accept_pinned_certificates: bool = True
    trust: tuple[bytes, ...] = ()
    psk: tuple[bytes, bytes] | None = None
    server_public_key: bytes | None = None
    server_name: str | None = None
    certificate_usage: int = 3
    server_certificate: bytes | None = None
    suites: tuple[str, ...] = DEFAULT_SUITES
    connection_id_length: int | None = 8
    node: int | None = None
    handshake_timeout: float = 9.0
    sealing_key: bytes | None = None
    key_log: bool = False

    def __repr__(self) -> str:
        """Name what is set, not what it is: there are keys among it."""
        given = [name for name, value in vars(self).items() if value not in (None, (), False)]
        return f"Security({', '.join(given)})"


def psk_identity(identity: bytes) -> str:
    """Return the text of the identity of a pre-shared key, as in `Peer.identity`."""
    return "psk:" + "".join(
        chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in identity
    )
