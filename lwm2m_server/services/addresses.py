"""Which device stands behind a peer: for what comes without a name (Send, downloads)."""

from typing import Protocol

from lwm2m_server.transport import Peer

_IDENTITIES = ("psk:", "rpk:", "x509:")


class Reachable(Protocol):
    """What a registration says of its device's whereabouts."""

    @property
    def address(self) -> str:
        """`host:port`, as it was last."""
        ...

    @property
    def identity(self) -> str | None:
        """What its security session proved; None on plain CoAP."""
        ...


def peer_of(registration: Reachable) -> Peer:
    """Return whom to send to: the identity, wherever it is now, or the address where there is none."""
    return Peer(registration.address, identity=registration.identity)


class AddressBook:
    """Peers of live registrations, both ways: two dictionaries that share their strings, because they hold every
    device of the fleet; no database on the way. A peer stands in them by its identity, without one by its address.
    """

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}
        self._endpoints: dict[str, str] = {}

    def put(self, endpoint: str, peer: Peer) -> Peer | None:
        """Note where a device lives now; return the peer that it has left for another one."""
        key = _key(peer)
        left = self.drop(endpoint)
        self._keys[endpoint] = key
        self._endpoints[key] = endpoint
        if left is None or left == key:
            return None
        # Where there is an identity the transport looks at nothing else.
        return Peer(peer.address, identity=left) if left.startswith(_IDENTITIES) else Peer(left)

    def fill(self, keys: dict[str, str]) -> None:
        """Note where devices live of which nothing is noted yet: the identity, or the address, of each endpoint."""
        self._keys.update(keys)
        self._endpoints.update(zip(keys.values(), keys.keys(), strict=True))

    def drop(self, endpoint: str) -> str | None:
        """Forget a device and return its key, unless another one has taken that over."""
        key = self._keys.pop(endpoint, None)
        if key is None or self._endpoints.get(key) != endpoint:
            return None
        del self._endpoints[key]
        return key

    def endpoint(self, peer: Peer) -> str | None:
        """Return the endpoint that registered as this peer."""
        return self._endpoints.get(_key(peer))

    def __len__(self) -> int:
        return len(self._keys)


def _key(peer: Peer) -> str:
    return peer.identity or peer.address
