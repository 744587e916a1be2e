"""Which device stands behind an address: for what comes without a name (Send, downloads)."""


class AddressBook:
    """Addresses of live registrations, both ways. A few dictionary entries a device, no database on the
    way.
    """

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._known: dict[str, tuple[str, str]] = {}

    def put(self, registration_id: str, endpoint: str, address: str) -> None:
        """Note where a registration lives now."""
        self.drop(registration_id)
        self._known[registration_id] = (endpoint, address)
        self._ids[address] = registration_id

    def drop(self, registration_id: str) -> None:
        """Forget a registration; an address that another one has taken over stays."""
        known = self._known.pop(registration_id, None)
        if known is not None and self._ids.get(known[1]) == registration_id:
            del self._ids[known[1]]

    def endpoint(self, address: str) -> str | None:
        """Return the endpoint that registered from this address (`host:port`)."""
        registration_id = self._ids.get(address)
        return self._known[registration_id][0] if registration_id is not None else None

    def __len__(self) -> int:
        return len(self._known)
