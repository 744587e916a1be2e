"""The state machine of object 9 Software Management as a table (OMA object definition 9-1_0).

It is two machines in one: the installation (Update State, resource 7) and, inside of INSTALLED, the activation
(resource 12). A `Stage` says where both stand, and tells apart what Update State does not: DELIVERED from an
installation under way, INSTALLED from a removal under way. `step` is the whole of it: what a request of the server,
or an event of the device's own, does to Stage and Update Result, and the CoAP code of the answer. What is not in the
table is refused or ignored, and changes nothing.

Where the definition leaves it open: a package that fails falls back to INITIAL; Uninstall before the installation
drops the package and leaves alone what is in place from before; ForUpdate in INSTALLED leaves the software in place
until the next one takes over.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum


class State(IntEnum):
    """Update State, resource 7."""

    INITIAL = 0
    DOWNLOAD_STARTED = 1
    DOWNLOADED = 2
    DELIVERED = 3
    INSTALLED = 4


class Result(IntEnum):
    """Update Result, resource 9. No relation to the numbers of object 5: 2 is success here."""

    INITIAL = 0
    DOWNLOADING = 1
    INSTALLED = 2
    VERIFIED = 3
    NO_STORAGE = 50
    NO_MEMORY = 51
    CONNECTION_LOST = 52
    INTEGRITY = 53
    UNSUPPORTED_PACKAGE = 54
    INVALID_URI = 56
    DEVICE_DEFINED = 57
    INSTALL_FAILED = 58
    UNINSTALL_FAILED = 59


class Stage(IntEnum):
    """Where an instance stands; kept over restarts."""

    INITIAL = 0
    DOWNLOADING = 1
    DOWNLOADED = 2
    DELIVERED = 3
    INSTALLING = 4
    INACTIVE = 5
    ACTIVE = 6
    UNINSTALLING = 7
    CLEARING = 8  # what an update found in place, and never replaced, is being removed
    STARTING = 9

    @property
    def state(self) -> State:
        """Update State."""
        return _STATES[self]


_STATES = {
    Stage.INITIAL: State.INITIAL,
    Stage.DOWNLOADING: State.DOWNLOAD_STARTED,
    Stage.DOWNLOADED: State.DOWNLOADED,
    Stage.DELIVERED: State.DELIVERED,
    Stage.INSTALLING: State.DELIVERED,
    Stage.INACTIVE: State.INSTALLED,
    Stage.ACTIVE: State.INSTALLED,
    Stage.UNINSTALLING: State.INSTALLED,
    Stage.CLEARING: State.INITIAL,
    Stage.STARTING: State.INSTALLED,
}


class Trigger(Enum):
    """Requests of the server, then events of the device."""

    PACKAGE = "first block of a package"
    URI = "package URI that can be used"
    URI_INVALID = "package URI that can't be used"
    INSTALL = "execute install"
    UNINSTALL = "execute uninstall"
    FOR_UPDATE = "execute uninstall for an update"
    ACTIVATE = "execute activate"
    DEACTIVATE = "execute deactivate"
    RECEIVED = "all data received"
    VERIFIED = "package found genuine and whole"
    FAILED = "download failed, package refused, or software found damaged"
    INSTALLED = "software is in place"
    INSTALL_FAILED = "installation failed"
    REMOVED = "software is gone"
    REMOVE_FAILED = "removal failed"
    STARTED = "software runs"
    START_FAILED = "software could not be started"


REQUESTS = frozenset(
    {
        Trigger.PACKAGE,
        Trigger.URI,
        Trigger.URI_INVALID,
        Trigger.INSTALL,
        Trigger.UNINSTALL,
        Trigger.FOR_UPDATE,
        Trigger.ACTIVATE,
        Trigger.DEACTIVATE,
    }
)

CHANGED = 68  # 2.04
BAD_REQUEST = 128  # 4.00
METHOD_NOT_ALLOWED = 133  # 4.05, for every request that does not fit the stage


@dataclass(frozen=True)
class Step:
    """Outcome of a trigger.

    `result` None: the cause that came with the trigger. `code` is the answer to a request.
    """

    stage: Stage
    result: Result | None
    code: int = CHANGED


def _drops_package(stage: Stage) -> dict[tuple[Stage, Trigger], Step]:
    """Let both kinds of Uninstall drop a package that is not installed."""
    dropped = Step(Stage.INITIAL, Result.INITIAL)
    return {(stage, Trigger.UNINSTALL): dropped, (stage, Trigger.FOR_UPDATE): dropped}


def _installed(stage: Stage) -> dict[tuple[Stage, Trigger], Step]:
    """Return what is the same for software that is active, starts, or is not active."""
    activated = Stage.ACTIVE if stage is Stage.ACTIVE else Stage.STARTING
    return {
        (stage, Trigger.ACTIVATE): Step(activated, Result.INSTALLED),
        (stage, Trigger.DEACTIVATE): Step(Stage.INACTIVE, Result.INSTALLED),
        (stage, Trigger.UNINSTALL): Step(Stage.UNINSTALLING, Result.INSTALLED),
        (stage, Trigger.FOR_UPDATE): Step(Stage.INITIAL, Result.INITIAL),
        (stage, Trigger.FAILED): Step(Stage.INITIAL, None),
    }


_TABLE: dict[tuple[Stage, Trigger], Step] = {
    (Stage.INITIAL, Trigger.PACKAGE): Step(Stage.DOWNLOADING, Result.DOWNLOADING),
    (Stage.INITIAL, Trigger.URI): Step(Stage.DOWNLOADING, Result.DOWNLOADING),
    # The write is refused and the result says why: some servers look at the one, some at the other.
    (Stage.INITIAL, Trigger.URI_INVALID): Step(Stage.INITIAL, Result.INVALID_URI, BAD_REQUEST),
    (Stage.INITIAL, Trigger.UNINSTALL): Step(Stage.CLEARING, Result.INITIAL),
    (Stage.INITIAL, Trigger.FOR_UPDATE): Step(Stage.INITIAL, Result.INITIAL),
    **_drops_package(Stage.DOWNLOADING),
    (Stage.DOWNLOADING, Trigger.RECEIVED): Step(Stage.DOWNLOADED, Result.DOWNLOADING),
    (Stage.DOWNLOADING, Trigger.FAILED): Step(Stage.INITIAL, None),
    **_drops_package(Stage.DOWNLOADED),
    (Stage.DOWNLOADED, Trigger.VERIFIED): Step(Stage.DELIVERED, Result.VERIFIED),
    (Stage.DOWNLOADED, Trigger.FAILED): Step(Stage.INITIAL, None),
    **_drops_package(Stage.DELIVERED),
    (Stage.DELIVERED, Trigger.INSTALL): Step(Stage.INSTALLING, Result.VERIFIED),
    # Found damaged at a restart.
    (Stage.DELIVERED, Trigger.FAILED): Step(Stage.INITIAL, None),
    (Stage.INSTALLING, Trigger.INSTALLED): Step(Stage.INACTIVE, Result.INSTALLED),
    (Stage.INSTALLING, Trigger.INSTALL_FAILED): Step(Stage.DELIVERED, Result.INSTALL_FAILED),
    (Stage.INSTALLING, Trigger.FAILED): Step(Stage.INITIAL, None),
    **_installed(Stage.INACTIVE),
    **_installed(Stage.STARTING),
    **_installed(Stage.ACTIVE),
    (Stage.STARTING, Trigger.STARTED): Step(Stage.ACTIVE, Result.INSTALLED),
    (Stage.STARTING, Trigger.START_FAILED): Step(Stage.INACTIVE, Result.DEVICE_DEFINED),
    # At a restart of the device.
    (Stage.ACTIVE, Trigger.START_FAILED): Step(Stage.INACTIVE, Result.DEVICE_DEFINED),
    (Stage.UNINSTALLING, Trigger.REMOVED): Step(Stage.INITIAL, Result.INITIAL),
    (Stage.UNINSTALLING, Trigger.REMOVE_FAILED): Step(Stage.INACTIVE, Result.UNINSTALL_FAILED),
    (Stage.CLEARING, Trigger.REMOVED): Step(Stage.INITIAL, Result.INITIAL),
    (Stage.CLEARING, Trigger.REMOVE_FAILED): Step(Stage.INITIAL, Result.UNINSTALL_FAILED),
}


def step(stage: Stage, trigger: Trigger) -> Step | None:
    """Return what the trigger does at this stage; None when it does nothing, and a request is answered 4.05."""
    return _TABLE.get((stage, trigger))
