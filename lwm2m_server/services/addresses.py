"""Which device stands behind an address: for what comes without a name (Send, downloads)."""


class AddressBook:
    """Addresses of live registrations, both ways. A few dictionary entries a device, no database on the
    way.
    """

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._known: dict[str, tuple[str, str]] = {}

    def put(self, registration_id: str, endpoint: str, address: str) -> str | None:
        """Note where a registration lives now; return the address that it has left for another one."""
        left = self.drop(registration_id)
        self._known[registration_id] = (endpoint, address)
        self._ids[address] = registration_id
        return left if left != address else None

    def drop(self, registration_id: str) -> str | None:
        """Forget a registration and return its address, unless another one has taken that over."""
        known = self._known.pop(registration_id, None)
        if known is None or self._ids.get(known[1]) != registration_id:
            return None
        del self._ids[known[1]]
        return known[1]

    def endpoint(self, address: str) -> str | None:
        """Return the endpoint that registered from this address (`host:port`)."""
        registration_id = self._ids.get(address)
        return self._known[registration_id][0] if registration_id is not None else None

    def __len__(self) -> int:
        return len(self._known)
