"""Which device stands behind an address: for what comes without a name (Send, downloads)."""


class AddressBook:
    """Addresses of live registrations, both ways: two dictionaries that share their strings, because they hold
    every device of the fleet; no database on the way.
    """

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        self._endpoints: dict[str, str] = {}

    def put(self, endpoint: str, address: str) -> str | None:
        """Note where a device lives now; return the address that it has left for another one."""
        left = self.drop(endpoint)
        self._addresses[endpoint] = address
        self._endpoints[address] = endpoint
        return left if left != address else None

    def drop(self, endpoint: str) -> str | None:
        """Forget a device and return its address, unless another one has taken that over."""
        address = self._addresses.pop(endpoint, None)
        if address is None or self._endpoints.get(address) != endpoint:
            return None
        del self._endpoints[address]
        return address

    def endpoint(self, address: str) -> str | None:
        """Return the endpoint that registered from this address (`host:port`)."""
        return self._endpoints.get(address)

    def __len__(self) -> int:
        return len(self._addresses)
