"""CoAP codes (RFC 7252 12.1, RFC 7959 2.9, RFC 8132 2) as they stand in the header: class * 32 + detail."""

from enum import IntEnum


def dotted(code: int) -> str:
    """Return the text of a code as RFC 7252 3 writes it: 69 is `2.05`."""
    return f"{code >> 5}.{code & 31:02}"


def is_success(code: int) -> bool:
    """Say whether a response code is of class 2; some devices answer a bare 2.00, which counts."""
    return code >> 5 == 2


class Code(IntEnum):
    """Request methods and response codes."""

    EMPTY = 0
    GET = 1
    POST = 2
    PUT = 3
    DELETE = 4
    FETCH = 5
    PATCH = 6
    IPATCH = 7

    CREATED = 65
    DELETED = 66
    VALID = 67
    CHANGED = 68
    CONTENT = 69
    CONTINUE = 95

    BAD_REQUEST = 128
    UNAUTHORIZED = 129
    BAD_OPTION = 130
    FORBIDDEN = 131
    NOT_FOUND = 132
    METHOD_NOT_ALLOWED = 133
    NOT_ACCEPTABLE = 134
    REQUEST_ENTITY_INCOMPLETE = 136
    CONFLICT = 137
    PRECONDITION_FAILED = 140
    REQUEST_ENTITY_TOO_LARGE = 141
    UNSUPPORTED_CONTENT_FORMAT = 143
    UNPROCESSABLE_ENTITY = 150
    TOO_MANY_REQUESTS = 157

    INTERNAL_SERVER_ERROR = 160
    NOT_IMPLEMENTED = 161
    BAD_GATEWAY = 162
    SERVICE_UNAVAILABLE = 163
    GATEWAY_TIMEOUT = 164
    PROXYING_NOT_SUPPORTED = 165

    @property
    def dotted(self) -> str:
        """The code as text, such as `2.05`."""
        return dotted(self)
