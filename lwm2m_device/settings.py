"""What a device is and how it behaves: everything that its flags say."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from lwm2m_device.components import HOOK_TIMEOUT, ComponentSettings
from lwm2m_device.layout import LayoutKind
from lwm2m_device.places import Place
from lwm2m_server.firmware.encryption import ClassKey
from lwm2m_server.firmware.keys import KeyType
from lwm2m_server.firmware.suit import ComponentId
from lwm2m_server.transport import Security

DELTA_METHODS = ("thumb", "bsdiff", "detools-heatshrink", "lzma", "heatshrink")
"""The methods of deltas that this device applies as it writes, without either image in memory."""


MAIN_COMPONENT: ComponentId = (b"\x00",)
"""Identifier of the main component, that which the boot loader starts."""


class Delivery(StrEnum):
    """Firmware Update Delivery Method, resource 9 of object 5."""

    PULL = "pull"
    PUSH = "push"
    BOTH = "both"

    @property
    def number(self) -> int:
        """The value of the resource."""
        return {"pull": 0, "push": 1, "both": 2}[self.value]


@dataclass(frozen=True)
class Faults:
    """Misbehaviour on demand, for tests and demonstrations.

    `die_at_percent`: SIGKILL itself, once, when that part of the image is stored. `bad_boot`: a new
    image never reaches the server. `silent`: after Execute the device never answers again.
    `cut_power_at`: SIGKILL itself in the middle of that flash operation, counted from 1 since the start;
    `seed` chooses the cells that suffer.
    """

    die_at_percent: int | None = None
    bad_boot: bool = False
    silent: bool = False
    cut_power_at: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class DeviceSettings:
    """The device's identity, its server and its limits.

    `server` is a URI such as coaps://127.0.0.1:5684; `security` are the credentials for it, needed for coaps.
    `trust` are PEM public keys (files' contents) of image authors, `approval` those of operators who approve
    downgrades, `requires` the algorithm of a second signature. `decryption_keys` are the keys of
    the device class for encrypted images. `battery` is the charge in mWh; with
    `unauthorized` the application declines every update that asks it. `consent` is a program that is asked before
    each download and installation, for at most `consent_timeout`. `components` are those beside the main one,
    which is `component`. `applications` are the
    places for applications, `application_hook` is a program (a path) or a Python function (module:function) that is
    called for their installation, removal, start and stop, and has `application_timeout`. `plain` takes images without
    manifests. `local` is the host and port to bind; None: any of the server's address family. Times in
    seconds; `lifetime` 0 never expires.
    """

    endpoint: str
    server: str
    flash: Path
    vendor: str = ""
    class_name: str = ""
    manufacturer: str = "Acme"
    model: str = "M1"
    serial: str = ""
    hardware: str = "1.0"
    initial_version: str = "1.0.0"
    initial_image: bytes | None = None
    trust: tuple[bytes, ...] = ()
    approval: tuple[bytes, ...] = ()
    requires: KeyType | None = None
    decryption_keys: tuple[ClassKey, ...] = ()
    battery: int | None = None
    unauthorized: bool = False
    consent: Path | None = None
    consent_timeout: float = 10.0
    plain: bool = False
    lifetime: int = 300
    lwm2m_version: str = "1.1"
    delivery: Delivery = Delivery.BOTH
    component: ComponentId = MAIN_COMPONENT
    components: tuple[ComponentSettings, ...] = ()
    applications: tuple[Place, ...] = ()
    application_hook: str = ""
    application_timeout: float = HOOK_TIMEOUT
    slot_size: int | None = None
    page_size: int | None = None
    layout: LayoutKind | None = None
    staging_size: int | None = None
    block_size: int = 1024
    local: tuple[str, int] | None = None
    max_boots: int = 3
    confirm_timeout: float = 300.0
    ack_timeout: float = 2.0
    fetch_patience: float = 900.0
    delta_methods: tuple[str, ...] = DELTA_METHODS
    reboot_delay: float = 0.5
    security: Security | None = None
    faults: Faults = field(default_factory=Faults)


Log = Callable[[str], None]
"""Takes one line for people."""
