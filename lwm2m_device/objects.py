"""The objects of this device but Firmware Update: Security, Server, Device, Temperature.

Numbers and types are those of the registry: 0 and 1 v1.1, 3 v1.2 (its Error Code has room for
device-specific values), 3303 v1.0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from lwm2m_device import credentials
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.tree import BAD_REQUEST, Instance, ObjectNode, RequestError, Resource, define
from lwm2m_server.clock import Clock
from lwm2m_server.lwm2m.model import ResourceType as Type
from lwm2m_server.lwm2m.values import Value

ERROR_NONE = 0
ERROR_FLASH_DAMAGED = 16  # the first of the device-specific codes of object 3 v1.2
ERROR_NO_IMAGE = 17


@dataclass
class Account:
    """Object 1, the account of the one server. Times in seconds."""

    lifetime: int
    pmin: int = 0
    pmax: int = 0
    disable_timeout: int = 86400
    storing: bool = True
    binding: str = "U"


@dataclass
class Hooks:
    """What executing and writing resources sets off in the client. Called after the change."""

    update_registration: Callable[[], None]
    disable: Callable[[], None]
    reboot: Callable[[], None]


@dataclass
class Health:
    """What object 3 says about the device's state. `errors` is never empty in the answer: no error is 0."""

    errors: list[int] = field(default_factory=list)

    def report(self, code: int) -> None:
        """Add an error code once."""
        if code not in self.errors:
            self.errors.append(code)

    def reset(self) -> None:
        """Forget all errors (resource 12)."""
        self.errors.clear()


def security_object(settings: DeviceSettings) -> ObjectNode:
    """Object 0: how the server is reached, and by which credentials. Servers may not see it."""
    security = settings.security
    mode = credentials.mode(security)
    resources = [
        Resource(define(0, "LWM2M Server URI", Type.STRING), lambda: settings.server),
        Resource(define(1, "Bootstrap-Server", Type.BOOLEAN), lambda: False),
        Resource(define(2, "Security Mode", Type.INTEGER), lambda: mode),
        Resource(
            define(3, "Public Key or Identity", Type.OPAQUE), lambda: credentials.own_identity(security)
        ),
        Resource(define(4, "Server Public Key", Type.OPAQUE), lambda: credentials.server_identity(security)),
        Resource(define(5, "Secret Key", Type.OPAQUE), lambda: credentials.secret_key(security)),
        Resource(define(10, "Short Server ID", Type.INTEGER), lambda: 1),
    ]
    if security is not None and mode == credentials.MODE_X509:
        usage = security.certificate_usage
        resources.append(Resource(define(15, "Certificate Usage", Type.UNSIGNED), lambda: usage))
        if security.server_name is not None:
            name = security.server_name
            resources.append(Resource(define(14, "SNI", Type.STRING), lambda: name))
    return ObjectNode(0, "1.1", {0: Instance.of(*resources)}, hidden=True)


def server_object(account: Account, hooks: Hooks) -> ObjectNode:
    """Object 1: lifetime, default periods, binding, Disable and Registration Update Trigger."""

    def seconds(number: int, title: str, name: str) -> Resource:
        def write(value: Value) -> None:
            setattr(account, name, _integer(value))
            if name == "lifetime":
                hooks.update_registration()

        definition = define(number, title, Type.INTEGER, operations="RW", limits="0..4294967295", units="s")
        return Resource(definition, lambda: int(getattr(account, name)), write)

    def write_storing(value: Value) -> None:
        account.storing = bool(value)

    def write_binding(value: Value) -> None:
        if value != "U":
            raise RequestError(BAD_REQUEST, "This device only speaks UDP.")

    instance = Instance.of(
        Resource(define(0, "Short Server ID", Type.INTEGER), lambda: 1),
        seconds(1, "Lifetime", "lifetime"),
        seconds(2, "Default Minimum Period", "pmin"),
        seconds(3, "Default Maximum Period", "pmax"),
        Resource(
            define(4, "Disable", Type.NONE, operations="E"),
            execute=lambda arguments: _without_arguments(arguments, hooks.disable),
        ),
        seconds(5, "Disable Timeout", "disable_timeout"),
        Resource(
            define(6, "Notification Storing When Disabled or Offline", Type.BOOLEAN, operations="RW"),
            lambda: account.storing,
            write_storing,
        ),
        Resource(define(7, "Binding", Type.STRING, operations="RW"), lambda: account.binding, write_binding),
        Resource(
            define(8, "Registration Update Trigger", Type.NONE, operations="E"),
            execute=lambda arguments: _without_arguments(arguments, hooks.update_registration),
        ),
    )
    return ObjectNode(1, "1.1", {0: instance})


