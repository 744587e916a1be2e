"""Object 5 Firmware Update v1.1 and the private object SUIT Update Agent, as views of the updater.

The SUIT Update Agent tells a server that this device takes manifests: 0 Vendor Identifier, 1 Class
Identifier (UUID bytes), 2 Sequence Number (the highest confirmed), 3 Running Digest, 4 Refusal Code, 5
Refusal Text, 6 Deferred Until (0 while nothing is put off), and of a device with several components, by
instance of object 33629, 7 Component Digests and 8 Component Capacities.
"""

from collections.abc import Callable
from typing import Protocol

from lwm2m_device.component_updater import ComponentUpdater
from lwm2m_device.machine import State
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.tree import BAD_REQUEST, Instance, ObjectNode, RequestError, Resource, define
from lwm2m_device.update_state import UpdateState
from lwm2m_device.updater import Updater
from lwm2m_server.lwm2m.model import SUIT_AGENT
from lwm2m_server.lwm2m.model import ResourceType as Type
from lwm2m_server.lwm2m.values import Value

_COAP, _COAPS = 0, 1


class Agent(Protocol):
    """What firmware objects set off, for an instance. All raise RequestError for what State doesn't allow."""

    def write_package(self, package: bytes, instance: int) -> None:
        """Take a whole package that came in one piece."""
        ...

    def write_uri(self, text: str, instance: int) -> None:
        """Take a package URI, empty for a reset."""
        ...

    def execute_update(self, instance: int, chosen: tuple[int, ...] | None) -> None:
        """Install what was downloaded, with the chosen further instances; None: those that belong to it."""
        ...

    def cancel(self, instance: int) -> None:
        """Give the update up."""
        ...


def firmware_object(updater: Updater, agent: Agent, settings: DeviceSettings) -> ObjectNode:
    """Object 5; of a device with several components it is the main one's."""
    execute = _plainly(lambda: agent.execute_update(0, None))
    return ObjectNode(5, "1.1", {0: Instance.of(*update_resources(updater, agent, settings, 0, execute))})


def update_resources(
    updater: Updater,
    agent: Agent,
    settings: DeviceSettings,
    instance: int,
    execute: Callable[[str], None],
) -> tuple[Resource, ...]:
    """Return the resources that objects 5 and 33629 have in common; `execute` is what Update does."""

    def state() -> UpdateState:
        return updater.states[instance]

    def write_severity(value: Value) -> None:
        updater.configure(severity=_integer(value), instance=instance)

    def write_defer(value: Value) -> None:
        updater.configure(defer=_integer(value), instance=instance)

    def write_package(value: Value) -> None:
        agent.write_package(value if isinstance(value, bytes) else str(value).encode(), instance)

    def package_text(value: Callable[[], str]) -> Callable[[], str]:
        """Give name and version of the package only while there is one."""
        return lambda: value() if state().state in (State.DOWNLOADED, State.UPDATING) else ""

    protocols = {0: _COAP} if settings.security is None else {0: _COAPS, 1: _COAP}
    return (
        Resource(define(0, "Package", Type.OPAQUE, operations="W", mandatory=True), write=write_package),
        Resource(
            define(1, "Package URI", Type.STRING, operations="RW", mandatory=True, limits="0..255"),
            lambda: state().uri,
            lambda value: agent.write_uri(str(value), instance),
        ),
        Resource(
            define(2, "Update", Type.NONE, operations="E", mandatory=True),
            execute=execute,
        ),
        Resource(define(3, "State", Type.INTEGER, mandatory=True), lambda: int(state().state)),
        Resource(define(5, "Update Result", Type.INTEGER, mandatory=True), lambda: int(state().result)),
        Resource(define(6, "PkgName", Type.STRING), package_text(lambda: settings.model)),
        Resource(define(7, "PkgVersion", Type.STRING), package_text(lambda: state().version)),
        Resource(
            define(8, "Firmware Update Protocol Support", Type.INTEGER, multiple=True), lambda: protocols
        ),
        Resource(
            define(9, "Firmware Update Delivery Method", Type.INTEGER, mandatory=True),
            lambda: settings.delivery.number,
        ),
        Resource(
            define(10, "Cancel", Type.NONE, operations="E"), execute=_plainly(lambda: agent.cancel(instance))
        ),
        Resource(
            define(11, "Severity", Type.INTEGER, operations="RW", limits="0..2"),
            lambda: state().severity,
            write_severity,
        ),
        Resource(define(12, "Last State Change Time", Type.TIME), lambda: int(state().changed)),
        Resource(
            define(
                13, "Maximum Defer Period", Type.UNSIGNED, operations="RW", limits="0..4294967295", units="s"
            ),
            lambda: state().defer,
            write_defer,
        ),
    )


def suit_object(updater: Updater, vendor_id: bytes, class_id: bytes) -> ObjectNode:
    """Object SUIT Update Agent."""

    def running_digest() -> bytes:
        return b"" if updater.boot.image is None else updater.boot.image.digest

    resources = [
        Resource(define(0, "Vendor Identifier", Type.OPAQUE, mandatory=True), lambda: vendor_id),
        Resource(define(1, "Class Identifier", Type.OPAQUE, mandatory=True), lambda: class_id),
        Resource(define(2, "Sequence Number", Type.UNSIGNED, mandatory=True), lambda: updater.floor),
        Resource(define(3, "Running Digest", Type.OPAQUE, mandatory=True), running_digest),
        Resource(define(4, "Refusal Code", Type.STRING, mandatory=True), lambda: updater.refusal[0]),
        Resource(define(5, "Refusal Text", Type.STRING, mandatory=True), lambda: updater.refusal[1]),
        Resource(define(6, "Deferred Until", Type.TIME), lambda: int(updater.state.deferred_until)),
    ]
    capacities = {0: updater.layout.slot_size}
    if isinstance(updater, ComponentUpdater):
        capacities = dict(enumerate(updater.capacities()))
        resources.append(
            Resource(define(7, "Component Digests", Type.OPAQUE, multiple=True), updater.digests)
        )
    resources.append(
        Resource(define(8, "Component Capacities", Type.UNSIGNED, multiple=True), lambda: capacities)
    )
    return ObjectNode(SUIT_AGENT, "1.0", {0: Instance.of(*resources)})


def _plainly(action: Callable[[], None]) -> Callable[[str], None]:
    def execute(arguments: str) -> None:
        if arguments:
            raise RequestError(BAD_REQUEST, "This resource takes no arguments.")
        action()

    return execute


def _integer(value: Value) -> int:
    if not isinstance(value, int | float):
        raise RequestError(BAD_REQUEST, "A number is wanted.")
    return int(value)
