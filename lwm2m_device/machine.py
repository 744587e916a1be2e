"""The state machine of object 5 Firmware Update 1.1 as a table (OMA object definition 5-1_1).

`step` is the whole of it: what a request of the server, or an event of the device's own, does to State
and Update Result, and the CoAP code of the answer. What is not in the table is refused or ignored, and
changes nothing.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum


class State(IntEnum):
    """Resource 3."""

    IDLE = 0
    DOWNLOADING = 1
    DOWNLOADED = 2
    UPDATING = 3


class Result(IntEnum):
    """Resource 5, as far as this device reports it; 12 and 13 are those of object 33629."""

    INITIAL = 0
    UPDATED = 1
    NO_FLASH = 2
    NO_MEMORY = 3
    CONNECTION_LOST = 4
    INTEGRITY = 5
    UNSUPPORTED_PACKAGE = 6
    INVALID_URI = 7
    UPDATE_FAILED = 8
    UNSUPPORTED_PROTOCOL = 9
    CANCELLED = 10
    DEFERRED = 11
    CONFLICTING = 12
    DEPENDENCY = 13


class Trigger(Enum):
    """Requests of the server, then events of the device."""

    PACKAGE = "first block of a package"
    PACKAGE_NUL = "package of one NUL byte"
    URI = "package URI that can be used"
    URI_EMPTY = "empty package URI"
    URI_INVALID = "package URI that can't be used"
    URI_SCHEME = "package URI with a scheme that is not supported"
    UPDATE = "execute update"
    CANCEL = "execute cancel"
    RECEIVED = "all data received and accepted"
    DOWNLOAD_FAILED = "download failed or package refused"
    DEFERRED = "application puts the update off"
    AGREED = "application lets the download begin"
    BOOTED = "new image confirmed"
    INSTALL_FAILED = "new image given up"


REQUESTS = frozenset(
    {
        Trigger.PACKAGE,
        Trigger.PACKAGE_NUL,
        Trigger.URI,
        Trigger.URI_EMPTY,
        Trigger.URI_INVALID,
        Trigger.URI_SCHEME,
        Trigger.UPDATE,
        Trigger.CANCEL,
    }
)

CHANGED = 68  # 2.04
BAD_REQUEST = 128  # 4.00
METHOD_NOT_ALLOWED = 133  # 4.05


@dataclass(frozen=True)
class Step:
    """Outcome of a trigger.

    `result` None: the cause that came with the trigger. `code` is the answer to a request.
    """

    state: State
    result: Result | None
    code: int = CHANGED


_TABLE: dict[tuple[State, Trigger], Step] = {
    (State.IDLE, Trigger.PACKAGE): Step(State.DOWNLOADING, Result.INITIAL),
    (State.IDLE, Trigger.PACKAGE_NUL): Step(State.IDLE, Result.INITIAL),
    (State.IDLE, Trigger.URI): Step(State.DOWNLOADING, Result.INITIAL),
    (State.IDLE, Trigger.URI_EMPTY): Step(State.IDLE, Result.INITIAL),
    # The write is refused and the result says why: some servers look at the one, some at the other.
    (State.IDLE, Trigger.URI_INVALID): Step(State.IDLE, Result.INVALID_URI, BAD_REQUEST),
    (State.IDLE, Trigger.URI_SCHEME): Step(State.IDLE, Result.UNSUPPORTED_PROTOCOL, BAD_REQUEST),
    (State.DOWNLOADING, Trigger.PACKAGE_NUL): Step(State.IDLE, Result.INITIAL),
    (State.DOWNLOADING, Trigger.URI_EMPTY): Step(State.IDLE, Result.INITIAL),
    (State.DOWNLOADING, Trigger.CANCEL): Step(State.IDLE, Result.CANCELLED),
    (State.DOWNLOADING, Trigger.RECEIVED): Step(State.DOWNLOADED, Result.INITIAL),
    (State.DOWNLOADING, Trigger.DOWNLOAD_FAILED): Step(State.IDLE, None),
    # The object knows of deferral after Update only; an application may put the download off as well.
    (State.DOWNLOADING, Trigger.DEFERRED): Step(State.DOWNLOADING, Result.DEFERRED),
    (State.DOWNLOADING, Trigger.AGREED): Step(State.DOWNLOADING, Result.INITIAL),
    (State.DOWNLOADED, Trigger.PACKAGE_NUL): Step(State.IDLE, Result.INITIAL),
    (State.DOWNLOADED, Trigger.URI_EMPTY): Step(State.IDLE, Result.INITIAL),
    (State.DOWNLOADED, Trigger.CANCEL): Step(State.IDLE, Result.CANCELLED),
    (State.DOWNLOADED, Trigger.DEFERRED): Step(State.DOWNLOADED, Result.DEFERRED),
    # Found damaged at a restart, or refused by the application.
    (State.DOWNLOADED, Trigger.DOWNLOAD_FAILED): Step(State.IDLE, None),
    (State.DOWNLOADED, Trigger.UPDATE): Step(State.UPDATING, Result.INITIAL),
    (State.UPDATING, Trigger.BOOTED): Step(State.IDLE, Result.UPDATED),
    (State.UPDATING, Trigger.INSTALL_FAILED): Step(State.IDLE, None),
}

_WRONG_TIME = frozenset({Trigger.UPDATE, Trigger.CANCEL})


def step(state: State, trigger: Trigger) -> Step | None:
    """Return what the trigger does in this state; None when it does nothing (see `refusal`)."""
    return _TABLE.get((state, trigger))


def refusal(state: State, trigger: Trigger) -> int:
    """Return the code for a request not in the table: 4.05 at the wrong time, 4.00 without a reset."""
    if state is State.UPDATING or trigger in _WRONG_TIME:
        return METHOD_NOT_ALLOWED
    return BAD_REQUEST
