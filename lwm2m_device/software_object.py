"""Object 9 Software Management v1.0, as a view of the applications.

Status Reason (16) is free text: here the last refusal as `code: text`, or what the hook said.
"""

from collections.abc import Callable, Iterable

from lwm2m_device.software import Application
from lwm2m_device.software_agent import PACKAGE, SOFTWARE, SoftwareAgent
from lwm2m_device.software_machine import Stage
from lwm2m_device.tree import BAD_REQUEST, Instance, ObjectNode, RequestError, Resource, define
from lwm2m_server.lwm2m.model import ResourceType as Type
from lwm2m_server.lwm2m.values import Value


def software_object(agents: Iterable[SoftwareAgent]) -> ObjectNode:
    """Object 9 with an instance for each application; none can be created or deleted."""
    return ObjectNode(SOFTWARE, "1.0", {agent.application.place.number: _instance(agent) for agent in agents})


def _instance(agent: SoftwareAgent) -> Instance:
    application = agent.application

    def write_package(value: Value) -> None:
        agent.write_package(value if isinstance(value, bytes) else str(value).encode())

    return Instance.of(
        Resource(define(0, "PkgName", Type.STRING, mandatory=True), lambda: application.name),
        Resource(define(1, "PkgVersion", Type.STRING, mandatory=True), lambda: application.version),
        Resource(define(PACKAGE, "Package", Type.OPAQUE, operations="W"), write=write_package),
        Resource(
            define(3, "Package URI", Type.STRING, operations="W", limits="0..255"),
            write=lambda value: agent.write_uri(str(value)),
        ),
        Resource(
            define(4, "Install", Type.NONE, operations="E", mandatory=True), execute=_plainly(agent.install)
        ),
        Resource(define(6, "Uninstall", Type.NONE, operations="E", mandatory=True), execute=agent.uninstall),
        Resource(
            define(7, "Update State", Type.INTEGER, mandatory=True),
            lambda: int(application.state.stage.state),
        ),
        Resource(
            define(8, "Update Supported Objects", Type.BOOLEAN, operations="RW"),
            lambda: application.state.tells_objects,
            lambda value: application.set_tells_objects(value=bool(value)),
        ),
        Resource(
            define(9, "Update Result", Type.INTEGER, mandatory=True), lambda: int(application.state.result)
        ),
        Resource(
            define(10, "Activate", Type.NONE, operations="E", mandatory=True),
            execute=_plainly(agent.activate),
        ),
        Resource(
            define(11, "Deactivate", Type.NONE, operations="E", mandatory=True),
            execute=_plainly(agent.deactivate),
        ),
        Resource(
            define(12, "Activation State", Type.BOOLEAN, mandatory=True),
            lambda: application.state.stage is Stage.ACTIVE,
        ),
        Resource(define(16, "Status Reason", Type.STRING), lambda: _reason(application)),
    )


def _reason(application: Application) -> str:
    state = application.state
    return f"{state.code}: {state.text}" if state.code else state.text


def _plainly(action: Callable[[], None]) -> Callable[[str], None]:
    def execute(arguments: str) -> None:
        if arguments:
            raise RequestError(BAD_REQUEST, "This resource takes no arguments.")
        action()

    return execute