def device_object(
    settings: DeviceSettings,
    *,
    version: str,
    memory: tuple[int, int],
    health: Health,
    hooks: Hooks,
    clock: Clock,
) -> ObjectNode:
    """Object 3. `version` is the running image's, `memory` free and total bytes of image slots."""
    offset = [0.0]

    def set_time(value: Value) -> None:
        offset[0] = float(_integer(value)) - clock.now()

    def errors() -> dict[int, Value]:
        return dict(enumerate(health.errors or [ERROR_NONE]))

    def text(number: int, name: str, value: str) -> Resource:
        return Resource(define(number, name, Type.STRING), lambda: value)

    instance = Instance.of(
        text(0, "Manufacturer", settings.manufacturer),
        text(1, "Model Number", settings.model),
        text(2, "Serial Number", settings.serial or settings.endpoint),
        text(3, "Firmware Version", version),
        Resource(
            define(4, "Reboot", Type.NONE, operations="E", mandatory=True),
            execute=lambda arguments: _without_arguments(arguments, hooks.reboot),
        ),
        Resource(define(6, "Available Power Sources", Type.INTEGER, multiple=True), lambda: {0: 1, 1: 6}),
        Resource(define(9, "Battery Level", Type.INTEGER, limits="0..100", units="%"), lambda: 100),
        Resource(define(10, "Memory Free", Type.INTEGER), lambda: memory[0] // 1000),
        Resource(define(11, "Error Code", Type.INTEGER, multiple=True, mandatory=True), errors),
        Resource(
            define(12, "Reset Error Code", Type.NONE, operations="E"),
            execute=lambda arguments: _without_arguments(arguments, health.reset),
        ),
        Resource(
            define(13, "Current Time", Type.TIME, operations="RW"),
            lambda: int(clock.now() + offset[0]),
            set_time,
        ),
        Resource(define(16, "Supported Binding and Modes", Type.STRING, mandatory=True), lambda: "U"),
        text(17, "Device Type", "reference device"),
        text(18, "Hardware Version", settings.hardware),
        Resource(define(20, "Battery Status", Type.INTEGER, limits="0..6"), lambda: 0),
        Resource(define(21, "Memory Total", Type.INTEGER), lambda: memory[1] // 1000),
    )
    return ObjectNode(3, "1.2", {0: instance})


def temperature_object(clock: Clock) -> ObjectNode:
    """Object 3303: a simulated sensor that swings with the time of day; servers may create more of them."""

    def sensor() -> Instance:
        seen: list[float] = []
        application = [""]

        def measure() -> float:
            value = round(20 + 5 * math.sin(clock.now() / 13751), 1)
            seen[:] = [min([value, *seen[:1]]), max([value, *seen[1:]])]
            return value

        def bound(index: int) -> Callable[[], float]:
            def read() -> float:
                measure()
                return seen[index]

            return read

        def name(value: Value) -> None:
            application[0] = str(value)

        return Instance.of(
            Resource(define(5601, "Min Measured Value", Type.FLOAT), bound(0)),
            Resource(define(5602, "Max Measured Value", Type.FLOAT), bound(1)),
            Resource(
                define(5605, "Reset Min and Max Measured Values", Type.NONE, operations="E"),
                execute=lambda arguments: _without_arguments(arguments, seen.clear),
            ),
            Resource(define(5700, "Sensor Value", Type.FLOAT, mandatory=True), measure),
            Resource(define(5701, "Sensor Units", Type.STRING), lambda: "Cel"),
            Resource(
                define(5750, "Application Type", Type.STRING, operations="RW"), lambda: application[0], name
            ),
        )

    return ObjectNode(3303, "1.0", {0: sensor()}, factory=sensor)


def _integer(value: Value) -> int:
    if not isinstance(value, int | float):
        raise RequestError(BAD_REQUEST, "A number is wanted.")
    return int(value)


def _without_arguments(arguments: str, action: Callable[[], None]) -> None:
    if arguments:
        raise RequestError(BAD_REQUEST, "This resource takes no arguments.")
    action()
