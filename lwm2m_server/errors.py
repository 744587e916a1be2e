"""The errors that cross package borders.

Each says what happened, where (`field`), and carries a stable `code` that the faces show: the REST API as
problem details (RFC 9457), the CLI as a line on stderr, an event as its reason.
"""


class Lwm2mError(Exception):
    """Base of all errors that are meant for users.

    `code` is stable and machine-readable, `field` names the input at fault (a JSON pointer-like path, an option
    or a file), `hint` the way out.
    """

    code = "error"

    def __init__(
        self, message: str, *, code: str | None = None, field: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint
        if code is not None:
            self.code = code


class InvalidInput(Lwm2mError):
    """Something from outside is malformed or out of range; nothing was changed."""

    code = "invalid"


class NotFound(Lwm2mError):
    """What was named does not exist."""

    code = "not-found"


class Conflict(Lwm2mError):
    """The request does not fit the present state (wrong phase, duplicate, stale revision)."""

    code = "conflict"


class Forbidden(Lwm2mError):
    """The caller is known but may not do this."""

    code = "forbidden"


class ForeignName(Forbidden):
    """A device used an endpoint name that its identity, or the lack of one, does not give it."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(f"{endpoint!r} is not the sender's endpoint name", field="endpoint")
        self.endpoint = endpoint


class Untrusted(Lwm2mError):
    """A signature, digest or identity does not hold."""

    code = "untrusted"


class Unavailable(Lwm2mError):
    """A device or a part of the server can't be reached now; trying again later may help."""

    code = "unavailable"


class DeviceError(Lwm2mError):
    """The device answered with an error; `code` is the CoAP code as text, such as `4.05`."""

    code = "device-error"
