"""Object 33629 Advanced Firmware Update v1.0: one instance for each component, 0 is the main one.

Instances are as many as the device has components; none can be created or deleted. Update without argument installs
the package of its instance and those linked to it, with argument `0` its own alone, and with
`0='</33629/1>,</33629/2>'` its own and exactly those.
"""

import re
from collections.abc import Callable

from lwm2m_device.component_updater import ComponentUpdater
from lwm2m_device.firmware_objects import Agent, update_resources
from lwm2m_device.machine import Result
from lwm2m_device.settings import DeviceSettings
from lwm2m_device.tree import BAD_REQUEST, Instance, ObjectNode, Reading, RequestError, Resource, define
from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m.model import ResourceType as Type
from lwm2m_server.lwm2m.operations import parse_arguments
from lwm2m_server.lwm2m.values import ObjectLink

ADVANCED_UPDATE = 33629
_LINK = re.compile(rf"</{ADVANCED_UPDATE}/(0|[1-9][0-9]{{0,4}})>")


def advanced_object(updater: ComponentUpdater, agent: Agent, settings: DeviceSettings) -> ObjectNode:
    """Object 33629."""
    instances = {number: _instance(updater, agent, settings, number) for number in range(len(updater.states))}
    return ObjectNode(ADVANCED_UPDATE, "1.0", instances)


def _instance(updater: ComponentUpdater, agent: Agent, settings: DeviceSettings, number: int) -> Instance:
    def execute(arguments: str) -> None:
        agent.execute_update(number, chosen_instances(arguments, len(updater.states)))

    def conflicting() -> tuple[int, ...]:
        state = updater.states[number]
        return state.conflicting if state.result in (Result.CONFLICTING, Result.DEPENDENCY) else ()

    return Instance.of(
        *update_resources(updater, agent, settings, number, execute),
        Resource(
            define(14, "Component Name", Type.STRING, mandatory=True),
            lambda: updater.relations.names[number],
        ),
        Resource(define(15, "Current Version", Type.STRING, mandatory=True), lambda: updater.version(number)),
        Resource(
            define(16, "Linked Instances", Type.OBJLNK, multiple=True),
            _links(lambda: updater.linked(number)),
        ),
        Resource(define(17, "Conflicting Instances", Type.OBJLNK, multiple=True), _links(conflicting)),
    )


def chosen_instances(arguments: str, count: int) -> tuple[int, ...] | None:
    """Read the argument of Update: the further instances that it names, None when it leaves the choice.

    Raises RequestError for what is no such argument, or names an instance that the device does not have.
    """
    if not arguments:
        return None
    try:
        parsed = parse_arguments(arguments)
    except InvalidInput as error:
        raise RequestError(BAD_REQUEST, error.message) from None
    if len(parsed) != 1 or parsed[0][0] != 0:
        raise RequestError(BAD_REQUEST, "Update takes the argument 0.")
    value = parsed[0][1]
    if not value:
        return ()
    found = [_LINK.fullmatch(link) for link in value.split(",")]
    numbers = tuple(int(match[1]) for match in found if match is not None)
    if len(numbers) != len(found) or any(number >= count for number in numbers):
        raise RequestError(BAD_REQUEST, "The argument lists instances that this device does not have.")
    return numbers


def _links(numbers: Callable[[], tuple[int, ...]]) -> Callable[[], Reading]:
    return lambda: {at: ObjectLink(ADVANCED_UPDATE, each) for at, each in enumerate(numbers())}
