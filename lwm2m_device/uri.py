"""CoAP URIs (RFC 7252 6): parse, and resolve a reference against the URI of the server."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lwm2m_server.errors import InvalidInput

COAPS = "coaps"
_PORTS = {"coap": 5683, COAPS: 5684}


class UnsupportedScheme(InvalidInput):
    """The URI is fine, but this device does not speak its protocol."""

    code = "unsupported-scheme"


@dataclass(frozen=True)
class CoapUri:
    """The parts of a URI, decoded: Uri-Path segments and Uri-Query parameters."""

    host: str
    port: int
    path: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    scheme: str = "coap"

    @property
    def is_secure(self) -> bool:
        """Whether it is reached over DTLS."""
        return self.scheme == COAPS


def parse(uri: str, *, field: str = "uri") -> CoapUri:
    """Read an absolute URI; raises InvalidInput, UnsupportedScheme for a scheme other than coap and coaps."""
    if (
        not uri
        or len(uri.encode()) > 255
        or any(character <= " " or character == "\x7f" for character in uri)
    ):
        raise InvalidInput("The URI is empty, longer than 255 bytes, or has blanks in it.", field=field)
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise InvalidInput(f"{uri!r} is not a URI.", field=field) from None
    if not parts.scheme or not parts.hostname or parts.username is not None or parts.fragment or port == 0:
        raise InvalidInput(
            f"{uri!r} is not an absolute CoAP URI.", field=field, hint="Write coaps://host:port/path."
        )
    if parts.scheme not in _PORTS:
        raise UnsupportedScheme(
            f"The scheme {parts.scheme!r} is not supported.", field=field, hint="Use coaps://host:port/path."
        )
    path = () if parts.path in ("", "/") else tuple(unquote(each) for each in parts.path[1:].split("/"))
    query = tuple(unquote(each) for each in parts.query.split("&")) if parts.query else ()
    port = _PORTS[parts.scheme] if port is None else port
    return CoapUri(parts.hostname, port, path, query, parts.scheme)


def resolve(reference: str, base: str) -> str:
    """Return an absolute URI for a reference such as `/fw/…`; absolute URIs come back as they are."""
    if not reference.startswith("/") or reference.startswith("//"):
        return reference
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}{reference}"


def address(host: str, port: int) -> str:
    """Write host and port as the transport takes them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
