"""Object 9 of one device as the software machine wants it: requests, and what is shown of applications."""

from lwm2m_server.devices.records import ApplicationFacts, Facts
from lwm2m_server.errors import Lwm2mError
from lwm2m_server.firmware import update_events as ev
from lwm2m_server.firmware.software_events import SoftwareEvent, SoftwareRead
from lwm2m_server.firmware.software_job import State
from lwm2m_server.lwm2m.paths import Path
from lwm2m_server.lwm2m.values import Value
from lwm2m_server.services.components import Values
from lwm2m_server.services.device_link import (
    InstanceLink,
    Post,
    Refused,
    integer_of,
    read_values,
    seconds_of,
)
from lwm2m_server.services.exchange import Exchange, Target

SOFTWARE = 9
"""Object Software Management: an instance for each application."""
_NAME, _VERSION, _PACKAGE, _URI, _INSTALL, _UNINSTALL, _STATE, _RESULT = 0, 1, 2, 3, 4, 6, 7, 9
_ACTIVATE, _ACTIVE, _REASON = 10, 12, 16
_FOR_UPDATE = "1"


class SoftwareLink(InstanceLink):
    """An instance of object 9."""

    async def observe_update(self, post: Post) -> None:
        """Observe State and Result."""

        def changed(resource: int, value: int) -> None:
            post(ev.Notified(state=value) if resource == _STATE else ev.Notified(result=value))

        await self.observe((_STATE, _RESULT), changed)

    async def read_software(self, number: int) -> SoftwareEvent:
        """Read all that is decided on."""
        own, wanted = self._instance, (_NAME, _VERSION, _STATE, _RESULT, _ACTIVE, _REASON)
        try:
            async with self._exchange.turn(self._endpoint):
                target = await self._exchange.target(self._endpoint)
                values = await read_values(self._exchange, target, own, wanted, needed=(_STATE, _RESULT))
        except Refused as refused:
            return ev.Answered(number, refused.response.code, seconds_of(refused.response.max_age))
        except Lwm2mError:
            return ev.Answered(number, None)
        state, result = integer_of(values.get(own.child(_STATE))), integer_of(values.get(own.child(_RESULT)))
        if state is None or result is None:
            return ev.Answered(number, None)
        return SoftwareRead(
            number,
            state=state,
            result=result,
            name=_text(values.get(own.child(_NAME))),
            version=_text(values.get(own.child(_VERSION))),
            active=_flag(values.get(own.child(_ACTIVE))),
            reason=_text(values.get(own.child(_REASON))) or "",
        )

    async def uninstall(self, number: int, *, for_update: bool) -> ev.Answered:
        """Execute Uninstall."""
        return await self.execute(number, _UNINSTALL, _FOR_UPDATE if for_update else "")

    async def install(self, number: int) -> ev.Answered:
        """Execute Install."""
        return await self.execute(number, _INSTALL)

    async def activate(self, number: int) -> ev.Answered:
        """Execute Activate."""
        return await self.execute(number, _ACTIVATE)

    async def write_uri(self, number: int, uri: str) -> ev.Answered:
        """Write the Package URI."""
        return await self.write(number, _URI, uri)

    async def push(self, number: int, digest: bytes, offset: int, post: Post) -> ev.PushEnded:
        """Push a blob into the Package, from `offset` bytes on."""
        return await self.push_blob(number, _PACKAGE, digest, offset, post)


async def read_applications(exchange: Exchange, target: Target) -> tuple[ApplicationFacts, ...]:
    """Read what the device shows of its applications; none where it has no object 9."""
    entry = target.objects.get(SOFTWARE)
    if entry is None:
        return ()
    values: Values = {}
    for instance in entry.instances:
        path = Path.of(SOFTWARE, instance)
        values |= await read_values(exchange, target, path, (_NAME, _VERSION, _STATE, _ACTIVE))
    return tuple(_application(values, instance) for instance in entry.instances)


def _application(values: Values, instance: int) -> ApplicationFacts:
    own = Path.of(SOFTWARE, instance)
    return application_of(
        instance,
        name=_text(values.get(own.child(_NAME))),
        version=_text(values.get(own.child(_VERSION))),
        state=integer_of(values.get(own.child(_STATE))),
        active=_flag(values.get(own.child(_ACTIVE))),
    )


def place_of(facts: Facts, application: str) -> ApplicationFacts | None:
    """Return where an application is or, where it is nowhere, the first free place; None when there is none."""
    return facts.application(application) or facts.application("")


def application_of(
    instance: int, *, name: str | None, version: str | None, state: int | None, active: bool | None
) -> ApplicationFacts:
    """Return what counts: the version of what is installed, not that of a package on its way."""
    installed = state == State.INSTALLED
    return ApplicationFacts(
        instance=instance,
        name=name or "",
        version=(version or None) if installed else None,
        active=active if installed else None,
    )


def _text(value: Value | None) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: Value | None) -> bool | None:
    number = integer_of(value)
    return None if number is None else bool(number)
